/// Which block numbers were moved, and to where: the remap items of the volume tree, in memory.
///
/// Trees, sums, births, share counts and snapshots go on saying the old number, the *source*; only
/// `RemappedBlockDevice` and the allocator know the *target*. So moving a block changes one item,
/// however many snapshots refer to it.
///
///     move   copy, then one transaction: entry put, target published, source released
///     drop   the last reference goes: entry deleted, target released
///     home   (the volume has grown again) copy back, entry deleted, source published
///
/// A source that lies inside the volume stays busy as long as its entry, for its number is taken.
/// Example: block 9 moved to 5. Its file is deleted, which deletes the entry and releases 5. Were 9
/// free at once, a new file could take it while a read that began before still asks for 9 and is sent
/// to 5. So the entry stays in memory, *dropped*, until that read has ended and the checkpoint without
/// it is durable; then 5 and 9 are free together.
///
/// - Invariant: nodes of the volume tree are never moved this way, since the table is read from them.
/// - Invariant: live entries change under the exclusive tree lock only. The table's own lock is for
///   translations, which hold no other, and is a leaf below the allocator's.
internal import Synchronization

@safe
final class RemapTable: @unchecked Sendable {
    private struct Entry {
        var record: RemapRecord
        /// Nobody refers to the source any more.
        var isDropped = false
    }

    /// Requests to the device that a translation was made for.
    let readers = ReadEpochs()
    private let lock = ReadWriteLock()
    /// By region of the source, in order.
    private var regions: [UInt64: [Entry]] = [:]
    /// Nothing below is moved, or being moved.
    private let lowest = Atomic<UInt64>(.max)
    private let liveBlocks = Atomic<UInt64>(0)
    private var watched: UInt64 = .max

    // MARK: Questions

    /// Whether a request that ends before byte `end` may need a translation.
    @inline(__always)
    func mayTouch(upTo end: UInt64) -> Bool { end >> 12 > lowest.load(ordering: .acquiring) }

    /// Blocks that are elsewhere.
    var movedBlocks: UInt64 { liveBlocks.load(ordering: .acquiring) }
    var isEmpty: Bool { lock.shared { regions.isEmpty } }

    /// From now on requests from block `block` on are waited for by `drain`; nil ends that.
    func watch(from block: UInt64?) {
        lock.exclusive {
            watched = block ?? .max
            updateLowest()
        }
    }

    /// Waits until all requests that began before have ended; false if it was cancelled.
    func drain(isCancelled: () -> Bool) -> Bool { readers.drain(isCancelled: isCancelled) }

    /// Where the blocks of a range are, in order.
    func translate(_ range: Range<UInt64>) -> [(start: UInt64, count: UInt64)] {
        var result: [(start: UInt64, count: UInt64)] = []
        func add(_ start: UInt64, _ count: UInt64) {
            if let last = result.last, last.start + last.count == start {
                result[result.count - 1].count += count
            } else {
                result.append((start, count))
            }
        }
        lock.shared {
            var position = range.lowerBound
            forEachEntry(range) { entry, _ in
                guard let part = entry.record.part(range) else { return }
                if position < part.source { add(position, part.source - position) }
                add(part.target, part.count)
                position = part.end
            }
            if position < range.upperBound { add(position, range.upperBound - position) }
        }
        return result
    }

    /// The entries of a range that somebody refers to, in order, whole.
    func records(touching range: Range<UInt64>) -> [RemapRecord] {
        guard mayTouch(upTo: range.upperBound << 12) else { return [] }
        return lock.shared {
            var found: [RemapRecord] = []
            forEachEntry(range) { entry, _ in if !entry.isDropped { found.append(entry.record) } }
            return found
        }
    }

    /// The parts of a range whose numbers are taken by an entry, dropped or not.
    func sources(in range: Range<UInt64>) -> [Range<UInt64>] {
        guard mayTouch(upTo: range.upperBound << 12) else { return [] }
        return lock.shared {
            var found: [Range<UInt64>] = []
            forEachEntry(range) { entry, _ in
                if let part = entry.record.part(range) { found.append(part.source..<part.end) }
            }
            return found
        }
    }

    /// The same for a region, as offsets into it.
    func sources(inRegion region: UInt64) -> [(start: Int, count: Int)] {
        let first = region * DiskLayout.regionBlocks
        return sources(in: first..<first + DiskLayout.regionBlocks).map {
            (Int($0.lowerBound - first), $0.count)
        }
    }

