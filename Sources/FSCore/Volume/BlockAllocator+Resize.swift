/// The allocator of a volume whose size changes. Growing takes new blocks in; shrinking first *bars*
/// the tail, from which nothing is allocated any more, then cuts it off when nothing is in it.
///
/// - Invariant: free space is that of the part that is handed out: what stands in the tail of a
///   volume that is being shrunk is not counted, used or free.
/// - Invariant: one thread at a time calls the functions of this file.
extension BlockAllocator {
    /// From now on hands out what `new` has. The volume's own size is another matter (`resized`).
    func setUsable(_ new: DiskLayout) throws(FSError) {
        let old = lock.withLock { layout }
        // What lies in the regions that only one of the two has whole.
        let first = min(old.regionCount, new.regionCount) - 1
        for region in [old.regionCount - 1, new.regionCount - 1]
        where region < store.layout.regionCount {
            try lock.withLock { () throws(FSError) in _ = try loadedRegion(region) }
        }
        let entries = try usedBlocks(inRegions: first..<max(old.regionCount, new.regionCount))
        lock.withLock {
            let before = busyBlocks(from: first, old, entries)
            let after = busyBlocks(from: first, new, entries)
            busyBlocks = busyBlocks - min(before, busyBlocks) + after
            layout = new
            lookAgain()
        }
    }

    /// What the radix says of regions that were never looked at.
    private func usedBlocks(
        inRegions range: Range<UInt64>
    ) throws(FSError) -> [UInt64: UInt64] {
        var used: [UInt64: UInt64] = [:]
        for region in range where region < store.layout.regionCount {
            if lock.withLock({ regions[region] != nil }) { continue }
            let count = try store.entry(ofRegion: region).used
            if count > 0 { used[region] = count }
        }
        return used
    }

    /// Busy blocks of `layout` from region `first` on. With the lock held.
    private func busyBlocks(
        from first: UInt64, _ layout: DiskLayout, _ entries: [UInt64: UInt64]
    ) -> UInt64 {
        var sum: UInt64 = 0
        for region in first..<layout.regionCount {
            if let state = regions[region] {
                let limit = layout.usableBlocks(inRegion: region)
                let fixed = layout.fixedRuns(inRegion: region).reduce(0) { count, run in
                    count + max(0, min(run.start + run.count, limit) - run.start)
                }
                sum += UInt64(BlockBits(state.busy.bytes).population(below: limit) - fixed)
            } else {
                sum += entries[region] ?? 0
                sum += remaps.sources(inRegion: region).reduce(0) { $0 + UInt64($1.count) }
            }
        }
        return sum
    }

    /// The volume has another size, which its layout says already: the blocks that were fixed at its
    /// old end are not any more, those at the new one are.
    func resized(from old: DiskLayout) {
        let new = store.layout
        lock.withLock {
            truncation = nil
            let shorter = min(old.regionCount, new.regionCount)
            for (number, region) in regions where number >= shorter - 1 {
                guard number < new.regionCount else {
                    regions[number] = nil
                    continue
                }
                let bits = BlockBits(region.busy.bytes)
                let end = min(
                    old.usableBlocks(inRegion: number), new.usableBlocks(inRegion: number))
                bits.clear(end, BlockBits.count - end)
                for run in takenNumbers(inRegion: number) { bits.set(run.start, run.count) }
                for bit in freeBadBlocks(inRegion: number, region) { bits.set(bit, 1) }
                for run in new.fixedRuns(inRegion: number) { bits.set(run.start, run.count) }
                region.free = BlockBits.count - bits.population
                region.longest = BlockBits.count
            }
            lookAgain()
        }
    }

    /// Keeps the bitmap of a run in memory, with the numbers that are taken by entries of `RemapTable`: what
    /// is loaded later does not know those whose entries have gone. False if the bitmap is damaged.
    func hold(_ run: Range<UInt64>) throws(FSError) -> Bool {
        let first = run.lowerBound / DiskLayout.regionBlocks
        let last = (run.upperBound - 1) / DiskLayout.regionBlocks
        return try lock.withLock { () throws(FSError) in
            for number in first...last {
                guard let region = try loadedRegion(number) else { return false }
                region.isHeld = true
            }
            return true
        }
    }

