/// Tells the device which blocks hold nothing: a flash disk may use them, and in an image file they
/// become holes.
///
///     mounted with discard   what was released, right before it can be handed out again
///     trim                   everything free, piece by piece, each kept from the allocator meanwhile
///
/// - Invariant: a block is discarded only when the checkpoint without it is durable, every read that
///   began before has ended, and nobody can be given it until the discard is done.
/// - Invariant: a discard that fails changes nothing: it is advice.
extension Volume {
    /// Makes released blocks available again.
    func reuse(_ freed: ReadEpochs.Freed) {
        guard !freed.isEmpty else { return }
        if options.discards { discard(freed.runs) }
        allocator.reuse(freed)
    }

    private func discard(_ runs: [BlockRun]) {
        var pending: Range<UInt64>?
        for run in runs.sorted(by: { $0.start < $1.start }) {
            if let last = pending, last.upperBound == run.blocks.lowerBound {
                pending = last.lowerBound..<run.blocks.upperBound
            } else {
                if let pending { _ = discard(pending) }
                pending = run.blocks
            }
        }
        if let pending { _ = discard(pending) }
    }

    private func discard(_ blocks: Range<UInt64>) -> Bool {
        (try? physical.discard(
            at: blocks.lowerBound << 12, count: UInt64(blocks.count) << 12)) != nil
    }

    /// Discards everything that is free, beside running operations.
    ///
    /// - Parameter minimum: runs of fewer bytes are passed over.
    /// - Returns: how many bytes were discarded. Throws `.notSupported` if the device takes none.
    public func trim(
        minimum: UInt64 = 0, isCancelled: () -> Bool = { false },
        progress: (ResizeProgress) -> Void = { _ in }
    ) throws(FSError) -> UInt64 {
        try requireWritable()
        // What waits for a checkpoint is free, too.
        try checkpoint(force: true)
        let regions = layout.regionCount
        var trimmed: UInt64 = 0
        var hasFailed = false
        for region in 0..<regions {
            try allocator.withFreeRuns(
                ofRegion: region, atLeast: max(blocks(covering: minimum), 1)
            ) { run in
                if isCancelled() { return false }
                if discard(run.blocks) { trimmed += run.count << 12 } else { hasFailed = true }
                return !(hasFailed && trimmed == 0)
            }
            if isCancelled() { throw .interrupted }
            if hasFailed, trimmed == 0 { throw .notSupported }
            progress(
                ResizeProgress(
                    doneBytes: (region + 1) * DiskLayout.regionBlocks << 12,
                    totalBytes: regions * DiskLayout.regionBlocks << 12))
        }
        return trimmed
    }
}

extension BlockAllocator {
    /// Blocks taken at once: while they are, writers have that much less.
    private static let trimBlocks = 4096

    /// Lends the free runs of a region, each busy meanwhile, until `body` returns false.
    func withFreeRuns(
        ofRegion number: UInt64, atLeast: UInt64, _ body: (BlockRun) -> Bool
    ) throws(FSError) {
        let wasLoaded = try lock.withLock { () throws(FSError) in
            let wasLoaded = regions[number] != nil
            _ = try loadedRegion(number)
            return wasLoaded
        }
        var position = 0
        while let run = takeFreeRun(number, from: position) {
            position = Int(run.start.block % DiskLayout.regionBlocks) + Int(run.count)
            let goesOn = run.count < atLeast || body(run)
            cancel(run)
            guard goesOn else { break }
        }
        if !wasLoaded { lock.withLock { unloadIfUntouched(number) } }
    }

    /// Forgets a region of which nothing but its bitmap is known. With the lock held.
    func unloadIfUntouched(_ number: UInt64) {
        guard let region = regions[number], !region.isDirty, !region.isHeld else { return }
        // Subsets of the busy blocks that do not overlap: if there are no others, nobody has taken
        // or released anything.
        let known =
            BlockBits(region.committed.bytes).population
            + store.layout.fixedRuns(inRegion: number).reduce(0) { $0 + $1.count }
            + takenNumbers(inRegion: number).reduce(0) { $0 + $1.count }
        guard BlockBits(region.busy.bytes).population == known else { return }
        lookAway(from: region, number)
        regions[number] = nil
    }

    private func takeFreeRun(_ number: UInt64, from position: Int) -> BlockRun? {
        lock.withLock {
            guard let region = regions[number] else { return nil }
            let bits = BlockBits(region.busy.bytes)
            let limit = layout.usableBlocks(inRegion: number)
            let start = bits.firstClear(from: position)
            guard start < limit else { return nil }
            let end = bits.firstSet(from: start, limit: min(limit, start + Self.trimBlocks))
            let run = BlockRun(
                BlockAddress(block: number * DiskLayout.regionBlocks + UInt64(start)),
                UInt64(end - start))
            take(run)
            return run
        }
    }
}
