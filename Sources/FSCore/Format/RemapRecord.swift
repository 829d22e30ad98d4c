/// A run of blocks that moved while everything that refers to it still says where it was: key (0,
/// remap, old block address) in the volume tree (`RemapTable`).
///
///     0  version     u8   1
///     1  reserved    3
///     4  blocks      u32
///     8  target      u64  address of the block where the first one is now
///
/// - Invariant: sources do not overlap and lie within one region; targets lie inside the volume,
///   within one region each, and are no source themselves.
package struct RemapRecord: Equatable, Sendable {
    static let byteCount = 16

    /// Block numbers.
    package var source: UInt64
    package var count: UInt64
    package var target: UInt64

    var end: UInt64 { source + count }
    var key: Key { Self.key(source) }
    static func key(_ block: UInt64) -> Key {
        Key(0, .remap, BlockAddress(block: block).rawValue)
    }

    init(source: UInt64, count: UInt64, target: UInt64) {
        self.source = source
        self.count = count
        self.target = target
    }

    init(_ key: Key, decoding value: ByteView, layout: DiskLayout) throws(FSError) {
        var reader = ByteReader(value, .remap, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(3)
        let start = BlockAddress(rawValue: key.offset)
        count = UInt64(try reader.u32())
        let place = BlockAddress(rawValue: try reader.u64())
        try reader.require(reader.remaining == 0, "length of a remap record")
        try reader.require(
            key.object == 0 && layout.isAllocatable(BlockRun(start, count)), "source of a remap")
        try reader.require(
            layout.isAllocatable(BlockRun(place, count))
                && place.block + count <= layout.usableEnd, "target of a remap")
        source = start.block
        target = place.block
    }

    func encoded() -> [UInt8] {
        var record: [UInt8] = [1, 0, 0, 0]
        record.append(littleEndian: UInt32(count))
        record.append(littleEndian: BlockAddress(block: target).rawValue)
        return record
    }

    /// The part of it in a range of old block numbers; nil if there is none.
    func part(_ range: Range<UInt64>) -> RemapRecord? {
        let start = max(source, range.lowerBound)
        let stop = min(end, range.upperBound)
        guard start < stop else { return nil }
        return RemapRecord(source: start, count: stop - start, target: target + (start - source))
    }

    /// Whether `next` goes on where this one ends, so that one item can say both.
    func canJoin(_ next: RemapRecord) -> Bool {
        func region(_ block: UInt64) -> UInt64 { block / DiskLayout.regionBlocks }
        return end == next.source && target + count == next.target
            && region(source) == region(next.source) && region(target) == region(next.target)
    }
}
