/// Which snapshots go: ranges of names, and rules of retention.
internal import FSCore
internal import FSModules

extension SnapshotService {
    /// Names, with ranges `A..B` taken apart; what is a name as it stands is no range.
    func expanded(_ names: [[UInt8]]) -> [[UInt8]] {
        var result: [[UInt8]] = []
        var known: Set<[UInt8]> = []
        for name in names {
            for one in range(name) ?? [name] where known.insert(one).inserted { result.append(one) }
        }
        return result
    }

    private func range(_ name: [UInt8]) -> [[UInt8]]? {
        guard store.label(of: name) == nil, let (first, last) = ends(ofRange: name) else {
            return nil
        }
        let found = store.range(
            from: first.isEmpty ? nil : first, to: last.isEmpty ? nil : last)
        return found.isEmpty ? nil : found
    }

    /// What stands before and behind the first two dots.
    func ends(ofRange name: [UInt8]) -> (first: [UInt8], last: [UInt8])? {
        let text = String(decoding: name, as: UTF8.self)
        guard let dots = text.firstRange(of: "..") else { return nil }
        return (Array(text[..<dots.lowerBound].utf8), Array(text[dots.upperBound...].utf8))
    }

    func noteFreed(_ names: [[UInt8]], _ document: inout SnapshotDocument) throws(FSError) {
        let freed = try store.blocksFreed(by: names)
        document.freesBytes = freed.blocks << 12
        document.freesIsComplete = freed.isComplete
    }

    /// Says what is to go; deleting it is another request.
    func prune(_ request: SnapshotRequest, _ document: inout SnapshotDocument) throws(FSError) {
        let now = Timestamp.now().seconds
        let all = try store.figures().filter { $0.record.kind == .snapshot && $0.label != nil }
        let candidates = all.map { figures in
            Retention.Candidate(
                name: String(decoding: figures.label?.name ?? [], as: UTF8.self),
                created: figures.record.created.seconds,
                isHeld: figures.label?.holds.isEmpty == false,
                isProtected: figures.label.map { $0.protectedUntil > now } ?? false)
        }
        var reasons = (request.retention ?? Retention()).reasons(candidates)
        for index in candidates.indices where store.isInUse(Array(candidates[index].name.utf8)) {
            reasons[index].append("in use")
        }
        for index in candidates.indices where mounted?.contains(all[index].record) == true {
            reasons[index].append("mounted")
        }
        if let wanted = request.freeBytes { try keepBeyond(wanted, candidates, &reasons) }
        document.isDryRun = true
        document.verdicts = candidates.indices.map { index in
            SnapshotDocument.Verdict(
                name: candidates[index].name,
                created: TimeFormatter.utc(candidates[index].created),
                isKept: !reasons[index].isEmpty,
                reasons: reasons[index].isEmpty
                    ? [request.freeBytes == nil ? "no rule keeps it" : "free"] : reasons[index])
        }
        let gone = candidates.indices.filter { reasons[$0].isEmpty }
        document.snapshots = gone.map { SnapshotDocument.Entry(all[$0]) }
        try noteFreed(gone.map { Array(candidates[$0].name.utf8) }, &document)
    }

    /// Of what no rule keeps, the oldest go until so much comes back.
    private func keepBeyond(
        _ wanted: UInt64, _ candidates: [Retention.Candidate], _ reasons: inout [[String]]
    ) throws(FSError) {
        let order = candidates.indices.filter { reasons[$0].isEmpty }.sorted {
            (candidates[$0].created, $0) < (candidates[$1].created, $1)
        }
        func freed(_ count: Int) throws(FSError) -> UInt64 {
            try store.blocksFreed(by: order.prefix(count).map { Array(candidates[$0].name.utf8) })
                .blocks << 12
        }
        // More of them never free less. If all are not enough, those go that free anything.
        let wanted = min(wanted, try freed(order.count))
        var (low, high) = (0, order.count)
        while low < high {
            let middle = (low + high) / 2
            if try freed(middle) >= wanted { high = middle } else { low = middle + 1 }
        }
        for index in order.dropFirst(low) { reasons[index] = ["enough is free"] }
    }
}
