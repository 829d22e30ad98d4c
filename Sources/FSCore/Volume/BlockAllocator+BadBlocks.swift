/// Blocks that the medium does not keep: they stay as they are while something lies in them, and are
/// not handed out afterwards.
///
/// - Invariant: a free bad block is busy in the bitmap of its region, and counts as used.
extension BlockAllocator {
    /// Never hands out these blocks again.
    func exclude(_ run: BlockRun) {
        lock.lock()
        defer { lock.unlock() }
        let number = run.start.block / DiskLayout.regionBlocks
        guard let region = try? loadedRegion(number) else { return }
        badBlocks.formUnion(run.blocks)
        keepBadBlocks(run, region)
    }

    /// Takes those of a run that are free. With the lock held.
    func keepBadBlocks(_ run: BlockRun, _ region: Region) {
        let bits = BlockBits(region.busy.bytes)
        for block in badBlocks where run.blocks.contains(block) {
            let bit = Int(block % DiskLayout.regionBlocks)
            guard !bits.isSet(bit) else { continue }
            take(BlockRun(BlockAddress(block: block), 1))
        }
    }

    /// Those of a region in which nothing lies, as offsets into it. With the lock held.
    func freeBadBlocks(inRegion number: UInt64, _ region: Region) -> [Int] {
        let committed = BlockBits(region.committed.bytes)
        return badBlocks.filter { $0 / DiskLayout.regionBlocks == number }
            .map { Int($0 % DiskLayout.regionBlocks) }.filter { !committed.isSet($0) }
    }

    func hasBadBlocks(in range: Range<UInt64>) -> Bool {
        lock.withLock { badBlocks.contains { range.contains($0) } }
    }

    /// All that are known, in order.
    var badRuns: [BlockRun] {
        var runs: [Range<UInt64>] = []
        for block in lock.withLock({ badBlocks.sorted() }) {
            if let last = runs.last, last.upperBound == block {
                runs[runs.count - 1] = last.lowerBound..<block + 1
            } else {
                runs.append(block..<block + 1)
            }
        }
        return runs.map { BlockRun($0) }
    }

    /// Whether the last checkpoint has all blocks of a run, which lies in one region, in use.
    func isCommitted(_ run: BlockRun) throws(FSError) -> Bool {
        try lock.withLock { () throws(FSError) in
            guard let region = try loadedRegion(run.start.block / DiskLayout.regionBlocks) else {
                return false
            }
            return BlockBits(region.committed.bytes).isAllSet(
                Int(run.start.block % DiskLayout.regionBlocks), Int(run.count))
        }
    }
}
