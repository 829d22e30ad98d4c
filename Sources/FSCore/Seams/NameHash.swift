/// The keyed hash that places names in directories. Readdir cookies show its values to every
/// reader, so it must not reveal its secret (an XXH3 seed falls to one cookie).
public protocol NameHash: Sendable {
    /// The low 56 bits are the hash of `name`; the rest is zero.
    func hash(_ name: ByteView) -> UInt64
}

/// The 16 secret bytes of a volume's name hash.
public struct NameHashKey: Hashable, Sendable {
    public let words: (UInt64, UInt64)
    public init(_ low: UInt64, _ high: UInt64) { words = (low, high) }
    public static func == (a: Self, b: Self) -> Bool { a.words == b.words }
    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
    }
    public static func random() -> NameHashKey {
        var source = SystemRandomNumberGenerator()
        return NameHashKey(source.next(), source.next())
    }
}
