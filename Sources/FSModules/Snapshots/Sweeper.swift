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
    private var isRunning = false
    private var isStopping = false

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
            lock.signalAll()
        }
    }

    private func run(_ snapshots: Snapshots) {
        lock.lock()
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
        }
        lock.unlock()
    }
}

extension Snapshots {
    enum Step {
        case worked
        /// What is left is not durable yet.
        case waits
        case idle
    }

    /// Blocks and nodes that one transaction gives back.
    static let batch = 128

    /// Works until nothing can be given back any more; true if something was.
    @discardableResult
    public func sweep(isCancelled: () -> Bool = { false }) throws(FSError) -> Bool {
        var hasWorked = false
        var isFresh = false
        while !isCancelled() {
            switch try volume.shareLock.withLock({ () throws(FSError) in try step() }) {
            case .worked:
                hasWorked = true
                isFresh = false
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

    /// One transaction of work; false if there was none that could be done now.
    package func sweepOnce() throws(FSError) -> Bool {
        try volume.shareLock.withLock { () throws(FSError) in try step() == .worked }
    }

    /// One transaction of work. Under the share lock.
    private func step() throws(FSError) -> Step {
        let hidden = allNodes().filter(\.record.isDeleted).sorted { $0.record.id > $1.record.id }
        if let node = hidden.first(where: { $0.children.isEmpty }) { return try end(node) }
        for node in hidden where node.children.count == 1 {
            if let child = node.children.first.flatMap(self.node), !child.isEnding {
                return try merge(node, into: child)
            }
        }
        var waits = false
        while let id = takeUnswept() {
            switch try sweep(id) {
            case .worked: return .worked
            case .waits:
                waits = true
                noteSwept(id)
                postpone(id)
            case .idle: noteSwept(id)
            }
        }
        takeUpPostponed()
        return waits ? .waits : .idle
    }

    /// Frees the garbage of one node's deadlist.
    private func sweep(_ id: UInt64) throws(FSError) -> Step {
        guard let node = node(id) else { return .idle }
        let transaction = Transaction(tree: .volume)
        var count = 0
        var waits = false
        let durable = volume.durableSequence
        let limit = epoch(of: node.record.parent)
        for segment in node.segments where count < Self.batch {
            try forEachEntry(segment, bornAfter: limit) { (entry) throws(FSError) in
                guard entry.death <= durable || volume.brokenRules.contains(.sweepsUndurable)
                else {
                    waits = true
                    return true
                }
                free(entry, transaction)
                count += 1
                return count < Self.batch
            }
        }
        if count == 0, !waits { try forgetEmptySegments(node, transaction) }
        guard !transaction.isEmpty else { return waits ? .waits : .idle }
        try commit(transaction)
        return .worked
    }

    private func free(_ entry: DeadlistRecord, _ transaction: Transaction) {
        transaction.delete(entry.key, tree: .volume)
        for _ in 0..<entry.references { transaction.drop(entry.run, birth: entry.birth) }
    }

    private func forgetEmptySegments(
        _ node: Node, _ transaction: Transaction
    ) throws(FSError) {
        for segment in node.adopted.prefix(Self.batch) {
            var isEmpty = true
            try forEachEntry(segment, bornAfter: BirthEpoch(0)) { _ in
                isEmpty = false
                return false
            }
            if isEmpty { transaction.delete(Key(0, .segment, segment), tree: .volume) }
        }
    }

    private func commit(_ transaction: Transaction) throws(FSError) {
        guard try volume.settleAndCommitLocked(transaction, .emergency) else {
            preconditionFailure("epochs do not begin while the table stands still")
        }
    }

    // MARK: One child

    private func merge(_ node: Node, into child: Node) throws(FSError) -> Step {
        let transaction = Transaction(tree: .volume)
        // A hidden node's segments may go ahead of it: nothing of them can be garbage yet.
        let segments = node.adopted.prefix(Self.batch) + (isLast(node) ? [node.record.id] : [])
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
        let durable = volume.durableSequence
        var count = 0
        var waits = false
        for segment in node.segments where count < Self.batch {
            try forEachEntry(segment, bornAfter: BirthEpoch(0)) { (entry) throws(FSError) in
                guard entry.death <= durable else {
                    waits = true
                    return true
                }
                if entry.birth > limit {
                    free(entry, transaction)
                } else {
                    // Its parent still refers to the blocks.
                    transaction.delete(entry.key, tree: .volume)
                }
                count += 1
                return count < Self.batch
            }
        }
        if count == 0 {
            if waits { return .waits }
            for segment in node.adopted.prefix(Self.batch) {
                transaction.delete(Key(0, .segment, segment), tree: .volume)
            }
            if node.adopted.count <= Self.batch {
                transaction.delete(record.key, tree: .volume)
            }
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

extension Snapshots.Node {
    /// It goes by itself, and only then its parent may.
    var isEnding: Bool { record.isDeleted && children.isEmpty }
}
