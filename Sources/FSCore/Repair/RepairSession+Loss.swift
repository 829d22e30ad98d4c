/// What is lost of files stays unreadable. A part of a file that no extent covers reads as zeros: where
/// an extent was lost, an answer that is wrong. So extents take its place whose blocks have other sums
/// than they say, and a read of them fails as that of any damaged data, until the file is written anew.
extension RepairSession {
    /// Where more than this may be missing at one place, most of it was never there: a node cannot name
    /// so much. 1 GiB.
    private static let lossLimit: UInt64 = 1 << 18

    /// An extent that cannot be decoded. How long it was is not known: until the next extent or the end
    /// of the file, at most as long as one can be.
    func loseExtent(_ key: Key, _ tree: TreeID) throws(FSError) {
        try change(tree) { $0.delete(key) }
        let size = try files(tree).record(of: InodeNumber(key.object)).size
        guard key.offset & 4095 == 0, key.offset < size else { return }
        let end = min(
            size, key.offset + volume.checksumKind.maximumPlainExtentBlocks << 12)
        let next = try keys(of: key.object, .extent, tree).first { $0.offset > key.offset }
        try loseData(key.object, key.offset..<min(end, next?.offset ?? end), tree)
    }

    /// The files of which a part was in a node that is lost: the one whose items it began with, and the
    /// one whose items go on behind it.
    func loseData(below node: DroppedNode) throws(FSError) {
        guard node.tree != .volume, let lower = node.lower, lower.object > 0 else { return }
        let upper = node.upper
        if let record = try? files(node.tree).record(of: InodeNumber(lower.object)),
            record.kind == .regular, record.content == .extents, lower.type != .inode
        {
            let start = lower.type == .extent ? lower.offset & ~4095 : 0
            var end = record.size
            if let upper, upper.object == lower.object {
                end = upper.type == .extent ? min(end, upper.offset & ~4095) : start
            }
            if start < end { try loseData(lower.object, start..<end, node.tree) }
        }
        if let upper, upper.object != lower.object, upper.type == .extent, upper.offset > 0 {
            try loseData(upper.object, 0..<upper.offset & ~4095, node.tree)
        }
    }

    /// Puts unreadable extents where none are.
    private func loseData(
        _ inode: UInt64, _ range: Range<UInt64>, _ tree: TreeID
    ) throws(FSError) {
        var gaps: [Range<UInt64>] = []
        var position = range.lowerBound >> 12
        let last = (range.upperBound + 4095) >> 12
        let end = min(last, position + Self.lossLimit)
        let layout = volume.layout
        try scan(tree, Key(inode, .extent, 0)...Key(inode, .extent, .max)) { (key, value) in
            let start = key.offset >> 12
            let blocks =
                (try? ExtentRecord(decoding: value, inode: inode, layout: layout))?.blocks ?? 1
            if start > position, position < end { gaps.append(position..<min(start, end)) }
            position = max(position, start + UInt64(blocks))
        }
        if position < end { gaps.append(position..<end) }
        let pieces = gaps.flatMap { gap in
            stride(
                from: gap.lowerBound, to: gap.upperBound,
                by: Int(volume.checksumKind.maximumPlainExtentBlocks)
            ).map {
                $0..<min($0 + volume.checksumKind.maximumPlainExtentBlocks, gap.upperBound)
            }
        }
        guard let longest = pieces.map(\.count).max() else { return }
        // All of them are the same blocks.
        let run = try unreadableRun(UInt64(longest), references: pieces.count)
        for batch in stride(from: 0, to: pieces.count, by: FileSystem.reclaimBatch) {
            try change(tree) { (transaction) in
                for piece in pieces[batch..<min(batch + FileSystem.reclaimBatch, pieces.count)] {
                    var rest = piece
                    while !rest.isEmpty {
                        let count = min(UInt64(rest.count), run.run.count)
                        let extent = ExtentRecord(
                            blocks: UInt32(count), birth: transaction.epoch(in: volume),
                            replicas: ReplicaList(run.run.start), sumKind: volume.checksumKind,
                            sums: [UInt8]((0..<count).map { _ in run.sum }.joined()))
                        transaction.put(
                            Key(inode, .extent, rest.lowerBound << 12), extent.encoded())
                        rest = rest.lowerBound + count..<rest.upperBound
                    }
                }
            }
        }
    }

    /// Blocks with a sum that they do not have; how often they are referred to the next check finds out.
    private func unreadableRun(
        _ want: UInt64, references: Int
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
}