    /// Entries whose target touches a range.
    func records(withTargetFrom first: UInt64) -> [RemapRecord] {
        lock.shared {
            regions.values.flatMap { $0 }
                .filter { !$0.isDropped && $0.record.target + $0.record.count > first }
                .map(\.record).sorted { $0.source < $1.source }
        }
    }
    var all: [RemapRecord] { records(withTargetFrom: 0) }

    // MARK: Changes

    /// Takes a record of the tree in; false if it overlaps another.
    func insert(_ record: RemapRecord) -> Bool {
        lock.exclusive { insertLocked(Entry(record: record)) }
    }

    /// Replaces live entries by what a transaction made of them. Returns what of the old ones is
    /// gone; it stays known as dropped, except for the parts in `home`.
    func replace(
        _ old: [RemapRecord], with new: [RemapRecord], home: [Range<UInt64>]
    ) -> [RemapRecord] {
        lock.exclusive {
            for record in old { removeLocked(record) }
            var gone = old
            for record in new {
                gone = Self.subtract(record.source..<record.end, from: gone)
                _ = insertLocked(Entry(record: record))
            }
            for range in home { gone = Self.subtract(range, from: gone) }
            for record in gone { _ = insertLocked(Entry(record: record, isDropped: true)) }
            updateLowest()
            return gone
        }
    }

    /// Forgets dropped entries: nobody asks for their sources any more.
    func forget(_ records: [RemapRecord]) {
        lock.exclusive {
            for record in records { removeLocked(record) }
            updateLowest()
        }
    }

    /// What is left of records without a range of sources.
    static func subtract(_ range: Range<UInt64>, from records: [RemapRecord]) -> [RemapRecord] {
        records.flatMap { record in
            [record.part(0..<range.lowerBound), record.part(range.upperBound..<UInt64.max)]
                .compactMap { $0 }
        }
    }

    // MARK: The table itself, with the lock held

    private func forEachEntry(_ range: Range<UInt64>, _ body: (Entry, Int) -> Void) {
        guard !range.isEmpty, !regions.isEmpty else { return }
        let first = range.lowerBound / DiskLayout.regionBlocks
        let last = (range.upperBound - 1) / DiskLayout.regionBlocks
        func visit(_ region: UInt64) {
            guard let entries = regions[region] else { return }
            var index = Self.index(entries, endingBehind: range.lowerBound)
            while index < entries.count, entries[index].record.source < range.upperBound {
                body(entries[index], index)
                index += 1
            }
        }
        if last - first < UInt64(regions.count) {
            for region in first...last { visit(region) }
        } else {
            for region in regions.keys.sorted() where region >= first && region <= last {
                visit(region)
            }
        }
    }

    /// The first entry that ends behind `block`.
    private static func index(_ entries: [Entry], endingBehind block: UInt64) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].record.end > block { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private func insertLocked(_ entry: Entry) -> Bool {
        let region = entry.record.source / DiskLayout.regionBlocks
        var entries = regions.removeValue(forKey: region) ?? []
        defer {
            regions[region] = entries
            if entry.record.source < lowest.load(ordering: .relaxed) {
                lowest.store(entry.record.source, ordering: .releasing)
            }
        }
        let index = Self.index(entries, endingBehind: entry.record.source)
        if index < entries.count, entries[index].record.source < entry.record.end { return false }
        entries.insert(entry, at: index)
        if !entry.isDropped {
            liveBlocks.wrappingAdd(entry.record.count, ordering: .relaxed)
        }
        return true
    }

    private func removeLocked(_ record: RemapRecord) {
        let region = record.source / DiskLayout.regionBlocks
        guard var entries = regions.removeValue(forKey: region) else { return }
        let index = Self.index(entries, endingBehind: record.source)
        if index < entries.count, entries[index].record == record {
            if !entries[index].isDropped {
                liveBlocks.wrappingSubtract(record.count, ordering: .relaxed)
            }
            entries.remove(at: index)
        }
        if !entries.isEmpty { regions[region] = entries }
    }

    private func updateLowest() {
        let first = regions.keys.min().flatMap { regions[$0]?.first?.record.source } ?? .max
        lowest.store(min(first, watched), ordering: .releasing)
    }
}
