/// Blocks to which a node's parent refers and the node does not, because its head dropped the
/// reference: key (segment ‖ birth, deadlist, block address) in the volume tree. A segment is the
/// part of a deadlist that one node has begun; it has that node's id.
///
///     0   version     u8   1
///     1   reserved    3
///     4   blocks      u32
///     8   references  u32  how many of this birth were dropped
///     12  reserved    4
///     16  death       u64  superblock sequence of the first checkpoint that knows of it
///
/// - Invariant: a multiset. Where two entries would begin at one block, the longer is cut in two.
package struct DeadlistRecord: Equatable, Sendable {
    static let byteCount = 24

    package var segment: UInt64
    package var birth: BirthEpoch
    package var run: BlockRun
    package var references: UInt32
    package var death: SuperblockSequence

    package init(
        segment: UInt64, birth: BirthEpoch, run: BlockRun, references: UInt32,
        death: SuperblockSequence
    ) {
        self.segment = segment
        self.birth = birth
        self.run = run
        self.references = references
        self.death = death
    }

    package static func key(
        _ segment: UInt64, _ birth: BirthEpoch, _ address: BlockAddress
    ) -> Key {
        Key(segment << 32 | birth.rawValue, .deadlist, address.rawValue)
    }
    package var key: Key { Self.key(segment, birth, run.start) }

    /// The keys of a segment's entries that were born after `epoch`.
    package static func keys(
        _ segment: UInt64, bornAfter epoch: BirthEpoch
    ) -> ClosedRange<Key> {
        Key(
            segment << 32 | (epoch.rawValue + 1), .deadlist, 0)...Key(
                segment << 32 | 0xFFFF_FFFF, .deadlist, .max)
    }

    package init(_ key: Key, decoding value: ByteView, layout: DiskLayout) throws(FSError) {
        var reader = ByteReader(value, .deadlist, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(3)
        segment = key.object >> 32
        birth = BirthEpoch(key.object & 0xFFFF_FFFF)
        run = BlockRun(BlockAddress(rawValue: key.offset), UInt64(try reader.u32()))
        references = try reader.u32()
        try reader.reserved(4)
        death = SuperblockSequence(try reader.u64())
        try reader.require(reader.remaining == 0, "length of a deadlist record")
        try reader.require(layout.isAllocatable(run), "blocks of a deadlist")
        try reader.require(references > 0 && birth.rawValue > 0, "references or birth")
        try reader.require(SnapshotRecord.ids.contains(segment), "segment")
    }

    package func encoded() -> [UInt8] {
        var record: [UInt8] = [1, 0, 0, 0]
        record.append(littleEndian: UInt32(run.count))
        record.append(littleEndian: references)
        record.append(littleEndian: UInt32(0))
        record.append(littleEndian: death.rawValue)
        return record
    }
}

/// Whose a segment is that another node has begun: key (0, segment, id of the segment) in the volume
/// tree. A node that is gone has left its segments to its only child.
///
///     0   version     u8   1
///     1   reserved    7
///     8   owner       u64  id of a node
package struct SegmentRecord: Equatable, Sendable {
    static let byteCount = 16

    package var segment: UInt64
    package var owner: UInt64

    package init(segment: UInt64, owner: UInt64) {
        self.segment = segment
        self.owner = owner
    }

    package var key: Key { Key(0, .segment, segment) }

    package init(_ key: Key, decoding value: ByteView) throws(FSError) {
        var reader = ByteReader(value, .deadlist, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(7)
        segment = key.offset
        owner = try reader.u64()
        try reader.require(reader.remaining == 0 && key.object == 0, "length of a segment record")
        try reader.require(SnapshotRecord.ids.contains(segment) && segment < owner, "segment")
    }

    package func encoded() -> [UInt8] {
        var record: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
        record.append(littleEndian: owner)
        return record
    }
}
