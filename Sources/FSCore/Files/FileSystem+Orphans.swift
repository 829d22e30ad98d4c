/// Inodes that wait for their end: unlinked while somebody still holds them (reclaimed whole), or
/// cut by a truncate too large for one transaction (cut to their size). Both stand in the orphan
/// list on disk, which the next mount works off after a crash.

/// The orphan list in memory, so that releasing an ordinary inode costs no look at the disk.
@safe
final class OrphanSet: @unchecked Sendable {
    private let lock = Mutex()
    private var inodes: Set<UInt64> = []

    func insert(_ inode: InodeNumber) { lock.withLock { _ = inodes.insert(inode.rawValue) } }
    func remove(_ inode: InodeNumber) { lock.withLock { _ = inodes.remove(inode.rawValue) } }
    func contains(_ inode: InodeNumber) -> Bool {
        lock.withLock { inodes.contains(inode.rawValue) }
    }
    func removeAll() { lock.withLock { inodes = [] } }
    var count: Int { lock.withLock { inodes.count } }
}

extension FileSystem {
    /// Items that one transaction of a clean-up takes away.
    static let reclaimBatch = 96
    /// Blocks, where each of them may be on its own in the volume tree (`Volume.hasItemsOfBlocks`): with
    /// at most 100 bytes for each a transaction fits into a record of the smallest journal.
    private static let reclaimBlocks: UInt64 = 2048

    /// The extents that touch a range, as many of them as one transaction can drop, and whether that
    /// are all.
    func batch(
        _ inode: InodeNumber, of origin: FileSystem? = nil, _ range: Range<UInt64>
    ) throws(FSError) -> (extents: [FileMap.Extent], isAll: Bool) {
        let map = origin?.fileMap ?? fileMap
        let found = try map.extents(inode, range, limit: Self.reclaimBatch)
        let count = batch(found.map(\.record))
        return (Array(found[..<count]), count == found.count && count < Self.reclaimBatch)
    }

    /// How many of some extents one transaction can drop; at least one.
    private func batch(_ extents: [ExtentRecord]) -> Int {
        guard volume.hasItemsOfBlocks(tree) else { return extents.count }
        var blocks: UInt64 = 0
        for (index, extent) in extents.enumerated() {
            blocks += UInt64(extent.storedBlocks) * UInt64(extent.replicas.count)
            if blocks > Self.reclaimBlocks, index > 0 { return index }
        }
        return extents.count
    }

    func addOrphan(_ inode: InodeNumber, _ transaction: Transaction) {
        transaction.put(Key(0, .orphan, inode.rawValue), [])
        transaction.addedOrphans.append(inode)
    }

    func removeOrphan(_ inode: InodeNumber, _ transaction: Transaction) {
        transaction.delete(Key(0, .orphan, inode.rawValue))
        transaction.removedOrphans.append(inode)
    }

    /// Reclaims an inode whose name went, unless somebody holds it.
    func reclaimIfUnused(_ inode: InodeNumber) {
        if orphans.contains(inode), !references.isHeld(inode) { reclaim(inode) }
    }

    /// Frees everything that an orphan holds. Errors leave it on the list for the next mount.
    func reclaim(_ inode: InodeNumber) {
        do throws(FSError) {
            while try !reclaimStep(inode) {}
        } catch {
            volume.errors.record(error)
        }
    }

    /// One transaction of a clean-up; true when nothing is left to do.
    private func reclaimStep(_ inode: InodeNumber) throws(FSError) -> Bool {
        try change(inode, space: .emergency) { (transaction) throws(FSError) in
            guard orphans.contains(inode), !references.isHeld(inode) else { return true }
            var record = try record(of: inode)
            if record.linkCount > 0 {
                let isDone = try cut(inode, &record, from: record.size, transaction)
                transaction.put(inode, record)
                guard isDone else { return false }
                removeOrphan(inode, transaction)
                return true
            }
            var items = 0
            var position: Key? = Key(inode.rawValue, .inlineData, 0)
            var extents: [(Key, ExtentRecord)] = []
            var others: [Key] = []
            try volume.reading { () throws(TreeFault) in
                try tree.scan(
                    &position, through: Key(inode.rawValue, ItemType(rawValue: .max), .max)
                ) { (key, value) throws(FSError) in
                    if key.type == .extent {
                        extents.append((key, try fileMap.decode(value, inode)))
                    } else {
                        others.append(key)
                    }
                    items += 1
                    return items < Self.reclaimBatch
                }
            }
            let count = batch(extents.map(\.1))
            for key in others { transaction.delete(key) }
            for (key, extent) in extents[..<count] {
                fileMap.release(extent, &record, transaction)
                transaction.delete(key)
            }
            if position != nil || count < extents.count {
                transaction.put(inode, record)
                return false
            }
            transaction.delete(Key(inode, .inode))
            removeOrphan(inode, transaction)
            transaction.inodeDelta -= 1
            return true
        }
    }

    /// Works off what a crash left behind.
    func reclaimOrphans() throws(FSError) {
        var found: [InodeNumber] = []
        var position: Key? = Key(0, .orphan, 0)
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: Key(0, .orphan, .max)) {
                (key, _) throws(FSError) in
                found.append(InodeNumber(key.offset))
                return true
            }
        }
        for inode in found {
            orphans.insert(inode)
            reclaim(inode)
        }
    }
}
