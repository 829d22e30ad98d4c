/// The changes of one operation: puts and deletes of tree items, blocks that become referenced
/// and blocks that lose their reference. An operation collects them while it only reads; then
/// `Volume.commit` applies all of them at once or none.
///
/// - Invariant: reads of the operation go through `Volume.value(of:in:)` with this transaction, so
///   an operation that touches one item twice sees its own first change.
@safe
public final class Transaction {
    package struct Update {
        package var tree: TreeID
        package var key: Key
        /// Where the value lies in `bytes`; nil deletes the key.
        package var value: Range<Int>?
    }

    /// Data for blocks of the device that goes through the journal: a part of `data`.
    package struct StagedData {
        package var run: BlockRun
        package var start: Int
    }

    /// The head that the operation is about.
    package var tree: TreeID
    /// In which epoch the operation takes place: what it publishes is born in it, and what it drops was
    /// judged by it. Nil until that matters. `Volume.commit` refuses a transaction of another epoch.
    package private(set) var epoch: BirthEpoch?
    package private(set) var updates: [Update] = []
    package private(set) var bytes: [UInt8] = []
    package private(set) var published: [BlockRun] = []
    package private(set) var released: [BlockRun] = []
    /// References that die, and that come to be, of blocks which may have others.
    package private(set) var dropped: [Release] = []
    private(set) var referenced: [BlockRun] = []
    package private(set) var staged: [StagedData] = []
    package private(set) var data: [UInt8] = []
    /// Change of the volume's count of inodes, and of blocks promised by fallocate.
    package var inodeDelta: Int64 = 0
    package var promisedDelta: Int64 = 0
    /// It writes to blocks that were promised: its nodes may take what is kept for deletes, since the
    /// write must not fail.
    var fillsPromise = false
    /// Change of the blocks that the head's inodes hold or were promised.
    package var referencedDelta: Int64 = 0
    /// The checkpoint that will first know of the deaths in it; nil: there are none.
    var deathSequence: SuperblockSequence?
    /// It changes the table of snapshots.
    package private(set) var changesSnapshots = false
    /// Roots that heads begin with, by the node's id.
    var roots: [UInt64: Page] = [:]
    /// Whether it still makes sense, asked under the lock under which it is applied; for those that
    /// only move blocks.
    var condition: (() -> Bool)?
    /// What there was before `settleRemaps`.
    private var unsettled: (updates: Int, bytes: Int, released: [BlockRun])?
    /// What the operation's memory takes over once the commit has succeeded.
    package var retained: InodeNumber?
    package var addedOrphans: [InodeNumber] = []
    package var removedOrphans: [InodeNumber] = []
    /// An inode that lost set-user-id or set-group-id by a change of its data.
    package var unprivileged: InodeNumber?

    /// A reference that dies: its blocks lose one, or are kept for a snapshot.
    public struct Release: Sendable {
        package var run: BlockRun
        package var birth: BirthEpoch
    }

    package init(tree: TreeID = .head) {
        self.tree = tree
        // What most operations need, at once.
        updates.reserveCapacity(6)
        bytes.reserveCapacity(640)
    }

    /// - Parameter tree: nil is the head that the operation is about.
    package func put(_ key: Key, _ value: [UInt8], tree: TreeID? = nil) {
        let start = bytes.count
        bytes.append(contentsOf: value)
        add(Update(tree: tree ?? self.tree, key: key, value: start..<bytes.count))
    }

