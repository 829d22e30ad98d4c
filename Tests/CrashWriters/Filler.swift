/// Contents that a seed and an offset determine, so that any part of a file can be checked alone.
struct Filler {
    var seed: UInt64

    /// SplitMix64 of the word's number.
    private func word(_ index: UInt64) -> UInt64 {
        var word = seed &+ (index &+ 1) &* 0x9E37_79B9_7F4A_7C15
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    func bytes(at offset: Int, count: Int) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        for index in 0..<count {
            let position = offset + index
            result[index] = UInt8(
                truncatingIfNeeded: word(UInt64(position / 8)) >> UInt64(position % 8 * 8))
        }
        return result
    }

    /// A number below `bound` for step `step`.
    func number(_ step: Int, below bound: Int) -> Int {
        Int(word(UInt64(step) | 1 << 48) % UInt64(bound))
    }

    /// The contents that belong to one step.
    func forStep(_ step: Int) -> Filler { Filler(seed: word(UInt64(step) | 1 << 49)) }
}
