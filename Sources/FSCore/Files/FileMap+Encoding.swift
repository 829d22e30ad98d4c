/// Encoded extents: up to 128 KiB of a file, stored in fewer blocks.
///
/// A write is cut where the file's offset is a multiple of 128 KiB, and each piece that shrinks by
/// a block or more is stored encoded. What is overwritten or punched later leaves parts behind: each
/// is a reference of its own to all the stored blocks of the whole, with the number of decoded
/// blocks to skip. A reference is shared and counted like that of a copy (`ShareCounts`), and a
/// part of an encoded extent is born anew: what was one reference is released.
///
///     encoded   [ a b c d e f g h ]  3 stored blocks, one reference
///     write d   [ a b c ] d [ e f g h ]  skip 0 and skip 4, two references to the 3 blocks
///
/// - Invariant: for what a file has left of an encoded extent it holds no more stored blocks than
///   the blocks that it still reads from them. An operation that would leave less writes the rest
///   anew. So a file never holds more than it would without compression, whatever is done to it.
/// - Invariant: decoding writes no more than the record says, and never more than 128 KiB.
extension FileMap {
    /// What compresses a file's new data.
    struct Encoder: Sendable {
        var codec: any Codec
        var level: UInt8
    }

    /// nil: it is stored as it is.
    func encoder(for record: InodeRecord) -> Encoder? {
        let setting = record.compression == .inherited ? volume.compression : record.compression
        guard case .codec(let kind, let level) = setting else { return nil }
        return Encoder(codec: volume.modules.codec(kind), level: level)
    }

    // MARK: Reading

    /// Decodes an extent and fills `target` with its blocks from `first` on.
    func decode(
        _ extent: Extent, _ encoding: ExtentRecord.Encoding, first: Int,
        into target: MutableByteView, _ inode: InodeNumber
    ) throws(FSError) {
        let stored = ByteBuffer(unfilled: Int(encoding.storedBlocks) << 12)
        try readStored(extent, first: 0, into: stored.bytes, inode)
        let source = stored.view.slice(0, encoding.encodedBytes)
        let codec = volume.modules.codec(encoding.codec)
        let wholeCount = Int(encoding.wholeBlocks) << 12
        let isWhole = target.count == wholeCount
        let buffer = isWhole ? nil : ByteBuffer(unfilled: wholeCount)
        guard codec.decode(source, into: buffer?.bytes ?? target) else {
            reportDamage(inode, extent.block, "\(encoding.codec.name) data cannot be decoded")
            let error = FSError.corrupt(
                Corruption(.data, at: inode.rawValue, "\(encoding.codec.name) data"))
            volume.errors.record(error)
            throw error
        }
        if let buffer {
            target.copy(
                buffer.view.slice((Int(encoding.skip) + first) << 12, target.count))
        }
    }

    // MARK: Writing

    /// As `store`, but encoded where that saves blocks.
    func storeEncoded(
        _ block: UInt64, _ source: ByteView, _ encoder: Encoder, _ placement: Placement,
        _ transaction: Transaction
    ) throws(FSError) -> [Extent] {
        try volume.enable(DiskFormat.Incompatible.encodedExtents)
        return try volume.buffers.with(source.count) { (buffer) throws(FSError) in
            let pieces = EncodedPieces(block, source, encoder, buffer)
            pieces.encode(volume.workers)
            return try store(pieces, block, source, encoder, placement, transaction)
        }
    }

    /// Writes what of a write's pieces has shrunk, and the rest as it is.
    private func store(
        _ pieces: EncodedPieces, _ block: UInt64, _ source: ByteView, _ encoder: Encoder,
        _ placement: Placement, _ transaction: Transaction
    ) throws(FSError) -> [Extent] {
        let count = UInt64(source.count >> 12)
        var placement = placement
        var fresh: [Extent] = []
        /// Since where nothing has shrunk.
        var plainStart: UInt64 = 0
        func storePlain(to end: UInt64) throws(FSError) {
            guard plainStart < end else { return }
            let bytes = source.slice(Int(plainStart << 12), Int((end - plainStart) << 12))
            fresh += try store(block + plainStart, bytes, placement, transaction)
            placement.goal = fresh.last?.goal(for: block + end)
        }
        var writes = AdjacentWrites(pieces.buffer)
        func write(_ writes: inout AdjacentWrites) throws(FSError) {
            guard let (places, bytes) = writes.take() else { return }
            try writeHome(places, bytes, placement, transaction)
        }
        for index in 0..<pieces.count {
            guard let encoded = pieces.encodedLength(index) else { continue }
            let (position, length) = pieces.blocks(index)
            try storePlain(to: position)
            plainStart = position
            let stored = blocks(covering: UInt64(encoded))
            let (places, found) = try volume.allocateData(
                stored, copies: placement.copies, goal: placement.goal, placement.space,
                promised: placement.isPromised)
            guard found == stored else {
                // Free space is in pieces; data that is not encoded can be, too.
                for index in 0..<places.count {
                    volume.allocator.cancel(BlockRun(places[index], found))
                }
                continue
            }
            for index in 0..<places.count { transaction.publish(BlockRun(places[index], stored)) }
            plainStart = position + length
            let unused = Int(stored << 12) - encoded
            let target = pieces.buffer.bytes.slice(Int(position << 12), Int(stored << 12))
            target.zero(encoded, unused)
            let sums = sums(target.view)
            if !writes.isAdjacent(places) { try write(&writes) }
            writes.add(places, position: position, blocks: stored)
            fresh.append(
                Extent(
                    block: block + position,
                    record: ExtentRecord(
                        blocks: UInt32(length), birth: transaction.epoch(in: volume),
                        replicas: places, sumKind: volume.checksumKind, sums: sums,
                        encoding: ExtentRecord.Encoding(
                            codec: encoder.codec.kind, storedBlocks: UInt32(stored),
                            wholeBlocks: UInt16(length), unusedBytes: UInt16(unused)))))
            placement.goal = places.advanced(by: stored)
        }
        try storePlain(to: count)
        try write(&writes)
        return fresh
    }

