/// Finds equal blocks of files and lets the files share them.
///
/// Candidates come from the sums that extents have anyway: a pass goes over the tree and puts each
/// block's sum, together with that of the block behind it, into a table; of an encoded extent the
/// sums of all of it. Whatever the table knows already is looked at: the bytes of both are read under
/// the locks of both inodes, compared, and as far around the candidate as they are equal, the second
/// file gets references to the blocks of the first. So unique data is never read.
///
/// The table does not grow: if it has no room for all blocks there are several passes, each for a part
/// of the sums.
///
/// - Invariant: two files share a block only after their bytes were compared.
/// - Invariant: an ended or cancelled run leaves what it has shared; the next one passes over it
///   without reading it.

/// What a run has done.
public struct DeduplicationResult: Sendable {
    /// Data blocks that were gone through in one pass, in bytes.
    public var scannedBytes: UInt64 = 0
    /// Of files, that are now shared.
    public var sharedBytes: UInt64 = 0
    /// Read to be compared.
    public var comparedBytes: UInt64 = 0
    /// Candidates whose bytes were different.
    public var falseCandidates: UInt64 = 0
    public var passes: UInt64 = 0
    public var tableBytes: UInt64 = 0
    public var isComplete = true
}

extension FileSystem {
    /// Deduplicates the files at and below `roots`, or all. Memory depends on nothing but
    /// `memoryBytes` and the depth of directories.
    ///
    /// - Parameters:
    ///   - memoryBytes: for the table; at least 64 KiB.
    ///   - progress: hears of bytes gone through and to go through, over all passes.
    public func deduplicate(
        _ roots: [InodeNumber] = [.root], memoryBytes: Int = 256 << 20,
        isCancelled: () -> Bool = { false }, progress: (UInt64, UInt64) -> Void = { _, _ in }
    ) throws(FSError) -> DeduplicationResult {
        try volume.requireWritable()
        let table = CandidateTable(byteCount: memoryBytes)
        var result = DeduplicationResult()
        result.tableBytes = UInt64(table.byteCount)
        let blocks = volume.allocator.busyCount
        let passes = table.passes(blocks: blocks)
        result.passes = passes
        var done: UInt64 = 0
        let total = blocks * passes << 12
        /// False if it was cancelled.
        func goThrough(_ range: ClosedRange<Key>, _ pass: UInt64) throws(FSError) -> Bool {
            var position: Key? = range.lowerBound
            while position != nil {
                if isCancelled() { return false }
                for (inode, extent) in try nextExtents(&position, range.upperBound) {
                    let held = UInt64(extent.record.storedBlocks) << 12
                    if pass == 0 { result.scannedBytes += held }
                    done += held
                    try deduplicate(inode, extent, &result) { tag, place in
                        guard tag % passes == pass else { return nil }
                        return table.findOrInsert(tag / passes, place)
                    }
                }
                progress(min(done, total), total)
            }
            return true
        }
        for pass in 0..<passes where result.isComplete {
            table.removeAll()
            if roots == [.root] {
                let all = Key(1, .inode, 0)...Key(.max, ItemType(rawValue: .max), .max)
                result.isComplete = try goThrough(all, pass)
                continue
            }
            result.isComplete = try forEachRegularFile(below: roots) { (inode) throws(FSError) in
                try goThrough(Key(inode, .extent)...Key(inode, .extent, .max), pass)
            }
        }
        return result
    }

    /// Goes through the regular files at and below some inodes, until `body` says false; one with several
    /// names there comes as often. Returns what `body` said last.
    private func forEachRegularFile(
        below roots: [InodeNumber], _ body: (InodeNumber) throws(FSError) -> Bool
    ) throws(FSError) -> Bool {
        let batch = 64
        for root in roots {
            let kind = try record(of: root).kind
            if kind == .regular, try !body(root) { return false }
            guard kind == .directory else { continue }
            /// The directories above, each with the last entry that was seen.
            var path: [(directory: InodeNumber, cookie: UInt64)] = [(root, 0)]
            var open: Set<UInt64> = [root.rawValue]
            while let (directory, cookie) = path.last {
                var entries: [(inode: InodeNumber, kind: FileKind, cookie: UInt64)] = []
                do throws(FSError) {
                    try readDirectory(directory, after: cookie, withAttributes: false) {
                        entry, _ in
                        entries.append((entry.inode, entry.kind, entry.cookie))
                        return entries.count < batch
                    }
                } catch .stale {
                    // It was removed meanwhile.
                }
                if entries.isEmpty {
                    open.remove(directory.rawValue)
                    path.removeLast()
                }
                for entry in entries {
                    path[path.count - 1].cookie = entry.cookie
                    if entry.kind == .regular, try !body(entry.inode) { return false }
                    // Not "." and "..", and none twice, whatever a damaged tree says.
                    guard entry.kind == .directory, entry.cookie > 2,
                        try isChild(entry.inode, of: directory),
                        open.insert(entry.inode.rawValue).inserted
                    else { continue }
                    path.append((entry.inode, 0))
                    break
                }
            }
        }
        return true
    }

