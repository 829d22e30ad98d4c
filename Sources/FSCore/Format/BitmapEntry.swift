/// One entry of a map block of the bitmap radix, 16 bytes: what the parent knows of a child block.
///
///     0  checksum        u64   low 8 bytes of the volume's sum over the child block
///     8  used            u40   allocated blocks below this entry
///     13 largest run     u8    log2 of the longest free run, a hint for the allocator
///     14 flags           u8    1 written · 2 live slot · 4 has shares · 8 has remaps
///     15 reserved        u8
///
/// Used blocks are counted rather than free ones, so that the entry does not change when the device
/// grows.
///
/// - Invariant: an entry of 16 zero bytes means "nothing allocated, never written".
public struct BitmapEntry: Equatable, Sendable {
    public static let byteCount = 16

    public var checksum: UInt64 = 0
    public var used: UInt64 = 0
    public var largestRunLog2: UInt8 = 0
    public var isWritten = false
    /// Which of the two slots (0 or 1) holds the child.
    public var liveSlot = 0
    public var hasShares = false
    public var hasRemaps = false

    public init() {}

    package init(_ reader: inout ByteReader) throws(FSError) {
        checksum = try reader.u64()
        let low = try reader.u32()
        let high = try reader.u8()
        used = UInt64(high) << 32 | UInt64(low)
        largestRunLog2 = try reader.u8()
        let flags = try reader.u8()
        try reader.require(flags & 0xF0 == 0, "unknown bitmap flags")
        isWritten = flags & 1 != 0
        liveSlot = flags & 2 != 0 ? 1 : 0
        hasShares = flags & 4 != 0
        hasRemaps = flags & 8 != 0
        try reader.reserved(1)
        try reader.require(isWritten || self == BitmapEntry(), "unwritten bitmap entry is not zero")
    }

    package func encode(_ writer: inout ByteWriter) {
        writer.u64(checksum)
        writer.u32(UInt32(truncatingIfNeeded: used))
        writer.u8(UInt8(used >> 32))
        writer.u8(largestRunLog2)
        writer.u8(
            (isWritten ? 1 : 0) | (liveSlot == 1 ? 2 : 0) | (hasShares ? 4 : 0)
                | (hasRemaps ? 8 : 0))
        writer.reserved(1)
    }
}
