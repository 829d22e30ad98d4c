/// The checksum that every node pointer, bitmap entry and extent carries. Always filled when a
/// volume is opened: there is no volume without one.
public protocol Checksum: Sendable {
    /// The kind's permanent number on disk.
    var kind: ChecksumKind { get }
    /// The sum of `bytes`, `kind.byteCount` bytes long, in the low end of the result.
    func sum(_ bytes: ByteView) -> ChecksumValue
}

/// Checksum algorithms and their permanent numbers on disk.
public enum ChecksumKind: UInt8, Sendable, CaseIterable {
    /// CRC32C (RFC 3720, appendix B.4), 4 bytes.
    case crc32c = 1
    /// XXH3 with 64 bits, 8 bytes; the number, little-endian as all others.
    case xxh3 = 2
    /// SHA-256 (FIPS 180-4), 32 bytes in the standard's order.
    case sha256 = 3

    /// The length of a sum in bytes.
    public var byteCount: Int {
        switch self {
        case .crc32c: 4
        case .xxh3: 8
        case .sha256: 32
        }
    }
    public var name: String {
        switch self {
        case .crc32c: "crc32c"
        case .xxh3: "xxh3"
        case .sha256: "sha256"
        }
    }
    /// A plain extent's sums stay within 1 KiB.
    public var maximumPlainExtentBlocks: UInt64 { 1024 / UInt64(byteCount) }
}

/// A checksum of up to 32 bytes; unused bytes are zero.
public struct ChecksumValue: Hashable, Sendable {
    public var words: (UInt64, UInt64, UInt64, UInt64)
    @inlinable public init(_ word: UInt64) { words = (word, 0, 0, 0) }
    @inlinable public init(words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }
    @inlinable public static func == (a: Self, b: Self) -> Bool { a.words == b.words }
    @inlinable public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
    public static let zero = ChecksumValue(0)

    /// Reads `count` (at most 32) bytes from `offset` on.
    package init(_ view: ByteView, _ offset: Int, count: Int) {
        self = .zero
        unsafe withUnsafeMutableBytes(of: &words) { target in
            for index in 0..<count { unsafe target[index] = view[offset + index] }
        }
    }
    /// Writes the first `count` bytes to `offset`.
    package func store(_ target: MutableByteView, _ offset: Int, count: Int) {
        unsafe withUnsafeBytes(of: words) { source in
            for index in 0..<count { unsafe target[offset + index] = source[index] }
        }
    }
}
