/// What a repair does to the allocator, before anything is allocated.
extension BlockAllocator {
    /// Takes bitmaps for the true ones, whatever the device says of these regions; the next checkpoint
    /// writes them.
    func adopt(_ leaves: [UInt64: ByteBuffer]) {
        guard !leaves.isEmpty else { return }
        store.beginRebuild()
        for (number, committed) in leaves {
            let old = (try? store.entry(ofRegion: number))?.used ?? 0
            let busy = ByteBuffer(copying: committed.view)
            let bits = BlockBits(busy.bytes)
            let used = UInt64(bits.population)
            for run in store.layout.fixedRuns(inRegion: number) { bits.set(run.start, run.count) }
            let region = Region(
                committed: ByteBuffer(copying: committed.view), busy: busy,
                free: BlockBits.count - bits.population)
            region.isDirty = true
            lock.withLock {
                closedRegions.remove(number)
                regions[number] = region
                busyBlocks += used
                busyBlocks -= min(busyBlocks, old)
            }
        }
        lock.withLock { lookAgain() }
    }

    /// The numbers of moved blocks have become known after regions were looked at.
    func keepSources() {
        lock.withLock {
            for (number, region) in regions {
                let bits = BlockBits(region.busy.bytes)
                for run in takenNumbers(inRegion: number) { bits.set(run.start, run.count) }
                region.free = BlockBits.count - bits.population
            }
            lookAgain()
        }
    }
}