    /// Whether a place lies, with a part of it, where nothing is handed out.
    func isBarred(_ place: ReplicaList) -> Bool {
        let end = lock.withLock { layout.usableEnd }
        return (0..<place.count).contains { place[$0].block + DiskFormat.blocksPerNode > end }
    }

    // MARK: The tail

    /// The next checkpoint forgets the bitmap behind the end of `new`, where nothing is left.
    func truncateAtCheckpoint(to new: DiskLayout) { lock.withLock { truncation = new } }
    func cancelTruncation() { lock.withLock { truncation = nil } }

    /// The runs of a region from block `first` of the volume on that the last checkpoint has
    /// allocated.
    func committedRuns(
        inRegion number: UInt64, from first: UInt64
    ) throws(FSError) -> [Range<UInt64>] {
        let base = number * DiskLayout.regionBlocks
        let start = first > base ? Int(first - base) : 0
        return try lock.withLock { () throws(FSError) in
            guard try isWorthLoading(number) else { return [] }
            guard let region = try loadedRegion(number) else {
                throw .corrupt(
                    Corruption(.bitmap, at: number, "the bitmap of this region is damaged"))
            }
            return BlockBits(region.committed.bytes).setRuns(from: start).map {
                base + UInt64($0.lowerBound)..<base + UInt64($0.upperBound)
            }
        }
    }

    /// Places of a region, up to block `end` of the volume, that were free at the last checkpoint.
    func committedPlaces(
        inRegion number: UInt64, below end: UInt64 = .max
    ) throws(FSError) -> UInt64 {
        let base = number * DiskLayout.regionBlocks
        let limit = min(store.layout.usableBlocks(inRegion: number), Int(clamping: end - base))
        return try lock.withLock { () throws(FSError) in
            let bits = ByteBuffer(count: DiskFormat.blockSize)
            if try isWorthLoading(number) {
                guard let region = try loadedRegion(number) else { return 0 }
                bits.bytes.copy(region.committed.view)
            }
            let busy = BlockBits(bits.bytes)
            for run in store.layout.fixedRuns(inRegion: number) { busy.set(run.start, run.count) }
            for run in takenNumbers(inRegion: number) { busy.set(run.start, run.count) }
            return withExtendedLifetime(bits) { UInt64(busy.placeCount(0..<limit / 4 * 4)) }
        }
    }

    /// With the lock held.
    private func isWorthLoading(_ number: UInt64) throws(FSError) -> Bool {
        if regions[number] != nil { return true }
        lock.unlock()
        defer { lock.lock() }
        return try store.entry(ofRegion: number).isWritten
    }

    /// Blocks in the barred tail that are neither free nor moved away.
    func blocksLeft(inTailOf all: DiskLayout) throws(FSError) -> UInt64 {
        let kept = lock.withLock { layout }
        var left: UInt64 = 0
        for number in kept.regionCount - 1..<all.regionCount {
            left += try lock.withLock { () throws(FSError) in
                guard try isWorthLoading(number) else { return 0 }
                guard let region = try loadedRegion(number) else {
                    throw .corrupt(
                        Corruption(.bitmap, at: number, "the bitmap of this region is damaged"))
                }
                let copy = ByteBuffer(copying: region.busy.view)
                let bits = BlockBits(copy.bytes)
                bits.clear(0, kept.usableBlocks(inRegion: number))
                for run in remaps.sources(inRegion: number) { bits.clear(run.start, run.count) }
                for run in all.fixedRuns(inRegion: number) { bits.clear(run.start, run.count) }
                for bit in freeBadBlocks(inRegion: number, region) { bits.clear(bit, 1) }
                return withExtendedLifetime(copy) { UInt64(bits.population) }
            }
        }
        return left
    }
}
