/// Gives back what deleted snapshots held, in small journaled transactions that a crash may come between.
///
///     deleted, no child     free what its tree holds born after its parent (progress in its
///                           record) ─▶ empty its deadlist ─▶ forget it
///     deleted, one child    the child takes its segments and its parent ─▶ forget it
///     any                   free the entries of its deadlist born after its parent's epoch
///
/// A deleted node with several children waits until one is left.
///
/// - Invariant: an entry is freed only if its death is in a durable checkpoint: deaths of nodes come
///   about anew when a journal is replayed, and may be others.
/// - Invariant: a childless node's parent stays as it is until the node is gone, so what was passed
///   by need not be looked at again.
public import FSCore

/// The thread.
@safe
final class Sweeper: @unchecked Sendable {
    private let lock = Mutex()
    private var thread: WorkerThread?
    private var isWanted = true
    private var isWoken = false
    private var isRunning = false
    private var isStopping = false
    private var given: UInt64 = 0
    private var limit: UInt64 = 0

    func start(_ snapshots: Snapshots) {
        lock.withLock {
            isStopping = false
            guard thread == nil else { return }
            thread = WorkerThread { [unowned snapshots, unowned self] in run(snapshots) }
        }
    }

    func stop() {
        let running = lock.withLock {
            isStopping = true
            lock.signalAll()
            return thread
        }
        running?.join()
        lock.withLock { thread = nil }
    }

    var isWorking: Bool { lock.withLock { thread != nil && (isWanted || isRunning) } }

    func wake() {
        lock.withLock {
            isWanted = true
            isWoken = true
            lock.signalAll()
        }
    }

    /// Blocks that were given back since the volume was opened.
    var givenBlocks: UInt64 { lock.withLock { given } }
    func note(_ blocks: UInt64) { lock.withLock { given += blocks } }

    /// Bytes a second that are given back at most; 0 for no limit. Holds until all is done.
    var rate: UInt64 {
        get { lock.withLock { limit } }
        set {
            lock.withLock {
                limit = newValue
                lock.signalAll()
            }
        }
    }

    /// Waits, unless the volume is being closed.
    func pause(milliseconds: Int) {
        lock.withLock { if !isStopping { lock.wait(milliseconds: milliseconds) } }
    }

    /// How long a volume without deleted snapshots is left alone after it was opened: what a crash may have
    /// left can wait.
    private static let patienceMilliseconds = 1000

    private func run(_ snapshots: Snapshots) {
        lock.lock()
        if !isStopping, !isWoken, snapshots.deletedCount == 0 {
            lock.wait(milliseconds: Self.patienceMilliseconds)
        }
        while !isStopping {
            guard isWanted else {
                lock.wait()
                continue
            }
            isWanted = false
            isRunning = true
            lock.unlock()
            // An error has latched the volume, or it is read-only: the next mount goes on.
            _ = try? snapshots.sweep { self.lock.withLock { self.isStopping } }
            lock.lock()
            isRunning = false
            if !isWanted { limit = 0 }
        }
        lock.unlock()
    }
}

extension Snapshots {
    enum Step {
        case worked
        /// Nothing to do where it looked, but it did not look everywhere.
        case looked
        /// What is left is not durable yet.
        case waits
        case idle
    }

    /// Blocks and nodes that one transaction gives back.
    static let batch = 128
    /// References that are dropped of one entry at once.
    private static let references: UInt32 = 256
    /// Nodes that one step looks at in vain: others want the share lock.
    private static let looks = 64

    /// Works until nothing can be given back any more; true if something was.
    @discardableResult
    public func sweep(isCancelled: () -> Bool = { false }) throws(FSError) -> Bool {
        var hasWorked = false
        var isFresh = false
        while !isCancelled() {
            let begin = Turn(of: self)
            switch try volume.shareLock.withLock({ () throws(FSError) in try step() }) {
            case .worked:
                hasWorked = true
                isFresh = false
                begin.giveWay(isCancelled)
            case .looked: continue
            case .waits where !isFresh:
                try volume.checkpoint()
                isFresh = true
            case .waits, .idle:
                // What was released can be used again after a checkpoint.
                if hasWorked { try volume.checkpoint() }
                return hasWorked
            }
        }
        return hasWorked
    }

