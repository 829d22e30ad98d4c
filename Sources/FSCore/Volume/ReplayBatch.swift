/// Operations of the journal on their way into the trees, many at a time: what one of them says of an
/// item stands only if none behind it says more, and in the order of the keys each node is looked for
/// once.
///
///     add ──▶ … ──▶ add ──▶ changes.inKeyOrder() ──▶ commit
///                                 └── no space for all at once: separate() ──▶ commit one by one
///
/// - Invariant: all operations of a batch are about one head, and none changes the table of snapshots
///   or the table of remaps, which are followed one operation at a time.
@safe
final class ReplayBatch {
    /// What all of them change, as one.
    let changes = Transaction()
    /// Where each of them ends in `changes`.
    private var ends: [End] = []
    private let limit: Int

    private struct End {
        var updates = 0
        var published = 0
        var released = 0
        var inodeDelta: Int64 = 0
        var promisedDelta: Int64 = 0
        var referencedDelta: Int64 = 0
    }

    /// - Parameter limit: how many operations there may be, and about how many updates.
    init(limit: Int) { self.limit = limit }

    var count: Int { ends.count }

    /// Whether `operation` may come behind those that are here.
    func takes(_ operation: Transaction) -> Bool {
        guard ends.isEmpty || operation.tree == changes.tree && !isFull else { return false }
        return operation.updates.allSatisfy { $0.tree != .volume || $0.key.type == .share }
    }

    private var isFull: Bool {
        max(changes.updates.count, ends.count) >= limit || changes.bytes.count >= Self.byteLimit
            || abs(changes.referencedDelta) >= Self.deltaLimit
    }
    private static let byteLimit = 1 << 20
    /// Changes of counts are bounded one by one; this bounds their sum.
    private static let deltaLimit = Int64(1) << 56

    func add(_ operation: Transaction) {
        changes.tree = operation.tree
        changes.absorb(operation)
        ends.append(
            End(
                updates: changes.updates.count, published: changes.published.count,
                released: changes.released.count, inodeDelta: changes.inodeDelta,
                promisedDelta: changes.promisedDelta, referencedDelta: changes.referencedDelta))
    }

    /// The operations one by one, as they were added.
    func separate() -> [Transaction] {
        var start = End()
        return ends.map { end in
            let operation = Transaction(tree: changes.tree)
            changes.bytes.withView { bytes in
                for update in changes.updates[start.updates..<end.updates] {
                    let value = update.value.map { bytes.slice($0.lowerBound, $0.count) }
                    operation.replayUpdate(update.tree, update.key, value)
                }
            }
            for run in changes.published[start.published..<end.published] {
                operation.publish(run)
            }
            for run in changes.released[start.released..<end.released] { operation.release(run) }
            operation.inodeDelta = end.inodeDelta - start.inodeDelta
            operation.promisedDelta = end.promisedDelta - start.promisedDelta
            operation.referencedDelta = end.referencedDelta - start.referencedDelta
            start = end
            return operation
        }
    }

    func removeAll() {
        changes.removeAll()
        ends.removeAll(keepingCapacity: true)
    }
}
