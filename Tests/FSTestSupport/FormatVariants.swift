/// The choices of formatting that every random test makes by its seed.
public import FSCore

extension FormatOptions {
    /// One checksum kind and count of data copies after the other.
    public init(variant seed: UInt64) {
        self.init()
        checksumKind = ChecksumKind.allCases[Int(seed / 2 % 3)]
        dataCopies = 1 + Int(seed % 2)
    }
}
