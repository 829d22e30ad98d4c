/// A checksum that costs nothing and finds nothing, in the place of CRC32C: what that costs is measured
/// against it (`scripts/checksum-cost`). No program for users can have it.
public import FSCore
internal import FSModules

public struct NullChecksum: Checksum {
    public let kind = ChecksumKind.crc32c
    public init() {}
    public func sum(_ bytes: ByteView) -> ChecksumValue { ChecksumValue(0x4E55_4C4C) }
}

extension ModuleSet {
    /// All modules, but volumes with CRC32C have sums that say nothing.
    public static let withoutSums = standard(checksums: [NullChecksum(), XXH3(), SHA256.shared])
}
