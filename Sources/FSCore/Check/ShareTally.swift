/// Counts, for blocks that the volume tree calls shared, how many extents refer to them.
///
/// Memory: 4 bytes for each shared block.
struct ShareTally {
    private var records: [ShareRecord] = []
    private var found: [[UInt32]] = []

    /// Adds a record; false if it overlaps the one before. Records come in order.
    mutating func add(_ record: ShareRecord) -> Bool {
        if let last = records.last, last.end > record.start.rawValue { return false }
        records.append(record)
        found.append([UInt32](repeating: 0, count: Int(record.blocks)))
        return true
    }

    /// Counts one reference to each block of `run`. `first` hears of blocks that nobody referred to
    /// before: those that are not shared, and shared ones at their first reference.
    mutating func count(_ run: BlockRun, first: (BlockRun) -> Void) {
        var position = run.start.rawValue
        let end = position + run.count
        var index = records.partitioningIndex { $0.end > position }
        while position < end {
            guard index < records.count, records[index].start.rawValue < end else {
                first(BlockRun(BlockAddress(rawValue: position), end - position))
                return
            }
            let record = records[index]
            if position < record.start.rawValue {
                first(
                    BlockRun(
                        BlockAddress(rawValue: position), record.start.rawValue - position))
                position = record.start.rawValue
            }
            let stop = min(end, record.end)
            while position < stop {
                let place = Int(position - record.start.rawValue)
                found[index][place] += 1
                if found[index][place] == 1 {
                    first(BlockRun(BlockAddress(rawValue: position), 1))
                }
                position += 1
            }
            index += 1
        }
    }

    /// Hands out records whose count is not what was found, with a block as example.
    func forEachWrong(_ body: (ShareRecord, _ block: UInt64, _ found: UInt32) -> Void) {
        for (record, counts) in zip(records, found) {
            guard let place = counts.firstIndex(where: { $0 != record.references }) else {
                continue
            }
            body(record, record.start.block + UInt64(place), counts[place])
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
