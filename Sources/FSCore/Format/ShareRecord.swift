/// A run of blocks to which more than one extent refers: key (0, share, block address) in the volume
/// tree. Blocks without such an item have one reference, or none.
///
///     0  version     u8   1
///     1  reserved    3
///     4  blocks      u32
///     8  references  u32  at least 2
///
/// - Invariant: runs do not overlap, and lie within one region.
struct ShareRecord: Equatable {
    static let byteCount = 12

    var start: BlockAddress
    var blocks: UInt64
    var references: UInt32

    var end: UInt64 { start.rawValue + blocks }
    var key: Key { Key(0, .share, start.rawValue) }

    init(start: BlockAddress, blocks: UInt64, references: UInt32) {
        self.start = start
        self.blocks = blocks
        self.references = references
    }

    init(_ key: Key, decoding value: ByteView, layout: DiskLayout) throws(FSError) {
        var reader = ByteReader(value, .share, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(3)
        start = BlockAddress(rawValue: key.offset)
        blocks = UInt64(try reader.u32())
        references = try reader.u32()
        try reader.require(reader.remaining == 0, "length of a share record")
        try reader.require(key.object == 0 && references >= 2, "references")
        try reader.require(layout.isAllocatable(BlockRun(start, blocks)), "blocks of a share")
    }

    func encoded() -> [UInt8] {
        var record: [UInt8] = [1, 0, 0, 0]
        record.append(littleEndian: UInt32(blocks))
        record.append(littleEndian: references)
        return record
    }

    /// Whether `next` goes on where this one ends, so that one item can say both.
    func canJoin(_ next: ShareRecord) -> Bool {
        end == next.start.rawValue && references == next.references
            && start.block / DiskLayout.regionBlocks == next.start.block / DiskLayout.regionBlocks
    }
}
