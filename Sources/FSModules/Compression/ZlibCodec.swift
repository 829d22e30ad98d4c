/// The zlib format (RFC 1950) by zlib.
public import FSCore
internal import CZlib

public struct ZlibCodec: Codec {
    public init() {}
    public var kind: CodecKind { .zlib }

    public func encode(
        _ source: ByteView, into target: MutableByteView, level: UInt8
    ) -> Int? {
        guard Compressibility.isLikely(source, saving: source.count - target.count) else {
            return nil
        }
        var length = uLongf(target.count)
        let status = unsafe compress2(
            target.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self), &length,
            source.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self),
            uLong(source.count), Int32(level))
        return status == Z_OK ? Int(length) : nil
    }

    public func decode(_ source: ByteView, into target: MutableByteView) -> Bool {
        var length = uLongf(target.count)
        var used = uLong(source.count)
        let status = unsafe uncompress2(
            target.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self), &length,
            source.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self), &used)
        return status == Z_OK && Int(length) == target.count && Int(used) == source.count
    }
}
