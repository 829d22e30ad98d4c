/// What is lost of files stays unreadable. A part of a file that no extent covers reads as zeros: where
/// an extent was lost, an answer that is wrong. So extents take its place whose blocks have other sums
/// than they say, and a read of them fails as that of any damaged data, until the file is written anew.
///
/// - Invariant: where extents are lost and holes were, nobody can tell one from the other; then both
///   become unreadable. A file that has as many blocks as its inode says has lost none.
extension RepairSession {
    /// No more is made unreadable in one round, which bounds what that takes: 64 GiB.
    static let lossLimit: UInt64 = 1 << 24

    /// Notes a loss for the report.
    func lose(
        _ kind: RepairLosses.Kind, _ inode: UInt64, _ tree: TreeID, bytes: UInt64 = 0,
        path: String? = nil
    ) { losses.add(kind, inode, tree, byteCount: bytes, path: path) }

    /// An extent that cannot be decoded. How long it was is not known: until the next extent or the end
    /// of the file, at most as long as one can be.
    func loseExtent(_ key: Key, _ tree: TreeID) throws(FSError) {
        try change(tree) { $0.delete(key) }
        guard key.offset & 4095 == 0 else { return }
        let start = key.offset >> 12
        let next = try extents(of: key.object, tree).first { $0.lowerBound > start }?.lowerBound
        try loseData(
            key.object,
            [start..<min(next ?? .max, start + volume.checksumKind.maximumPlainExtentBlocks)], tree)
    }

    /// A small file, or a symbolic link, whose bytes are gone: a file as long as it was.
    func loseInlineData(_ inode: UInt64, _ old: InodeRecord, _ tree: TreeID) throws(FSError) {
        var record = old
        record.content = .extents
        if record.kind != .regular { record.mode = FileKind.regular.modeBits | 0o600 }
        try change(tree) { $0.put(InodeNumber(inode), record) }
        try loseData(inode, [0..<1], tree)
    }

    /// What files have lost between keys where something may be missing.
    func loseItems(between gaps: [KeyGap], _ tree: TreeID) throws(FSError) {
        var ranges: [UInt64: [Range<UInt64>]] = [:]
        for gap in gaps {
            if let inode = gap.inodeOfAttributes,
                let record = try? files(tree).record(of: InodeNumber(inode)),
                record.mayHaveAttributes, try keys(of: inode, .attribute, tree).isEmpty
            {
                lose(.attribute, inode, tree)
            }
            for (inode, range) in gap.fileRanges {
                // Asked before the first of them gets anything in place of what it has lost.
                if ranges[inode] == nil {
                    ranges[inode] = try hasLostExtents(inode, tree) ? [] : nil
                }
                ranges[inode]?.append(range)
            }
        }
        for (inode, ranges) in ranges.sorted(by: { $0.key < $1.key }) {
            try loseData(inode, ranges, tree)
        }
    }

    /// Unless its record says that all are there.
    private func hasLostExtents(_ inode: UInt64, _ tree: TreeID) throws(FSError) -> Bool {
        guard let record = try? files(tree).record(of: InodeNumber(inode)) else { return true }
        guard record.kind == .regular, record.content == .extents else { return false }
        return try heldBlocks(of: inode, tree) < record.blocks
    }

    private func heldBlocks(of inode: UInt64, _ tree: TreeID) throws(FSError) -> UInt64 {
        var blocks: UInt64 = 0
        try forEachExtent(of: inode, tree) { blocks += $1?.heldBlocks ?? 0 }
        return blocks
    }

    /// What a file's extents cover, in blocks; of one that cannot be decoded its first block.
    private func extents(of inode: UInt64, _ tree: TreeID) throws(FSError) -> [Range<UInt64>] {
        var found: [Range<UInt64>] = []
        try forEachExtent(of: inode, tree) { key, extent in
            let start = key.offset >> 12
            found.append(start..<start + UInt64(extent?.blocks ?? 1))
        }
        return found
    }

    private func forEachExtent(
        of inode: UInt64, _ tree: TreeID, _ body: (Key, ExtentRecord?) -> Void
    ) throws(FSError) {
        let layout = volume.layout
        try scan(tree, Key(inode, .extent, 0)...Key(inode, .extent, .max)) { (key, value) in
            body(key, try? ExtentRecord(decoding: value, inode: inode, layout: layout))
        }
    }

    /// Puts unreadable extents where none are, as far as the file goes.
    private func loseData(
        _ inode: UInt64, _ ranges: [Range<UInt64>], _ tree: TreeID
    ) throws(FSError) {
        let record = try? files(tree).record(of: InodeNumber(inode))
        let covered = try extents(of: inode, tree)
        // Without a record the file ends where its last extent does.
        let size = record?.size ?? (covered.last?.upperBound ?? 0) << 12
        let end = size >> 12 + (size & 4095 == 0 ? 0 : 1)
        var gaps: [Range<UInt64>] = []
        var lost: UInt64 = 0
        var unmarked: UInt64 = 0
        for range in ranges where range.lowerBound < min(range.upperBound, end) {
            for gap in Self.gaps(in: range.lowerBound..<min(range.upperBound, end), covered) {
                let cut = gap.lowerBound + min(UInt64(gap.count), unreadableBlocksLeft)
                unreadableBlocksLeft -= cut - gap.lowerBound
                if cut > gap.lowerBound { gaps.append(gap.lowerBound..<cut) }
                let bytes = min(gap.upperBound << 12, size) - (gap.lowerBound << 12)
                let within = min(cut << 12, size) - (gap.lowerBound << 12)
                lost += within
                unmarked += bytes - within
            }
        }
        do throws(FSError) {
            try makeUnreadable(gaps, inode, record, tree)
            if lost > 0 { lose(.data, inode, tree, bytes: lost) }
        } catch {
            guard case .noSpace = error else { throw error }
            unmarked += lost
        }
        if unmarked > 0 { lose(.zeros, inode, tree, bytes: unmarked) }
    }