    /// One step of the sweeping, and the pause behind it.
    private struct Turn {
        private static let longestPause = 20
        let store: Snapshots
        let start = monotonicNanoseconds()
        let given: UInt64
        let operations: UInt64

        init(of store: Snapshots) {
            self.store = store
            given = store.sweeper.givenBlocks
            operations = store.volume.operationCount
        }

        /// Waits as the rate asks for; and while others work, as long as the step took.
        func giveWay(_ isCancelled: () -> Bool) {
            let sweeper = store.sweeper
            let taken = monotonicNanoseconds() - start
            // One operation is the step's own.
            if store.volume.operationCount > operations + 1 {
                sweeper.pause(milliseconds: min(Int(taken / 1_000_000) + 1, Self.longestPause))
            }
            while !isCancelled() {
                let rate = store.presentRate
                guard rate > 0 else { return }
                let due = Double((sweeper.givenBlocks - given) << 12) / Double(rate) * 1000
                let elapsed = Double(monotonicNanoseconds() - start) / 1e6
                guard due > elapsed else { return }
                sweeper.pause(milliseconds: min(Int(due - elapsed) + 1, 100))
            }
        }
    }

    /// One transaction of work; false if there was none that could be done now.
    package func sweepOnce() throws(FSError) -> Bool {
        while true {
            let outcome = try volume.shareLock.withLock { () throws(FSError) -> Step in
                try step()
            }
            if outcome != .looked { return outcome == .worked }
        }
    }

    /// One transaction of work. Under the share lock.
    private func step() throws(FSError) -> Step {
        if let node = newestEnding() { return try end(node) }
        if let (node, child) = newestMergeable() { return try merge(node, into: child) }
        for _ in 0..<Self.looks {
            guard let id = takeUnswept() else { return takeUpPostponed() ? .waits : .idle }
            switch try sweep(id) {
            case .worked: return .worked
            case .waits:
                noteSwept(id)
                postpone(id)
            case .idle, .looked: noteSwept(id)
            }
        }
        return .looked
    }

    /// How far the sweeping of one node's deadlist is: segments that were looked at are not again until it
    /// has another parent.
    struct Place {
        var node: UInt64
        var parent: UInt64
        var segments: [UInt64]
        var waits = false
    }

    /// Frees the garbage of one node's deadlist.
    private func sweep(_ id: UInt64) throws(FSError) -> Step {
        guard let node = node(id) else { return .idle }
        let parent = node.record.parent
        var place = Place(node: id, parent: parent, segments: [])
        if let known = sweepPlace, known.node == id, known.parent == parent {
            place = known
        } else {
            place.segments = node.segments
        }
        let transaction = Transaction(tree: .volume)
        var count = 0
        let limit = epoch(of: parent)
        while let segment = place.segments.last, count < Self.batch {
            var waits = false
            try forEachEntry(segment, bornAfter: limit) { (entry) throws(FSError) in
                guard isFreeable(entry) else {
                    waits = true
                    return true
                }
                free(entry, transaction, &count)
                return count < Self.batch
            }
            guard count < Self.batch else { break }
            place.segments.removeLast()
            place.waits = place.waits || waits
            if !waits, segment != id, try hasNone(segment, upTo: limit) {
                transaction.delete(Key(0, .segment, segment), tree: .volume)
                count += 1
            }
        }
        guard !transaction.isEmpty else {
            sweepPlace = nil
            return place.waits ? .waits : .idle
        }
        try commit(transaction)
        sweepPlace = place
        return .worked
    }

    private func isFreeable(_ entry: DeadlistRecord) -> Bool {
        entry.death <= volume.durableSequence || volume.brokenRules.contains(.sweepsUndurable)
    }

