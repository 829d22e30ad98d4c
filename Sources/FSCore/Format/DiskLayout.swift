/// The one type that knows where fixed things lie on a device.
///
/// A device is cut into *regions* of 32,768 blocks (128 MiB), 256 regions make a *zone* (32 GiB),
/// 256 zones a *group* (8 TiB), 256 groups the largest device (2 PiB). The allocation bitmap is a
/// radix of four levels over them: a leaf for each region, a map block for each zone, each group
/// and the device. Each of these blocks has two slots (written in turn) and each slot two copies.
///
///     region r  ┌──────┬───────────────────────────────────────────────┐
///               │ 16   │ allocatable                                   │
///               └──────┴───────────────────────────────────────────────┘
///       +0,+1   leaf r, copy A          (slots 0 and 1)
///       +2,+3   leaf r+1, copy B
///       +4,+5   zone map, copy A        (first region of a zone)
///       +6,+7   next zone's map, copy B
///       +8,+9   group map, copy A       (first region of a group)
///       +10,+11 next group's map, copy B
///       +12,+13 device map, copy A      (region 0)
///
/// Region 0 begins with 128 reserved blocks: boot area, two superblocks (blocks 16 and 32), and
/// its fixed blocks at 64. Copies B of the four first blocks, which have no region before them, lie at
/// 15 MiB. The last 32 blocks of the device hold the other two superblocks.
///
/// - Invariant: every place is computed from the region alone, and only the end superblocks from
///   the device's size; so growing moves nothing else.
/// - Invariant: the two copies of a bitmap block are at least 14 MiB apart.
public struct DiskLayout: Sendable, Equatable {
    public static let regionBlocks: UInt64 = 32768
    public static let mapFanout: UInt64 = 256
    public static let zoneBlocks: UInt64 = regionBlocks * mapFanout
    public static let groupBlocks: UInt64 = zoneBlocks * mapFanout
    public static let maximumBlocks: UInt64 = groupBlocks * mapFanout
    public static let minimumBlocks: UInt64 = 4096

    /// Reserved at the front of region 0, of every other region, and at the device's end.
    static let frontReserve: UInt64 = 128
    static let regionReserve: UInt64 = 16
    static let endReserve: UInt64 = 32
    /// Where the fixed blocks of region 0 begin.
    static let regionZeroBase: UInt64 = 64
    /// Copies B of the blocks that have no region before them: 15 MiB, inside every volume.
    static let firstCopyBase: UInt64 = 3840
    static let firstCopyReserve: UInt64 = 16

    public let blockCount: UInt64
    /// Addresses below this may be referred to. Above `blockCount` while the volume has remaps from
    /// when it was larger.
    public let addressLimit: UInt64

    /// - Precondition: `isSupported(blockCount)`; callers check untrusted sizes first.
    public init(blockCount: UInt64, addressLimit: UInt64 = 0) {
        precondition(Self.isSupported(blockCount))
        self.blockCount = blockCount
        self.addressLimit = max(addressLimit, blockCount)
    }

    /// The largest supported size of at most `blocks`: a last region that could not hold its fixed
    /// blocks and the end superblocks is left off.
    public static func supportedBlockCount(atMost blocks: UInt64) -> UInt64 {
        let rest = blocks % regionBlocks
        return rest < smallestLastRegion ? blocks - rest : blocks
    }
    public static func isSupported(_ blocks: UInt64) -> Bool {
        blocks >= minimumBlocks && blocks <= maximumBlocks
            && supportedBlockCount(atMost: blocks) == blocks
    }
    static let smallestLastRegion: UInt64 = 64

    // MARK: Superblocks

    /// The places of the pair that takes sequence numbers congruent to `pair` (0 or 1): one in the
    /// front, one at the end of a device of `blockCount` blocks.
    public static func superblockPlaces(pair: Int, blockCount: UInt64) -> (
        front: UInt64, end: UInt64
    ) {
        pair == 0 ? (16, blockCount - 1) : (32, blockCount - 17)
    }

