/// XXH3 with 64 bits and no seed (xxHash 0.8), by libxxhash.
public import FSCore
internal import CXXHash

public struct XXH3: Checksum {
    public init() {}
    public var kind: ChecksumKind { .xxh3 }

    public func sum(_ bytes: ByteView) -> ChecksumValue {
        ChecksumValue(unsafe XXH3_64bits(bytes.unsafeBytes.baseAddress!, bytes.count))
    }
}