    private func isChild(
        _ inode: InodeNumber, of directory: InodeNumber
    ) throws(FSError) -> Bool {
        do throws(FSError) {
            return try record(of: inode).parent == directory.rawValue
        } catch .stale {
            return false
        }
    }

    /// The regular files at and below some inodes, each once.
    public func regularFiles(below roots: [InodeNumber]) throws(FSError) -> [InodeNumber] {
        var files: Set<UInt64> = []
        var seen: Set<UInt64> = []
        var waiting = roots
        while let inode = waiting.popLast() {
            guard seen.insert(inode.rawValue).inserted else { continue }
            let kind: FileKind
            do throws(FSError) { kind = try record(of: inode).kind } catch .stale { continue }
            if kind == .directory {
                try readDirectory(inode, after: 0, withAttributes: false) { entry, _ in
                    // Not "." and "..".
                    if entry.cookie > 2 { waiting.append(entry.inode) }
                    return true
                }
            } else if kind == .regular {
                files.insert(inode.rawValue)
            }
        }
        return files.sorted().map { InodeNumber($0) }
    }

    /// The inode behind a path from the root; symbolic links are not followed.
    public func inode(at path: String) throws(FSError) -> InodeNumber {
        var inode = InodeNumber.root
        for name in path.utf8.split(separator: 0x2F) {
            let found = try Array(name).withView { (name) throws(FSError) in
                try lookup(name, in: inode)
            }
            release(found.inode, count: 1)
            inode = found.inode
        }
        return inode
    }

    /// The next data extents in the order of the tree.
    private func nextExtents(
        _ position: inout Key?, _ last: Key
    ) throws(FSError) -> [(InodeNumber, FileMap.Extent)] {
        var found: [(InodeNumber, FileMap.Extent)] = []
        var items = 0
        var next = position
        try volume.reading { () throws(TreeFault) in
            found = []
            items = 0
            next = position
            try tree.scan(&next, through: last) { (key, value) throws(FSError) in
                items += 1
                if key.type == .extent {
                    let inode = InodeNumber(key.object)
                    let record = try fileMap.decode(value, inode)
                    if record.kind == .data {
                        found.append(
                            (inode, FileMap.Extent(block: key.offset >> 12, record: record)))
                    }
                }
                return items < 512
            }
        }
        position = next
        return found
    }

    /// Shares what of an extent is equal to what `find` knows of: the place of other contents with
    /// the same tag, if any. It is told of each place.
    func deduplicate(
        _ inode: InodeNumber, _ extent: FileMap.Extent, _ result: inout DeduplicationResult,
        find: (UInt64, CandidateTable.Place) -> CandidateTable.Place?
    ) throws(FSError) {
        var index = 0
        let count = extent.record.encoding == nil ? Int(extent.record.blocks) : 1
        while index < count {
            let current = index
            index += 1
            guard let tag = Self.tag(extent.record, current) else { continue }
            let place = CandidateTable.Place(
                inode: inode.rawValue, block: extent.block + UInt64(current))
            guard let known = find(tag, place), known != place else { continue }
            let outcome = try shareEqual(
                InodeNumber(known.inode), known.block, inode, place.block, in: extent)
            result.comparedBytes += outcome.compared << 12
            result.sharedBytes += outcome.shared << 12
            if outcome.compared > 0, outcome.shared == 0 { result.falseCandidates += 1 }
            if let end = outcome.end { index = max(index, Int(end - extent.block)) }
        }
    }

    /// A number of the contents of one block and the next, or of all of an encoded extent.
    private static func tag(_ record: ExtentRecord, _ index: Int) -> UInt64? {
        var word: UInt64 = 0x9E37_79B9_7F4A_7C15
        func add(_ part: UInt64) {
            word = (word ^ part) &* 0xD6E8_FEB8_6659_FD93
            word ^= word >> 32
        }
        if let encoding = record.encoding {
            guard encoding.skip == 0, UInt32(encoding.wholeBlocks) == record.blocks else {
                return nil
            }
            for index in 0..<Int(encoding.storedBlocks) { add(record.sum(index).words.0) }
            add(UInt64(encoding.codec.rawValue))
        } else {
            add(record.sum(index).words.0)
            if index + 1 < Int(record.blocks) { add(record.sum(index + 1).words.0) }
        }
        add(0)
        return word
    }

