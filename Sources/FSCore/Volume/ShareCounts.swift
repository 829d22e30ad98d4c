/// Blocks with several references: what copy_file_range shares instead of copying.
///
/// A transaction notes the references that it adds and drops. Right before it is committed the
/// counts are looked up for all of them together; what loses its last reference is released, and
/// the new counts are stored by the same transaction.
///
/// - Invariant: counts are read and their changes committed under one lock. The inodes' locks would
///   not do: two files that share a block have different ones.
/// - Invariant: a block that nobody shares yet becomes shared only under the lock of the inode that
///   refers to it, so whoever drops its only reference need not ask.
extension Volume {
    /// Settles the references of a transaction and commits it; false as of `commit`.
    func settleAndCommit(_ transaction: Transaction, _ space: SpaceClass) throws(FSError) -> Bool {
        guard !transaction.dropped.isEmpty || !transaction.referenced.isEmpty else {
            return try commit(transaction, space)
        }
        if transaction.referenced.isEmpty, !mayHaveShares {
            let moment = moment(of: transaction.tree)
            guard transaction.enter(moment.epoch) else { return false }
            if moment.parentEpoch.rawValue == 0 {
                transaction.releaseDropped()
                return try commit(transaction, space)
            }
        }
        if !transaction.referenced.isEmpty { mayHaveShares = true }
        return try shareLock.withLock { () throws(FSError) in
            try settleAndCommitLocked(transaction, space)
        }
    }

    /// The same under the share lock.
    package func settleAndCommitLocked(
        _ transaction: Transaction, _ space: SpaceClass
    ) throws(FSError) -> Bool {
        let moment = moment(of: transaction.tree)
        guard transaction.enter(moment.epoch) else { return false }
        let kept = transaction.takeDropped { $0.birth <= moment.parentEpoch }
        if !kept.isEmpty {
            transaction.deathSequence = moment.sequence
            try snapshots.keep(
                kept, in: moment.segment, death: moment.sequence, transaction)
        }
        if !mayHaveShares || options.brokenRules.contains(.sharesSkipped) {
            transaction.releaseDropped()
        } else {
            try settleShares(transaction)
        }
        return try commit(transaction, space)
    }

    /// What decides about a reference that is dropped now.
    private struct Moment {
        var epoch: BirthEpoch
        var sequence: SuperblockSequence
        var parentEpoch: BirthEpoch
        var segment: UInt64
    }

    private func moment(of id: TreeID) -> Moment {
        treeLock.shared {
            let tree = tree(id)
            return Moment(
                epoch: window.birthEpoch, sequence: window.sequence,
                parentEpoch: tree?.parentEpoch ?? BirthEpoch(0), segment: tree?.segment ?? 0)
        }
    }

    /// Whether any block is shared, by a look at the tree.
    func findShares() throws(FSError) {
        mayHaveShares = try !shares(touching: 0..<UInt64.max, limit: 1).isEmpty
    }

    private func settleShares(_ transaction: Transaction) throws(FSError) {
        var changed: [ShareRecord] = []
        var seen: [ShareRecord] = []
        for part in Self.netChanges(transaction) {
            // Neighbours too: a run may join them.
            let first = max(part.range.lowerBound, 1) - 1
            for share in try shares(touching: first..<part.range.upperBound + 1)
            where !seen.contains(where: { $0.start == share.start }) {
                seen.append(share)
            }
            try Self.forEachRun(part.range, seen) { (range, old) throws(FSError) in
                let new = Int64(old) + part.delta
                guard new >= 0, new <= UInt32.max else {
                    throw .corrupt(
                        Corruption(.share, at: range.lowerBound << 12, "references do not add up"))
                }
                let start = BlockAddress(rawValue: range.lowerBound)
                let count = UInt64(range.count)
                if new == 0 { transaction.release(BlockRun(start, count)) }
                changed.append(
                    ShareRecord(start: start, blocks: count, references: UInt32(new)))
            }
        }
        store(seen, changed, transaction)
    }

    private struct NetChange {
        var range: Range<UInt64>
        var delta: Int64
        var birth: BirthEpoch
    }

