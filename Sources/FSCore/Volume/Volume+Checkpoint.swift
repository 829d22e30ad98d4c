/// Checkpoints: everything published becomes durable by one superblock write.
///
///     freeze        under the exclusive tree lock: dirty pages become frozen, the window's
///                   lists are taken, the sequence grows; microseconds
///     write         nodes from the leaves up, bitmap leaves and maps to their idle slots
///     flush
///     superblock    both copies of the pair that is due
///     flush
///     settle        frozen pages become clean, released blocks become available
///
/// Operations go on meanwhile; a frozen page that they want to change is copied.
///
/// - Invariant: one checkpoint at a time.
/// - Invariant: nothing of a checkpoint overwrites a block that the one before refers to.
/// - Invariant: the first failed write or flush latches the volume; nothing is retried silently.
extension Volume {
    /// Who waits for what.
    struct CheckpointProgress {
        var isRunning = false
        /// Everything up to this operation is durable.
        var durableOperations: UInt64 = 0
        var stopTimer = false
        var isWanted = false
        var count: UInt64 = 0
        var lastMilliseconds = 0.0
        /// Of the last checkpoints, at most 64.
        var recentMilliseconds: [Double] = []
    }

    /// Dirty nodes (16 KiB each) that trigger a checkpoint, and at which operations wait for it.
    static let softDirtyLimit = 4096
    static let hardDirtyLimit = 8192
    /// Published or released runs that do the same, so that their lists stay bounded.
    static let softRunLimit = 1 << 18

    /// Makes everything that was committed before the call durable.
    public func checkpoint() throws(FSError) { try checkpoint(force: false) }

    /// - Parameters:
    ///   - force: write a superblock even if nothing changed.
    ///   - unmounting: mark the volume as cleanly unmounted.
    ///   - alter: changes the superblock that it writes.
    func checkpoint(
        force: Bool, unmounting: Bool = false, alter: (inout Superblock) -> Void = { _ in }
    ) throws(FSError) {
        let target = treeLock.shared { window.operations }
        stateLock.lock()
        defer { stateLock.unlock() }
        var isForced = force
        while true {
            if case .latched(let why) = state { throw .latched(why) }
            if state == .closed || options.readOnly { return }
            if progress.durableOperations >= target, !isForced { return }
            if progress.isRunning {
                stateLock.wait()
                continue
            }
            progress.isRunning = true
            progress.isWanted = false
            stateLock.unlock()
            let result = performCheckpoint(unmounting: unmounting, alter: alter)
            stateLock.lock()
            progress.isRunning = false
            isForced = false
            stateLock.signalAll()
            if case .failure(let error) = result { throw error }
        }
    }

    private func performCheckpoint(
        unmounting: Bool, alter: (inout Superblock) -> Void
    ) -> Result<Void, FSError> {
        let start = monotonicNanoseconds()
        do throws(FSError) {
            let cut = try freeze(unmounting: unmounting)
            options.duringCheckpoint?()
            let sums = try writeNodes(cut.pages)
            var next = stateLock.withLock {
                var next = superblock
                next.incompatible |= wantedFeatures
                return next
            }
            next.sequence = cut.window.sequence
            next.journalIncarnation = ringIncarnation
            next.operations = cut.window.operations
            next.birthEpoch = cut.window.birthEpoch
            if let sum = sums[cut.head.address] {
                next.headRoot = cut.head.pointer(checksumKind, checksum: sum)
            }
            if let sum = sums[cut.volume.address] {
                next.volumeRoot = cut.volume.pointer(checksumKind, checksum: sum)
            }
            var released = cut.window.released + cut.window.moved
            if options.brokenRules.contains(.freeInFrozenBitmap) {
                released += treeLock.shared { window.released }
            }
            next.bitmapRoot = try allocator.persist(
                published: cut.published, released: released)
            next.inodeCount = cut.window.inodeCount
            next.reservedBlocks = cut.window.promisedBlocks
            next.inodeCeiling = cut.inodeCeiling
            next.isCleanlyUnmounted = unmounting
            next.written = .now()
            next.devices[0].lastSequence = next.sequence.rawValue
            next.errorCounters = initialErrors.adding(errors.current)
            alter(&next)
            if let journal { try journal.writeHome(cut.journal) }
            if !options.brokenRules.contains(.superblockBeforeTree) { try device.flush() }
            try SuperblockStore.write(next, to: physical, modules: modules)
            try device.flush()
            journal?.retire(cut.journal, sequence: next.sequence)
            settle(cut, sums)
            let milliseconds = Double(monotonicNanoseconds() - start) / 1e6
            stateLock.withLock {
                superblock = next
                progress.durableOperations = cut.window.operations
                progress.count += 1
                progress.lastMilliseconds = milliseconds
                if progress.recentMilliseconds.count == 64 {
                    progress.recentMilliseconds.removeFirst()
                }
                progress.recentMilliseconds.append(milliseconds)
            }
            observer?.volume(
                .checkpoint(
                    sequence: next.sequence, nodes: cut.pages.count, milliseconds: milliseconds))
            return .success(())
        } catch {
            latch(error)
            return .failure(error)
        }
    }