    package func put(_ inode: InodeNumber, _ record: InodeRecord) {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: InodeRecord.byteCount))
        unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe record.encode(
                MutableByteView(base: buffer.baseAddress! + start, count: InodeRecord.byteCount))
        }
        add(Update(tree: tree, key: Key(inode, .inode), value: start..<bytes.count))
    }

    package func delete(_ key: Key, tree: TreeID? = nil) {
        add(Update(tree: tree ?? self.tree, key: key, value: nil))
    }

    /// The epoch of the operation; from the first call on it is settled.
    func epoch(in volume: Volume) -> BirthEpoch {
        if let epoch { return epoch }
        let now = volume.birthEpoch
        epoch = now
        return now
    }

    /// Puts (or with nil deletes) an item without looking for an earlier change of it; for replay,
    /// whose transactions name each item once.
    package func replayUpdate(_ tree: TreeID, _ key: Key, _ value: ByteView?) {
        let start = bytes.count
        if let value { bytes.append(value) }
        let update = Update(tree: tree, key: key, value: value == nil ? nil : start..<bytes.count)
        noteKind(update)
        updates.append(update)
    }

    /// Adds the changes of a replayed one that comes behind: those to the same head's counts, too.
    func absorb(_ next: Transaction) {
        let start = bytes.count
        bytes.append(contentsOf: next.bytes)
        for var update in next.updates {
            if let range = update.value {
                update.value = range.lowerBound + start..<range.upperBound + start
            }
            updates.append(update)
        }
        published += next.published
        released += next.released
        inodeDelta += next.inodeDelta
        promisedDelta += next.promisedDelta
        referencedDelta += next.referencedDelta
    }

    /// The same changes in the order of the keys; of several of one item the last stands for all, since
    /// updates are absolute.
    func inKeyOrder() -> Transaction {
        let result = Transaction(tree: tree)
        result.bytes = bytes
        result.published = published
        result.released = released
        result.inodeDelta = inodeDelta
        result.promisedDelta = promisedDelta
        result.referencedDelta = referencedDelta
        result.updates.reserveCapacity(updates.count)
        let order = updates.indices.sorted {
            (updates[$0].tree.rawValue, updates[$0].key, $0)
                < (updates[$1].tree.rawValue, updates[$1].key, $1)
        }
        for index in order {
            let update = updates[index]
            if let last = result.updates.last, last.tree == update.tree, last.key == update.key {
                result.updates.removeLast()
            }
            result.updates.append(update)
        }
        return result
    }

    /// Begins to put what is released in terms of where blocks are now; anew when it was done before.
    func beginSettling() -> [BlockRun] {
        if let unsettled {
            updates.removeSubrange(unsettled.updates...)
            bytes.removeSubrange(unsettled.bytes...)
            released = unsettled.released
        } else {
            unsettled = (updates.count, bytes.count, released)
        }
        defer { released = [] }
        return released
    }

    /// Makes this transaction an empty one, keeping its memory.
    package func removeAll() {
        updates.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: true)
        published.removeAll(keepingCapacity: true)
        released.removeAll(keepingCapacity: true)
        staged.removeAll(keepingCapacity: true)
        data.removeAll(keepingCapacity: true)
        inodeDelta = 0
        promisedDelta = 0
        referencedDelta = 0
        changesSnapshots = false
        roots.removeAll(keepingCapacity: true)
        fillsPromise = false
    }

    @inline(__always)
    private func noteKind(_ update: Update) {
        if update.tree == .volume, update.key.type.isOfSnapshotTable { changesSnapshots = true }
    }

    private func add(_ update: Update) {
        noteKind(update)
        // A later change of an item replaces the earlier one: updates are absolute.
        if let index = index(of: update.key, update.tree) {
            updates[index] = update
        } else {
            updates.append(update)
        }
    }

    /// Transactions are short, except when a large file is cut: those never look items up twice.
    private func index(of key: Key, _ tree: TreeID) -> Int? {
        updates.lastIndex { $0.key == key && $0.tree == tree }
    }

    /// What this transaction says of `key`: nil = nothing, `.some(nil)` = deleted.
    func pending(_ key: Key, _ tree: TreeID) -> Range<Int>?? {
        guard let index = index(of: key, tree) else { return nil }
        return .some(updates[index].value)
    }

    /// The keys of the head that this transaction puts or deletes in a range.
    func keys(_ range: ClosedRange<Key>) -> [Key] {
        updates.filter { $0.tree == tree && range.contains($0.key) }.map(\.key)
    }

    /// Leaves the data of whole blocks to the journal, which writes it home in time.
    package func stage(_ run: BlockRun, _ source: ByteView) {
        staged.append(StagedData(run: run, start: data.count))
        data.append(source)
    }

    /// Drops a reference; its blocks are released if it was the last (`Volume.settlingShares`).
    package func drop(_ run: BlockRun, birth: BirthEpoch) {
        dropped.append(Release(run: run, birth: birth))
    }
    /// Says in which epoch the operation takes place; false if it has begun in another.
    func enter(_ now: BirthEpoch) -> Bool {
        if let epoch { return epoch == now }
        epoch = now
        return true
    }

    /// Frees what was dropped: nobody else refers to it.
    func releaseDropped() {
        for drop in dropped { released.append(drop.run) }
        dropped = []
    }

    /// Takes out the drops for which `isKept` says so: their blocks are a snapshot's.
    func takeDropped(_ isKept: (Release) -> Bool) -> [Release] {
        let kept = dropped.filter(isKept)
        if !kept.isEmpty { dropped.removeAll(where: isKept) }
        return kept
    }

    /// Adds a reference to blocks that have one already.
    func reference(_ run: BlockRun) { referenced.append(run) }

    package func publish(_ run: BlockRun) { published.append(run) }
    /// Blocks of the references that die, and that are freed.
    package var droppedBlocks: UInt64 {
        dropped.reduce(0) { $0 + $1.run.count } + released.reduce(0) { $0 + $1.count }
    }
    /// Frees blocks that nobody refers to any more.
    package func release(_ run: BlockRun) { released.append(run) }

    func updates(inKeyOrder isOrdered: Bool) -> [Update] {
        isOrdered
            ? updates.sorted { ($0.tree.rawValue, $0.key) < ($1.tree.rawValue, $1.key) } : updates
    }
    /// Room that the puts may take in leaves.
    var growth: Int { bytes.count + updates.count * NodePage.slotSize }
    package var isEmpty: Bool { updates.isEmpty && published.isEmpty && released.isEmpty }
}
