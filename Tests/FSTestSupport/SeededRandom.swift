/// Randomness that a seed repeats exactly, on every machine and in every process.
///
/// Whoever draws from it must not depend on the order of a `Dictionary` or `Set`, which changes
/// from process to process.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    /// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    /// 0 ..< bound, for a positive bound.
    public mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }

    public mutating func integer(in range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.count)
    }

    public mutating func chance(_ count: Int, in total: Int) -> Bool { below(total) < count }

    /// One of the elements; the collection must not be empty.
    public mutating func pick<C: RandomAccessCollection>(_ choices: C) -> C.Element {
        choices[choices.index(choices.startIndex, offsetBy: below(choices.count))]
    }

    /// One of the choices, each as often as its weight says.
    public mutating func weighted<T>(_ choices: [(weight: Int, value: T)]) -> T {
        var rest = below(choices.reduce(0) { $0 + $1.weight })
        for choice in choices {
            rest -= choice.weight
            if rest < 0 { return choice.value }
        }
        preconditionFailure("weights do not add up")
    }

    public mutating func bytes(_ count: Int) -> [UInt8] {
        var words = [UInt64](repeating: 0, count: (count + 7) / 8)
        for index in words.indices { words[index] = next() }
        return words.withUnsafeBytes { [UInt8]($0.prefix(count)) }
    }

    /// An independent generator: what it draws does not shift what this one draws next.
    public mutating func fork() -> SeededRandom { SeededRandom(seed: next()) }
}

/// A hash of bytes and words that is the same in every process, to compare whole trees.
public struct StableHash: Hashable, Sendable, CustomStringConvertible {
    public private(set) var value: UInt64 = 0x6A09_E667_F3BC_C908

    public init() {}
    public init(_ bytes: [UInt8]) { combine(bytes) }

    public mutating func combine(_ word: UInt64) {
        value = (value ^ word) &* 0x9FB2_1C65_1E98_DF25
        value ^= value >> 32
    }

    public mutating func combine(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { combine($0) }
    }

    public mutating func combine(_ bytes: UnsafeRawBufferPointer) {
        combine(UInt64(bytes.count))
        let whole = bytes.count & ~7
        for offset in stride(from: 0, to: whole, by: 8) {
            combine(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        var tail: UInt64 = 0
        for byte in bytes[whole...] { tail = tail << 8 | UInt64(byte) }
        if whole < bytes.count { combine(tail) }
    }

    public var description: String { String(value, radix: 16) }
}
