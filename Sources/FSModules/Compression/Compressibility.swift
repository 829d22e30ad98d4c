/// A cheap look at data before an expensive codec gets it.
///
/// Media, archives and encrypted files look like random bytes. A few thousand bytes sampled over
/// all of the data tell by how evenly their values are spread; what looks random that way can still
/// repeat itself, which the fastest form of LZ4 notices at some GB/s.
internal import CLZ4
internal import FSCore

enum Compressibility {
    private static let samples = 4096
    /// For evenly spread bytes the sum below is about `samples` × (1 + `samples` / 256).
    private static let evenSum = samples * (1 + samples / 256)

    /// Whether a codec may well save `saving` bytes.
    static func isLikely(_ source: ByteView, saving: Int) -> Bool {
        !looksRandom(source) || isRepetitive(source, saving: saving)
    }

    /// Compares the sum of the squares of the counts of each byte value (their collisions) with what
    /// evenly spread bytes have; entropy without logarithms.
    private static func looksRandom(_ source: ByteView) -> Bool {
        guard source.count >= samples else { return false }
        return unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 256) { counts in
            unsafe counts.initialize(repeating: 0)
            let stride = source.count / samples
            for index in 0..<samples { unsafe counts[Int(source[index * stride])] += 1 }
            var sum = 0
            for index in 0..<256 { unsafe sum += Int(counts[index]) * Int(counts[index]) }
            return sum < evenSum + evenSum / 8
        }
    }

    private static func isRepetitive(_ source: ByteView, saving: Int) -> Bool {
        let room = source.count - saving
        return unsafe withUnsafeTemporaryAllocation(byteCount: room, alignment: 16) { target in
            unsafe LZ4_compress_fast(
                source.unsafeBytes.baseAddress!.assumingMemoryBound(to: CChar.self),
                target.baseAddress!.assumingMemoryBound(to: CChar.self), Int32(source.count),
                Int32(room), 8) > 0
        }
    }
}
