/// The map from a file's blocks to blocks of the device: extents, their sums, and the data itself.
///
/// Nothing is overwritten in place: a write goes to fresh blocks, then the map changes in the
/// operation's transaction, then the old blocks are released with it. Data that shrinks may be
/// stored encoded (`FileMap+Encoding`). Blocks of the file are 4 KiB;
/// "block n" is bytes n × 4096 ….
///
/// - Invariant: bytes of a file's last block behind its end are zero on disk.
/// - Invariant: every block read from the device is verified against its sum before a byte of it is
///   handed out.
@safe
final class FileMap: @unchecked Sendable {
    @safe unowned(unsafe) let volume: Volume
    let tree: CopyOnWriteTree
    /// No lock of an inode keeps the blocks: another thread may delete the snapshot.
    private let isReadOnly: Bool
    let readers = SequentialReaders()

    init(_ volume: Volume, _ tree: CopyOnWriteTree, isReadOnly: Bool) {
        self.volume = volume
        self.tree = tree
        self.isReadOnly = isReadOnly
    }

    /// A mapped run of a file.
    struct Extent {
        /// First block in the file.
        var block: UInt64
        var record: ExtentRecord
        var end: UInt64 { block + UInt64(record.blocks) }

        /// Where data for `block` of the file would go on from this extent; nil: nowhere.
        func goal(for block: UInt64) -> ReplicaList? {
            guard record.kind == .data else { return nil }
            let distance = record.encoding == nil ? block - self.block : UInt64(record.storedBlocks)
            return record.replicas.advanced(by: distance)
        }
    }

    static func key(_ inode: InodeNumber, _ block: UInt64) -> Key {
        Key(inode, .extent, block << 12)
    }

    func decode(_ value: ByteView, _ inode: InodeNumber) throws(FSError) -> ExtentRecord {
        try ExtentRecord(decoding: value, inode: inode.rawValue, layout: volume.layout)
    }

    private func extent(_ key: Key, _ value: ByteView) throws(FSError) -> Extent {
        let record = try decode(value, InodeNumber(key.object))
        guard key.offset & 4095 == 0, key.offset >> 12 <= (1 << 52) - UInt64(record.blocks) else {
            throw .corrupt(Corruption(.extent, at: key.object, "offset \(key.offset)"))
        }
        return Extent(block: key.offset >> 12, record: record)
    }