    private static func gaps(
        in range: Range<UInt64>, _ covered: [Range<UInt64>]
    ) -> [Range<UInt64>] {
        var gaps: [Range<UInt64>] = []
        var position = range.lowerBound
        for extent in covered where extent.upperBound > position {
            if extent.lowerBound >= range.upperBound { break }
            if extent.lowerBound > position { gaps.append(position..<extent.lowerBound) }
            position = extent.upperBound
        }
        if position < range.upperBound { gaps.append(position..<range.upperBound) }
        return gaps
    }

    private func makeUnreadable(
        _ gaps: [Range<UInt64>], _ inode: UInt64, _ record: InodeRecord?, _ tree: TreeID
    ) throws(FSError) {
        guard let longest = gaps.map(\.count).max() else { return }
        let limit = volume.checksumKind.maximumPlainExtentBlocks
        // All of them are the same blocks.
        let (run, sum) = try unreadableRun(
            min(UInt64(longest), limit),
            references: gaps.reduce(0) { $0 + (UInt64($1.count) + limit - 1) / limit })
        let pieces = gaps.flatMap { gap in
            stride(from: gap.lowerBound, to: gap.upperBound, by: Int(run.count)).map {
                $0..<min($0 + run.count, gap.upperBound)
            }
        }
        for batch in stride(from: 0, to: pieces.count, by: FileSystem.reclaimBatch) {
            try change(tree) { (transaction) in
                for piece in pieces[batch..<min(batch + FileSystem.reclaimBatch, pieces.count)] {
                    let extent = ExtentRecord(
                        blocks: UInt32(piece.count), birth: transaction.epoch(in: volume),
                        replicas: ReplicaList(run.start), sumKind: volume.checksumKind,
                        sums: [UInt8](piece.map { _ in sum }.joined()))
                    transaction.put(
                        Key(inode, .extent, piece.lowerBound << 12), extent.encoded())
                }
            }
        }
        if var record {
            let held = try heldBlocks(of: inode, tree)
            try change(tree) { (transaction) in
                transaction.referencedDelta = Int64(held) - Int64(record.blocks)
                record.blocks = held
                transaction.put(InodeNumber(inode), record)
            }
        }
        volume.health.lose(
            DamageRecord(
                .data, at: run.start, blocks: UInt32(gaps[0].count), tree: tree.rawValue,
                object: inode, offset: gaps[0].lowerBound << 12)
        ) { "inode \(inode): what it held from byte \(gaps[0].lowerBound << 12) on is lost" }
    }

    /// Blocks with a sum that they do not have; how often they are referred to the next check finds out.
    private func unreadableRun(
        _ want: UInt64, references: UInt64
    ) throws(FSError) -> (run: BlockRun, sum: [UInt8]) {
        let run = try volume.allocator.allocateData(want, goal: nil, leaving: .nothing)
        let zeros = ByteBuffer(count: DiskFormat.blockSize)
        for block in run.blocks { try volume.device.write(zeros.view, at: block << 12) }
        let width = volume.checksumKind.byteCount
        let sum = ByteBuffer(count: width)
        volume.checksum.sum(zeros.view).store(sum.bytes, 0, count: width)
        try change(.volume) { (transaction) in
            transaction.publish(run)
            guard references > 1 || run.count < want else { return }
            let record = ShareRecord(
                start: run.start, blocks: run.count, references: UInt32(max(references, 2)))
            transaction.put(record.key, record.encoded(), tree: .volume)
        }
        return (run, sum.view.toArray().map { ~$0 })
    }

    /// Puts on the volume's list what reads of files would have put there, and takes off it the nodes that
    /// are no more in a tree.
    func listDamage() throws(FSError) {
        let damage = volume.health.unstored.damage
        let gone = dropped.compactMap(\.pointer?.address)
        try change(.volume) { (transaction) in
            for record in damage where record.kind == .data {
                transaction.put(record.key, record.encoded(), tree: .volume)
            }
            for place in gone {
                transaction.delete(Key(0, .damage, place.rawValue), tree: .volume)
            }
        }
        volume.health.stored(damage, [])
        volume.health.forget(gone)
    }
}

/// Keys between which items may be missing, and none is left; nil: from the first, or to the last.
struct KeyGap {
    var lower: Key?
    var upper: Key?

    /// The one of whose attributes the first may be missing. Its number is in the lower key, be that the
    /// last key in front of the gap or the first that was in it.
    var inodeOfAttributes: UInt64? {
        guard let lower, lower.object > 0, lower <= Key(lower.object, .attribute, .max) else {
            return nil
        }
        return lower.object
    }

    /// In which files, and where in them, extents may be missing, in blocks.
    var fileRanges: [(inode: UInt64, blocks: Range<UInt64>)] {
        let start = lower.map { $0.type == .extent ? $0.offset >> 12 : 0 } ?? 0
        let end = upper.map { $0.type == .extent ? $0.offset >> 12 : 0 } ?? 0
        var found: [(inode: UInt64, blocks: Range<UInt64>)] = []
        if let lower, lower.object > 0, lower.object != upper?.object {
            found.append((lower.object, start..<1 << 52))
        }
        if let upper, upper.object > 0 {
            let start = lower?.object == upper.object ? start : 0
            if start < end { found.append((upper.object, start..<end)) }
        }
        return found
    }
}