    // MARK: Bitmap radix

    /// The four levels of the radix.
    public enum BitmapLevel: Int, CaseIterable, Sendable {
        case leaf = 0
        case zone = 1
        case group = 2
        case device = 3

        /// How many leaves one block of this level covers.
        var leaves: UInt64 {
            switch self {
            case .leaf: 1
            case .zone: 256
            case .group: 65536
            case .device: 16_777_216
            }
        }
    }

    public var regionCount: UInt64 {
        (blockCount + Self.regionBlocks - 1) / Self.regionBlocks
    }
    /// How many blocks of `level` the device has.
    public func bitmapBlockCount(_ level: BitmapLevel) -> UInt64 {
        (regionCount + level.leaves - 1) / level.leaves
    }

    /// Both copies of `slot` (0 or 1) of block `index` of `level`, A first.
    public func bitmapPlaces(_ level: BitmapLevel, index: UInt64, slot: Int) -> (UInt64, UInt64) {
        let offset = UInt64(level.rawValue) * 4 + UInt64(slot)
        let region = index * level.leaves
        let copyA = Self.regionBase(region) + offset
        if index == 0 {
            return (copyA, Self.firstCopyBase + UInt64(level.rawValue) * 2 + UInt64(slot))
        }
        let before = (index - 1) * level.leaves
        return (copyA, Self.regionBase(before) + offset + 2)
    }

    static func regionBase(_ region: UInt64) -> UInt64 {
        region == 0 ? regionZeroBase : region * regionBlocks
    }

    /// The runs of `region` that no allocation may touch, as offsets into the region.
    public func fixedRuns(inRegion region: UInt64) -> [(start: Int, count: Int)] {
        var runs: [(start: Int, count: Int)] = []
        if region == 0 {
            runs.append((0, Int(Self.frontReserve)))
            runs.append((Int(Self.firstCopyBase), Int(Self.firstCopyReserve)))
        } else {
            runs.append((0, Int(Self.regionReserve)))
        }
        if region == regionCount - 1 {
            let start = Int(blockCount - Self.endReserve - region * Self.regionBlocks)
            runs.append((start, Int(Self.regionBlocks) - start))
        }
        return runs
    }

    /// Blocks of `region`, from its front on, behind which nothing is allocated.
    func usableBlocks(inRegion region: UInt64) -> Int {
        let first = region * Self.regionBlocks
        return usableEnd > first ? Int(min(usableEnd - first, Self.regionBlocks)) : 0
    }

    /// Where a journal of `blocks` blocks best begins: before the fixed blocks at 15 MiB if it fits
    /// there, else behind them.
    func journalGoal(_ blocks: UInt64) -> UInt64 {
        blocks <= Self.firstCopyBase - Self.frontReserve
            ? Self.frontReserve : Self.firstCopyBase + Self.firstCopyReserve
    }

    /// Behind the last block that can be allocated.
    public var usableEnd: UInt64 { blockCount - Self.endReserve }

    /// Whether a run of blocks was allocatable at the volume's present or largest size: the test that
    /// every address from the disk must pass.
    public func isAllocatable(_ run: BlockRun) -> Bool {
        let start = run.start.block
        guard run.start.device == 0, run.count > 0, run.count <= addressLimit,
            start >= Self.frontReserve, start <= addressLimit - run.count,
            start + run.count <= addressLimit - Self.endReserve
        else { return false }
        if start < Self.firstCopyBase + Self.firstCopyReserve,
            start + run.count > Self.firstCopyBase
        {
            return false
        }
        // No run that is allocated in one piece crosses a region's fixed front.
        let within = start % Self.regionBlocks
        let region = start / Self.regionBlocks
        if region > 0, within < Self.regionReserve { return false }
        return within + run.count <= Self.regionBlocks
    }

    /// Blocks that can ever be allocated.
    public var allocatableBlocks: UInt64 {
        blockCount - Self.frontReserve - Self.firstCopyReserve - Self.endReserve
            - Self.regionReserve * (regionCount - 1)
    }
}
