/// CRC32C (RFC 3720, appendix B.4) by ISA-L, which folds with carry-less multiplications.
public import FSCore
internal import CISAL

public struct CRC32C: Checksum {
    public init() {}
    public var kind: ChecksumKind { .crc32c }

    public func sum(_ bytes: ByteView) -> ChecksumValue {
        let start = unsafe UnsafeMutablePointer(
            mutating: bytes.unsafeBytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
        // ISA-L computes the register only: the inversions before and after are ours.
        let register = unsafe crc32_iscsi(start, Int32(bytes.count), 0xFFFF_FFFF)
        return ChecksumValue(UInt64(~register))
    }
}
