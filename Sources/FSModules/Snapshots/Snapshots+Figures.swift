/// What snapshots are and cost, for lists.
public import FSCore

/// One snapshot or head.
public struct SnapshotFigures: Sendable {
    public var record: SnapshotRecord
    /// The default head has none.
    public var label: SnapshotLabel?
    /// Name of the snapshot from which it went on; nil if there is none, or it is deleted.
    public var parentName: [UInt8]?
    /// Blocks that its end gives back: an upper bound with shared blocks. Nil if that is not known
    /// without a walk of its tree.
    public var uniqueBlocks: UInt64?
    /// Blocks that come back if all older ones of its line go with it.
    public var blocksWithOlder: UInt64?
}

extension Snapshots {
    /// Everything that is not deleted, in the order of creation. Reads the deadlists once.
    public func figures() throws(FSError) -> [SnapshotFigures] {
        try volume.shareLock.withLock { () throws(FSError) in
            let nodes = Dictionary(uniqueKeysWithValues: allNodes().map { ($0.record.id, $0) })
            // By owner: blocks by birth.
            var held: [UInt64: [BirthEpoch: UInt64]] = [:]
            for node in nodes.values {
                for segment in node.segments {
                    try forEachEntry(segment, bornAfter: BirthEpoch(0)) { entry in
                        held[node.record.id, default: [:]][entry.birth, default: 0] +=
                            entry.run.count
                        return true
                    }
                }
            }
            // What a node and all before it dropped, unless a branch on the way keeps what is older. A
            // parent's id is smaller.
            var dropped: [UInt64: UInt64] = [:]
            var result: [SnapshotFigures] = []
            for node in nodes.values.sorted(by: { $0.record.id < $1.record.id }) {
                let before = node.record.parent == 0 ? 0 : dropped[node.record.parent]
                if let before, node.children.count == 1 {
                    dropped[node.record.id] =
                        before + (held[node.record.id] ?? [:]).values.reduce(0, +)
                }
                if node.record.isDeleted { continue }
                var figures = SnapshotFigures(record: node.record, label: node.label)
                figures.parentName = nodes[node.record.parent]?.label?.name
                if let tree = volume.tree(node.record.head), node.record.kind == .head {
                    figures.record.counts = tree.counts
                }
                if node.record.kind == .snapshot, node.children.count == 1,
                    let child = node.children.first
                {
                    let older = nodes[node.record.parent]?.record.epoch ?? BirthEpoch(0)
                    let births = held[child] ?? [:]
                    figures.uniqueBlocks = births.reduce(0) {
                        $1.key > older && $1.key <= node.record.epoch ? $0 + $1.value : $0
                    }
                    figures.blocksWithOlder = dropped[node.record.id].map {
                        $0 + births.values.reduce(0, +)
                    }
                } else if node.record.kind == .snapshot, node.children.count > 1 {
                    figures.uniqueBlocks = 0
                }
                result.append(figures)
            }
            return result
        }
    }

    /// What is known of one without looking at deadlists.
    public func namedFigures(_ name: [UInt8]) -> SnapshotFigures? {
        guard let node = node(named: name) else { return nil }
        var figures = SnapshotFigures(record: node.record, label: node.label)
        figures.parentName = self.node(node.record.parent)?.label?.name
        return figures
    }

    /// Blocks that come back when all of these go together: an upper bound with shared blocks. Not complete
    /// if one of them has nothing that goes on from it, for then only a walk of its tree could tell.
    public func blocksFreed(
        by names: [[UInt8]]
    ) throws(FSError) -> (blocks: UInt64, isComplete: Bool) {
        try volume.shareLock.withLock { () throws(FSError) in
            let nodes = Dictionary(uniqueKeysWithValues: allNodes().map { ($0.record.id, $0) })
            let gone = Set(names.compactMap { node(named: $0)?.record.id })
            var blocks: UInt64 = 0
            // The epoch of the nearest that stays, or from which several go on. A parent's id is smaller.
            var limits: [UInt64: BirthEpoch] = [:]
            for node in nodes.values.sorted(by: { $0.record.id < $1.record.id }) {
                let limit = limits[node.record.parent] ?? BirthEpoch(0)
                let isGone = gone.contains(node.record.id) && node.children.count == 1
                limits[node.record.id] = isGone ? limit : node.record.epoch
                guard gone.contains(node.record.parent),
                    nodes[node.record.parent]?.children.count == 1
                else { continue }
                for segment in node.segments {
                    try forEachEntry(segment, bornAfter: limit) { entry in
                        blocks += entry.run.count
                        return true
                    }
                }
            }
            return (blocks, !gone.contains { nodes[$0]?.children.isEmpty != false })
        }
    }

    /// The snapshots from `first` to `last` on the way from the one to the other, both included; without
    /// `first` from the oldest, without `last` to the newest of the default head. Empty if the one is
    /// not before the other.
    public func range(from first: [UInt8]?, to last: [UInt8]?) -> [[UInt8]] {
        var names: [[UInt8]] = []
        var next =
            last.map { node(named: $0) } ?? node(of: .head).flatMap { node($0.record.parent) }
        if last != nil, next?.record.kind != .snapshot { return [] }
        while let node = next {
            if let label = node.label, !node.record.isDeleted { names.append(label.name) }
            if let first, node.label?.name == first { return names.reversed() }
            next = self.node(node.record.parent)
        }
        return first == nil ? names.reversed() : []
    }

    /// Whether space of deleted snapshots is being given back just now.
    public var isSweeping: Bool { sweeper.isWorking }

    /// Blocks that deleted snapshots have given back since the volume was opened.
    public var givenBlocks: UInt64 { sweeper.givenBlocks }

    /// Bytes a second that are given back at most, until all that waits now is done; 0 for what the volume's
    /// property says.
    public var sweepRate: UInt64 {
        get { sweeper.rate }
        set { sweeper.rate = newValue }
    }

    /// What holds just now; 0 for no limit.
    var presentRate: UInt64 {
        if sweeper.rate > 0 { return sweeper.rate }
        return (try? volume.setting(Property.sweepRate.settingNumber ?? 0)) ?? 0
    }

    /// Blocks of deleted snapshots that are still to come back, as far as deadlists have them: not complete
    /// while one is there from which nothing goes on, whose tree has to be walked.
    ///
    /// Costs a look at each deadlist; nothing of what stays is read.
    public func blocksToGive() throws(FSError) -> (blocks: UInt64, isComplete: Bool) {
        try volume.shareLock.withLock { () throws(FSError) in
            var blocks: UInt64 = 0
            var limits: [UInt64: BirthEpoch] = [:]
            var isComplete = true
            for node in allNodes().sorted(by: { $0.record.id < $1.record.id }) {
                let limit = limits[node.record.parent] ?? BirthEpoch(0)
                limits[node.record.id] = node.isMergeable ? limit : node.record.epoch
                if node.isEnding { isComplete = false }
                for segment in node.segments {
                    try forEachEntry(segment, bornAfter: limit) { entry in
                        blocks += entry.run.count
                        return true
                    }
                }
            }
            return (blocks, isComplete)
        }
    }
}
