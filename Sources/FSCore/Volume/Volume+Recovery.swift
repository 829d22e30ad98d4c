/// What a volume does with its journal: bring back what a crash left in it, flush it in time, and
/// turn to a checkpoint where it has no room.
///
///     unclean, or a superblock is missing
///       read the ring ──▶ claim all that it allocated ──▶ apply in order ──▶ checkpoint,
///                                                                         a new incarnation
///
/// - Invariant: nothing is allocated before everything that the journal allocated is claimed.
/// - Invariant: until the checkpoint that ends it is durable, recovery leaves the ring as it is, so
///   that a crash during recovery is recovered from like the first.
extension Volume {
    /// What opening the volume brought back from its journal.
    public struct Recovery: Sendable, Equatable {
        public var operations: UInt64
        public var bytes: UInt64
        public var milliseconds: Double
        /// What could not be read although it was durable; the volume is read-only then.
        public var damage: Corruption?
    }

    func recover(isOtherPairReadable: Bool) throws(FSError) {
        guard let journal else { return }
        let start = monotonicNanoseconds()
        let position = JournalPosition(
            incarnation: ringIncarnation, operation: window.operations)
        let isBegun = try journal.isBegun(after: position.incarnation)
        if wasCleanlyUnmounted, isOtherPairReadable, !isBegun { return }
        // What is brought back now, a read-only volume has in memory only.
        mayBecomeWritable = false
        let contents = try journal.read(position)
        if isBegun || contents.newestSequence > superblock.sequence {
            guard options.brokenRules.contains(.fallBackToOlderSuperblock) else {
                return try enterOlderState(contents)
            }
        }
        if contents.damage != nil { forceReadOnly() }
        do throws(FSError) {
            try replay(contents, journal)
        } catch .corrupt(let what) where what.structure == .journal {
            // Sums are right but what they cover makes no sense: nothing of it can be trusted.
            errors.record(.corrupt(what))
            throw .corrupt(what)
        }
        if let damage = contents.damage {
            errors.record(.corrupt(damage))
            observer?.volume(.damage(FSError.corrupt(damage).description))
        }
        guard contents.operationCount > 0 || contents.damage != nil else { return }
        let recovery = Recovery(
            operations: contents.operationCount, bytes: contents.byteCount,
            milliseconds: Double(monotonicNanoseconds() - start) / 1e6, damage: contents.damage)
        self.recovery = recovery
        observer?.volume(.recovered(recovery))
    }

    /// The newest superblock is lost. What is left is an older state, part of whose blocks may have
    /// been used again: good for reading, with every block's sum as judge.
    private func enterOlderState(_ contents: JournalContents) throws(FSError) {
        let error = FSError.superblockLost(
            "the journal names sequence \(contents.newestSequence.rawValue), "
                + "the newest readable one is \(superblock.sequence.rawValue)")
        guard options.readOnly else { throw error }
        errors.record(error)
        observer?.volume(.damage(error.description))
    }

    func replay(
        _ contents: JournalContents, _ journal: any Journal
    ) throws(FSError) {
        guard !contents.records.isEmpty else { return }
        let inMemory = options.readOnly
        let claims = !options.brokenRules.contains(.noClaimingPass)
        if claims {
            try journal.claims(contents) { (run) throws(FSError) in try allocator.claim(run) }
        }
        let batch = ReplayBatch(limit: min(Self.replayedAtOnce, cache.limitPages / 4))
        try journal.replay(contents) { (transaction) throws(FSError) in
            if !batch.takes(transaction) { try commit(batch) }
            try requireSaneCounts(transaction, behind: batch)
            if inMemory {
                if !transaction.staged.isEmpty {
                    guard try journal.hasRoom(for: transaction) else { throw .notReplayable }
                    _ = journal.append(transaction)
                }
                guard window.dirty.count < Self.replayedInMemoryLimit else { throw .notReplayable }
                if transaction.changesSnapshots { throw .notReplayable }
            } else {
                for part in transaction.staged {
                    let bytes = transaction.data
                    try bytes.withView { (view) throws(FSError) in
                        try device.write(
                            view.slice(part.start, Int(part.run.count) << 12),
                            at: part.run.start.block << 12)
                    }
                }
            }
            if !claims {
                for run in transaction.published { try? allocator.claim(run) }
            }
            if claims, batch.takes(transaction) { return batch.add(transaction) }
            try commit(transaction, .emergency, .replayed)
            if !inMemory { try makeRoomForReplay() }
        }
        try commit(batch)
    }

    private func makeRoomForReplay() throws(FSError) {
        if window.dirty.count >= Self.softDirtyLimit { try checkpoint(force: true) }
    }