    /// The extents that touch `range` (in blocks), in order, at most `limit`. Extents that overlap
    /// each other are damage.
    func extents(
        _ inode: InodeNumber, _ range: Range<UInt64>, limit: Int = .max
    ) throws(FSError) -> [Extent] {
        var found: [Extent] = []
        guard !range.isEmpty else { return found }
        if let before = try extent(atOrBefore: range.lowerBound, inode),
            before.end > range.lowerBound
        {
            found.append(before)
        }
        var position = Self.key(inode, found.last?.end ?? range.lowerBound) as Key?
        guard found.count < limit else { return found }
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: Self.key(inode, range.upperBound - 1)) {
                (key, value) throws(FSError) in
                let next = try extent(key, value)
                if let last = found.last, last.end > next.block {
                    throw .corrupt(Corruption(.extent, at: inode.rawValue, "extents overlap"))
                }
                found.append(next)
                return found.count < limit
            }
        }
        return found
    }

    /// The extent that begins at `block` or is the nearest before it.
    func extent(atOrBefore block: UInt64, _ inode: InodeNumber) throws(FSError) -> Extent? {
        try volume.reading { () throws(TreeFault) in
            try tree.last(from: Self.key(inode, 0), through: Self.key(inode, block)) {
                (key, value) throws(FSError) in try extent(key, value)
            }
        }
    }

    // MARK: Reading

    /// Fills `target` with `target.count / 4096` blocks from `block` on; holes are zeros. The
    /// caller holds the inode's lock, so the blocks cannot be freed meanwhile; those of a snapshot are
    /// not handed out while it is read.
    func readBlocks(
        _ inode: InodeNumber, _ block: UInt64, into target: MutableByteView
    ) throws(FSError) {
        let token = isReadOnly ? volume.epochs.enter() : nil
        defer { if let token { volume.leave(token) } }
        let count = UInt64(target.count >> 12)
        let found = try extents(inode, block..<block + count)
        readAhead(inode, block..<block + count, found)
        var done: UInt64 = 0
        for extent in found {
            let start = max(extent.block, block)
            let end = min(extent.end, block + count)
            if start > block + done {
                target.zero(Int(done << 12), Int((start - block - done) << 12))
            }
            let part = target.slice(Int((start - block) << 12), Int((end - start) << 12))
            switch extent.record.kind {
            case .promised: part.zeroAll()
            case .data:
                let first = Int(start - extent.block)
                if let encoding = extent.record.encoding {
                    try decode(extent, encoding, first: first, into: part, inode)
                } else {
                    try readStored(extent, first: first, into: part, inode)
                }
            }
            done = end - block
        }
        if done < count { target.zero(Int(done << 12), Int((count - done) << 12)) }
    }

    /// Reads and verifies stored blocks of one extent, trying its replicas in turn, block by block
    /// where the whole is not right.
    func readStored(
        _ extent: Extent, first: Int, into target: MutableByteView, _ inode: InodeNumber
    ) throws(FSError) {
        let record = extent.record
        if (try? readReplica(record, 0, first: first, into: target)) == true { return }
        let count = target.count >> 12
        for index in 0..<count {
            let part = target.slice(index << 12, DiskFormat.blockSize)
            var failure: FSError?
            var isGood = false
            var bad: [UInt64] = []
            // Of an encoded extent every stored block counts for all of it.
            let inFile = record.encoding == nil ? UInt64(first + index) : 0
            let offset = (extent.block + inFile) << 12
            for replica in 0..<record.replicas.count where !isGood {
                do throws(FSError) {
                    isGood = try readReplica(record, replica, first: first + index, into: part)
                    if !isGood {
                        throw .corrupt(
                            Corruption(.data, at: inode.rawValue, "checksum mismatch"))
                    }
                } catch {
                    volume.errors.record(error)
                    failure = failure ?? error
                    bad.append((record.replicas[replica].block + UInt64(first + index)) << 12)
                }
            }
            if isGood {
                volume.health.heal(part.view, over: bad) { volume.name(inode, offset, tree) }
                continue
            }
            let place = record.replicas.first + UInt64(first + index)
            volume.health.lose(
                DamageRecord(
                    .data, at: place, blocks: record.encoding == nil ? 1 : record.blocks,
                    tree: tree.id.rawValue, object: inode.rawValue, offset: offset)
            ) { "\(volume.name(inode, offset, tree)): block \(place.block) has no good copy" }
            throw failure ?? .corrupt(Corruption(.data, at: inode.rawValue, "no replica"))
        }
    }

    func reportDamage(_ inode: InodeNumber, _ block: UInt64, _ what: String) {
        volume.observer?.volume(
            .damage("inode \(inode.rawValue), offset \(block << 12): \(what)"))
    }

    /// False if a sum is wrong.
    private func readReplica(
        _ record: ExtentRecord, _ replica: Int, first: Int, into target: MutableByteView
    ) throws(FSError) -> Bool {
        let place = record.replicas[replica] + UInt64(first)
        try readPlace(BlockRun(place, UInt64(target.count >> 12)), into: target)
        let checksum = volume.modules.requiredChecksum(record.sumKind)
        for index in 0..<target.count >> 12 {
            let sum = checksum.sum(target.view.slice(index << 12, DiskFormat.blockSize))
            if sum != record.sum(first + index) { return false }
        }
        return true
    }

    /// Reads blocks of the device, or what the journal holds for them. The journal is asked first:
    /// what it no longer holds is on the device.
    private func readPlace(_ run: BlockRun, into target: MutableByteView) throws(FSError) {
        let staged = volume.journal?.readStaged(run, into: target)
        guard let staged else {
            try volume.device.read(into: target, at: run.start.block << 12)
            return
        }
        var index = 0
        while index < staged.count {
            let end = staged[index...].firstIndex { $0 != staged[index] } ?? staged.count
            if !staged[index] {
                try volume.device.read(
                    into: target.slice(index << 12, (end - index) << 12),
                    at: (run.start.block + UInt64(index)) << 12)
            }
            index = end
        }
    }

    // MARK: Writing

    /// Writes whole blocks to fresh places and maps them. `record.blocks` follows; the caller puts
    /// the record.
    func writeBlocks(
        _ inode: InodeNumber, _ block: UInt64, _ source: ByteView, _ record: inout InodeRecord,
        _ transaction: Transaction, _ space: SpaceClass = .ordinary
    ) throws(FSError) {
        let range = block..<block + UInt64(source.count >> 12)
        // A file without blocks, as every new one, has no map to look at.
        let isEmpty = record.blocks == 0
        let overlapped = isEmpty ? [] : try extents(inode, range)
        let copies = volume.dataCopies(of: record)
        let promised = overlapped.reduce(0 as UInt64) { sum, extent in
            let part = min(extent.end, range.upperBound) - max(extent.block, range.lowerBound)
            return sum + part * UInt64(extent.record.promisedCopies)
        }
        let before = isEmpty ? nil : try previous(block, inode, overlapped)
        let placement = Placement(
            copies: copies, goal: before.flatMap { $0.goal(for: block) }, space: space,
            isPromised: promised >= (range.upperBound - range.lowerBound) * UInt64(copies),
            isStaged: isStaged(source.count * copies))
        if placement.isPromised, promised > 0 { transaction.fillsPromise = true }
        let fresh = try storeBest(block, source, record, placement, transaction)
        try replace(inode, range, overlapped, with: fresh, before, &record, space, transaction)
    }

    /// Where new data goes, and on whose account.
    struct Placement {
        var copies: Int
        /// Near this place; nil: behind the last data that was written.
        var goal: ReplicaList?
        var space: SpaceClass
        /// The blocks were promised before.
        var isPromised = false
        /// By way of the journal.
        var isStaged: Bool
    }

    /// Whether the data of an operation, of so many bytes, goes through the journal.
    func isStaged(_ byteCount: Int) -> Bool { byteCount <= volume.journal?.stagedDataLimit ?? -1 }

    /// Writes whole blocks to fresh places without mapping them yet. A transaction that fails gives
    /// the places back (`FileSystem.change`).
    func store(
        _ block: UInt64, _ source: ByteView, _ record: InodeRecord, _ space: SpaceClass,
        _ transaction: Transaction
    ) throws(FSError) -> [Extent] {
        try storeBest(
            block, source, record, placement(for: record, source.count, space), transaction)
    }

    /// Of data that replaces no promise and follows nothing.
    private func placement(
        for record: InodeRecord, _ byteCount: Int, _ space: SpaceClass
    ) -> Placement {
        let copies = volume.dataCopies(of: record)
        return Placement(copies: copies, space: space, isStaged: isStaged(byteCount * copies))
    }

    /// Encoded, if the file is to be and there is enough to gain from.
    private func storeBest(
        _ block: UInt64, _ source: ByteView, _ record: InodeRecord, _ placement: Placement,
        _ transaction: Transaction
    ) throws(FSError) -> [Extent] {
        if source.count > DiskFormat.blockSize, let encoder = encoder(for: record) {
            return try storeEncoded(block, source, encoder, placement, transaction)
        }
        return try store(block, source, placement, transaction)
    }

    func store(
        _ block: UInt64, _ source: ByteView, _ placement: Placement, _ transaction: Transaction
    ) throws(FSError) -> [Extent] {
        let count = UInt64(source.count >> 12)
        var goal = placement.goal
        var fresh: [Extent] = []
        var done: UInt64 = 0
        while done < count {
            let want = min(count - done, volume.checksumKind.maximumPlainExtentBlocks)
            let (places, length) = try volume.allocateData(
                want, copies: placement.copies, goal: goal, placement.space,
                promised: placement.isPromised)
            let bytes = source.slice(Int(done << 12), Int(length << 12))
            for index in 0..<places.count { transaction.publish(BlockRun(places[index], length)) }
            try writeHome(places, bytes, placement, transaction)
            fresh.append(
                Extent(
                    block: block + done,
                    record: ExtentRecord(
                        blocks: UInt32(length), birth: transaction.epoch(in: volume),
                        replicas: places, sumKind: volume.checksumKind, sums: sums(bytes))))
            goal = places.advanced(by: length)
            done += length
        }
        return fresh
    }

    /// The extent that reaches over `block`, or the nearest before it.
    private func previous(
        _ block: UInt64, _ inode: InodeNumber, _ overlapped: [Extent]
    ) throws(FSError) -> Extent? {
        if let first = overlapped.first, first.block < block { return first }
        return block == 0 ? nil : try extent(atOrBefore: block - 1, inode)
    }

    /// Writes to blocks that were just allocated, or leaves that to the journal.
    func writeHome(
        _ places: ReplicaList, _ bytes: ByteView, _ placement: Placement,
        _ transaction: Transaction
    ) throws(FSError) {
        for index in 0..<places.count {
            if placement.isStaged {
                transaction.stage(BlockRun(places[index], UInt64(bytes.count >> 12)), bytes)
            } else {
                try volume.device.write(bytes, at: places[index].block << 12)
                volume.journal?.noteHomeWrite()
            }
        }
    }

    func sums(_ bytes: ByteView) -> [UInt8] {
        let width = volume.checksumKind.byteCount
        let count = bytes.count >> 12
        return unsafe [UInt8](unsafeUninitializedCapacity: count * width) { buffer, initialized in
            let target = unsafe MutableByteView(base: buffer.baseAddress!, count: count * width)
            for index in 0..<count {
                volume.checksum.sum(bytes.slice(index << 12, DiskFormat.blockSize))
                    .store(target, index * width, count: width)
            }
            initialized = count * width
        }
    }

    // MARK: Changing the map

    /// Releases what `range` maps and maps `fresh` there instead; where `fresh` has gaps, holes are.
    /// A transaction may change one file's map once only: it reads the map as it is in the tree.
    func replace(
        _ inode: InodeNumber, _ range: Range<UInt64>, _ overlapped: [Extent],
        with fresh: [Extent], _ record: inout InodeRecord, _ transaction: Transaction,
        _ space: SpaceClass = .ordinary
    ) throws(FSError) {
        let before = try fresh.isEmpty ? nil : previous(range.lowerBound, inode, overlapped)
        try replace(inode, range, overlapped, with: fresh, before, &record, space, transaction)
    }

    private func replace(
        _ inode: InodeNumber, _ range: Range<UInt64>, _ overlapped: [Extent],
        with fresh: [Extent], _ before: Extent?, _ record: inout InodeRecord,
        _ space: SpaceClass, _ transaction: Transaction
    ) throws(FSError) {
        var (range, fresh) = (range, fresh)
        if overlapped.contains(where: { $0.record.encoding != nil }) {
            try rewriteRemainders(inode, &range, overlapped, &fresh, &record, space, transaction)
        }
        for extent in overlapped {
            let start = max(extent.block, range.lowerBound)
            let end = min(extent.end, range.upperBound)
            // Of an encoded extent all goes, and what is left comes anew.
            let cut =
                extent.record.encoding == nil
                ? extent.record.part(UInt32(start - extent.block), UInt32(end - start))
                : extent.record
            release(cut, &record, transaction)
            if extent.block < start {
                let left = extent.record.part(0, UInt32(start - extent.block))
                transaction.put(
                    Self.key(inode, extent.block), kept(left, &record, transaction).encoded())
            } else {
                transaction.delete(Self.key(inode, extent.block))
            }
            if extent.end > end {
                let right = extent.record.part(
                    UInt32(end - extent.block), UInt32(extent.end - end))
                transaction.put(
                    Self.key(inode, end), kept(right, &record, transaction).encoded())
            }
        }
        // What lies right before takes the first new extent in, when both are one run.
        var joined: Extent?
        if let before, before.block < range.lowerBound, before.end >= range.lowerBound {
            joined = Extent(
                block: before.block,
                record: before.record.part(0, UInt32(range.lowerBound - before.block)))
        }
        for extent in fresh {
            if extent.record.kind == .promised {
                transaction.promisedDelta += Int64(extent.record.heldBlocks)
            }
            record.blocks += extent.record.heldBlocks
            transaction.referencedDelta += Int64(extent.record.heldBlocks)
            if var current = joined, current.end == extent.block,
                current.record.canJoin(extent.record)
            {
                current.record.join(extent.record)
                transaction.put(Self.key(inode, current.block), current.record.encoded())
                joined = current
            } else {
                transaction.put(Self.key(inode, extent.block), extent.record.encoded())
                joined = extent
            }
        }
    }

    /// Releases an extent's blocks, or takes back its promise.
    func release(_ extent: ExtentRecord, _ record: inout InodeRecord, _ transaction: Transaction) {
        record.blocks -= min(record.blocks, extent.heldBlocks)
        transaction.referencedDelta -= Int64(extent.heldBlocks)
        switch extent.kind {
        case .promised: transaction.promisedDelta -= Int64(extent.heldBlocks)
        case .data:
            for index in 0..<extent.replicas.count {
                transaction.drop(extent.storedRun(index), birth: extent.birth)
            }
        }
    }
}
