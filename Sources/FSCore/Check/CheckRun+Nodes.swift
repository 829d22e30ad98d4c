/// Nodes that are bad, in part or wholly, and what a repair does about them.
extension CheckRun {
    /// Nothing, of the tree of a snapshot.
    func change(_ make: (TreeID) -> Remedy) -> [Remedy] { scope.tree.map { [make($0)] } ?? [] }

    /// `NodeStore.read` is content with one good copy; here each is looked at.
    func checkReplicas(_ expected: NodeValidator.Expectation) {
        for index in 0..<expected.pointer.replicas.count {
            let place = expected.pointer.replicas[index]
            let buffer = ByteBuffer(count: DiskFormat.nodeSize)
            let page = NodePage(buffer.bytes)
            do throws(FSError) {
                try device.read(into: buffer.bytes, at: place.block << 12)
                guard page.has(expected.pointer.checksum, by: nodes.checksum) else {
                    throw .corrupt(Corruption(.node, at: place.block << 12, "checksum mismatch"))
                }
            } catch { report(.nodeReplicaBad, "\(error)", .heal(scope.tree, expected)) }
        }
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