    /// Applies what is in a batch and empties it.
    private func commit(_ batch: ReplayBatch) throws(FSError) {
        guard batch.count > 0 else { return }
        defer { batch.removeAll() }
        let changes = batch.changes.inKeyOrder()
        do throws(FSError) {
            try loadLeaves(changes.updates)
            _ = try commit(
                Recording(changes, [], .emergency, .replayed, operations: batch.count),
                freezing: nil)
        } catch .noSpace {
            // All at once may ask for more room than one by one take in the end.
            for operation in batch.separate() { try commit(operation, .emergency, .replayed) }
        }
        if !options.readOnly { try makeRoomForReplay() }
    }

    /// Loads the nodes that changes in the order of their keys will meet, so that their plan need not
    /// begin anew for each.
    private func loadLeaves(_ updates: [Transaction.Update]) throws(FSError) {
        var index = 0
        while index < updates.count {
            let first = updates[index]
            guard let tree = tree(first.tree) else { return }
            let upper = try reading { () throws(TreeFault) in
                try tree.forEachPage(on: first.key) { _ in }
            }
            repeat {
                index += 1
            } while index < updates.count && updates[index].tree == first.tree
                && upper.map { updates[index].key < $0 } ?? true
        }
    }

    /// Updates that are applied together.
    private static let replayedAtOnce = 4096

    /// Dirty nodes of a replay in memory: 512 MiB.
    private static let replayedInMemoryLimit = 32768

    /// The counts that a transaction changes stay within what a superblock may say.
    private func requireSaneCounts(
        _ transaction: Transaction, behind batch: ReplayBatch
    ) throws(FSError) {
        let bound = Int64(1) << 48
        let inodes = transaction.inodeDelta
        let promised = transaction.promisedDelta
        guard abs(inodes) < bound, abs(promised) < bound, let tree = tree(transaction.tree),
            (0..<Int64(window.inodeCeiling)).contains(
                Int64(tree.counts.inodes) + batch.changes.inodeDelta + inodes) || inodes == 0,
            (0...Int64(layout.blockCount)).contains(
                Int64(tree.counts.promised) + batch.changes.promisedDelta + promised)
        else {
            throw .corrupt(Corruption(.journal, at: window.operations + 1, "change of a count"))
        }
    }

    // MARK: While it is open

    /// Makes every operation that was committed before the call durable: fsync(2).
    public func synchronize() throws(FSError) {
        guard let journal else { return try checkpoint() }
        let current = stateLock.withLock { state }
        switch current {
        case .latched(let why): throw .latched(why)
        case .closed: return
        // Switched to read-only: the checkpoint that does it may still be under way.
        case .readOnly: return try checkpoint()
        case .online: break
        }
        if try flush(journal, .synchronize) { return }
        try checkpoint()
    }

    private func flush(
        _ journal: any Journal, _ reason: JournalFlushReason
    ) throws(FSError) -> Bool {
        do throws(FSError) { return try journal.flush(reason) } catch {
            latch(error)
            throw error
        }
    }

    func makeJournalRoom(_ journal: any Journal) throws(FSError) {
        let hasRoom: Bool
        do throws(FSError) { hasRoom = try journal.makeRoom() } catch {
            latch(error)
            throw error
        }
        if !hasRoom { try checkpoint(force: true) }
    }

    /// Says in the ring which superblock is the last, after a clean unmount: were that lost, its
    /// forerunner would not be taken for the newest.
    func sealJournal() throws(FSError) {
        guard let journal else { return }
        _ = try flush(journal, .timer)
        do throws(FSError) { try device.flush() } catch {
            latch(error)
            throw error
        }
    }

    func wakeTimers() { stateLock.withLock { stateLock.signalAll() } }

    /// What the journal's timer does: everything committed so far durable, its data at home.
    package func writeBack() throws(FSError) {
        let current = stateLock.withLock { state }
        if case .latched(let why) = current { throw .latched(why) }
        guard let journal, current == .online, try !flush(journal, .timer) else { return }
        try checkpoint(force: true)
    }

    /// The thread that flushes the journal in time, busy or not.
    func runJournalTimer(_ journal: any Journal) {
        stateLock.lock()
        while !progress.stopTimer {
            if let milliseconds = journal.millisecondsUntilFlush {
                if milliseconds > 0 {
                    stateLock.wait(milliseconds: milliseconds)
                    continue
                }
                stateLock.unlock()
                // An error has latched the volume and is heard by the next caller.
                try? writeBack()
                stateLock.lock()
                if case .latched = state { break }
            } else {
                stateLock.wait()
            }
        }
        stateLock.unlock()
    }
}