    /// One consistent cut through the volume.
    private struct Cut {
        var window: Window
        var pages: [Page]
        var published: [BlockRun]
        var head: Page
        var volume: Page
        var inodeCeiling: UInt64
        var journal: JournalCut
    }

    private func freeze(unmounting: Bool) throws(FSError) -> Cut {
        try lockSettlingNodes()
        defer { treeLock.unlock() }
        let pages = window.dirty.filter { $0.state == .dirty }
        var published = window.published
        for page in pages {
            page.state = .frozen
            for index in 0..<page.replicas.count {
                published.append(BlockRun(page.replicas[index], DiskFormat.blocksPerNode))
            }
        }
        // After a crash numbering goes on at the ceiling, so no number is ever used twice.
        let ceiling =
            unmounting
            ? window.nextInode : min(window.nextInode + Self.inodeStride, InodeNumber.limit)
        let cut = Cut(
            window: window, pages: pages, published: published, head: head.root,
            volume: volumeTree.root, inodeCeiling: ceiling,
            journal: journal?.cut(window.operations)
                ?? JournalCut(operation: window.operations, offset: 0))
        window.sequence = SuperblockSequence(window.sequence.rawValue + 1)
        window.dirty = []
        window.published = []
        window.released = []
        window.releasedBlocks = 0
        window.moved = []
        window.droppedRemaps = []
        return cut
    }

    /// How far ahead of the last used inode number the durable ceiling stands.
    private static let inodeStride: UInt64 = 1 << 20

    /// Writes frozen nodes from the leaves up, each with the checksums of its children; returns the
    /// checksums by address.
    private func writeNodes(_ pages: [Page]) throws(FSError) -> [BlockAddress: ChecksumValue] {
        var sums: [BlockAddress: ChecksumValue] = [:]
        sums.reserveCapacity(pages.count)
        var writers = (0..<DiskFormat.nodeReplicas).map { _ in RunWriter(device: device) }
        let byLevel = Dictionary(grouping: pages, by: \.level)
        for level in byLevel.keys.sorted() {
            let pages = (byLevel[level] ?? []).sorted { $0.address < $1.address }
            for page in pages {
                if level > 0 { treeLock.exclusive { patchChildren(page, sums) } }
                // Readers may be in the page: what goes to disk is compacted in a copy.
                let staged = ByteBuffer(copying: page.node.view)
                sums[page.address] = NodePage(staged.bytes).seal(checksum)
                for index in 0..<page.replicas.count {
                    try writers[index].write(staged, at: page.replicas[index].block << 12)
                }
            }
        }
        for index in writers.indices { try writers[index].finish() }
        return sums
    }