    /// What a transaction adds and drops, as runs that do not overlap, without those that it both
    /// adds and drops.
    private static func netChanges(_ transaction: Transaction) -> [NetChange] {
        var edges: [(at: UInt64, delta: Int64)] = []
        for run in transaction.referenced {
            edges.append((run.start.rawValue, 1))
            edges.append((run.start.rawValue + run.count, -1))
        }
        for drop in transaction.dropped {
            edges.append((drop.run.start.rawValue, -1))
            edges.append((drop.run.start.rawValue + drop.run.count, 1))
        }
        edges.sort { $0.at < $1.at }
        var births = transaction.dropped.sorted { $0.run.start < $1.run.start }[...]
        var changes: [NetChange] = []
        var delta: Int64 = 0
        var position: UInt64 = 0
        for edge in edges {
            if delta != 0, edge.at > position {
                while let first = births.first,
                    first.run.start.rawValue + first.run.count <= position
                {
                    births = births.dropFirst()
                }
                changes.append(
                    NetChange(
                        range: position..<edge.at, delta: delta,
                        birth: births.first?.birth ?? BirthEpoch(0)))
            }
            position = edge.at
            delta += edge.delta
        }
        return changes
    }

    /// The runs of equal count in a range, with their count.
    static func forEachRun(
        _ range: Range<UInt64>, _ shares: [ShareRecord],
        _ body: (Range<UInt64>, UInt32) throws(FSError) -> Void
    ) throws(FSError) {
        var position = range.lowerBound
        for share in shares.sorted(by: { $0.start < $1.start })
        where share.start.rawValue < range.upperBound && share.end > range.lowerBound {
            let start = max(share.start.rawValue, range.lowerBound)
            let end = min(share.end, range.upperBound)
            if position < start { try body(position..<start, 1) }
            try body(start..<end, share.references)
            position = end
        }
        if position < range.upperBound { try body(position..<range.upperBound, 1) }
    }

    /// Replaces what the items `seen` say of the blocks in `changed`.
    private func store(
        _ seen: [ShareRecord], _ changed: [ShareRecord], _ transaction: Transaction
    ) {
        var pieces = changed
        for share in seen {
            // What of the old item was not changed.
            var position = share.start.rawValue
            for piece in changed.sorted(by: { $0.start < $1.start })
            where piece.start.rawValue < share.end && piece.end > share.start.rawValue {
                if position < piece.start.rawValue {
                    pieces.append(
                        ShareRecord(
                            start: BlockAddress(rawValue: position),
                            blocks: piece.start.rawValue - position, references: share.references))
                }
                position = max(position, piece.end)
            }
            if position < share.end {
                pieces.append(
                    ShareRecord(
                        start: BlockAddress(rawValue: position), blocks: share.end - position,
                        references: share.references))
            }
        }
        var result: [ShareRecord] = []
        for piece in pieces.filter({ $0.references >= 2 }).sorted(by: { $0.start < $1.start }) {
            if let last = result.last, last.canJoin(piece) {
                result[result.count - 1].blocks += piece.blocks
            } else {
                result.append(piece)
            }
        }
        for share in seen where !result.contains(where: { $0.start == share.start }) {
            transaction.delete(share.key, tree: .volume)
        }
        for share in result where !seen.contains(share) {
            transaction.put(share.key, share.encoded(), tree: .volume)
        }
    }

    /// The items that overlap a run, in order.
    func shares(of run: BlockRun) throws(FSError) -> [ShareRecord] {
        guard mayHaveShares else { return [] }
        return try shares(touching: run.start.rawValue..<run.start.rawValue + run.count)
    }

    /// The items that overlap a range of block addresses, in order.
    private func shares(
        touching range: Range<UInt64>, limit: Int = .max
    ) throws(FSError) -> [ShareRecord] {
        let layout = layout
        return try reading { () throws(TreeFault) in
            var found: [ShareRecord] = []
            let before = try volumeTree.last(
                from: Key(0, .share, 0), through: Key(0, .share, range.lowerBound)
            ) { (key, value) throws(FSError) in
                try ShareRecord(key, decoding: value, layout: layout)
            }
            if let before, before.end > range.lowerBound { found.append(before) }
            var position: Key? = Key(0, .share, found.last?.end ?? range.lowerBound)
            guard found.count < limit else { return found }
            try volumeTree.scan(&position, through: Key(0, .share, range.upperBound - 1)) {
                (key, value) throws(FSError) in
                found.append(try ShareRecord(key, decoding: value, layout: layout))
                return found.count < limit
            }
            return found
        }
    }
}