    /// Drops an entry's references: of very many some, and the rest the next time. Counts against the batch.
    private func free(
        _ entry: DeadlistRecord, _ transaction: Transaction, _ batchCount: inout Int
    ) {
        var rest = entry
        let count = min(entry.references, Self.references)
        rest.references -= count
        if rest.references > 0 {
            transaction.put(rest.key, rest.encoded(), tree: .volume)
        } else {
            transaction.delete(entry.key, tree: .volume)
        }
        for _ in 0..<count { transaction.drop(entry.run, birth: entry.birth) }
        batchCount += rest.references > 0 ? Self.batch : 1
    }

    /// Whether a segment has nothing that was born up to an epoch.
    private func hasNone(_ segment: UInt64, upTo limit: BirthEpoch) throws(FSError) -> Bool {
        var isEmpty = true
        try forEachEntry(segment, bornAfter: BirthEpoch(0)) { entry in
            isEmpty = entry.birth > limit
            return false
        }
        return isEmpty
    }

    private func commit(_ transaction: Transaction) throws(FSError) {
        let given = transaction.droppedBlocks
        defer { sweeper.note(given) }
        guard try volume.settleAndCommitLocked(transaction, .emergency) else {
            preconditionFailure("epochs do not begin while the table stands still")
        }
    }

    // MARK: One child

    private func merge(_ node: Node, into child: Node) throws(FSError) -> Step {
        let transaction = Transaction(tree: .volume)
        // A hidden node's segments may go ahead of it: nothing of them can be garbage yet.
        let segments =
            Array(node.adopted.prefix(Self.batch)) + (isLast(node) ? [node.record.id] : [])
        for segment in segments {
            let record = SegmentRecord(segment: segment, owner: child.record.id)
            transaction.put(record.key, record.encoded(), tree: .volume)
        }
        if isLast(node) {
            var record = child.record
            if record.kind == .snapshot {
                record = try durableRecord(child)
            } else {
                record.root = nil
            }
            record.parent = node.record.parent
            transaction.delete(node.record.key, tree: .volume)
            transaction.put(record.key, record.encoded(), tree: .volume)
        }
        try commit(transaction)
        return .worked
    }

    private func isLast(_ node: Node) -> Bool { node.adopted.count <= Self.batch }

    // MARK: No child

    private func end(_ node: Node) throws(FSError) -> Step {
        let record = try durableRecord(node)
        guard record.progress == .maximum else { return try freeTree(record) }
        let transaction = Transaction(tree: .volume)
        let limit = freedAbove(record)
        var count = 0
        var waits = false
        for segment in node.segments where count < Self.batch {
            var isLeft = false
            try forEachEntry(segment, bornAfter: BirthEpoch(0)) { (entry) throws(FSError) in
                guard isFreeable(entry) else {
                    isLeft = true
                    return true
                }
                if entry.birth > limit {
                    free(entry, transaction, &count)
                } else {
                    // Its parent still refers to the blocks.
                    transaction.delete(entry.key, tree: .volume)
                    count += 1
                }
                return count < Self.batch
            }
            waits = waits || isLeft
            if count < Self.batch, !isLeft, segment != record.id {
                transaction.delete(Key(0, .segment, segment), tree: .volume)
                count += 1
            }
        }
        if count == 0 {
            if waits { return .waits }
            transaction.delete(record.key, tree: .volume)
        }
        try commit(transaction)
        return .worked
    }

    /// A node without children owns what was born after this epoch.
    private func freedAbove(_ record: SnapshotRecord) -> BirthEpoch {
        var parent = node(record.parent)
        if volume.brokenRules.contains(.freesToVisibleAncestor) {
            while let hidden = parent, hidden.record.isDeleted {
                parent = node(hidden.record.parent)
            }
        }
        return parent?.record.epoch ?? BirthEpoch(0)
    }

    private func freeTree(_ record: SnapshotRecord) throws(FSError) -> Step {
        guard let root = record.root else { return .idle }
        let transaction = Transaction(tree: .volume)
        var walk = EndingTree(
            volume: volume, limit: freedAbove(record), from: record.progress,
            transaction: transaction)
        var record = record
        record.progress = try walk.run(root)
        transaction.put(record.key, record.encoded(), tree: .volume)
        try commit(transaction)
        return .worked
    }
}
