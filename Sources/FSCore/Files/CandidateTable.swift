/// Where contents were first seen, by their tags: open addressing with a fixed number of slots.
final class CandidateTable {
    struct Place: Equatable {
        /// Below 2⁴⁸.
        var inode: UInt64
        var block: UInt64

        init(inode: UInt64, block: UInt64) {
            self.inode = inode
            self.block = block
        }

        // Two words: inode and block in the lower 48 and 52 bits, parts of the tag above; an empty slot
        // is zero.
        private static let highMask: UInt64 = 0xFFFF << 48
        private static let lowMask: UInt64 = 0xFFF << 52
        private static func high(_ tag: UInt64) -> UInt64 { tag & highMask }
        private static func low(_ tag: UInt64) -> UInt64 { (tag >> 36 & 0xFFF) << 52 }

        /// Nil if the words are of another tag, or empty.
        init?(_ first: UInt64, _ second: UInt64, ifTagged tag: UInt64) {
            guard first != 0, first & Self.highMask == Self.high(tag),
                second & Self.lowMask == Self.low(tag)
            else { return nil }
            inode = first & ~Self.highMask
            block = second & ~Self.lowMask
        }
        func words(tagged tag: UInt64) -> (UInt64, UInt64) {
            (Self.high(tag) | inode, Self.low(tag) | block)
        }
    }
    private var words: [UInt64]
    private let mask: Int
    private(set) var count = 0

    /// As many as fit into three quarters of the slots.
    var room: Int { (mask + 1) / 4 * 3 }
    /// How often contents must be gone through, each time for a part of the tags, when there are so many
    /// blocks. Parts differ a little in size.
    func passes(blocks: UInt64) -> UInt64 { blocks / UInt64(room - room / 32) + 1 }
    var byteCount: Int { words.count * 8 }

    init(byteCount: Int) {
        var slots = 1024
        while slots * 32 <= byteCount { slots *= 2 }
        words = [UInt64](repeating: 0, count: slots * 2)
        mask = slots - 1
    }

    func removeAll() {
        for index in words.indices { words[index] = 0 }
        count = 0
    }

    /// The place that was seen first with this tag; nil if this one is, or there is no room.
    func findOrInsert(_ tag: UInt64, _ place: Place) -> Place? {
        var slot = Int(truncatingIfNeeded: tag) & mask
        while words[2 * slot] != 0 {
            if let known = Place(words[2 * slot], words[2 * slot + 1], ifTagged: tag) {
                return known
            }
            slot = (slot + 1) & mask
        }
        guard count < room else { return nil }
        count += 1
        (words[2 * slot], words[2 * slot + 1]) = place.words(tagged: tag)
        return nil
    }
}