    /// How many blocks before `written`, which a write is to bring, are to be encoded again together
    /// with them.
    ///
    /// Programs append in small pieces, which do not compress. So a write at the end of a file takes
    /// in what lies before it in the same 128 KiB when it brings that to 8, 16 or 32 blocks: each
    /// block is written again at most three times, and most of a file is in large extents.
    func blocksToEncodeAgain(
        _ inode: InodeNumber, _ record: InodeRecord, _ written: ClosedRange<UInt64>,
        growingTo size: UInt64
    ) throws(FSError) -> UInt64 {
        let frame = DiskFormat.maximumEncodedBlocks
        let before = written.lowerBound % frame
        guard before > 0, size > record.size, record.blocks > 0, encoder(for: record) != nil else {
            return 0
        }
        let after = min(before + UInt64(written.count), frame)
        guard [8, 16, 32].contains(where: { before < $0 && $0 <= after }) else { return 0 }
        let range = written.lowerBound - before..<written.lowerBound
        let covered = try extents(inode, range).reduce(0 as UInt64) { sum, extent in
            guard extent.record.kind == .data else { return sum }
            let start = max(extent.block, range.lowerBound)
            return sum + min(extent.end, range.upperBound) - start
        }
        // Holes stay holes.
        return covered == before ? before : 0
    }

    // MARK: Parts

    /// What is left of an extent that an operation cut; of an encoded one a new reference.
    func kept(
        _ part: ExtentRecord, _ record: inout InodeRecord, _ transaction: Transaction
    ) -> ExtentRecord {
        guard part.encoding != nil else { return part }
        var part = part
        record.blocks += part.heldBlocks
        transaction.referencedDelta += Int64(part.heldBlocks)
        if !volume.options.brokenRules.contains(.partsKeepTheirBirth) {
            part.birth = transaction.epoch(in: volume)
        }
        if volume.options.brokenRules.contains(.partsNotReferenced) { return part }
        for index in 0..<part.replicas.count { transaction.reference(part.storedRun(index)) }
        return part
    }

    /// Which extents of a file are parts of one whole, at one place of the file.
    private struct Whole: Hashable {
        var address: BlockAddress
        /// Where it begins in the file; what came there by a copy may begin before the file.
        var start: Int64

        init(_ extent: Extent, _ encoding: ExtentRecord.Encoding) {
            address = extent.record.replicas.first
            start = Int64(extent.block) - Int64(encoding.skip)
        }
    }

    /// How many of `extents`, from the first on, another file may share so that the invariant holds
    /// for it, too.
    static func countWorthSharing(_ extents: [Extent]) -> Int {
        var count = extents.count
        while true {
            var used: [Whole: UInt32] = [:]
            for extent in extents[..<count] {
                guard let encoding = extent.record.encoding else { continue }
                used[Whole(extent, encoding), default: 0] += extent.record.blocks
            }
            let end = extents[..<count].firstIndex { extent in
                guard let encoding = extent.record.encoding else { return false }
                return used[Whole(extent, encoding), default: 0] < encoding.storedBlocks
            }
            guard let end else { return count }
            count = end
        }
    }

    /// Writes anew what `range` would leave of encoded extents, where that is less than they are
    /// stored in. What lies right before or behind the range is taken into it and into `fresh`;
    /// other parts are replaced here.
    func rewriteRemainders(
        _ inode: InodeNumber, _ range: inout Range<UInt64>, _ overlapped: [Extent],
        _ fresh: inout [Extent], _ record: inout InodeRecord, _ space: SpaceClass,
        _ transaction: Transaction
    ) throws(FSError) {
        let cleared = range
        var seen: Set<Whole> = []
        for extent in overlapped {
            guard let encoding = extent.record.encoding,
                seen.insert(Whole(extent, encoding)).inserted
            else { continue }
            for (part, old) in try remainders(of: extent, encoding, cleared, inode) {
                let bytes = ByteBuffer(count: Int(part.count) << 12)
                try readBlocks(inode, part.lowerBound, into: bytes.bytes)
                let stored = try store(part.lowerBound, bytes.view, record, space, transaction)
                if old.end <= cleared.lowerBound || old.block >= cleared.upperBound {
                    release(old.record, &record, transaction)
                    transaction.delete(Self.key(inode, old.block))
                    for extent in stored {
                        record.blocks += extent.record.heldBlocks
                        transaction.referencedDelta += Int64(extent.record.heldBlocks)
                        transaction.put(Self.key(inode, extent.block), extent.record.encoded())
                    }
                } else if part.lowerBound < cleared.lowerBound {
                    range = part.lowerBound..<range.upperBound
                    fresh = stored + fresh
                } else {
                    range = range.lowerBound..<part.upperBound
                    fresh += stored
                }
            }
        }
    }

