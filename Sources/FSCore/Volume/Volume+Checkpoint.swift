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
    /// Released blocks that do so if there is not several times as much free: 16 MiB.
    static let softReleasedLimit: UInt64 = 4096

    /// Makes everything that was committed before the call durable.
    public func checkpoint() throws(FSError) {
        storeHealth()
        try checkpoint(force: false)
    }

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
            let result = performCheckpoint(
                unmounting: unmounting, recording: nil, alter: alter)
            stateLock.lock()
            progress.isRunning = false
            isForced = false
            stateLock.signalAll()
            if case .failure(let error) = result { throw error }
        }
    }

    /// Commits a transaction that makes a snapshot, and freezes right behind it: what the snapshot
    /// shows and what comes after it never share a page. False as of `commit`.
    func checkpoint(recording: Recording) throws(FSError) -> Bool {
        while true {
            try stateLock.withLock { () throws(FSError) in
                while progress.isRunning { stateLock.wait() }
                if case .latched(let why) = state { throw .latched(why) }
                if recording.mode == .operation, state != .online { throw .readOnly }
                progress.isRunning = true
            }
            let result = performCheckpoint(
                unmounting: false, recording: recording, alter: { _ in })
            stateLock.withLock {
                progress.isRunning = false
                stateLock.signalAll()
            }
            switch try result.get() {
            case .applied: return true
            case .outdated: return false
            case .needsCheckpoint: try checkpoint(force: true)
            }
        }
    }

    private func performCheckpoint(
        unmounting: Bool, recording: Recording?, alter: (inout Superblock) -> Void
    ) -> Result<CommitOutcome, FSError> {
        let start = monotonicNanoseconds()
        let cut: Cut
        do throws(FSError) {
            switch try freeze(unmounting: unmounting, recording) {
            case .success(let made): cut = made
            case .failure(let refusal): return .success(refusal.outcome)
            }
        } catch {
            // Nothing of a recorded transaction was applied; a checkpoint that cannot be is the end.
            if recording == nil { latch(error) }
            return .failure(error)
        }
        options.duringCheckpoint?()
        do throws(FSError) {
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
            next.nextSnapshotID = cut.window.nextSnapshotID
            next.headRoot = cut.roots[0].pointer(checksumKind, sums)
            next.volumeRoot = cut.roots[1].pointer(checksumKind, sums)
            var released = cut.window.released + cut.window.moved
            if options.brokenRules.contains(.freeInFrozenBitmap) {
                released += treeLock.shared { window.released }
            }
            next.bitmapRoot = try allocator.persist(
                published: cut.published, released: released)
            next.headCounts = cut.headCounts
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
            return .success(.applied)
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
        /// Of the default head, of the volume, and of the other heads.
        var roots: [Root]
        var headCounts: TreeCounts
        var inodeCeiling: UInt64
        var journal: JournalCut

        struct Root {
            var tree: CopyOnWriteTree
            /// Nil: the root is that of the checkpoint before.
            var frozen: Page?
            var durable: NodePointer

            init(_ tree: CopyOnWriteTree) {
                self.tree = tree
                frozen = tree.root.state == .clean ? nil : tree.root
                durable = tree.durableRoot
            }

            func pointer(
                _ kind: ChecksumKind, _ sums: [BlockAddress: ChecksumValue]
            ) -> NodePointer {
                guard let frozen, let sum = sums[frozen.address] else { return durable }
                return frozen.pointer(kind, checksum: sum)
            }
        }
    }

    /// Why a freeze was not made.
    private struct Refusal: Error { var outcome: CommitOutcome }

    private func freeze(
        unmounting: Bool, _ recording: Recording?
    ) throws(FSError) -> Result<Cut, Refusal> {
        try tellDeaths()
        var cut: Cut?
        let outcome = try commit(
            recording ?? Recording(Transaction(tree: .volume), [], .emergency, .upkeep)
        ) { cut = self.cut(unmounting: unmounting) }
        guard let cut else { return .failure(Refusal(outcome: outcome)) }
        return .success(cut)
    }

    /// Under the exclusive tree lock.
    private func cut(unmounting: Bool) -> Cut {
        let pages = window.dirty.filter { $0.state == .dirty }
        var published = window.published
        let trees: [CopyOnWriteTree] = [head, volumeTree] + clones.values
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
            window: window, pages: pages, published: published,
            roots: trees.map(Cut.Root.init), headCounts: head.counts,
            inodeCeiling: ceiling,
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
    /// checksums by address. The volume tree comes last, since its records name roots of the others.
    private func writeNodes(_ pages: [Page]) throws(FSError) -> [BlockAddress: ChecksumValue] {
        var sums: [BlockAddress: ChecksumValue] = [:]
        sums.reserveCapacity(pages.count)
        var writers = (0..<DiskFormat.nodeReplicas).map { _ in RunWriter(device: device) }
        let byStep = Dictionary(grouping: pages) { Int($0.level) + ($0.tree == .volume ? 256 : 0) }
        for step in byStep.keys.sorted() {
            let pages = (byStep[step] ?? []).sorted { $0.address < $1.address }
            for page in pages {
                if step > 0 { treeLock.exclusive { patch(page, sums) } }
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

    /// Stores known checksums into what a node says of others.
    private func patch(_ page: Page, _ sums: [BlockAddress: ChecksumValue]) {
        if page.level > 0 {
            patchChildren(page, sums)
        } else if page.tree == .volume {
            patchRoots(page, sums)
        }
    }

    /// Stores known checksums into the records of snapshots and heads.
    private func patchRoots(_ page: Page, _ sums: [BlockAddress: ChecksumValue]) {
        let first = page.node.lowerBound(SnapshotRecord.key(0))
        for index in first..<max(first, page.node.count) {
            guard page.node.key(index).type == .snapshot else { break }
            let value = page.node.mutableValue(index)
            guard value.count == SnapshotRecord.byteCount else { continue }
            let root = value.slice(SnapshotRecord.rootOffset, SnapshotRecord.rootRoom)
            let address = BlockAddress(rawValue: root.view.u64(NodePointer.addressOffset))
            guard let sum = sums[address] else { continue }
            let place = NodePointer.addressOffset + 8 * Int(root.view[0])
            // A repair writes beside records that nothing has decoded.
            guard place + checksumKind.byteCount <= root.count else { continue }
            sum.store(root, place, count: checksumKind.byteCount)
        }
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
            for page in window.dirty where page.state == .dirty { patch(page, sums) }
            for root in cut.roots where root.frozen != nil {
                root.tree.noteWritten(root.pointer(checksumKind, sums))
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

    /// Whether so many released blocks wait for a checkpoint that new data makes do with crumbs.
    private func isMissed(_ released: UInt64) -> Bool {
        released >= Self.softReleasedLimit && released >= allocator.freeBlocks / 4
    }

    /// Holds an operation back while too much is dirty, and asks for a checkpoint in time.
    func waitForRoom() throws(FSError) {
        let (dirty, runs, released) = treeLock.shared {
            (
                window.dirty.count, window.published.count + window.released.count,
                window.releasedBlocks
            )
        }
        guard
            dirty >= Self.softDirtyLimit || runs >= Self.softRunLimit || isMissed(released)
                || journal?.wantsCheckpoint == true
        else { return }
        if dirty >= Self.hardDirtyLimit || runs >= 2 * Self.softRunLimit
            || options.checkpointIntervalMilliseconds == 0
        {
            try checkpoint(force: false)
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
                try? checkpoint()
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
