/// POSIX verbs over one tree of a volume: a head, or the root of a snapshot, which is only read. One file for each facet:
///
/// - `FileSystem+Lookup`      names to inodes, attributes
/// - `FileSystem+Directory`   entries and readdir
/// - `FileSystem+Create`, `+Remove`, `+Rename`
/// - `FileSystem+Read`, `+Write`, `+Allocate`, `+Copy`   data, over `FileMap`
/// - `FileSystem+XAttr`       extended attributes and ACLs
/// - `FileSystem+Orphans`     inodes without a name
///
/// Every verb has the same shape: lock the inodes, read what is needed, collect a `Transaction`,
/// commit it. Permissions are not checked here but by the kernel (`default_permissions`); inode
/// flags (immutable, append-only) are.
///
/// - Invariant: an operation is atomic and ordered where its transaction is committed.
/// - Invariant: inode locks are taken together and in order, before anything else.
@safe
public final class FileSystem: @unchecked Sendable {
    /// It lives longer, as whoever holds a file system holds it too. A checked reference would count
    /// at each use.
    @safe unowned(unsafe) let volume: Volume
    package let tree: CopyOnWriteTree
    /// Of a snapshot: every change is refused.
    let isReadOnly: Bool
    let locks: InodeLocks
    let references = InodeReferences()
    let orphans = OrphanSet()
    /// Serializes moves of directories between directories.
    let topologyLock = Mutex()
    let fileMap: FileMap
    let batches = DirectoryBatches()
    /// Told that a change of an inode's data took its set-user-id or set-group-id away, before the
    /// change is answered; under the inode's lock. Set before the first request.
    public var whenUnprivileged: @Sendable (InodeNumber) -> Void = { _ in }
    /// Whether an ordinary user is in a group; asked only where set-group-id depends on it. Set before
    /// the first request.
    public var isMember: @Sendable (OrdinaryUser, _ group: UInt32) -> Bool = { _, _ in false }

    init(_ volume: Volume, _ tree: CopyOnWriteTree, isReadOnly: Bool = false) {
        self.volume = volume
        self.tree = tree
        self.isReadOnly = isReadOnly
        locks = isReadOnly ? .ofUnchangingTrees : InodeLocks()
        fileMap = FileMap(volume, tree, isReadOnly: isReadOnly)
    }

    /// Where requests from outside are noted.
    public var activity: ForegroundActivity { volume.activity }

    func requireWritable() throws(FSError) {
        if isReadOnly { throw .readOnly }
        try volume.requireWritable()
    }

    /// The value of an item as the transaction sees it.
    func value<R>(
        _ key: Key, in transaction: Transaction? = nil,
        _ body: (ByteView) throws(FSError) -> R
    ) throws(FSError) -> R? {
        try volume.value(key, of: tree, in: transaction, body)
    }

    // MARK: Frame of every changing verb

    /// Runs a changing operation under the locks of `inodes`. If space is short although blocks
    /// only wait for a checkpoint, that is made and the operation runs again; so it does when a
    /// snapshot was made meanwhile.
    func change<R>(
        _ inodes: InodeNumber..., space: SpaceClass = .ordinary,
        _ body: (Transaction) throws(FSError) -> R
    ) throws(FSError) -> R {
        var attempts = 0
        while true {
            try requireWritable()
            do throws(FSError) {
                let result = try locks.exclusive(inodes) { () throws(FSError) -> R? in
                    let transaction = Transaction(tree: tree.id)
                    let result: R
                    do throws(FSError) {
                        result = try body(transaction)
                        let space = transaction.fillsPromise ? .freeing : space
                        guard try volume.settleAndCommit(transaction, space) else {
                            for run in transaction.published { volume.allocator.cancel(run) }
                            return nil
                        }
                    } catch {
                        for run in transaction.published { volume.allocator.cancel(run) }
                        throw error
                    }
                    for inode in transaction.addedOrphans { orphans.insert(inode) }
                    for inode in transaction.removedOrphans { orphans.remove(inode) }
                    if let inode = transaction.retained { references.retain(inode) }
                    if let inode = transaction.unprivileged { whenUnprivileged(inode) }
                    return result
                }
                if let result { return result }
            } catch .noSpace where attempts < 2 && volume.hasReleasedBlocks {
                attempts += 1
                try volume.checkpoint()
            } catch {
                if error == .noSpace, space == .freeing { volume.observer?.volume(.full) }
                throw error
            }
        }
    }

    /// The record of an inode; `.stale` if there is none.
    package func record(
        of inode: InodeNumber, in transaction: Transaction? = nil
    ) throws(FSError) -> InodeRecord {
        let record = try value(Key(inode, .inode), in: transaction) {
            (value) throws(FSError) in
            try InodeRecord(decoding: value, inode: inode.rawValue)
        }
        guard let record else { throw .stale }
        return record
    }

    /// The record of a directory that still has a name (or is the root).
    func directoryRecord(
        _ inode: InodeNumber, in transaction: Transaction? = nil
    ) throws(FSError) -> InodeRecord {
        let record = try record(of: inode, in: transaction)
        guard record.isDirectory else { throw .notDirectory }
        return record
    }