    /// Stores known checksums into the pointers of an inner node.
    private func patchChildren(_ page: Page, _ sums: [BlockAddress: ChecksumValue]) {
        for index in 0..<page.node.count {
            let value = page.node.mutableValue(index)
            let address = BlockAddress(rawValue: value.view.u64(NodePointer.addressOffset))
            guard let sum = sums[address] else { continue }
            let width = checksumKind.byteCount
            sum.store(value, value.count - width, count: width)
        }
    }

    /// The checkpoint is durable.
    private func settle(_ cut: Cut, _ sums: [BlockAddress: ChecksumValue]) {
        treeLock.exclusive {
            for page in cut.pages { page.state = page.isSuperseded ? .dead : .clean }
            // Nodes that were copied while their children were being written lack the checksums.
            for page in window.dirty where page.state == .dirty && page.level > 0 {
                patchChildren(page, sums)
            }
            window.inodeCeiling = cut.inodeCeiling
        }
        // Commits wait meanwhile, readers do not.
        treeLock.shared { cache.trim() }
        let reusable = epochs.retire(
            ReadEpochs.Freed(runs: cut.window.released, remaps: cut.window.droppedRemaps))
        if !options.brokenRules.contains(.reuseBeforeCheckpoint) { reuse(reusable) }
        trimPool()
    }

    /// Gives back places that a large transaction has left in the pool; all of them when space is
    /// short. Under the tree lock: a commit that has counted the places holds it until it took them.
    private func trimPool() {
        let limit = allocator.freeBlocks > Self.plentyBlocks ? 2 * NodePool.target : 0
        let surplus = treeLock.exclusive {
            let surplus = pool.surplus(over: limit)
            for place in surplus { cache.cancelReservation(place.first) }
            return surplus
        }
        for place in surplus {
            for index in 0..<place.count {
                allocator.cancel(BlockRun(place[index], DiskFormat.blocksPerNode))
            }
        }
    }

    // MARK: When

    /// Holds an operation back while too much is dirty, and asks for a checkpoint in time.
    func waitForRoom() throws(FSError) {
        let (dirty, runs) = treeLock.shared {
            (window.dirty.count, window.published.count + window.released.count)
        }
        guard
            dirty >= Self.softDirtyLimit || runs >= Self.softRunLimit
                || journal?.wantsCheckpoint == true
        else { return }
        if dirty >= Self.hardDirtyLimit || runs >= 2 * Self.softRunLimit
            || options.checkpointIntervalMilliseconds == 0
        {
            try checkpoint()
        } else {
            stateLock.withLock {
                progress.isWanted = true
                stateLock.signalAll()
            }
        }
    }

    /// The timer thread: a checkpoint every interval, and sooner when one is wanted. Errors latch
    /// the volume and are heard by the next caller.
    func runTimer(_ interval: Int) {
        var last = monotonicNanoseconds()
        stateLock.lock()
        while !progress.stopTimer {
            let elapsed = Int((monotonicNanoseconds() - last) / 1_000_000)
            if progress.isWanted || elapsed >= interval {
                stateLock.unlock()
                try? checkpoint(force: false)
                last = monotonicNanoseconds()
                stateLock.lock()
                progress.isWanted = false
            } else {
                stateLock.wait(milliseconds: interval - elapsed)
            }
        }
        stateLock.unlock()
    }
}

/// Collects adjacent nodes and writes them with one call.
private struct RunWriter {
    let device: any BlockDevice
    private var parts: [ByteBuffer] = []
    private var start: UInt64 = 0

    private static let maximumParts = 64

    init(device: any BlockDevice) { self.device = device }

    mutating func write(_ bytes: ByteBuffer, at offset: UInt64) throws(FSError) {
        let end = start + UInt64(parts.count * DiskFormat.nodeSize)
        if parts.isEmpty || offset != end || parts.count == Self.maximumParts {
            try finish()
            start = offset
        }
        parts.append(bytes)
    }

    mutating func finish() throws(FSError) {
        guard !parts.isEmpty else { return }
        try device.write(parts: parts.map(\.view), at: start)
        parts = []
    }
}
