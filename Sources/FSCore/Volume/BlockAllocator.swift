/// Hands out blocks. For each region that was looked at it holds two bitmaps: *committed*, what the
/// last checkpoint persisted and the running one folds its changes into, and *busy*, what the
/// allocator looks at.
///
///     allocate ──▶ busy          (nobody refers to the blocks; a crash forgets them)
///     publish  ──▶ the window's list ──checkpoint──▶ committed
///     release  ──▶ the window's list ──checkpoint──▶ not committed, still busy
///     that checkpoint durable and every read begun before it ended ──▶ not busy
///
/// Example of why busy outlives committed: block 7 belongs to file A in checkpoint 10. A is
/// truncated; block 7 is released. Were it handed out to file B at once, a crash before checkpoint
/// 11 would bring back A of checkpoint 10 with B's bytes in it. So it is handed out again only when
/// checkpoint 11, which no longer knows A's block, is durable.
///
/// Numbers of blocks that have moved (`RemapTable`) are busy, too, without being committed.
///
/// Nodes need four blocks in a row, so free space is not all the same: `BlockAllocator+Places`.
///
/// - Invariant: committed ⊆ busy, in every region.
/// - Invariant: between two checkpoints a block is allocated at most once.
/// - Invariant: a barred block is never handed out.
/// - Invariant: a free bit that is cleared was set, and a published one was clear: anything else
///   is damage and latches the volume.
@safe
final class BlockAllocator: @unchecked Sendable {
    let store: BitmapStore
    let remaps: RemapTable
    let brokenRules: BrokenRules

    let lock = Mutex()
    /// What is handed out: the volume, or while it is being shrunk what will be left of it.
    var layout: DiskLayout
    var regions: [UInt64: Region] = [:]
    /// Regions whose bitmap is damaged in all copies: closed to allocation.
    var closedRegions: Set<UInt64> = []
    /// Blocks that the medium does not keep: once they are free, they stay busy.
    var badBlocks: Set<UInt64> = []
    /// Of a volume that is about to be cut: what then is left.
    var truncation: DiskLayout?
    /// Within `layout`.
    var busyBlocks: UInt64
    private var dataCursor: UInt64
    private var gapCursor: UInt64
    var nodeCursors: [UInt64]
    /// Of the regions that were looked at, within `layout`.
    var seen = SeenSpace()

    final class Region {
        let committed: ByteBuffer
        let busy: ByteBuffer
        var free: Int
        var isDirty = false
        /// Never forgotten: its bitmap says what no other place does (`hold`).
        var isHeld = false
        /// No free run is longer.
        var longest = BlockBits.count
        /// Free places for nodes.
        var places = 0
        init(committed: ByteBuffer, busy: ByteBuffer, free: Int) {
            self.committed = committed
            self.busy = busy
            self.free = free
        }
    }

    init(
        store: BitmapStore, remaps: RemapTable = RemapTable(), brokenRules: BrokenRules = []
    ) {
        self.brokenRules = brokenRules
        self.store = store
        self.remaps = remaps
        layout = store.layout
        busyBlocks = store.root.used
        // Metadata grows from the front, its second copies from the middle, data from a quarter on.
        let total = store.layout.blockCount
        nodeCursors = [0, total / 2]
        dataCursor = total / 4
        gapCursor = total / 8
    }

    // MARK: Figures

    /// Blocks that could be handed out now.
    var freeBlocks: UInt64 {
        lock.withLock { layout.allocatableBlocks - min(busyBlocks, layout.allocatableBlocks) }
    }
    var busyCount: UInt64 { lock.withLock { busyBlocks } }
    var totalBlocks: UInt64 { lock.withLock { layout.allocatableBlocks } }

    /// Counts the numbers of moved blocks, which the bitmap does not know.
    func countSources() {
        lock.withLock {
            busyBlocks += remaps.sources(in: 0..<layout.usableEnd).reduce(0) {
                $0 + UInt64($1.count)
            }
        }
    }

    // MARK: Allocating

    /// Up to `want` adjacent blocks near `goal` (nil: behind the last such allocation), fewer when
    /// space is fragmented.
    func allocateData(
        _ want: UInt64, goal: BlockAddress?, leaving kept: KeptSpace
    ) throws(FSError) -> BlockRun {
        let isLarge = want >= Self.largeRun
        let start = goal?.block ?? lock.withLock { isLarge ? dataCursor : gapCursor }
        guard let run = try searchData(want, from: start, leaving: kept) else { throw .noSpace }
        if goal == nil {
            let end = run.start.block + run.count
            lock.withLock { if isLarge { dataCursor = end } else { gapCursor = end } }
        }
        return run
    }

