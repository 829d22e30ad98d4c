/// SipHash-2-4 (Aumasson and Bernstein, 2012) by OpenSSL's libcrypto, cut to 56 bits.
public import FSCore
internal import CCrypto
internal import Synchronization

/// - Invariant: a context is used by one thread at a time; there are a few, so that threads seldom
///   meet.
@safe
public final class SipHash: NameHash, @unchecked Sendable {
    private static let slots = 8
    private let contexts: [Context]
    private let key: (UInt64, UInt64)
    private let next = Atomic<Int>(0)

    @safe
    private final class Context {
        let lock = Mutex<Void>(())
        let handle: OpaquePointer
        init(_ handle: OpaquePointer) { unsafe self.handle = handle }
        deinit { unsafe EVP_MAC_CTX_free(handle) }
    }

    public init(key: NameHashKey) {
        self.key = (key.words.0.littleEndian, key.words.1.littleEndian)
        // SipHash is part of libcrypto's default provider; without it there is no names' order.
        guard let algorithm = unsafe EVP_MAC_fetch(nil, "SIPHASH", nil) else {
            fatalError("libcrypto has no SipHash: install OpenSSL 3 with its default provider")
        }
        defer { unsafe EVP_MAC_free(algorithm) }
        contexts = (0..<Self.slots).map { _ in
            guard let handle = unsafe EVP_MAC_CTX_new(algorithm) else {
                fatalError("out of memory")
            }
            var size = 8
            let status = unsafe withUnsafeMutablePointer(to: &size) { size in
                // The parameters point to `size`, which must live as long as they are used.
                let parameters = unsafe [
                    OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, size),
                    OSSL_PARAM_construct_end(),
                ]
                return unsafe EVP_MAC_CTX_set_params(handle, parameters)
            }
            guard status == 1 else { fatalError("libcrypto refused SipHash's output size") }
            return unsafe Context(handle)
        }
    }

    public func hash(_ name: ByteView) -> UInt64 {
        let slot = next.wrappingAdd(1, ordering: .relaxed).oldValue & (Self.slots - 1)
        let context = contexts[slot]
        return context.lock.withLock { _ in
            var result: UInt64 = 0
            var length = 0
            // The key each time: OpenSSL 3.0 starts a SipHash anew only when it is given one.
            unsafe withUnsafeBytes(of: key) {
                _ = unsafe EVP_MAC_init(
                    context.handle, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), 16, nil)
            }
            unsafe EVP_MAC_update(
                context.handle,
                name.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self), name.count)
            unsafe withUnsafeMutableBytes(of: &result) {
                _ = unsafe EVP_MAC_final(
                    context.handle, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), &length, 8)
            }
            return UInt64(littleEndian: result) & (1 << 56 - 1)
        }
    }
}
