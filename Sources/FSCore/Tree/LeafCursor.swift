/// Where a tree was changed last, for changes in the order of their keys: most of them meet the same
/// leaf again and need no way from the root.
///
/// - Invariant: used under one hold of the exclusive tree lock, and given up when anything but `put`
///   changes the tree in between.
struct LeafCursor {
    /// Changed in the running window.
    let leaf: Page
    /// The keys that belong into it: from `lower` on and below `upper`; nil is without a bound.
    let lower: Key?
    let upper: Key?

    func takes(_ key: Key) -> Bool {
        lower.map { $0 <= key } ?? true && upper.map { key < $0 } ?? true
    }
}

extension CopyOnWriteTree {
    /// Inserts or replaces the value of `key`, first in the leaf of the put before.
    func put(_ key: Key, _ value: ByteView, near cursor: inout LeafCursor?) throws(FSError) {
        if let cursor, cursor.takes(key), store(key, value, in: cursor.leaf.node) { return }
        let path = try pathAfterPut(key, value)
        var lower: Key?
        var upper: Key?
        for step in path.dropLast() { narrow(step.page, step.index, &lower, &upper) }
        cursor = LeafCursor(leaf: path[path.count - 1].page, lower: lower, upper: upper)
    }

    /// False if the leaf has no room.
    func store(_ key: Key, _ value: ByteView, in leaf: NodePage) -> Bool {
        let index = leaf.lowerBound(key)
        let isThere = index < leaf.count && leaf.key(index) == key
        let growth =
            isThere ? value.count - leaf.value(index).count : NodePage.itemSize(value.count)
        guard growth <= leaf.freeBytes else { return false }
        if isThere { leaf.replace(index, value) } else { leaf.insert(index, key, value) }
        return true
    }
}
