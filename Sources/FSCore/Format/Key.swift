/// The key of a tree item: 17 bytes on disk (object u64, type u8, offset u64), compared in that
/// order as numbers.
public struct Key: Equatable, Comparable, Hashable, Sendable {
    public static let byteCount = 17

    public var object: UInt64
    public var type: ItemType
    public var offset: UInt64

    @inlinable
    public init(_ object: UInt64, _ type: ItemType, _ offset: UInt64) {
        self.object = object
        self.type = type
        self.offset = offset
    }
    @inlinable
    public init(_ inode: InodeNumber, _ type: ItemType, _ offset: UInt64 = 0) {
        self.init(inode.rawValue, type, offset)
    }

    public static let minimum = Key(0, ItemType(rawValue: 0), 0)
    public static let maximum = Key(.max, ItemType(rawValue: .max), .max)

    /// The key right behind this one; nil behind the last.
    public var next: Key? {
        if offset < .max { return Key(object, type, offset + 1) }
        if type.rawValue < .max { return Key(object, ItemType(rawValue: type.rawValue + 1), 0) }
        return object < .max ? Key(object + 1, ItemType(rawValue: 0), 0) : nil
    }

    @inlinable @inline(__always)
    public static func < (a: Key, b: Key) -> Bool {
        if a.object != b.object { return a.object < b.object }
        if a.type != b.type { return a.type.rawValue < b.type.rawValue }
        return a.offset < b.offset
    }
}

/// What an item is. A struct rather than an enum, because any byte may come from a disk.
public struct ItemType: Equatable, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    var isOfSnapshotTable: Bool {
        self == .snapshot || self == .snapshotLabel || self == .segment
    }

    // Items of an inode; the object is the inode number.
    /// `InodeRecord`; offset 0.
    public static let inode = ItemType(rawValue: 0x10)
    /// The bytes of a small file or of a symbolic link; offset 0 (further parts of a long link: 1 …).
    public static let inlineData = ItemType(rawValue: 0x18)
    /// `AttributeRecord`; offset = name hash and chunk.
    public static let attribute = ItemType(rawValue: 0x20)
    /// `LinkRecord`: names beyond the one in the inode record; offset = parent's number.
    public static let link = ItemType(rawValue: 0x28)
    /// `DirectoryRecord`; offset = 56-bit name hash.
    public static let directoryEntry = ItemType(rawValue: 0x30)
    /// `ExtentRecord`; offset = byte offset in the file.
    public static let extent = ItemType(rawValue: 0x38)

    // Items of the head itself; the object is 0.
    /// An inode without a name that must be reclaimed; offset = its number, no value.
    public static let orphan = ItemType(rawValue: 0x08)

    // Items of the volume tree; the object is 0.
    /// `ShareRecord`; offset = block address.
    public static let share = ItemType(rawValue: 0x40)
    /// `RemapRecord`; offset = block address.
    public static let remap = ItemType(rawValue: 0x58)
    /// `BadBlockRecord`; offset = block address.
    public static let badBlocks = ItemType(rawValue: 0x60)
    /// `DamageRecord`; offset = block address of the first copy.
    public static let damage = ItemType(rawValue: 0x64)
    /// `ModuleRecord`; offset = module and number.
    public static let module = ItemType(rawValue: 0x68)
    /// `SnapshotRecord`; offset = id of the node.
    public static let snapshot = ItemType(rawValue: 0x48)
    /// `SnapshotLabel`; offset = id of the node.
    public static let snapshotLabel = ItemType(rawValue: 0x49)
    /// `SegmentRecord`; offset = id of the segment.
    public static let segment = ItemType(rawValue: 0x51)
    // With an object of its own:
    /// `DeadlistRecord`; object = segment ‖ birth, offset = block address.
    public static let deadlist = ItemType(rawValue: 0x50)
}
