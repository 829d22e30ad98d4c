/// A copy-on-write B+tree over `NodePage`s.
///
/// Reads run under the shared tree lock, changes under the exclusive one; neither does I/O. A node
/// that is not resident ends the attempt with `TreeFault.missing`; the caller drops the lock, loads
/// it and starts again (`Volume.reading`, `Volume.commit`). A change is planned first (`plan`),
/// which finds out whether all nodes are resident and how many new addresses it may take, so that
/// `put` and `delete` can neither miss nor fail half-way.
///
/// - Invariant: a node is changed only if it was touched in the running window: it has a new
///   address, and so have all nodes above it.
/// - Invariant: the first child of an inner node also takes the keys below its own key.
@safe
package final class CopyOnWriteTree: @unchecked Sendable {
    package let id: TreeID
    /// The root is always resident. Guarded by the tree lock.
    package private(set) var root: Page
    @safe unowned(unsafe) let context: any TreeContext

    // Guarded by the tree lock, as the root.
    /// The root of the last checkpoint with its sum; of a snapshot, the root.
    private(set) var durableRoot: NodePointer
    package var counts = TreeCounts()
    /// Of a head: what was born up to this epoch its parent refers to as well; 0 without a parent.
    package var parentEpoch = BirthEpoch(0)
    /// Of a head: the deadlist segment that takes what it drops of that.
    package var segment: UInt64 = 0
    /// The nodes may go: nothing is read any more.
    package var isClosed = false

    init(
        id: TreeID, root: Page, durableRoot: NodePointer, counts: TreeCounts = TreeCounts(),
        context: any TreeContext
    ) {
        self.id = id
        self.root = root
        self.durableRoot = durableRoot
        self.counts = counts
        self.context = context
    }

    /// The tree becomes another: a head that goes back to a snapshot.
    func adopt(_ root: Page, _ pointer: NodePointer) {
        self.root = root
        durableRoot = pointer
    }

    /// A checkpoint has written a root of this tree.
    func noteWritten(_ pointer: NodePointer) { durableRoot = pointer }

    /// The root as a record names it; its sum is zero until the next checkpoint has written it.
    var rootPointer: NodePointer {
        root.state == .clean ? durableRoot : root.pointer(context.checksumKind)
    }

    // MARK: Reading

    /// Calls `body` with the value of `key`; nil if there is none.
    package func get<R>(
        _ key: Key, _ body: (ByteView) throws(FSError) -> R
    ) throws(TreeFault) -> R? {
        let leaf = try self.leaf(for: key).page
        guard let index = leaf.node.find(key) else { return nil }
        do throws(FSError) { return try body(leaf.node.value(index)) } catch {
            throw .failed(error)
        }
    }

    /// Calls `body` with the items from `position` to `last` (inclusive) until it returns false.
    /// `position` moves along, so that after a `.missing` fault the scan goes on where it was.
    /// Nil in `position` afterwards means that the range is exhausted.
    package func scan(
        _ position: inout Key?, through last: Key,
        _ body: (Key, ByteView) throws(FSError) -> Bool
    ) throws(TreeFault) {
        while let start = position {
            guard start <= last else {
                position = nil
                return
            }
            let (leaf, upper) = try self.leaf(for: start)
            let node = leaf.node
            var index = node.lowerBound(start)
            while index < node.count {
                let key = node.key(index)
                guard key <= last else {
                    position = nil
                    return
                }
                position = key.next
                let goesOn: Bool
                do throws(FSError) {
                    goesOn = try body(key, node.value(index))
                } catch { throw .failed(error) }
                if !goesOn { return }
                index += 1
            }
            position = upper
        }
    }

    /// The last item from `first` to `last` (inclusive).
    package func last<R>(
        from first: Key, through last: Key, _ body: (Key, ByteView) throws(FSError) -> R
    ) throws(TreeFault) -> R? {
        var target = last
        while true {
            let (leaf, lower) = try leafBelow(target)
            let node = leaf.node
            var index = node.lowerBound(target)
            if index == node.count || node.key(index) != target { index -= 1 }
            if index >= 0 {
                let key = node.key(index)
                guard first <= key else { return nil }
                do throws(FSError) {
                    return try body(key, node.value(index))
                } catch { throw .failed(error) }
            }
            // Everything of this leaf is above the target: go on before its range.
            guard let lower, first < lower, let before = lower.previous else { return nil }
            target = before
        }
    }

    /// Calls `body` with the nodes on the way to `key`; returns the key where the next leaf begins.
    func forEachPage(on key: Key, _ body: (Page) -> Void) throws(TreeFault) -> Key? {
        var page = root
        var lower: Key?
        var upper: Key?
        body(page)
        while page.level > 0 {
            let index = page.node.childIndex(for: key)
            narrow(page, index, &lower, &upper)
            page = try child(page, index, lower, upper)
            body(page)
        }
        return upper
    }

    /// The leaf for `key` and the key where the next leaf begins.
    private func leaf(for key: Key) throws(TreeFault) -> (page: Page, upper: Key?) {
        if isClosed { throw .failed(.stale) }
        var page = root
        var lower: Key?
        var upper: Key?
        while page.level > 0 {
            let index = page.node.childIndex(for: key)
            narrow(page, index, &lower, &upper)
            page = try child(page, index, lower, upper)
        }
        return (page, upper)
    }
    private func leafBelow(_ key: Key) throws(TreeFault) -> (page: Page, lower: Key?) {
        if isClosed { throw .failed(.stale) }
        var page = root
        var lower: Key?
        var upper: Key?
        while page.level > 0 {
            let index = page.node.childIndex(for: key)
            narrow(page, index, &lower, &upper)
            page = try child(page, index, lower, upper)
        }
        return (page, lower)
    }

    @inline(__always)
    func narrow(_ page: Page, _ index: Int, _ lower: inout Key?, _ upper: inout Key?) {
        if index > 0 { lower = page.node.key(index) }
        if index + 1 < page.node.count { upper = page.node.key(index + 1) }
    }

    /// The child at `index`. A cached page may have been reached through another pointer first, so
    /// what makes descents end is checked again.
    func child(
        _ page: Page, _ index: Int, _ lower: Key?, _ upper: Key?
    ) throws(TreeFault) -> Page {
        let value = page.node.value(index)
        let address = BlockAddress(rawValue: value.u64(NodePointer.addressOffset))
        if let child = context.cache.find(address) {
            guard child.level + 1 == page.level, child.tree == id.kind,
                child.node.isWithin(lower, upper)
            else {
                throw .failed(
                    .corrupt(Corruption(.node, at: address.block << 12, "reached at two places")))
            }
            return child
        }
        let pointer: NodePointer
        do throws(FSError) {
            var reader = ByteReader(value, .node, at: page.address.block << 12)
            pointer = try NodePointer(&reader)
        } catch { throw .failed(error) }
        throw .missing(
            NodeValidator.Expectation(pointer: pointer, tree: id.kind, lower: lower, upper: upper))
    }

    private func residentChild(_ page: Page, _ index: Int) -> Page? {
        let value = page.node.value(index)
        let child = context.cache.find(
            BlockAddress(rawValue: value.u64(NodePointer.addressOffset)))
        guard let child, child.level + 1 == page.level, child.tree == id.kind else { return nil }
        return child
    }

    // MARK: Planning

    /// Finds out, without changing anything, how many node addresses an update of `key` may take
    /// when up to `room` bytes are added in the whole transaction. Throws `.missing` for a node
    /// that is not resident.
    ///
    /// - Parameter counted: nodes that earlier updates of the transaction have accounted for: a
    ///   node is touched once, however many of its items change.
    func plan(
        _ key: Key, room: Int, isDelete: Bool, isOrdered: Bool = false,
        _ counted: inout PlannedPages
    ) throws(TreeFault) -> Int {
        if isOrdered, counted.covers(id, key, isDelete: isDelete) { return 0 }
        var page = root
        var lower: Key?
        var upper: Key?
        var needed = 0
        var splits = 1
        while true {
            if counted.insert(page) {
                if page.state != .dirty { needed += 1 }
                if isOrdered { counted.noteOrdered(page, room: room) }
            }
            let limit = page.level == 0 ? room : room / 8 + 4 * Self.pointerItemSize
            if page.node.freeBytes < limit { splits += 2 } else if page.level > 0 { splits = 1 }
            // A node that grows sparse may be merged, which touches a neighbour.
            if isDelete, !counted.isMergeCounted(page) {
                counted.countMerge(page)
                needed += 1
            }
            guard page.level > 0 else { break }
            let index = page.node.childIndex(for: key)
            narrow(page, index, &lower, &upper)
            page = try child(page, index, lower, upper)
        }
        if isOrdered { counted.noteLeaf(id, lower, upper, isDelete: isDelete) }
        return needed + (isDelete || isOrdered ? 0 : splits + 1)
    }

    /// Transactions with more changes than this make them in the order of the keys.
    static let orderedFrom = 16

    static let pointerItemSize = NodePage.itemSize(NodePointer.maximumByteCount)
    private static let mergeThreshold = NodePage.capacity / 4
    private static let mergedLimit = NodePage.capacity * 3 / 4

    // MARK: Changing; under the exclusive lock, after planning. What was planned can be done, unless the
    // tree is damaged in a way that no check of a node shows: then the change ends half-way, with an
    // error after which nothing of the tree may be written any more.

    /// One node on the way from the root and the child taken in it.
    struct Step {
        var page: Page
        var index: Int
    }

    /// Inserts or replaces the value of `key`.
    func put(_ key: Key, _ value: ByteView) throws(FSError) { _ = try pathAfterPut(key, value) }

    /// The same; returns the way to the leaf.
    func pathAfterPut(_ key: Key, _ value: ByteView) throws(FSError) -> [Step] {
        while true {
            let path = try touchedPath(key)
            if store(key, value, in: path[path.count - 1].page.node) { return path }
            try split(path, for: key)
        }
    }

    /// Removes `key` if it is there.
    func delete(_ key: Key) throws(FSError) {
        var page = root
        while page.level > 0 {
            guard let child = residentChild(page, page.node.childIndex(for: key)) else { return }
            page = child
        }
        guard page.node.find(key) != nil else { return }
        let path = try touchedPath(key)
        let leaf = path[path.count - 1].page
        if let index = leaf.node.find(key) { leaf.node.remove(index) }
        try shrink(path)
    }

    /// Gives the nodes on the way to `key` new places, unless they have some of this window.
    func touchPath(_ key: Key) throws(FSError) { _ = try touchedPath(key) }

    /// The way to the leaf for `key`, every node of it made changeable.
    ///
    /// - Parameter limit: a node at this address is not looked at; the way ends above it.
    func touchedPath(
        _ key: Key, above limit: BlockAddress? = nil
    ) throws(FSError) -> [Step] {
        root = try context.touch(root, of: self)
        var path: [Step] = []
        path.reserveCapacity(Int(root.level) + 1)
        var page = root
        while page.level > 0 {
            let index = page.node.childIndex(for: key)
            if let limit,
                page.node.value(index).u64(NodePointer.addressOffset) == limit.rawValue
            {
                break
            }
            guard let child = residentChild(page, index) else {
                throw .corrupt(
                    Corruption(.node, at: page.address.block << 12, "a node below it went away"))
            }
            path.append(Step(page: page, index: index))
            let touched = try context.touch(child, of: self)
            if touched.address
                != BlockAddress(rawValue: page.node.value(index).u64(NodePointer.addressOffset))
            {
                storePointer(to: touched, in: page, index)
            }
            page = touched
        }
        path.append(Step(page: page, index: 0))
        return path
    }

    private func storePointer(to child: Page, in parent: Page, _ index: Int) {
        withEncodedPointer(child) { parent.node.replace(index, $0) }
    }

    private func withEncodedPointer(_ child: Page, _ body: (ByteView) -> Void) {
        let pointer = child.pointer(context.checksumKind)
        unsafe withUnsafeTemporaryAllocation(byteCount: NodePointer.maximumByteCount, alignment: 8)
        { room in
            let bytes = unsafe MutableByteView(base: room.baseAddress!, count: room.count)
            var writer = ByteWriter(bytes)
            pointer.encode(&writer)
            body(bytes.view.slice(0, writer.offset))
        }
    }

    /// Splits one node: the highest on the path that must be split before the leaf can be. The
    /// caller descends again.
    private func split(_ path: [Step], for key: Key) throws(FSError) {
        var depth = path.count - 1
        while depth > 0, path[depth - 1].page.node.freeBytes < Self.pointerItemSize { depth -= 1 }
        let page = path[depth].page
        let node = page.node

        let right = try context.newPage(level: page.level, tree: id.kind)
        let separator: Key
        let position = node.lowerBound(key)
        if page.level == 0, position == node.count {
            // Growing at its end, as new files and appended extents do: leave this node full.
            separator = key
        } else {
            var at = position == node.count ? node.count - 1 : Self.middle(node)
            at = min(max(at, 1), node.count - 1)
            right.node.append(node, at..<node.count)
            separator = node.key(at)
            node.truncate(to: at)
        }

        let parent: Page
        if depth == 0 {
            parent = try context.newPage(level: page.level + 1, tree: id.kind)
            withEncodedPointer(page) { parent.node.insert(0, Key.minimum, $0) }
            root = parent
        } else {
            parent = path[depth - 1].page
        }
        withEncodedPointer(right) { parent.node.put(separator, $0) }
    }

    /// The index that halves a node by bytes.
    private static func middle(_ node: NodePage) -> Int {
        var sum = 0
        let half = node.usedBytes / 2
        for index in 0..<node.count {
            sum += NodePage.itemSize(node.value(index).count)
            if sum >= half { return index + 1 }
        }
        return node.count - 1
    }

    /// After a removal: drops empty nodes and merges sparse ones with a resident neighbour.
    func shrink(_ path: [Step]) throws(FSError) {
        var depth = path.count - 1
        while depth > 0 {
            let page = path[depth].page
            let parent = path[depth - 1].page
            let index = path[depth - 1].index
            if page.node.count == 0 {
                parent.node.remove(index)
                context.discard(page, of: self)
            } else if page.node.usedBytes >= Self.mergeThreshold {
                break
            } else if try !merge(path, depth) {
                break
            }
            depth -= 1
        }
        if root.level > 0, root.node.count == 0 {
            // The last leaf went: an empty tree is one empty leaf.
            root.node.initialize(level: 0, tree: id.kind, uuid: context.internalUUID)
            context.restamp(root)
        }
        // Only onto a node that has its new place already: a collapse takes none, so no plan counts it.
        while root.level > 0, root.node.count == 1, let only = residentChild(root, 0),
            only.state == .dirty
        {
            let old = root
            root = only
            context.discard(old, of: self)
        }
    }

    /// Merges the node at `depth` with a neighbour if both fit well into one node. True if it did.
    private func merge(_ path: [Step], _ depth: Int) throws(FSError) -> Bool {
        let page = path[depth].page
        let parent = path[depth - 1].page
        let index = path[depth - 1].index
        if index > 0, let left = neighbour(path, depth, index - 1),
            left.node.usedBytes + page.node.usedBytes <= Self.mergedLimit
        {
            let target = try context.touch(left, of: self)
            absorb(page, into: target, separator: parent.node.key(index))
            storePointer(to: target, in: parent, index - 1)
            parent.node.remove(index)
            context.discard(page, of: self)
            return true
        }
        if index + 1 < parent.node.count, let right = neighbour(path, depth, index + 1),
            right.node.usedBytes + page.node.usedBytes <= Self.mergedLimit
        {
            absorb(right, into: page, separator: parent.node.key(index + 1))
            parent.node.remove(index + 1)
            context.discard(right, of: self)
            return true
        }
        return false
    }

    /// The resident child at `index` of the node above `depth`. No descent has come this way: a crafted
    /// pointer may name a node that has its place elsewhere, where it would then be missing.
    private func neighbour(_ path: [Step], _ depth: Int, _ index: Int) -> Page? {
        var lower: Key?
        var upper: Key?
        for step in path[..<(depth - 1)] { narrow(step.page, step.index, &lower, &upper) }
        let parent = path[depth - 1].page
        narrow(parent, index, &lower, &upper)
        guard let page = residentChild(parent, index), page.node.isWithin(lower, upper) else {
            return nil
        }
        return page
    }
}

