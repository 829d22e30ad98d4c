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
            var result: [SnapshotFigures] = []
            for node in nodes.values.sorted(by: { $0.record.id < $1.record.id })
            where !node.record.isDeleted {
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
                    var sum: UInt64 = births.values.reduce(0, +)
                    var next = nodes[node.record.id]
                    // A branch on the way keeps what is older than it.
                    while let one = next, one.children.count == 1 {
                        sum += (held[one.record.id] ?? [:]).values.reduce(0, +)
                        next = nodes[one.record.parent]
                    }
                    figures.blocksWithOlder = next == nil ? sum : nil
                } else if node.record.kind == .snapshot, node.children.count > 1 {
                    figures.uniqueBlocks = 0
                }
                result.append(figures)
            }
            return result
        }
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
            for node in nodes.values {
                guard gone.contains(node.record.parent),
                    nodes[node.record.parent]?.children.count == 1
                else { continue }
                // Up to the next that stays, or holds what several go on from.
                var keeper = nodes[node.record.parent]
                while let next = keeper, gone.contains(next.record.id), next.children.count == 1 {
                    keeper = nodes[next.record.parent]
                }
                let limit = keeper?.record.epoch ?? BirthEpoch(0)
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
}
