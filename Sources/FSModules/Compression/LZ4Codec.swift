/// LZ4 block format by liblz4: level 1 is the fast form, those above search longer (LZ4 HC).
public import FSCore
internal import CLZ4

public struct LZ4Codec: Codec {
    public init() {}
    public var kind: CodecKind { .lz4 }

    public func encode(
        _ source: ByteView, into target: MutableByteView, level: UInt8
    ) -> Int? {
        // High compression spends long on what cannot be compressed.
        guard level == 1 || Compressibility.isLikely(source, saving: source.count - target.count)
        else { return nil }
        let from = unsafe source.unsafeBytes.baseAddress!.assumingMemoryBound(to: CChar.self)
        let to = unsafe target.unsafeBytes.baseAddress!.assumingMemoryBound(to: CChar.self)
        let (count, room) = (Int32(source.count), Int32(target.count))
        let length =
            level == 1
            ? unsafe LZ4_compress_default(from, to, count, room)
            : unsafe LZ4_compress_HC(from, to, count, room, Int32(level))
        return length > 0 ? Int(length) : nil
    }

    public func decode(_ source: ByteView, into target: MutableByteView) -> Bool {
        let length = unsafe LZ4_decompress_safe(
            source.unsafeBytes.baseAddress!.assumingMemoryBound(to: CChar.self),
            target.unsafeBytes.baseAddress!.assumingMemoryBound(to: CChar.self),
            Int32(source.count), Int32(target.count))
        return Int(length) == target.count
    }
}
