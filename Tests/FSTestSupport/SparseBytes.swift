/// A file's contents in the model: a size, and the pages that were ever written. What has no page
/// reads as zero.
///
/// - Invariant: no byte at or beyond `size` is other than zero.
public struct SparseBytes: Sendable {
    public static let pageSize = 4096
    public private(set) var size: UInt64 = 0
    private var pages: [UInt64: [UInt8]] = [:]

    public init() {}

    /// The bytes of a range, cut off at the end of the file.
    public func read(at offset: UInt64, count: Int) -> [UInt8] {
        guard offset < size else { return [] }
        var result = [UInt8](repeating: 0, count: Int(min(UInt64(count), size - offset)))
        forEachPiece(at: offset, count: result.count) { page, inside, position, length in
            guard let bytes = pages[page] else { return }
            result.replaceSubrange(
                position..<position + length, with: bytes[inside..<inside + length])
        }
        return result
    }

    public mutating func write(_ bytes: [UInt8], at offset: UInt64) {
        forEachPiece(at: offset, count: bytes.count) { page, inside, position, length in
            pages[page, default: Self.zeroPage].replaceSubrange(
                inside..<inside + length, with: bytes[position..<position + length])
        }
        if !bytes.isEmpty { size = max(size, offset + UInt64(bytes.count)) }
    }

    public mutating func truncate(to newSize: UInt64) {
        if newSize < size {
            let limit = (newSize + UInt64(Self.pageSize) - 1) / UInt64(Self.pageSize)
            pages = pages.filter { $0.key < limit }
            let inside = Int(newSize % UInt64(Self.pageSize))
            let last = newSize / UInt64(Self.pageSize)
            if inside > 0, pages[last] != nil {
                for index in inside..<Self.pageSize { pages[last]![index] = 0 }
            }
        }
        size = newSize
    }

    /// Zeroes a range as far as the file reaches; the size stays.
    public mutating func zero(at offset: UInt64, count: UInt64) {
        guard offset < size else { return }
        let end = offset + min(count, size - offset)
        for page in pages.keys {
            let start = page * UInt64(Self.pageSize)
            let first = max(start, offset)
            let last = min(start + UInt64(Self.pageSize), end)
            guard first < last else { continue }
            for index in Int(first - start)..<Int(last - start) { pages[page]![index] = 0 }
        }
    }

    /// True if every byte from `offset` up to `end` is zero.
    public func isZero(from offset: UInt64, to end: UInt64) -> Bool {
        pages.allSatisfy { page, bytes in
            let start = page * UInt64(Self.pageSize)
            let first = max(start, offset)
            let last = min(start + UInt64(Self.pageSize), end)
            guard first < last else { return true }
            return bytes[Int(first - start)..<Int(last - start)].allSatisfy { $0 == 0 }
        }
    }

    public var fingerprint: ContentFingerprint {
        var result = ContentFingerprint(size: size)
        for (page, bytes) in pages {
            bytes.withUnsafeBytes { result.add(page: page, $0) }
        }
        return result
    }

    private static let zeroPage = [UInt8](repeating: 0, count: pageSize)

    /// Cuts a range at page borders: (page, offset in it, offset in the range, length).
    private func forEachPiece(
        at offset: UInt64, count: Int, _ body: (UInt64, Int, Int, Int) -> Void
    ) {
        var position = 0
        while position < count {
            let at = offset + UInt64(position)
            let inside = Int(at % UInt64(Self.pageSize))
            let length = min(Self.pageSize - inside, count - position)
            body(at / UInt64(Self.pageSize), inside, position, length)
            position += length
        }
    }
}

/// Contents reduced to a size and a hash for each page that is not zero, so that two files can be
/// compared, and the first page that differs be named, without keeping both.
public struct ContentFingerprint: Hashable, Sendable {
    public let size: UInt64
    public private(set) var pages: [UInt64: StableHash] = [:]

    public init(size: UInt64) { self.size = size }

    /// Takes in one page; the last one of a file may be short.
    public mutating func add(page: UInt64, _ bytes: UnsafeRawBufferPointer) {
        // Trailing zeros do not count: a short last page equals the same page padded.
        guard let last = bytes.lastIndex(where: { $0 != 0 }) else { return }
        var hash = StableHash()
        hash.combine(UnsafeRawBufferPointer(rebasing: bytes[...last]))
        pages[page] = hash
    }

    /// Where two contents of equal size first differ, as a byte offset of a page.
    public func firstDifference(from other: ContentFingerprint) -> UInt64? {
        Set(pages.keys).union(other.pages.keys)
            .filter { pages[$0] != other.pages[$0] }.min()
            .map { $0 * UInt64(SparseBytes.pageSize) }
    }

    var hash: StableHash {
        var result = StableHash()
        result.combine(size)
        for page in pages.keys.sorted() {
            result.combine(page)
            result.combine(pages[page]!.value)
        }
        return result
    }
}