    /// The parts that stay when `cleared` goes, each with the extent that it is or is of, if they are
    /// fewer blocks than are stored for them.
    private func remainders(
        of extent: Extent, _ encoding: ExtentRecord.Encoding, _ cleared: Range<UInt64>,
        _ inode: InodeNumber
    ) throws(FSError) -> [(part: Range<UInt64>, of: Extent)] {
        let whole = Whole(extent, encoding)
        let end = UInt64(whole.start + Int64(encoding.wholeBlocks))
        var parts: [(part: Range<UInt64>, of: Extent)] = []
        for other in try extents(inode, UInt64(max(whole.start, 0))..<end) {
            guard let encoding = other.record.encoding, Whole(other, encoding) == whole else {
                continue
            }
            for part in [
                other.block..<max(other.block, min(other.end, cleared.lowerBound)),
                min(other.end, max(other.block, cleared.upperBound))..<other.end,
            ] where !part.isEmpty { parts.append((part, other)) }
        }
        let left = parts.reduce(0) { $0 + $1.part.count }
        return left < Int(encoding.storedBlocks) ? parts : []
    }
}

/// The pieces of a write, cut where the file's offset is a multiple of 128 KiB, and what each is encoded.
///
/// Safe to share: each piece is encoded by one thread, into a place of its own.
private final class EncodedPieces: @unchecked Sendable {
    /// What was encoded, at the place that the piece has in the source.
    let buffer: ByteBuffer
    private let source: ByteView
    private let encoder: FileMap.Encoder
    /// Where pieces begin in the source, in blocks, and its end.
    private var bounds: [UInt64] = [0]
    /// A word for each piece; zero: not encoded.
    private let lengths: ByteBuffer

    /// - Parameter buffer: as long as the source, or longer.
    init(
        _ block: UInt64, _ source: ByteView, _ encoder: FileMap.Encoder, _ buffer: ByteBuffer
    ) {
        let (end, frame) = (UInt64(source.count >> 12), DiskFormat.maximumEncodedBlocks)
        while let start = bounds.last, start < end {
            bounds.append(min(end, start + frame - (block + start) % frame))
        }
        self.source = source
        self.encoder = encoder
        self.buffer = buffer
        lengths = ByteBuffer(count: (bounds.count - 1) * 8)
    }

    var count: Int { bounds.count - 1 }
    /// Where a piece begins in the source, and how long it is, in blocks.
    func blocks(_ index: Int) -> (position: UInt64, length: UInt64) {
        (bounds[index], bounds[index + 1] - bounds[index])
    }
    /// nil if it did not shrink by a block.
    func encodedLength(_ index: Int) -> Int? {
        let length = Int(lengths.view.u64(index * 8))
        return length > 0 ? length : nil
    }

    func encode(_ workers: WorkerPool) { workers.forEach(count) { self.encode($0) } }

    private func encode(_ index: Int) {
        let (position, length) = blocks(index)
        guard length >= 2 else { return }
        let (start, bytes) = (Int(position << 12), Int(length << 12))
        let encoded = encoder.codec.encode(
            source.slice(start, bytes),
            into: buffer.bytes.slice(start, bytes - DiskFormat.blockSize), level: encoder.level)
        if let encoded { lengths.bytes.store(UInt64(encoded), at: index * 8) }
    }
}

/// Encoded data on its way to adjacent places, moved together so that it takes one write.
private struct AdjacentWrites {
    private let buffer: ByteBuffer
    private var places: ReplicaList?
    private var start = 0
    private var end = 0

    init(_ buffer: ByteBuffer) { self.buffer = buffer }

    func isAdjacent(_ next: ReplicaList) -> Bool {
        guard let places else { return true }
        return places.advanced(by: UInt64((end - start) >> 12)) == next
    }

    /// Adds what lies at a position of the buffer, behind all that was added before.
    mutating func add(_ next: ReplicaList, position: UInt64, blocks: UInt64) {
        places = places ?? next
        let (from, count) = (Int(position << 12), Int(blocks << 12))
        if from != end { buffer.bytes.move(from: from, to: end, count: count) }
        end += count
    }

    /// What was added, and is to be written now.
    mutating func take() -> (ReplicaList, ByteView)? {
        guard let places else { return nil }
        defer {
            self.places = nil
            start = end
        }
        return (places, buffer.view.slice(start, end - start))
    }
}
