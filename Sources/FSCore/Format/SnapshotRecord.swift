/// One node of the tree of snapshots: key (0, snapshot, id) in the volume tree. The newest node of a
/// line is the head itself; all others are moments of it that were kept.
///
///     0    version            u8   1
///     1    kind               u8   1 head, 2 snapshot
///     2    flags              u8   1 deleted: waits for its end; 2 made by a rollback
///     3    reserved           5
///     8    parent             u64  id of the node before it; 0 none
///     16   epoch              u64  of a snapshot: nothing in it was born later; of a head 0
///     24   head               u64  the head that it is, or was
///     32   created            i64 s, u32 ns
///     44   reserved           4
///     48   inodes             u64
///     56   promised blocks    u64
///     64   referenced blocks  u64  held or promised, as its inodes count them
///     72   uuid               16
///     88   received as        16   uuid of the snapshot that it is, or becomes, a copy of; zeros: none
///     104  base               16   uuid of the snapshot upon which it was received; zeros: none
///     120  progress           17   key up to which the blocks of a deleted one were freed
///     137  reserved           7
///     144  root               node pointer, zero-padded to 96; zeros: of the default head, whose root
///                             is in the superblock, and in the journal the root of the moment
///
/// - Invariant: the epoch of a node is greater than its parent's.
/// - Invariant: the root's sum is right in every checkpoint; in the running window it may be zero.
public struct SnapshotRecord: Equatable, Sendable {
    static let byteCount = 240
    static let rootOffset = 144
    static let rootRoom = 96

    public enum Kind: UInt8, Sendable {
        case head = 1
        case snapshot = 2
    }

    public var id: UInt64
    public var kind: Kind
    public var isDeleted = false
    public var isAutomatic = false
    public var parent: UInt64
    public var epoch: BirthEpoch
    public var head: TreeID
    public var created: Timestamp
    public var counts: TreeCounts
    public var uuid: VolumeUUID
    /// The snapshot, of this or another volume, that a received one is a copy of; a head that has it is
    /// being received.
    public var received: VolumeUUID?
    /// The snapshot upon which that was sent.
    public var base: VolumeUUID?
    public var progress = Key.minimum
    public var root: NodePointer?

    package init(
        id: UInt64, kind: Kind, parent: UInt64, epoch: BirthEpoch, head: TreeID,
        created: Timestamp, counts: TreeCounts, uuid: VolumeUUID, root: NodePointer? = nil
    ) {
        self.id = id
        self.kind = kind
        self.parent = parent
        self.epoch = epoch
        self.head = head
        self.created = created
        self.counts = counts
        self.uuid = uuid
        self.root = root
    }

    package static func key(_ id: UInt64) -> Key { Key(0, .snapshot, id) }
    package var key: Key { Self.key(id) }