    /// Compares what lies around a block of each file, as far as `extent` of the target goes, and
    /// shares what is equal.
    ///
    /// - Returns: blocks compared and shared, and the end of the run in the target that is shared,
    ///   now or already.
    private func shareEqual(
        _ source: InodeNumber, _ from: UInt64, _ target: InodeNumber, _ to: UInt64,
        in extent: FileMap.Extent
    ) throws(FSError) -> (compared: UInt64, shared: UInt64, end: UInt64?) {
        var answer: (compared: UInt64, shared: UInt64, end: UInt64?) = (0, 0, nil)
        do throws(FSError) {
            try change(source, target) { (transaction) throws(FSError) in
                answer = (0, 0, nil)
                let sourceRecord = try record(of: source)
                var record = try record(of: target)
                guard sourceRecord.kind == .regular, record.kind == .regular,
                    record.flags & InodeFlags.immutable == 0
                else { return }
                let before = min(to - extent.block, from)
                let count = UInt64(extent.record.blocks)
                let range = to - before..<to - before + min(count, extent.end - (to - before))
                let (first, middle) = (from - before, Int(before))
                // Inside of one file the two must not overlap.
                guard source != target || from.distance(to: to).magnitude >= count else { return }
                let old = try fileMap.extents(target, range)
                let shared = try fileMap.extents(source, first..<first + UInt64(range.count))
                guard let here = old.first(where: { $0.block <= to && to < $0.end }),
                    let there = shared.first(where: { $0.block <= from && from < $0.end }),
                    here.record.kind == .data, there.record.kind == .data
                else { return }
                if here.address(of: to) == there.address(of: from) {
                    answer.end = min(here.end, range.upperBound)
                    return
                }
                let equal = try equalRun(source, first, target, range, around: middle)
                answer.compared = UInt64(range.count)
                guard !equal.isEmpty else { return }
                var blocks = UInt64(equal.count)
                let place = range.lowerBound + UInt64(equal.lowerBound)
                // What is a hole on either side is no data to be shared.
                guard fileMap.isData(old, place..<place + blocks),
                    fileMap.isData(
                        shared, first + UInt64(equal.lowerBound)..<first + UInt64(equal.upperBound))
                else { return }
                try refer(
                    to: shared, from: first + UInt64(equal.lowerBound), &blocks, target, at: place,
                    replacing: old, &record, transaction)
                guard blocks > 0 else { return }
                transaction.put(target, record)
                answer.shared = blocks
                answer.end = place + blocks
            }
        } catch .stale {
            // One of the two was deleted meanwhile.
            return (0, 0, nil)
        } catch .corrupt {
            // It was reported where it was read; what is damaged is not shared.
            return (0, 0, nil)
        }
        return answer
    }

    /// The longest run around block `middle` of both ranges that is equal, byte by byte.
    private func equalRun(
        _ source: InodeNumber, _ first: UInt64, _ target: InodeNumber, _ range: Range<UInt64>,
        around middle: Int
    ) throws(FSError) -> Range<Int> {
        let (a, b) = (ByteBuffer(count: range.count << 12), ByteBuffer(count: range.count << 12))
        try fileMap.readBlocks(source, first, into: a.bytes)
        try fileMap.readBlocks(target, range.lowerBound, into: b.bytes)
        func isEqual(_ block: Int) -> Bool {
            a.view.slice(block << 12, DiskFormat.blockSize)
                .equals(b.view.slice(block << 12, DiskFormat.blockSize))
        }
        guard isEqual(middle) else { return middle..<middle }
        var (start, end) = (middle, middle + 1)
        while start > 0, isEqual(start - 1) { start -= 1 }
        while end < range.count, isEqual(end) { end += 1 }
        return start..<end
    }
}

extension FileMap {
    /// Whether all blocks of a range are data.
    fileprivate func isData(_ extents: [Extent], _ range: Range<UInt64>) -> Bool {
        let covered = extents.reduce(0 as UInt64) { sum, extent in
            guard extent.record.kind == .data else { return sum }
            let start = max(extent.block, range.lowerBound)
            let end = min(extent.end, range.upperBound)
            return start < end ? sum + end - start : sum
        }
        return covered == UInt64(range.count)
    }
}

extension FileMap.Extent {
    /// What tells whether two blocks of files are one.
    fileprivate func address(of block: UInt64) -> [UInt64] {
        let within = block - self.block
        guard let encoding = record.encoding else {
            return [record.replicas.first.rawValue + within]
        }
        return [record.replicas.first.rawValue, UInt64(encoding.skip) + within]
    }
}