    public func statistics() -> VolumeStatistics {
        let (waiting, promised, inodes) = volume.treeLock.shared {
            (volume.window.releasedBlocks, volume.window.promisedBlocks, tree.counts.inodes)
        }
        let free = volume.allocator.freeBlocks + waiting
        let (copies, kind) = (volume.defaultDataCopies, volume.checksumKind)
        let held = promised + SpaceFloors.sumBlocks(of: promised, copies: copies, kind)
        let available = SpaceFloors.fileBlocks(
            in: unheld(of: free, promised: held), copies: copies, kind)
        // An inode costs a few hundred bytes in two copies.
        let freeInodes = min(available * 4, InodeNumber.limit)
        return VolumeStatistics(
            totalBlocks: volume.allocator.totalBlocks, freeBlocks: free,
            availableBlocks: available, inodes: inodes + freeInodes, freeInodes: freeInodes)
    }

    /// Blocks that ordinary writes may take.
    var unheldBlocks: UInt64 {
        let (waiting, promised) = volume.treeLock.shared {
            (volume.window.releasedBlocks, volume.window.promisedBlocks)
        }
        return unheld(of: volume.allocator.freeBlocks + waiting, promised: promised)
    }
    private func unheld(of free: UInt64, promised: UInt64) -> UInt64 {
        let kept = volume.allocator.floors.kept(by: .ordinary, forNodes: 0)
        // Without places for nodes nothing can be written, however many gaps there are.
        guard free > kept.blocks + promised, volume.allocator.canFillGaps(leaving: kept) else {
            return 0
        }
        return free - kept.blocks - promised
    }

    /// Ends all changes of the volume (`Volume.shutDown`).
    public func shutDown() throws(FSError) { try volume.shutDown() }

    /// ioctl_fitrim(2); returns how many bytes were discarded. All of the volume is trimmed if any of the
    /// range lies in it; a range shorter than a block or behind the end is `.invalidArgument`.
    public func trim(
        from start: UInt64, length: UInt64, minimum: UInt64
    ) throws(FSError) -> UInt64 {
        guard length >= UInt64(DiskFormat.blockSize), start >> 12 < volume.layout.blockCount else {
            throw .invalidArgument
        }
        return try volume.trim(minimum: minimum)
    }

    /// fsync(2): everything this inode and all others had committed is durable on return.
    public func synchronize(_ inode: InodeNumber) throws(FSError) {
        try volume.synchronize()
    }
}

extension InodeRecord {
    /// A change of contents: mtime, ctime and the change sequence.
    mutating func noteModified(_ now: Timestamp) {
        modificationTime = now
        noteChanged(now)
    }
    /// A change of the inode itself: ctime and the change sequence.
    mutating func noteChanged(_ now: Timestamp) {
        changeTime = now
        changeSequence &+= 1
    }
}

/// Inode locks: a fixed number of reader-writer locks that inodes share by number, so that memory
/// stays bounded. An operation takes all it needs at once, in order of stripes.
@safe
final class InodeLocks: @unchecked Sendable {
    private static let stripeCount = 1024
    /// Of all trees that nobody changes: these locks are only taken shared.
    static let ofUnchangingTrees = InodeLocks()
    private let stripes = (0..<stripeCount).map { _ in ReadWriteLock() }

    @inline(__always)
    private func stripe(_ inode: InodeNumber) -> Int {
        Int(inode.rawValue % UInt64(Self.stripeCount))
    }

    func shared<R, E: Error>(_ inode: InodeNumber, _ body: () throws(E) -> R) throws(E) -> R {
        try stripes[stripe(inode)].shared(body)
    }

    func exclusive<R, E: Error>(
        _ inodes: [InodeNumber], _ body: () throws(E) -> R
    ) throws(E) -> R {
        if inodes.count == 1 { return try stripes[stripe(inodes[0])].exclusive(body) }
        let order = Set(inodes.map(stripe)).sorted()
        for index in order { stripes[index].lockExclusive() }
        defer { for index in order.reversed() { stripes[index].unlock() } }
        return try body()
    }
}

/// How often the kernel (or another caller) holds each inode: FUSE's lookup counts.
@safe
final class InodeReferences: @unchecked Sendable {
    private final class Shard {
        let lock = Mutex()
        var counts: [UInt64: UInt64] = [:]
    }
    private let shards = (0..<16).map { _ in Shard() }

    private func shard(_ inode: InodeNumber) -> Shard { shards[Int(inode.rawValue & 15)] }

    func retain(_ inode: InodeNumber) {
        let shard = shard(inode)
        shard.lock.withLock { shard.counts[inode.rawValue, default: 0] += 1 }
    }

    /// True when that was the last reference.
    func release(_ inode: InodeNumber, _ count: UInt64) -> Bool {
        let shard = shard(inode)
        return shard.lock.withLock {
            guard let held = shard.counts[inode.rawValue] else { return false }
            if held > count {
                shard.counts[inode.rawValue] = held - count
                return false
            }
            shard.counts[inode.rawValue] = nil
            return true
        }
    }

    /// Of all inodes.
    var total: UInt64 {
        shards.reduce(0) { sum, shard in
            shard.lock.withLock { shard.counts.values.reduce(sum, +) }
        }
    }

    func removeAll() {
        for shard in shards { shard.lock.withLock { shard.counts = [:] } }
    }

    func isHeld(_ inode: InodeNumber) -> Bool {
        let shard = shard(inode)
        return shard.lock.withLock { shard.counts[inode.rawValue] != nil }
    }
}
