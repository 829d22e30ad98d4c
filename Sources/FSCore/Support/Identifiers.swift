/// One type for each meaningful integer, so that a block is never taken for a byte and a
/// superblock sequence never for a birth epoch.

/// Where a block lies: device number (8 bits) and block number (56 bits) in one word, as on disk.
/// Zero is no address: block 0 of a device is never allocated.
public struct BlockAddress: Hashable, Comparable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(device: UInt8 = 0, block: UInt64) {
        rawValue = UInt64(device) << 56 | (block & Self.blockMask)
    }
    public static let blockMask: UInt64 = (1 << 56) - 1
    public static let none = BlockAddress(rawValue: 0)
    @inlinable public var device: UInt8 { UInt8(rawValue >> 56) }
    @inlinable public var block: UInt64 { rawValue & Self.blockMask }
    @inlinable public var isNone: Bool { rawValue == 0 }
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    @inlinable public static func + (a: Self, blocks: UInt64) -> Self {
        BlockAddress(rawValue: a.rawValue + blocks)
    }
}

/// A run of blocks on one device.
public struct BlockRun: Hashable, Sendable {
    public var start: BlockAddress
    public var count: UInt64
    @inlinable public init(_ start: BlockAddress, _ count: UInt64) {
        self.start = start
        self.count = count
    }
    /// Of device 0.
    init(_ blocks: Range<UInt64>) {
        self.init(BlockAddress(block: blocks.lowerBound), UInt64(blocks.count))
    }
    /// Block numbers, without the device.
    var blocks: Range<UInt64> { start.block..<start.block + count }
}

/// Counts checkpoints of a volume; never used twice (`docs/DESIGN.md`, two counters).
public struct SuperblockSequence: Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Counts snapshots of a volume; says in which epoch a reference was born.
public struct BirthEpoch: Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// An inode's number: volume-global, monotone, never re-used, below 2⁴⁸.
public struct InodeNumber: Hashable, Comparable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public static let root = InodeNumber(1)
    /// One past the largest number; the upper 16 bits of a FUSE node id hold the snapshot tag.
    public static let limit: UInt64 = 1 << 48
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Which changing tree a key belongs to: the volume's own, or a head.
public struct TreeID: Hashable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    /// Snapshot table, deadlists, share counts, remap table, module store.
    public static let volume = TreeID(1)
    /// The default head. Others have greater numbers, never used twice.
    public static let head = TreeID(2)
    var kind: TreeKind { self == .volume ? .volume : .files }
}

/// What a node's items are about. Nodes name the kind of their tree and not the tree: heads and
/// snapshots share nodes.
package enum TreeKind: UInt64, Sendable {
    case volume = 1
    case files = 2
}

/// Seconds and nanoseconds since 1970, as `struct timespec`; seconds may be negative.
public struct Timestamp: Hashable, Comparable, Sendable {
    public var seconds: Int64
    /// 0 ..< 1 000 000 000
    public var nanoseconds: UInt32
    @inlinable public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
    @inlinable public static func < (a: Self, b: Self) -> Bool {
        (a.seconds, a.nanoseconds) < (b.seconds, b.nanoseconds)
    }
}

/// A UUID as its 16 bytes.
public struct VolumeUUID: Hashable, Sendable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    /// Zeros: no UUID.
    package static let none = VolumeUUID(high: 0, low: 0)
    package static func present(_ uuid: VolumeUUID) -> VolumeUUID? { uuid == .none ? nil : uuid }
    /// A random (version 4) UUID.
    public static func random() -> VolumeUUID {
        var source = SystemRandomNumberGenerator()
        return VolumeUUID(
            high: source.next() & ~0xF000 | 0x4000,
            low: source.next() & ~(3 << 62) | (2 << 62))
    }
    /// The usual form of 8-4-4-4-12 hexadecimal digits.
    public var description: String {
        let text = Self.hex(high) + Self.hex(low)
        var result = ""
        for (index, character) in text.enumerated() {
            if [8, 12, 16, 20].contains(index) { result.append("-") }
            result.append(character)
        }
        return result
    }
    private static func hex(_ word: UInt64) -> String {
        let digits = String(word, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
