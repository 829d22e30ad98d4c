/// Writing files anew: in fewer extents, or compressed otherwise.
///
/// - Invariant: neither contents nor times of a file change.
/// - Invariant: blocks that others refer to, or that a snapshot has, are left alone: a copy would take
///   space that sharing saves.

/// What was done to a file.
public struct DefragmentResult: Sendable {
    public var rewrittenBytes: UInt64 = 0
    /// Left alone, since others refer to it or a snapshot has it.
    public var sharedBytes: UInt64 = 0
    public var extentsBefore: UInt64 = 0
    public var extentsAfter: UInt64 = 0
}

extension FileSystem {
    /// Rewrites a file piece by piece, each an operation of its own.
    ///
    /// - Parameters:
    ///   - compression: what to store the data with; nil = what the file is to have.
    ///   - progress: hears of the bytes of the file that were gone through; false ends it.
    public func defragment(
        _ inode: InodeNumber, compression: CompressionSetting? = nil,
        progress: (UInt64) -> Bool = { _ in true }
    ) throws(FSError) -> DefragmentResult {
        var result = DefragmentResult()
        result.extentsBefore = try countExtents(inode)
        var block: UInt64? = 0
        while let next = block, progress(next << 12) {
            block = try defragmentStep(inode, next, compression, &result)
        }
        result.extentsAfter = try countExtents(inode)
        return result
    }

    private func countExtents(_ inode: InodeNumber) throws(FSError) -> UInt64 {
        var (count, block): (UInt64, UInt64) = (0, 0)
        while true {
            let found = try extents(of: inode, from: block << 12, limit: 512)
            count += UInt64(found.count)
            guard found.count == 512, let last = found.last else { return count }
            block = (last.offset + last.length) >> 12
        }
    }

    /// Goes through the next run of data, at most as long as the largest extent; returns where to go
    /// on, nil at the end.
    private func defragmentStep(
        _ inode: InodeNumber, _ start: UInt64, _ compression: CompressionSetting?,
        _ result: inout DefragmentResult
    ) throws(FSError) -> UInt64? {
        var step = DefragmentResult()
        let next = try change(inode) { (transaction) throws(FSError) -> UInt64? in
            step = DefragmentResult()
            var record = try record(of: inode)
            guard record.kind == .regular else { throw .invalidArgument }
            guard record.flags & InodeFlags.immutable == 0 else { throw .notPermitted }
            var wanted = record
            if let compression { wanted.compression = compression }
            let encoder = fileMap.encoder(for: wanted)
            let size =
                encoder == nil
                ? volume.checksumKind.maximumPlainExtentBlocks : DiskFormat.maximumEncodedBlocks
            guard let first = try fileMap.extents(inode, start..<1 << 52, limit: 1).first else {
                return nil
            }
            let begin = max(start, first.block)
            let end = begin - begin % size + size
            // The data that follows without a gap.
            var run: [FileMap.Extent] = []
            for extent in try fileMap.extents(inode, begin..<end) {
                guard extent.record.kind == .data, run.last.map({ $0.end == extent.block }) ?? true
                else { break }
                run.append(extent)
            }
            guard let last = run.last else { return min(first.end, end) }
            let range = begin..<min(last.end, end)
            let bytes = UInt64(range.count) << 12
            if try isShared(run) {
                step.sharedBytes = bytes
                return range.upperBound
            }
            let buffer = ByteBuffer(count: Int(bytes))
            if run.count == 1, isStored(run[0], range, as: encoder) { return range.upperBound }
            try fileMap.readBlocks(inode, range.lowerBound, into: buffer.bytes)
            if run.count == 1, run[0].record.encoding == nil, let encoder,
                range.count < 2 || !encoder.encodes(buffer.view)
            {
                return range.upperBound
            }
            try fileMap.writeBlocks(inode, range.lowerBound, buffer.view, &wanted, transaction)
            record.blocks = wanted.blocks
            transaction.put(inode, record)
            step.rewrittenBytes = bytes
            return range.upperBound
        }
        result.rewrittenBytes += step.rewrittenBytes
        result.sharedBytes += step.sharedBytes
        return next
    }

    private func isShared(_ extents: [FileMap.Extent]) throws(FSError) -> Bool {
        let epoch = try snapshotEpoch()
        for extent in extents {
            if extent.record.birth <= epoch { return true }
            for index in 0..<extent.record.replicas.count
            where try !volume.shares(of: extent.record.storedRun(index)).isEmpty { return true }
        }
        return false
    }

    /// Whether an extent is already what writing it anew would make of it.
    private func isStored(
        _ extent: FileMap.Extent, _ range: Range<UInt64>, as encoder: FileMap.Encoder?
    ) -> Bool {
        guard let encoding = extent.record.encoding else { return encoder == nil }
        return encoding.codec == encoder?.codec.kind
            && UInt32(encoding.wholeBlocks) == extent.record.blocks
            && range.lowerBound == extent.block
    }
}

extension FileMap.Encoder {
    /// Whether data shrinks by at least a block.
    fileprivate func encodes(_ bytes: ByteView) -> Bool {
        let room = ByteBuffer(count: bytes.count - DiskFormat.blockSize)
        return codec.encode(bytes, into: room.bytes, level: level) != nil
    }
}
