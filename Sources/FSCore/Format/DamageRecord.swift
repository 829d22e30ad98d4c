/// What is known of a medium that fails, as items of the volume tree.

/// Blocks of which no copy is good: key (0, damage, address of their first copy).
///
///     0  version  u8   1
///     1  kind     u8   1 data, 2 node, 3 bitmap block
///     2  reserved 2
///     4  blocks   u32
///     8  tree     u64  of data: the head, or with bit 63 the id of a snapshot; of a node: the kind of
///                      its tree
///     16 object   u64  of data: the inode; of a node: the lowest object in its range
///     24 offset   u64  of data: byte offset in the file
///     32 time     i64  when it was found, seconds since 1970
///
/// - Invariant: a record only tells; nothing is decided by it. One that is wrong misleads a reader
///   of `status`, and goes with the next scrub.
package struct DamageRecord: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case data = 1
        case node = 2
        case bitmap = 3
    }
    static let byteCount = 40
    static let snapshotBit: UInt64 = 1 << 63

    package var place: BlockAddress
    package var kind: Kind
    package var blocks: UInt32
    package var tree: UInt64
    package var object: UInt64
    package var offset: UInt64
    package var time: Int64

    package init(
        _ kind: Kind, at place: BlockAddress, blocks: UInt32, tree: UInt64 = 0, object: UInt64 = 0,
        offset: UInt64 = 0
    ) {
        self.kind = kind
        self.place = place
        self.blocks = blocks
        self.tree = tree
        self.object = object
        self.offset = offset
        time = Timestamp.now().seconds
    }

    var key: Key { Key(0, .damage, place.rawValue) }
    static let keys = Key(0, .damage, 0)...Key(0, .damage, .max)

    init(_ key: Key, decoding value: ByteView) throws(FSError) {
        var reader = ByteReader(value, .damage, at: key.offset)
        try reader.require(key.object == 0 && value.count == Self.byteCount, "length of a record")
        try reader.require(try reader.u8() == 1, "record version")
        guard let kind = Kind(rawValue: try reader.u8()) else { throw reader.corrupt("kind") }
        self.kind = kind
        try reader.reserved(2)
        place = BlockAddress(rawValue: key.offset)
        blocks = try reader.u32()
        tree = try reader.u64()
        object = try reader.u64()
        offset = try reader.u64()
        time = try reader.i64()
        try reader.require(
            blocks > 0 && place.device == 0 && place.block <= DiskLayout.maximumBlocks
                && offset <= DiskFormat.maximumFileSize, "place of damage")
    }

    func encoded() -> [UInt8] {
        var record: [UInt8] = [1, kind.rawValue, 0, 0]
        record.append(littleEndian: blocks)
        for word in [tree, object, offset, UInt64(bitPattern: time)] {
            record.append(littleEndian: word)
        }
        return record
    }
}

/// Blocks that could not be written again: key (0, bad blocks, address).
///
///     0  version  u8   1
///     1  reserved 3
///     4  blocks   u32
///     8  time     i64  when it was found, seconds since 1970
///
/// - Invariant: they are never handed out again; what still lies in them stays. They lie in one region.
package struct BadBlockRecord: Equatable, Sendable {
    static let byteCount = 16

    package var run: BlockRun
    package var time: Int64

    package init(_ run: BlockRun) {
        self.run = run
        time = Timestamp.now().seconds
    }

    var key: Key { Key(0, .badBlocks, run.start.rawValue) }
    static let keys = Key(0, .badBlocks, 0)...Key(0, .badBlocks, .max)

    init(_ key: Key, decoding value: ByteView, layout: DiskLayout) throws(FSError) {
        var reader = ByteReader(value, .damage, at: key.offset)
        try reader.require(key.object == 0 && value.count == Self.byteCount, "length of a record")
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(3)
        run = BlockRun(BlockAddress(rawValue: key.offset), UInt64(try reader.u32()))
        time = try reader.i64()
        // Fixed places can go bad like all others.
        let last = run.start.block &+ (run.count &- 1)
        try reader.require(
            run.start.device == 0 && run.count > 0 && last < layout.addressLimit
                && run.start.block / DiskLayout.regionBlocks == last / DiskLayout.regionBlocks,
            "place of bad blocks")
    }

    func encoded() -> [UInt8] {
        var record: [UInt8] = [1, 0, 0, 0]
        record.append(littleEndian: UInt32(run.count))
        record.append(littleEndian: UInt64(bitPattern: time))
        return record
    }
}
