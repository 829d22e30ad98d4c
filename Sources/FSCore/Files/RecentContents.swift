/// Deduplication as data is written (`mount -o dedup`, property `dedup`): after a write, what of it equals
/// something that was written before is shared with that, as `aegisfs dedup` would do it later.
///
/// The write itself is an operation like any other; sharing comes after it, changes nothing that can be
/// seen, and may fail or be cut off without harm. Data is on the device before it is compared, so a
/// duplicate costs a write and two reads, and its space until the next checkpoint.
///
/// What was written before is known by a table of fixed size, in which newer places take the room of
/// older ones. It begins empty with each mount: what it does not know `aegisfs dedup` finds.
///
/// - Invariant: two files share a block only after their bytes were compared.
/// - Invariant: the table never grows; it is not there before the first use.
@safe
final class RecentContents: @unchecked Sendable {
    private let lock = Mutex()
    /// Two words a slot, as in `CandidateTable`.
    private var words: [UInt64] = []
    private let mask: Int

    /// - Parameter byteCount: memory at most, rounded down to a power of two; at least 64 KiB.
    init(byteCount: Int) {
        var slots = 4096
        while slots * 32 <= byteCount { slots *= 2 }
        mask = slots - 1
    }

    var byteCount: Int { lock.withLock { words.count * 8 } }

    /// The last place with this tag, whose own place is `place` from now on.
    func exchange(_ tag: UInt64, _ place: CandidateTable.Place) -> CandidateTable.Place? {
        lock.withLock {
            if words.isEmpty { words = [UInt64](repeating: 0, count: 2 * (mask + 1)) }
            let slot = 2 * (Int(truncatingIfNeeded: tag) & mask)
            let known = CandidateTable.Place(words[slot], words[slot + 1], ifTagged: tag)
            (words[slot], words[slot + 1]) = place.words(tagged: tag)
            return known
        }
    }
}

extension FileSystem {
    /// Whether what is written to a file is to be shared.
    func deduplicates(_ record: InodeRecord) -> Bool {
        switch record.deduplication {
        case .inherited: volume.options.deduplicates
        case .on: true
        case .off: false
        }
    }

    /// Shares what was just written to some blocks of a file with what was written before.
    func shareWritten(_ inode: InodeNumber, _ range: Range<UInt64>) {
        var result = DeduplicationResult()
        do throws(FSError) {
            let extents = try locks.shared(inode) { () throws(FSError) in
                try fileMap.extents(inode, range)
            }
            for extent in extents where extent.record.kind == .data {
                try deduplicate(inode, extent.clipped(to: range), &result) { tag, place in
                    volume.recentContents.exchange(tag, place)
                }
            }
        } catch {
            // The write has succeeded; what is not shared takes space, that is all.
        }
    }
}

extension FileMap.Extent {
    /// The part in a range; encoded extents count as a whole.
    fileprivate func clipped(to range: Range<UInt64>) -> FileMap.Extent {
        let start = max(block, range.lowerBound)
        let end = min(self.end, range.upperBound)
        guard record.encoding == nil, start < end, start > block || end < self.end else {
            return self
        }
        return FileMap.Extent(
            block: start, record: record.part(UInt32(start - block), UInt32(end - start)))
    }
}