    /// The same for data in several copies: runs of one length, far apart.
    func allocateData(
        _ want: UInt64, copies: Int, goal: ReplicaList?, leaving kept: KeptSpace
    ) throws(FSError) -> (places: ReplicaList, count: UInt64) {
        let first = try allocateData(want, goal: goal?.first, leaving: kept)
        let total = lock.withLock { layout.blockCount }
        var runs = [first]
        for index in 1..<max(copies, 1) {
            // The other end of the device, unless there is a run to be continued.
            let far = (first.start.block + total / 2) % total
            let wanted = goal.flatMap { index < $0.count ? $0[index] : nil }
            do throws(FSError) {
                runs.append(
                    try allocateData(
                        runs[index - 1].count, goal: wanted ?? BlockAddress(block: far),
                        leaving: kept))
            } catch {
                for run in runs { cancel(run) }
                throw error
            }
        }
        // Free space in pieces: all copies are as long as the shortest.
        let count = runs[runs.count - 1].count
        var places = ReplicaList()
        for run in runs {
            if run.count > count { cancel(BlockRun(run.start + count, run.count - count)) }
            places.append(run.start)
        }
        return (places, count)
    }

    /// Takes blocks that a journal says were allocated, before anything else is.
    func claim(_ run: BlockRun) throws(FSError) {
        try lock.withLock { () throws(FSError) in
            let number = run.start.block / DiskLayout.regionBlocks
            // Closed to allocation, so nothing else can take the blocks.
            guard let region = try loadedRegion(number) else { return }
            // Blocks that come home have been kept.
            if remaps.sources(in: run.blocks).reduce(0, { $0 + $1.count }) == Int(run.count) {
                return
            }
            guard
                BlockBits(region.busy.bytes).isClear(
                    Int(run.start.block % DiskLayout.regionBlocks), Int(run.count))
            else {
                throw .corrupt(
                    Corruption(
                        .journal, at: run.start.block << 12, "allocates blocks that are in use"))
            }
            take(run)
        }
    }

    /// Gives back blocks that were allocated but never published.
    func cancel(_ run: BlockRun) {
        lock.withLock {
            free(run)
            if brokenRules.contains(.bitAtAllocation) { setCommitted(run, false) }
        }
    }

    private func setCommitted(_ run: BlockRun, _ isSet: Bool) {
        guard let region = regions[run.start.block / DiskLayout.regionBlocks] else { return }
        let bits = BlockBits(region.committed.bytes)
        let start = Int(run.start.block % DiskLayout.regionBlocks)
        if isSet { bits.set(start, Int(run.count)) } else { bits.clear(start, Int(run.count)) }
        region.isDirty = true
    }

    private func searchData(
        _ want: UInt64, from start: UInt64, leaving kept: KeptSpace
    ) throws(FSError) -> BlockRun? {
        try lock.withLock { () throws(FSError) in
            let free = layout.allocatableBlocks - min(busyBlocks, layout.allocatableBlocks)
            guard free > kept.blocks else { return nil }
            var want = min(want, free - kept.blocks)
            if kept.inPlacesIfPossible > 0, !brokenRules.contains(.dataTakesLastPlaces) {
                let spare = try spareBlocks(leaving: kept)
                if spare.now == 0, let gap = try searchGap(want, from: start) { return gap }
                want = min(want, spare.now > 0 ? spare.now : spare.atMost)
                guard want > 0 else { return nil }
            }
            return try search(want, atLeast: 1, from: start)
        }
    }

    /// Looks for space from `start` on, around the device: for a run as long as wanted in the next
    /// regions, then for the first of a decent length, at last for the longest anywhere. With the
    /// lock held.
    func search(
        _ want: UInt64, atLeast: UInt64, from start: UInt64
    ) throws(FSError) -> BlockRun? {
        if want >= Self.largeRun {
            if let here = takeHere(want, at: start) { return here }
            // As much as this in one request is seldom the end of a file: what follows shall have room.
            var room = want >= Self.growingRun ? want * Self.roomToGrow : want
            while room >= want {
                let whole = try search(
                    want, atLeast: room, decent: room, from: start, regions: Self.regionsForWhole)
                if let whole { return whole }
                room /= 2
            }
        }
        return try search(
            want, atLeast: atLeast, decent: max(atLeast, want / 4), from: start,
            regions: layout.regionCount)
    }

