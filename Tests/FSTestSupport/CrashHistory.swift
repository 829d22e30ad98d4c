/// What a recorded run promised: the model's tree after every operation, and what was durable when.
///
/// - Invariant: moments are in the order of operations, their events never decrease.
internal import FSCore

struct CrashHistory {
    /// The state after an operation.
    struct Moment {
        /// Events of the device when the operation was over.
        var event: Int
        var tree: ExpectedTree
    }
    /// Operations up to `operation` are durable from `event` on.
    struct Floor {
        var event: Int
        var operation: Int
    }

    /// By number of operation; 0 is the volume as it was first opened.
    private(set) var moments: [Moment] = []
    private(set) var floors: [Floor] = []

    init() {}

    init(begins model: ReferenceFileSystem, atEvent event: Int) {
        moments = [Moment(event: event, tree: ExpectedTree(model))]
        floors = [Floor(event: event, operation: 0)]
    }

    var lastOperation: Int { moments.count - 1 }

    mutating func add(_ model: ReferenceFileSystem, atEvent event: Int) {
        moments.append(Moment(event: event, tree: ExpectedTree(model)))
    }

    mutating func synchronized(_ operation: Int, atEvent event: Int) {
        floors.append(Floor(event: event, operation: operation))
    }

    /// The operations after any of which the tree may be found, when the last write that arrived is
    /// the one before `first` and the power may have gone as late as after `last` events.
    func allowed(from first: Int, to last: Int) -> ClosedRange<Int> {
        let floor = floors.filter { $0.event <= last }.map(\.operation).max()!
        let ceiling = moments.firstIndex { $0.event >= first } ?? moments.count - 1
        return floor...max(floor, ceiling)
    }

    /// Why a tree is not allowed; nil if it is.
    func problem(_ view: TreeView, _ hash: StableHash, _ range: ClosedRange<Int>) -> String? {
        // The likeliest first: what was durable, and what a synchronisation under way makes durable.
        if moments[range.lowerBound].tree.equals(view, hash) { return nil }
        if moments[range].reversed().contains(where: { $0.tree.equals(view, hash) }) { return nil }
        let difference = view.firstDifference(fromExpected: moments[range.lowerBound].tree.view)
        return "the tree is none of those after operations \(range.lowerBound) to "
            + "\(range.upperBound): \(difference ?? "a time differs")"
    }

    /// The model of one of the allowed trees.
    func model(of view: TreeView, _ range: ClosedRange<Int>) -> ReferenceFileSystem? {
        let hash = view.treeHash
        return moments[range].first { $0.tree.equals(view, hash) }?.tree.model
    }

    /// Whether a tree of which only the hash is known is allowed.
    func isAllowed(_ hash: StableHash, _ range: ClosedRange<Int>) -> Bool {
        moments[range].contains { $0.tree.hash == hash }
    }
}

/// A tree that may be found after a crash. What it is compared by is made once, and only if needed.
final class ExpectedTree {
    let model: ReferenceFileSystem
    private lazy var summary: (hash: StableHash, times: [(path: Path, time: Timestamp)]) = {
        let view = model.view
        let times = view.entries.compactMap { path, entry in
            entry.attributes.modificationTime.map { (path, $0) }
        }
        return (view.treeHash, times)
    }()

    init(_ model: ReferenceFileSystem) { self.model = model }

    var view: TreeView { model.view }
    var hash: StableHash { summary.hash }

    func equals(_ view: TreeView, _ hash: StableHash) -> Bool {
        summary.hash == hash
            && summary.times.allSatisfy {
                view.entries[$0.path]?.attributes.modificationTime == $0.time
            }
    }
}
