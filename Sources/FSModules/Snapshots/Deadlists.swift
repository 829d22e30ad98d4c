/// What deadlists hold: entering references that a head dropped, and finding entries again.
public import FSCore

extension Snapshots {
    public func keep(
        _ dropped: [Transaction.Release], in segment: UInt64, death: SuperblockSequence,
        _ transaction: Transaction
    ) throws(FSError) {
        for drop in dropped {
            try enter(
                DeadlistRecord(
                    segment: segment, birth: drop.birth, run: drop.run, references: 1,
                    death: death),
                transaction)
        }
    }

    /// Adds an entry to the multiset. Where one begins at the same block already, both have the part
    /// that they have in common, and the rest of the longer one becomes an entry of its own.
    private func enter(
        _ record: DeadlistRecord, _ transaction: Transaction
    ) throws(FSError) {
        var pieces = [record]
        while let piece = pieces.popLast() {
            guard var present = try entry(piece.key, in: transaction) else {
                transaction.put(piece.key, piece.encoded(), tree: .volume)
                continue
            }
            if volume.brokenRules.contains(.deadlistIsSet) { continue }
            let common = min(present.run.count, piece.run.count)
            for longer in [present, piece] where longer.run.count > common {
                var rest = longer
                rest.run = BlockRun(longer.run.start + common, longer.run.count - common)
                pieces.append(rest)
            }
            let (sum, overflow) = present.references.addingReportingOverflow(piece.references)
            guard !overflow else {
                throw .corrupt(
                    Corruption(.deadlist, at: piece.run.start.block << 12, "too many references"))
            }
            present.run.count = common
            present.references = sum
            present.death = max(present.death, piece.death)
            transaction.put(present.key, present.encoded(), tree: .volume)
        }
    }

    private func entry(
        _ key: Key, in transaction: Transaction
    ) throws(FSError) -> DeadlistRecord? {
        let layout = volume.diskLayout
        return try volume.value(key, of: volume.volumeTree, in: transaction) {
            (value) throws(FSError) in try DeadlistRecord(key, decoding: value, layout: layout)
        }
    }

    /// Calls `body` with a segment's entries that were born after `epoch` until it returns false.
    func forEachEntry(
        _ segment: UInt64, bornAfter epoch: BirthEpoch,
        _ body: (DeadlistRecord) throws(FSError) -> Bool
    ) throws(FSError) {
        let range = DeadlistRecord.keys(segment, bornAfter: epoch)
        let layout = volume.diskLayout
        var position: Key? = range.lowerBound
        try volume.reading { () throws(TreeFault) in
            try volume.volumeTree.scan(&position, through: range.upperBound) {
                (key, value) throws(FSError) in
                guard key.type == .deadlist else { return true }
                return try body(try DeadlistRecord(key, decoding: value, layout: layout))
            }
        }
    }
}