    /// Takes a run that begins at `start`, if all of it is free. With the lock held.
    private func takeHere(_ want: UInt64, at start: UInt64) -> BlockRun? {
        let number = start / DiskLayout.regionBlocks
        let first = Int(start % DiskLayout.regionBlocks)
        guard let region = regions[number],
            first + Int(want) <= layout.usableBlocks(inRegion: number),
            BlockBits(region.busy.bytes).isClear(first, Int(want))
        else { return nil }
        let run = BlockRun(BlockAddress(block: start), want)
        take(run)
        return run
    }

    /// Shorter allocations fill gaps, with a cursor of their own: 64 KiB.
    private static let largeRun: UInt64 = 16
    /// The largest request of the kernel, 1 MiB, and for how many of them there shall be room.
    private static let growingRun: UInt64 = 256
    private static let roomToGrow: UInt64 = 8
    /// Where a whole run is looked for before part of one is taken: 8 GiB.
    private static let regionsForWhole: UInt64 = 64

    /// With the lock held, which is given up while regions are loaded.
    private func search(
        _ want: UInt64, atLeast: UInt64, decent: UInt64, from start: UInt64, regions limit: UInt64
    ) throws(FSError) -> BlockRun? {
        let count = layout.regionCount
        let startRegion = min(start / DiskLayout.regionBlocks, count - 1)
        let sought = Int(max(want, atLeast))
        var best: BlockRun?
        // One step more than regions: the start region's front comes last.
        for step in 0...min(limit, count) {
            let region = (startRegion + step) % count
            guard let state = try loadedRegion(region) else { continue }
            guard state.free >= Int(atLeast), state.longest >= Int(atLeast) else { continue }
            let from = step == 0 ? Int(start % DiskLayout.regionBlocks) : 0
            let end = layout.usableBlocks(inRegion: region)
            let found = Self.run(
                in: BlockBits(state.busy.bytes), sought, from: from, limit: end)
            if from == 0, end == BlockBits.count, found.count < sought {
                state.longest = found.count
            }
            guard found.count >= Int(atLeast) else { continue }
            let run = BlockRun(
                BlockAddress(block: region * DiskLayout.regionBlocks + UInt64(found.start)),
                min(UInt64(found.count), want))
            if found.count >= Int(decent) {
                take(run)
                return run
            }
            if run.count > best?.count ?? 0 { best = run }
        }
        // The lock was given up while regions were loaded: the best may be gone.
        guard let best, let state = regions[best.start.block / DiskLayout.regionBlocks],
            BlockBits(state.busy.bytes).isClear(
                Int(best.start.block % DiskLayout.regionBlocks), Int(best.count))
        else { return nil }
        take(best)
        return best
    }

    /// The first clear run of `want` bits from `from` on, or the longest one.
    private static func run(
        in busy: BlockBits, _ want: Int, from: Int, limit: Int
    ) -> (start: Int, count: Int) {
        var best = (start: 0, count: 0)
        var position = busy.firstClear(from: from)
        while position < limit {
            let limit = min(position + want, limit)
            let end = busy.firstSet(from: position, limit: limit)
            if end - position > best.count { best = (position, end - position) }
            if end == limit { break }
            position = busy.firstClear(from: end)
        }
        return best
    }

    /// Numbers of blocks that have moved, as offsets into a region.
    func takenNumbers(inRegion number: UInt64) -> [(start: Int, count: Int)] {
        brokenRules.contains(.movedNumbersReused) ? [] : remaps.sources(inRegion: number)
    }

    func take(_ run: BlockRun) {
        let number = run.start.block / DiskLayout.regionBlocks
        guard let region = regions[number] else { return }
        noteTaken(run, region)
        BlockBits(region.busy.bytes).set(
            Int(run.start.block % DiskLayout.regionBlocks), Int(run.count))
        region.free -= Int(run.count)
        busyBlocks += usablePart(run)
        if brokenRules.contains(.bitAtAllocation) { setCommitted(run, true) }
    }

    private func free(_ run: BlockRun) {
        busyBlocks -= min(busyBlocks, usablePart(run))
        guard let region = regions[run.start.block / DiskLayout.regionBlocks] else { return }
        BlockBits(region.busy.bytes).clear(
            Int(run.start.block % DiskLayout.regionBlocks), Int(run.count))
        region.free += Int(run.count)
        region.longest = BlockBits.count
        noteFreed(run, region)
        if !badBlocks.isEmpty { keepBadBlocks(run, region) }
    }

    /// How many blocks of a run count.
    func usablePart(_ run: BlockRun) -> UInt64 {
        let end = min(run.start.block + run.count, layout.usableEnd)
        return end > run.start.block ? end - run.start.block : 0
    }

