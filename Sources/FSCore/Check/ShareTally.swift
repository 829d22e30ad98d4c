/// Counts, for blocks that the volume tree calls shared, how many extents refer to them.
///
/// Memory: some 16 bytes for each record and for each reference to shared blocks, never for the blocks
/// themselves: a crafted record may claim any number of those.
struct ShareTally {
    private(set) var records: [ShareRecord] = []
    /// Where references begin (+1) and end (−1).
    private var edges: [(at: UInt64, delta: Int32)] = []

    /// Adds a record; false if it overlaps the one before. Records come in order.
    mutating func add(_ record: ShareRecord) -> Bool {
        if let last = records.last, last.end > record.start.rawValue { return false }
        records.append(record)
        return true
    }

    /// Counts one reference to each block of `run`, and hands out its parts.
    mutating func count(_ run: BlockRun, part: (BlockRun, _ isShared: Bool) -> Void) {
        var position = run.start.rawValue
        let end = position + run.count
        var index = records.partitioningIndex { $0.end > position }
        func give(to stop: UInt64, isShared: Bool) {
            guard position < stop else { return }
            part(BlockRun(BlockAddress(rawValue: position), stop - position), isShared)
            position = stop
        }
        while index < records.count, records[index].start.rawValue < end {
            give(to: records[index].start.rawValue, isShared: false)
            let stop = min(end, records[index].end)
            edges.append((position, 1))
            edges.append((stop, -1))
            give(to: stop, isShared: true)
            index += 1
        }
        give(to: end, isShared: false)
    }

    /// Hands out records whose count is not what was found, with a block as example.
    ///
    /// - Parameter body: also gets what the records should be in its place.
    func forEachWrong(
        _ body: (ShareRecord, _ block: UInt64, _ found: Int, _ right: [ShareRecord]) -> Void
    ) {
        // Ends before beginnings, so that none of a record is left when the next one begins.
        let edges = edges.sorted { ($0.at, $0.delta) < ($1.at, $1.delta) }
        var next = 0
        for record in records {
            var found = 0
            var position = record.start.rawValue
            var wrong: (block: UInt64, found: Int)?
            var right: [ShareRecord] = []
            while position < record.end {
                while next < edges.count, edges[next].at <= position {
                    found += Int(edges[next].delta)
                    next += 1
                }
                if wrong == nil, found != Int(record.references) {
                    wrong = (BlockAddress(rawValue: position).block, found)
                }
                let start = position
                position = next < edges.count ? min(edges[next].at, record.end) : record.end
                guard found >= 2, position > start else { continue }
                let part = ShareRecord(
                    start: BlockAddress(rawValue: start), blocks: position - start,
                    references: UInt32(clamping: found))
                if let last = right.last, last.canJoin(part) {
                    right[right.count - 1].blocks += part.blocks
                } else {
                    right.append(part)
                }
            }
            while next < edges.count, edges[next].at <= record.end, edges[next].delta < 0 {
                next += 1
            }
            if let wrong { body(record, wrong.block, wrong.found, right) }
        }
    }
}

extension Array {
    /// The first index whose element satisfies `predicate`, if all behind it do too.
    fileprivate func partitioningIndex(_ predicate: (Element) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if predicate(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
