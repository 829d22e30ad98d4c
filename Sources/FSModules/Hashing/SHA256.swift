/// SHA-256 (FIPS 180-4) by OpenSSL's libcrypto.
public import FSCore
internal import CCrypto

/// Safe to share: a fetched algorithm is never changed, and lives as long as the process.
@safe
public struct SHA256: Checksum, @unchecked Sendable {
    /// The one there is: to fetch the algorithm costs as much as to hash a block.
    public static let shared = SHA256()
    private let handle: OpaquePointer

    private init() {
        guard let handle = unsafe EVP_MD_fetch(nil, "SHA256", nil) else {
            fatalError("libcrypto has no SHA-256: install OpenSSL 3 with its default provider")
        }
        unsafe self.handle = handle
    }

    public var kind: ChecksumKind { .sha256 }

    public func sum(_ bytes: ByteView) -> ChecksumValue {
        var value = ChecksumValue.zero
        let status = unsafe withUnsafeMutableBytes(of: &value.words) { target in
            unsafe EVP_Digest(
                bytes.unsafeBytes.baseAddress!, bytes.count,
                target.baseAddress!.assumingMemoryBound(to: UInt8.self), nil, handle, nil)
        }
        guard status == 1 else { fatalError("libcrypto refused to hash") }
        return value
    }
}
