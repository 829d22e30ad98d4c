/// Zstandard (RFC 8878) by libzstd.
public import FSCore
internal import CZstd

/// - Invariant: a context is used by one thread at a time; there are as many as were ever needed at
///   once, up to `maximumIdle` of them kept.
public final class ZstdCodec: Codec {
    private let encoders = ContextPool(isEncoder: true)
    private let decoders = ContextPool(isEncoder: false)

    public init() {}
    public var kind: CodecKind { .zstd }

    public func encode(
        _ source: ByteView, into target: MutableByteView, level: UInt8
    ) -> Int? {
        guard Compressibility.isLikely(source, saving: source.count - target.count) else {
            return nil
        }
        let length = encoders.with { (context) -> Int? in
            let length = unsafe ZSTD_compressCCtx(
                context.handle, target.unsafeBytes.baseAddress!, target.count,
                source.unsafeBytes.baseAddress!, source.count, Int32(level))
            return ZSTD_isError(length) == 0 ? length : nil
        }
        return length ?? nil
    }

    public func decode(_ source: ByteView, into target: MutableByteView) -> Bool {
        // A second frame behind the first would be decoded, too: there is none of ours.
        guard
            unsafe ZSTD_findFrameCompressedSize(source.unsafeBytes.baseAddress!, source.count)
                == source.count
        else { return false }
        return decoders.with { context in
            unsafe ZSTD_decompressDCtx(
                context.handle, target.unsafeBytes.baseAddress!, target.count,
                source.unsafeBytes.baseAddress!, source.count) == target.count
        } ?? false
    }
}

/// A context of libzstd, which is expensive to make.
@safe
private final class Context {
    let handle: OpaquePointer
    private let isEncoder: Bool

    /// nil if there is no memory for it.
    init?(isEncoder: Bool) {
        guard let handle = unsafe isEncoder ? ZSTD_createCCtx() : ZSTD_createDCtx() else {
            return nil
        }
        unsafe self.handle = handle
        self.isEncoder = isEncoder
    }
    deinit { _ = unsafe isEncoder ? ZSTD_freeCCtx(handle) : ZSTD_freeDCtx(handle) }
}

/// Safe to share: contexts are handed out under the lock, each to one thread.
private final class ContextPool: @unchecked Sendable {
    private static let maximumIdle = 32
    private let isEncoder: Bool
    private let lock = Mutex()
    private var idle: [Context] = []

    init(isEncoder: Bool) { self.isEncoder = isEncoder }

    /// nil if there is no memory for one more context.
    func with<R>(_ body: (Context) -> R) -> R? {
        guard let context = lock.withLock({ idle.popLast() }) ?? Context(isEncoder: isEncoder)
        else { return nil }
        defer { lock.withLock { if idle.count < Self.maximumIdle { idle.append(context) } } }
        return body(context)
    }
}