    /// The region's state; nil if its bitmap is damaged. Called and returning with the lock held,
    /// which is given up while the bitmap is read.
    func loadedRegion(_ number: UInt64) throws(FSError) -> Region? {
        if let region = regions[number] { return region }
        if closedRegions.contains(number) { return nil }
        lock.unlock()
        let result: Result<ByteBuffer, FSError>
        do throws(FSError) {
            result = .success(try store.leaf(ofRegion: number))
        } catch { result = .failure(error) }
        lock.lock()
        if let region = regions[number] { return region }
        switch result {
        case .failure(.corrupt):
            closedRegions.insert(number)
            return nil
        case .failure(let error):
            throw error
        case .success(let committed):
            let busy = ByteBuffer(copying: committed.view)
            let bits = BlockBits(busy.bytes)
            for run in store.layout.fixedRuns(inRegion: number) { bits.set(run.start, run.count) }
            for run in takenNumbers(inRegion: number) { bits.set(run.start, run.count) }
            let region = Region(
                committed: committed, busy: busy, free: BlockBits.count - bits.population)
            regions[number] = region
            look(at: region, number)
            if !badBlocks.isEmpty {
                let first = number * DiskLayout.regionBlocks
                keepBadBlocks(BlockRun(first..<first + DiskLayout.regionBlocks), region)
            }
            return region
        }
    }

    // MARK: Checkpoint

    /// Folds a window's changes into the committed bitmaps and writes the changed regions. Returns
    /// the radix's new root. Runs beside allocations; only one checkpoint at a time calls it.
    func persist(published: [BlockRun], released: [BlockRun]) throws(FSError) -> BitmapEntry {
        for (runs, isPublished) in [(published, true), (released, false)] {
            for run in runs {
                try lock.withLock { () throws(FSError) in
                    let number = run.start.block / DiskLayout.regionBlocks
                    guard let region = try loadedRegion(number) else {
                        throw .corrupt(
                            Corruption(.bitmap, at: number, "the bitmap of this region is damaged"))
                    }
                    let bits = BlockBits(region.committed.bytes)
                    let start = Int(run.start.block % DiskLayout.regionBlocks)
                    if isPublished {
                        guard bits.isClear(start, Int(run.count)) || !brokenRules.isEmpty else {
                            throw .corrupt(
                                Corruption(.bitmap, at: run.start.block << 12, "allocated twice"))
                        }
                        bits.set(start, Int(run.count))
                    } else {
                        guard bits.isAllSet(start, Int(run.count)) || !brokenRules.isEmpty else {
                            throw .corrupt(
                                Corruption(.bitmap, at: run.start.block << 12, "freed twice"))
                        }
                        bits.clear(start, Int(run.count))
                    }
                    region.isDirty = true
                }
            }
        }
        let dirty = lock.withLock { regions.filter { $0.value.isDirty } }
        if let truncation = lock.withLock({ truncation }) {
            try store.truncate(
                toRegions: truncation.regionCount, of: store.layout.regionCount)
        }
        for (number, region) in dirty.sorted(by: { $0.key < $1.key }) {
            try store.store(region: number, region.committed)
            region.isDirty = false
        }
        try store.writeMaps()
        return store.root
    }

    /// Makes released blocks available again: their checkpoint is durable and no read is left that
    /// began before.
    func reuse(_ freed: ReadEpochs.Freed) {
        lock.withLock {
            for run in freed.runs { free(run) }
            remaps.forget(freed.remaps)
            for remap in freed.remaps { free(BlockRun(remap.source..<remap.end)) }
        }
    }

    /// Looks at every copy of every bitmap block.
    func examine(heals: Bool, _ tally: inout ExaminationTally, isCancelled: () -> Bool) {
        store.examine(heals: heals, &tally, isCancelled: isCancelled)
    }

    /// The committed bitmap of every region with allocated blocks, for a check beside running
    /// operations. No checkpoint may run meanwhile.
    func committedLeaves() -> [UInt64: Result<ByteBuffer, FSError>] {
        var leaves: [UInt64: Result<ByteBuffer, FSError>] = [:]
        for number in 0..<store.layout.regionCount {
            let loaded = lock.withLock {
                regions[number].map { ByteBuffer(copying: $0.committed.view) }
            }
            if let loaded {
                leaves[number] = .success(loaded)
                continue
            }
            do throws(FSError) {
                guard try store.entry(ofRegion: number).isWritten else { continue }
                leaves[number] = .success(try store.leaf(ofRegion: number))
            } catch { leaves[number] = .failure(error) }
        }
        return leaves
    }
}
