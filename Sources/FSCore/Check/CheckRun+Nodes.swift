/// Nodes that are bad, in part or wholly, and what a repair does about them.
extension CheckRun {
    func tell(_ phase: String) {
        progress(
            CheckProgress(
                phase: phase, done: visitedBlocks,
                total: max(superblock.bitmapRoot.used, visitedBlocks)))
    }

    /// Nothing, of the tree of a snapshot.
    func change(_ make: (TreeID) -> Remedy) -> [Remedy] { scope.tree.map { [make($0)] } ?? [] }

    /// Reads a node that was not looked at yet. `NodeStore.read` is content with one good copy; here
    /// those behind it are compared with it.
    func readOwn(_ expected: NodeValidator.Expectation) throws(FSError) -> Page {
        var bad: [FSError] = []
        let page = try nodes.read(expected) { bad.append($0) }
        for index in bad.count + 1..<max(bad.count + 1, expected.pointer.replicas.count) {
            let offset = expected.pointer.replicas[index].block << 12
            let buffer = ByteBuffer(count: DiskFormat.nodeSize)
            do throws(FSError) {
                try device.read(into: buffer.bytes, at: offset)
                guard buffer.view.equals(page.node.view) else {
                    throw .corrupt(Corruption(.node, at: offset, "checksum mismatch"))
                }
            } catch { bad.append(error) }
        }
        for error in bad { report(.nodeReplicaBad, "\(error)", .heal(scope.tree, expected)) }
        recent.put(page, expected)
        return page
    }

    /// A node that a comparison of two trees comes to: mostly one that was just looked at.
    func readAgain(_ expected: NodeValidator.Expectation) throws(FSError) -> Page {
        if let page = recent.page(expected) { return page }
        let page = try nodes.read(expected)
        recent.put(page, expected)
        return page
    }

    func reportUnreadable(_ expected: NodeValidator.Expectation, _ error: FSError) {
        var issue = CheckIssue.nodeUnreadable
        if case .corrupt(let what) = error, what.detail == NodeValidator.outOfRange {
            issue = .keysOutOfRange
        }
        report(issue, "\(expected.tree) tree: \(error)", drop(expected))
    }

    /// A tree without the node. The root of a head that is not the default one stands in a record,
    /// and without it nothing leads to the head.
    private func drop(_ expected: NodeValidator.Expectation) -> [Remedy] {
        guard let tree = scope.tree else { return [] }
        if expected.pointer.address != scope.root { return [.dropNode(tree, expected)] }
        return tree == .head || tree == .volume ? [.emptyRoot(tree)] : []
    }

    /// Where its keys belong a node that is reached twice gets a place of its own.
    func remedy(ofTwice expected: NodeValidator.Expectation) -> [Remedy] {
        guard let tree = scope.tree else { return [] }
        if (try? nodes.read(expected)) == nil { return drop(expected) }
        return [.moveNodes(tree, expected.lower ?? .minimum)]
    }
}
