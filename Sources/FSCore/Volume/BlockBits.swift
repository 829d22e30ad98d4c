/// The 32,768 bits of one region: bit *n* of the block is bit *n* mod 8 of byte *n* / 8.
struct BlockBits {
    private let bytes: MutableByteView
    static let count = Int(DiskLayout.regionBlocks)

    init(_ bytes: MutableByteView) {
        precondition(bytes.count == DiskFormat.blockSize)
        self.bytes = bytes
    }

    @inline(__always) private func word(_ index: Int) -> UInt64 { bytes.view.u64(index * 8) }

    @inline(__always)
    func isSet(_ bit: Int) -> Bool { bytes[bit >> 3] & (1 << UInt8(bit & 7)) != 0 }

    /// The mask of the bits `start ..< end` that fall into word `index`.
    @inline(__always)
    private static func mask(_ index: Int, _ start: Int, _ end: Int) -> UInt64 {
        let low = max(start - index * 64, 0)
        let high = min(end - index * 64, 64)
        let upTo = high == 64 ? UInt64.max : (1 << UInt64(high)) - 1
        return upTo & ~((1 << UInt64(low)) - 1)
    }

    func set(_ start: Int, _ count: Int) { change(start, count) { $0 | $1 } }
    func clear(_ start: Int, _ count: Int) { change(start, count) { $0 & ~$1 } }

    private func change(_ start: Int, _ count: Int, _ body: (UInt64, UInt64) -> UInt64) {
        guard count > 0 else { return }
        for index in start / 64...(start + count - 1) / 64 {
            bytes.store(body(word(index), Self.mask(index, start, start + count)), at: index * 8)
        }
    }
    func isClear(_ start: Int, _ count: Int) -> Bool {
        guard count > 0 else { return true }
        return (start / 64...(start + count - 1) / 64).allSatisfy {
            word($0) & Self.mask($0, start, start + count) == 0
        }
    }
    func isAllSet(_ start: Int, _ count: Int) -> Bool {
        guard count > 0 else { return true }
        return (start / 64...(start + count - 1) / 64).allSatisfy {
            let mask = Self.mask($0, start, start + count)
            return word($0) & mask == mask
        }
    }
    /// Set bits before bit `end`.
    func population(below end: Int) -> Int {
        guard end > 0 else { return 0 }
        return (0...(end - 1) / 64).reduce(0) {
            $0 + (word($1) & Self.mask($1, 0, end)).nonzeroBitCount
        }
    }
    /// The runs of set bits from `start` on.
    func setRuns(from start: Int) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var position = firstSet(from: start, limit: Self.count)
        while position < Self.count {
            let end = min(firstClear(from: position), Self.count)
            runs.append(position..<end)
            position = firstSet(from: end, limit: Self.count)
        }
        return runs
    }
    var population: Int { (0..<Self.count / 64).reduce(0) { $0 + word($1).nonzeroBitCount } }

    /// The first clear bit at or behind `start`; `count` if there is none.
    func firstClear(from start: Int) -> Int {
        var index = start / 64
        guard index < Self.count / 64 else { return Self.count }
        var candidate = ~word(index) & ~((1 << UInt64(start % 64)) - 1)
        while candidate == 0 {
            index += 1
            guard index < Self.count / 64 else { return Self.count }
            candidate = ~word(index)
        }
        return index * 64 + candidate.trailingZeroBitCount
    }
    /// The first set bit at or behind `start`, at most `limit`.
    func firstSet(from start: Int, limit: Int) -> Int {
        var index = start / 64
        guard start < limit else { return limit }
        var candidate = word(index) & ~((1 << UInt64(start % 64)) - 1)
        while candidate == 0 {
            index += 1
            guard index * 64 < limit else { return limit }
            candidate = word(index)
        }
        return min(index * 64 + candidate.trailingZeroBitCount, limit)
    }
    var longestClearRun: Int {
        var best = 0
        var position = firstClear(from: 0)
        while position < Self.count {
            let end = firstSet(from: position, limit: Self.count)
            best = max(best, end - position)
            position = firstClear(from: end)
        }
        return best
    }

    // MARK: Places

    /// Bit *n* is set if *n* is a multiple of four and the four bits from *n* on are clear: room for a
    /// node.
    @inline(__always)
    private func places(_ index: Int) -> UInt64 {
        let pairs = ~word(index) & (~word(index) >> 1)
        return pairs & (pairs >> 2) & 0x1111_1111_1111_1111
    }

    /// Places in a range whose ends are multiples of four.
    func placeCount(_ range: Range<Int>) -> Int {
        guard !range.isEmpty else { return 0 }
        return (range.lowerBound / 64...(range.upperBound - 1) / 64).reduce(0) {
            $0 + (places($1) & Self.mask($1, range.lowerBound, range.upperBound)).nonzeroBitCount
        }
    }

    /// The first place at or behind `start` that ends before `limit`.
    func firstPlace(from start: Int, limit: Int) -> Int? {
        first(from: start, limit: limit / 4 * 4, places)
    }

    /// The first run of at most `want` clear bits at or behind `start` that belong to no place.
    func firstGap(_ want: Int, from start: Int, limit: Int) -> Range<Int>? {
        // What is behind the last multiple of four before the limit cannot be a place, whatever
        // follows.
        let whole = limit / 4 * 4
        func gaps(_ index: Int) -> UInt64 {
            ~word(index) & ~((places(index) & Self.mask(index, 0, whole)) &* 15)
        }
        guard let gap = first(from: start, limit: limit, gaps) else { return nil }
        var end = gap + 1
        while end < min(gap + want, limit), gaps(end / 64) & (1 << UInt64(end % 64)) != 0 {
            end += 1
        }
        return gap..<end
    }

    /// The first set bit of some words at or behind `start`.
    @inline(__always)
    private func first(from start: Int, limit: Int, _ words: (Int) -> UInt64) -> Int? {
        guard start < limit else { return nil }
        for index in start / 64...(limit - 1) / 64 {
            let found = words(index) & Self.mask(index, start, limit)
            if found != 0 { return index * 64 + found.trailingZeroBitCount }
        }
        return nil
    }
}
