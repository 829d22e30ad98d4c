/// Frees a part of a tree that nobody looks at any more: extents and nodes born after an epoch, in the
/// order of their keys. What is older belongs to the parent, and so does all below an older node.
///
/// - Invariant: a node is freed with the last of what it leads to, so the way to the rest stays.
internal import FSCore

struct EndingTree {
    let volume: Volume
    let limit: BirthEpoch
    /// Everything below is done.
    let from: Key
    let transaction: Transaction
    private var count = 0

    init(volume: Volume, limit: BirthEpoch, from: Key, transaction: Transaction) {
        self.volume = volume
        self.limit = limit
        self.from = from
        self.transaction = transaction
    }

    /// Where to go on; the greatest key when nothing is left.
    mutating func run(_ root: NodePointer) throws(FSError) -> Key {
        guard root.birth > limit else { return .maximum }
        return try visit(
            NodeValidator.Expectation(pointer: root, tree: .files, lower: nil, upper: nil))
            ?? .maximum
    }

    /// Nil when the node is done.
    private mutating func visit(_ expected: NodeValidator.Expectation) throws(FSError) -> Key? {
        let page = try volume.nodes.read(expected)
        let node = page.node
        if node.isLeaf {
            for index in node.lowerBound(from)..<max(node.lowerBound(from), node.count) {
                if count >= Snapshots.batch { return node.key(index) }
                try drop(node.key(index), node.value(index))
            }
        } else {
            var index = node.childIndex(for: from)
            while index < node.count {
                let child = try expected.child(node, index)
                if child.pointer.birth > limit {
                    if count >= Snapshots.batch { return node.key(index) }
                    if let rest = try visit(child) { return rest }
                }
                index += 1
            }
        }
        for index in 0..<expected.pointer.replicas.count {
            transaction.release(
                BlockRun(expected.pointer.replicas[index], DiskFormat.blocksPerNode))
        }
        count += 1
        return nil
    }

    private mutating func drop(_ key: Key, _ value: ByteView) throws(FSError) {
        guard key.type == .extent else { return }
        let extent = try ExtentRecord(
            decoding: value, inode: key.object, layout: volume.diskLayout)
        guard extent.kind == .data, extent.birth > limit else { return }
        for index in 0..<extent.replicas.count {
            transaction.drop(extent.storedRun(index), birth: extent.birth)
            count += 1
        }
    }
}
