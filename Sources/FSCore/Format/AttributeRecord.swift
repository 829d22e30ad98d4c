/// Extended attributes: key (inode, attribute, name hash ‖ ordinal ‖ chunk).
///
/// The offset is the upper 48 bits of the 56-bit name hash, 8 bits of ordinal (for names that
/// share these 48 bits) and 8 bits of chunk number. Chunk 0 names the attribute:
///
///     0  version       u8   1
///     1  name length   u8   1 … 255
///     2  value length  u32  0 … 65536
///     6  name
///     …  the value's first bytes, up to `DiskFormat.maximumValueSize` in all
///
/// Chunks 1, 2, … hold the rest, each a version byte and up to 3,999 bytes of value.
package struct AttributeRecord {
    static let headerSize = 6
    static let maximumOrdinal: UInt64 = 255

    static func offset(hash: UInt64, ordinal: UInt64, chunk: UInt64) -> UInt64 {
        (hash >> 8) << 16 | ordinal << 8 | chunk
    }
    static func firstChunkRoom(nameLength: Int) -> Int {
        DiskFormat.maximumValueSize - headerSize - nameLength
    }
    static let chunkRoom = DiskFormat.maximumValueSize - 1

    /// How many chunks a value takes.
    static func chunkCount(nameLength: Int, valueLength: Int) -> Int {
        let rest = valueLength - firstChunkRoom(nameLength: nameLength)
        return rest <= 0 ? 1 : 1 + (rest + chunkRoom - 1) / chunkRoom
    }

    package var name: ByteView
    package var valueLength: Int
    package var firstBytes: ByteView

    /// Decodes chunk 0.
    package init(decoding value: ByteView, inode: UInt64) throws(FSError) {
        var reader = ByteReader(value, .attribute, at: inode)
        try reader.require(try reader.u8() == 1, "record version")
        let nameLength = Int(try reader.u8())
        try reader.require(nameLength > 0, "empty name")
        valueLength = Int(try reader.u32())
        try reader.require(valueLength <= DiskFormat.maximumAttributeSize, "value length")
        name = try reader.bytes(nameLength)
        let expected = min(valueLength, Self.firstChunkRoom(nameLength: nameLength))
        try reader.require(reader.remaining == expected, "length of the first chunk")
        firstBytes = try reader.bytes(expected)
    }

    /// The bytes of a further chunk.
    static func continuation(_ value: ByteView, inode: UInt64) throws(FSError) -> ByteView {
        var reader = ByteReader(value, .attribute, at: inode)
        try reader.require(try reader.u8() == 1, "record version")
        return try reader.bytes(reader.remaining)
    }

    /// The chunks of an attribute, in order.
    static func encode(name: ByteView, value: ByteView) -> [[UInt8]] {
        var first: [UInt8] = [1, UInt8(name.count)]
        first.append(littleEndian: UInt32(value.count))
        first.append(name)
        var done = min(value.count, firstChunkRoom(nameLength: name.count))
        first.append(value.slice(0, done))
        var chunks = [first]
        while done < value.count {
            let count = min(value.count - done, chunkRoom)
            var chunk: [UInt8] = [1]
            chunk.append(value.slice(done, count))
            chunks.append(chunk)
            done += count
        }
        return chunks
    }
}
