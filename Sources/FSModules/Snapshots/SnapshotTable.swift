/// The table of snapshots in memory, with what is asked of it often at hand.
///
/// - Invariant: a change costs as much with any number of nodes, but for the names of ids in order.
internal import FSCore

struct SnapshotTable {
    struct Node {
        var record: SnapshotRecord
        var label: SnapshotLabel?
        var children: Set<UInt64> = []
        /// Segments that other nodes have begun.
        var adopted: Set<UInt64> = []
        var segments: [UInt64] { [record.id] + adopted }

        /// Nil of what is no snapshot, or none any more.
        var listed: Snapshots.Listed? {
            guard record.kind == .snapshot, !record.isDeleted, let label else { return nil }
            return Snapshots.Listed(id: record.id, name: label.name, created: record.created)
        }
        /// It goes by itself, and only then its parent may.
        var isEnding: Bool { record.isDeleted && children.isEmpty }
        /// Its only child may take its place.
        var isMergeable: Bool { record.isDeleted && children.count == 1 }
    }

    private(set) var nodes: [UInt64: Node] = [:]
    private(set) var idsByName: [[UInt8]: UInt64] = [:]
    private(set) var heads: Set<UInt64> = []
    private(set) var ending = OrderedIDs()
    private(set) var mergeable = OrderedIDs()
    private(set) var deletedCount = 0
    /// Of segments that were adopted.
    private var owners: [UInt64: UInt64] = [:]
    /// Nodes whose deadlists may hold what can be freed.
    var unswept = OrderedIDs()
    private var postponed: [UInt64] = []

    init() {}

    /// A table whose nodes know their parents, children, labels and segments already.
    ///
    /// They are not changed here: that would copy them all.
    init(loaded: [UInt64: Node]) {
        nodes = loaded
        idsByName.reserveCapacity(loaded.count)
        var deleted: [UInt64] = []
        for (id, node) in loaded {
            if let name = node.label?.name { idsByName[name] = id }
            for segment in node.adopted { owners[segment] = id }
            if node.record.kind == .head { heads.insert(id) }
            if node.record.isDeleted { deleted.append(id) }
        }
        deletedCount = deleted.count
        unswept = OrderedIDs(loaded.keys)
        for id in deleted { classify(id) }
    }

    private mutating func classify(_ id: UInt64) {
        let node = nodes[id]
        ending.set(id, node?.isEnding == true)
        mergeable.set(id, node?.isMergeable == true)
    }

    mutating func put(_ record: SnapshotRecord) {
        let id = record.id
        let old = nodes[id]?.record
        if let old, old.parent != record.parent {
            nodes[old.parent]?.children.remove(id)
            classify(old.parent)
            unswept.insert(id)
            // Of a head's nodes some have died that its deadlist hears of with the next checkpoint only.
            if record.kind == .head { postponed.append(id) }
        }
        deletedCount += (record.isDeleted ? 1 : 0) - (old?.isDeleted == true ? 1 : 0)
        nodes[id, default: Node(record: record)].record = record
        if record.kind == .head { heads.insert(id) } else { heads.remove(id) }
        if record.parent != 0 {
            nodes[record.parent]?.children.insert(id)
            classify(record.parent)
        }
        classify(id)
    }

    mutating func remove(_ id: UInt64) {
        guard let node = nodes.removeValue(forKey: id) else { return }
        if node.record.isDeleted { deletedCount -= 1 }
        for segment in node.adopted { owners[segment] = nil }
        heads.remove(id)
        nodes[node.record.parent]?.children.remove(id)
        classify(node.record.parent)
        classify(id)
        unswept.set(id, false)
    }

    mutating func setLabel(_ label: SnapshotLabel?, of id: UInt64) {
        if let old = nodes[id]?.label, idsByName[old.name] == id { idsByName[old.name] = nil }
        nodes[id]?.label = label
        if let label { idsByName[label.name] = id }
    }

    /// - Parameter owner: nil takes the segment from whoever has it.
    mutating func setOwner(_ owner: UInt64?, of segment: UInt64) {
        if let old = owners.removeValue(forKey: segment) { nodes[old]?.adopted.remove(segment) }
        guard let owner, nodes[owner] != nil else { return }
        owners[segment] = owner
        nodes[owner]?.adopted.insert(segment)
    }

    /// What could not be freed yet is looked at again after the next checkpoint.
    mutating func postpone(_ id: UInt64) { postponed.append(id) }
    /// False if there was nothing.
    mutating func takeUpPostponed() -> Bool {
        for id in postponed where nodes[id] != nil { unswept.insert(id) }
        defer { postponed = [] }
        return !postponed.isEmpty
    }
}

/// Ids in their order, of which the greatest is taken first.
struct OrderedIDs {
    private var ids: [UInt64]
    var last: UInt64? { ids.last }

    init(_ ids: some Sequence<UInt64> = []) { self.ids = ids.sorted() }

    mutating func insert(_ id: UInt64) { set(id, true) }

    mutating func set(_ id: UInt64, _ isMember: Bool) {
        let index = place(of: id)
        let isThere = index < ids.count && ids[index] == id
        if isMember, !isThere { ids.insert(id, at: index) }
        if !isMember, isThere { ids.remove(at: index) }
    }

    /// Of the first that is not smaller.
    private func place(of id: UInt64) -> Int {
        // New ones come, and the greatest go, at the end.
        if let last, id > last { return ids.count }
        var (low, high) = (0, ids.count)
        while low < high {
            let middle = (low + high) / 2
            if ids[middle] < id { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
