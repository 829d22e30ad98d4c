/// In what pieces free space lies. Runs end at the fixed blocks of regions.
public struct FreeRuns: Equatable, Sendable {
    public private(set) var count: UInt64 = 0
    public private(set) var blocks: UInt64 = 0
    public private(set) var longest: UInt64 = 0
    /// Runs by length: entry *n* counts those of 2ⁿ to 2ⁿ⁺¹ − 1 blocks.
    public private(set) var histogram = [UInt64](repeating: 0, count: 16)

    public var meanBlocks: UInt64 { count == 0 ? 0 : blocks / count }

    /// Adds the clear bits of a region, up to bit `end`.
    mutating func add(_ busy: BlockBits, end: Int) {
        var position = busy.firstClear(from: 0)
        while position < end {
            let stop = busy.firstSet(from: position, limit: end)
            let length = UInt64(stop - position)
            count += 1
            blocks += length
            longest = max(longest, length)
            histogram[min(UInt64.bitWidth - 1 - length.leadingZeroBitCount, 15)] += 1
            position = busy.firstClear(from: stop)
        }
    }
}

extension Volume {
    /// Of all regions, or of `sampledRegions` spread over a large volume.
    public func freeRuns() throws(FSError) -> FreeRuns {
        let regions = layout.regionCount
        let step = max(regions / Self.sampledRegions, 1)
        var runs = FreeRuns()
        for region in stride(from: 0, to: regions, by: Int(step)) {
            try allocator.addFreeRuns(ofRegion: region, to: &runs)
        }
        return runs
    }

    /// 64 GiB.
    private static let sampledRegions: UInt64 = 512
}

extension BlockAllocator {
    func addFreeRuns(ofRegion number: UInt64, to runs: inout FreeRuns) throws(FSError) {
        try lock.withLock { () throws(FSError) in
            let wasLoaded = regions[number] != nil
            guard let region = try loadedRegion(number) else { return }
            runs.add(
                BlockBits(region.busy.bytes), end: layout.usableBlocks(inRegion: number))
            if !wasLoaded { unloadIfUntouched(number) }
        }
    }
}
