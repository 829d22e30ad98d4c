/// fallocate(2).
extension FileSystem {
    /// Promises space, punches holes or zeroes ranges. A promise keeps a count of blocks free, not
    /// blocks: later writes into the range cannot run out of space. Long ranges are changed
    /// piece by piece, each piece atomically.
    public func allocate(
        _ inode: InodeNumber, at offset: UInt64, count: UInt64, _ mode: AllocationMode,
        by user: OrdinaryUser? = nil
    ) throws(FSError) {
        guard count > 0 else { throw .invalidArgument }
        guard offset <= DiskFormat.maximumFileSize,
            count <= DiskFormat.maximumFileSize - offset
        else { throw .fileTooLarge }
        if let user { try dropPrivileges(of: inode, by: user) }
        switch mode {
        case [.punchHole, .keepSize]:
            try clear(inode, offset, count)
        case [.zeroRange], [.zeroRange, .keepSize]:
            try clear(inode, offset, count)
            try promise(inode, offset, count, keepSize: mode.contains(.keepSize))
        case [], [.keepSize]:
            try promise(inode, offset, count, keepSize: mode.contains(.keepSize))
        default:
            throw .notSupported
        }
    }

    /// Makes a range read as zeros, giving its whole blocks back.
    private func clear(_ inode: InodeNumber, _ offset: UInt64, _ count: UInt64) throws(FSError) {
        let end = offset + count
        var position = offset
        while position < end {
            position = try changeData(inode, space: .freeing) {
                (record, transaction) throws(FSError) in
                guard record.flags & (InodeFlags.immutable | InodeFlags.append) == 0 else {
                    throw .notPermitted
                }
                try moveOut(inode, &record, transaction)
                record.noteModified(.now())
                // Moving out has changed the map already: the hole comes in the next transaction.
                if transaction.published.isEmpty {
                    return try clearPiece(inode, position..<end, &record, transaction)
                }
                return position
            }
        }
    }

    /// Clears the front of a range, as far as one transaction goes; returns where it ended.
    private func clearPiece(
        _ inode: InodeNumber, _ range: Range<UInt64>, _ record: inout InodeRecord,
        _ transaction: Transaction
    ) throws(FSError) -> UInt64 {
        let firstBlock = range.lowerBound >> 12
        let lastBlock = (range.upperBound - 1) >> 12
        let (found, isLast) = try batch(inode, firstBlock..<lastBlock + 1)
        let endBlock = isLast ? lastBlock + 1 : min(found[found.count - 1].end, lastBlock + 1)
        let end = min(range.upperBound, endBlock << 12)

        // Blocks that the range covers in part are written again, or stay as they are.
        var fresh: [FileMap.Extent] = []
        var first = firstBlock
        var last = endBlock
        for block in Set([firstBlock, endBlock - 1]).sorted() {
            let start = Int(max(range.lowerBound, block << 12) - block << 12)
            let stop = Int(min(end, (block + 1) << 12) - block << 12)
            guard stop - start < DiskFormat.blockSize else { continue }
            if let bytes = try zeroedBlock(inode, block, from: start, count: stop - start) {
                fresh += try fileMap.store(block, bytes.view, record, .freeing, transaction)
            } else if block == firstBlock {
                first = block + 1
            } else {
                last = block
            }
        }
        if first < last {
            let overlapped = found.filter { $0.end > first && $0.block < last }
            try fileMap.replace(
                inode, first..<last, overlapped, with: fresh, &record, transaction, .freeing)
        }
        return end
    }

    private func promise(
        _ inode: InodeNumber, _ offset: UInt64, _ count: UInt64, keepSize: Bool
    ) throws(FSError) {
        let end = offset + count
        var block = offset >> 12
        let endBlock = blocks(covering: end)
        var isFirst = true
        while block < endBlock || isFirst {
            isFirst = false
            block = try changeData(inode) { (record, transaction) throws(FSError) in
                guard record.flags & InodeFlags.immutable == 0 else { throw .notPermitted }
                try moveOut(inode, &record, transaction)
                guard transaction.published.isEmpty else { return block }
                record.content = .extents
                let (found, isLast) = try batch(inode, block..<endBlock)
                let pieceEnd = isLast ? endBlock : min(found[found.count - 1].end, endBlock)
                var holes: [FileMap.Extent] = []
                var position = block
                var promised: UInt64 = 0
                let copies = volume.dataCopies(of: record)
                let available = unheldBlocks / UInt64(copies)
                func fill(to end: UInt64) {
                    // A range may be 2^51 blocks long: no list of what can never be had.
                    while position < end, promised <= available {
                        let length = min(end - position, 1 << 24)
                        holes.append(
                            FileMap.Extent(
                                block: position,
                                record: ExtentRecord(
                                    promised: UInt32(length), copies: copies,
                                    sumKind: volume.checksumKind)))
                        promised += length
                        position += length
                    }
                }
                for extent in found {
                    fill(to: max(extent.block, position))
                    position = max(position, extent.end)
                }
                fill(to: max(pieceEnd, position))
                guard promised <= available else { throw .noSpace }
                for hole in holes {
                    try fileMap.replace(
                        inode, hole.block..<hole.end, [], with: [hole], &record, transaction)
                }
                if !keepSize, pieceEnd == endBlock, end > record.size { record.size = end }
                record.noteModified(.now())
                return pieceEnd
            }
        }
    }
}