    package init(_ key: Key, decoding value: ByteView, layout: DiskLayout) throws(FSError) {
        var reader = ByteReader(value, .snapshot, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        guard let kind = Kind(rawValue: try reader.u8()) else { throw reader.corrupt("kind") }
        self.kind = kind
        let flags = try reader.u8()
        try reader.require(flags & ~3 == 0, "flags")
        isDeleted = flags & 1 != 0
        isAutomatic = flags & 2 != 0
        try reader.reserved(5)
        id = key.offset
        parent = try reader.u64()
        epoch = BirthEpoch(try reader.u64())
        head = TreeID(try reader.u64())
        let seconds = try reader.i64()
        let nanoseconds = try reader.u32()
        try reader.require(nanoseconds < 1_000_000_000, "time of creation")
        created = Timestamp(seconds: seconds, nanoseconds: nanoseconds)
        try reader.reserved(4)
        counts = TreeCounts(
            inodes: try reader.u64(), promised: try reader.u64(), referenced: try reader.u64())
        uuid = try VolumeUUID(&reader)
        received = VolumeUUID.present(try VolumeUUID(&reader))
        base = VolumeUUID.present(try VolumeUUID(&reader))
        let object = try reader.u64()
        let type = ItemType(rawValue: try reader.u8())
        progress = Key(object, type, try reader.u64())
        try reader.reserved(7)
        let start = reader.offset
        if !value.slice(start, min(Self.rootRoom, reader.remaining)).isAllZero {
            let pointer = try NodePointer(&reader)
            try pointer.validate(layout, reader)
            root = pointer
        }
        try reader.reserved(Self.rootRoom - (reader.offset - start))
        try reader.require(reader.remaining == 0, "length of a snapshot record")
        try reader.require(key.object == 0 && Self.ids.contains(id), "id")
        try reader.require(parent < id && head.rawValue >= TreeID.head.rawValue, "parent or head")
        try reader.require(epoch.rawValue < Self.ids.upperBound, "epoch")
        try reader.require(head.rawValue <= id, "head of a later node")
        try reader.require(kind == .snapshot || epoch.rawValue == 0, "epoch of a head")
        try reader.require(counts.areSane(layout), "counts")
        try reader.require(received != nil || base == nil, "a base without a copy")
    }

    /// What is left of a damaged record: what the tree's place and age depend on as it is, the rest such that
    /// it can be. Nil if even that cannot be right.
    init?(_ key: Key, salvaging value: ByteView, layout: DiskLayout) {
        guard value.count >= Self.byteCount else { return nil }
        let buffer = ByteBuffer(count: Self.byteCount)
        let bytes = buffer.bytes
        bytes.copy(value.slice(0, Self.byteCount))
        func clear(_ range: Range<Int>) { bytes.slice(range.lowerBound, range.count).zeroAll() }
        bytes[0] = 1
        bytes[1] = (buffer.view.u64(16) == 0 ? Kind.head : Kind.snapshot).rawValue
        bytes[2] &= 3
        for reserved in [3..<8, 44..<48, 137..<144] { clear(reserved) }
        if buffer.view.u32(40) >= 1_000_000_000 { clear(40..<44) }
        let counts = TreeCounts(
            inodes: buffer.view.u64(48), promised: buffer.view.u64(56),
            referenced: buffer.view.u64(64))
        if !counts.areSane(layout) { clear(48..<72) }
        if buffer.view.slice(88, 16).isAllZero { clear(104..<120) }
        guard let record = try? SnapshotRecord(key, decoding: buffer.view, layout: layout) else {
            return nil
        }
        self = record
    }

    /// By this a stream knows a snapshot, on whichever volume.
    public var identity: VolumeUUID { received ?? uuid }
    /// A head that a stream is filling.
    package var isBeingReceived: Bool { kind == .head && received != nil }
    /// A head without a root begins empty: with a root directory that is as old as it is.
    var beginsEmpty: Bool { kind == .head && root == nil && parent == 0 && head.rawValue == id }

    package func encoded() -> [UInt8] {
        let buffer = ByteBuffer(count: Self.byteCount)
        var writer = ByteWriter(buffer.bytes)
        writer.u8(1)
        writer.u8(kind.rawValue)
        writer.u8((isDeleted ? 1 : 0) | (isAutomatic ? 2 : 0))
        writer.reserved(5)
        writer.u64(parent)
        writer.u64(epoch.rawValue)
        writer.u64(head.rawValue)
        writer.i64(created.seconds)
        writer.u32(created.nanoseconds)
        writer.reserved(4)
        writer.u64(counts.inodes)
        writer.u64(counts.promised)
        writer.u64(counts.referenced)
        uuid.encode(&writer)
        (received ?? .none).encode(&writer)
        (base ?? .none).encode(&writer)
        writer.u64(progress.object)
        writer.u8(progress.type.rawValue)
        writer.u64(progress.offset)
        writer.reserved(7)
        root?.encode(&writer)
        writer.reserved(Self.byteCount - writer.offset)
        return buffer.view.toArray()
    }

    /// Ids and epochs share a deadlist's key, 32 bits for each.
    static let ids: Range<UInt64> = TreeID.head.rawValue..<1 << 32
    /// Whether a snapshot can be made in this epoch.
    package static func isPossible(epoch: BirthEpoch) -> Bool {
        epoch.rawValue < ids.upperBound - 1
    }
    /// The node that the default head is before its first snapshot; it needs no record.
    package static let firstID = TreeID.head.rawValue
}

/// What one tree holds.
public struct TreeCounts: Equatable, Sendable {
    public var inodes: UInt64 = 0
    /// Blocks promised by fallocate.
    public var promised: UInt64 = 0
    /// Blocks held or promised, as the inodes count them.
    public var referenced: UInt64 = 0
    public init(inodes: UInt64 = 0, promised: UInt64 = 0, referenced: UInt64 = 0) {
        self.inodes = inodes
        self.promised = promised
        self.referenced = referenced
    }

    func areSane(_ layout: DiskLayout) -> Bool {
        inodes < InodeNumber.limit && promised <= layout.blockCount && referenced < 1 << 62
    }

    /// With the difference between what is recorded somewhere and what was found there.
    func corrected(from recorded: TreeCounts, to found: TreeCounts) -> TreeCounts {
        func sum(_ count: UInt64, _ old: UInt64, _ new: UInt64) -> UInt64 {
            UInt64(clamping: Int64(clamping: count) &+ Int64(clamping: new) &- Int64(clamping: old))
        }
        return TreeCounts(
            inodes: sum(inodes, recorded.inodes, found.inodes),
            promised: sum(promised, recorded.promised, found.promised),
            referenced: sum(referenced, recorded.referenced, found.referenced))
    }

    /// With the changes of a transaction; a count that would be negative is 0.
    func adding(_ transaction: Transaction) -> TreeCounts {
        func sum(_ count: UInt64, _ delta: Int64) -> UInt64 {
            UInt64(clamping: Int64(clamping: count) + delta)
        }
        return TreeCounts(
            inodes: sum(inodes, transaction.inodeDelta),
            promised: sum(promised, transaction.promisedDelta),
            referenced: sum(referenced, transaction.referencedDelta))
    }
}