extension CopyOnWriteTree {
    /// Moves all items of `right` behind those of `left`. The first child of an inner node also
    /// holds keys down to the node's separator, which therefore becomes its key.
    private func absorb(_ right: Page, into left: Page, separator: Key) {
        let first = left.node.count
        left.node.append(right.node, 0..<right.node.count)
        if right.level > 0 { left.node.setKey(first, separator) }
    }
}

/// Why a tree operation could not go on.
package enum TreeFault: Error {
    /// This node must be loaded first.
    case missing(NodeValidator.Expectation)
    case failed(FSError)
}

/// What a tree needs of the volume: the node cache, and new places for changed nodes.
package protocol TreeContext: AnyObject {
    var cache: PageCache { get }
    var checksumKind: ChecksumKind { get }
    var internalUUID: VolumeUUID { get }
    /// The page itself if it may be changed, else its dirty successor at a new address.
    func touch(_ page: Page, of tree: CopyOnWriteTree) throws(FSError) -> Page
    func newPage(level: UInt8, tree: TreeKind) throws(FSError) -> Page
    /// Gives up a node that left the tree.
    func discard(_ page: Page, of tree: CopyOnWriteTree)
    /// Writes place, sequence and birth again after `NodePage.initialize`.
    func restamp(_ page: Page)
}

extension Key {
    /// The key right before this one; nil before the first.
    var previous: Key? {
        if offset > 0 { return Key(object, type, offset - 1) }
        if type.rawValue > 0 { return Key(object, ItemType(rawValue: type.rawValue - 1), .max) }
        return object > 0 ? Key(object - 1, ItemType(rawValue: .max), .max) : nil
    }
}
