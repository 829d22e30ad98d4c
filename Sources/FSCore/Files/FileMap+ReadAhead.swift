/// Reading ahead: who reads a file in large pieces is about to read on, and only its map knows where.
///
/// The page cache below reads ahead as well, but along the device. Where the file goes on elsewhere it has
/// fetched what nobody wants, several times as much as was asked for, and begins anew. So large reads
/// leave it to guess only where the file lies in one run for as far as it looks; else every run is asked for
/// exactly, before it is read.
extension FileMap {
    /// 128 KiB: the smallest readahead of the kernel.
    private static let largeRead = 32

    /// Has the device fetch what a read of `blocks` wants, and what comes after it.
    func readAhead(_ inode: InodeNumber, _ blocks: Range<UInt64>, _ found: [Extent]) {
        if blocks.count >= Self.largeRead {
            let near =
                blocks
                .lowerBound..<min(
                    blocks.upperBound + SequentialReaders.maximumDepth, SequentialReaders.end)
            // What is wrong further on is not this reader's yet.
            guard let extents = try? extents(inode, near), !isOneRun(extents) else { return }
            let window = readers.window(inode, blocks)
            prefetch(extents, within: window)
        } else if found.count > 1 {
            prefetch(found, within: blocks)
        }
    }

    private func isOneRun(_ extents: [Extent]) -> Bool {
        zip(extents, extents.dropFirst()).allSatisfy { before, next in
            next.record.kind != .data
                || before.goal(for: next.block)?.first == next.record.replicas.first
        }
    }

    /// What goes on where it ends is asked for together.
    private func prefetch(_ extents: [Extent], within window: Range<UInt64>) {
        var pending: Range<UInt64>?
        func ask() {
            guard let pending else { return }
            volume.device.prefetch(
                at: pending.lowerBound << 12, count: UInt64(pending.count) << 12)
        }
        for extent in extents where extent.end > window.lowerBound {
            guard extent.block < window.upperBound else { break }
            guard let run = stored(extent, within: window)?.blocks else { continue }
            if let last = pending, last.upperBound == run.lowerBound {
                pending = last.lowerBound..<run.upperBound
            } else {
                ask()
                pending = run
            }
        }
        ask()
    }

    private func stored(_ extent: Extent, within window: Range<UInt64>) -> BlockRun? {
        guard extent.record.kind == .data else { return nil }
        var run = extent.record.storedRun(0)
        if extent.record.encoding == nil {
            let first = max(extent.block, window.lowerBound)
            let end = min(extent.end, window.upperBound)
            run = BlockRun(run.start + (first - extent.block), end - first)
        } else if extent.block < window.lowerBound, window.lowerBound > 0 {
            // It was fetched as a whole.
            return nil
        }
        return run
    }
}

/// Where files are being read from one end to the other, and how far ahead was asked for.
@safe
final class SequentialReaders: @unchecked Sendable {
    private struct Reader {
        var inode = InodeNumber(0)
        /// Where it is expected next.
        var next: UInt64 = 0
        var fetched: UInt64 = 0
        /// How many blocks ahead: it doubles with each read.
        var depth: UInt64 = 0
    }
    private let lock = Mutex()
    private var readers = [Reader](repeating: Reader(), count: 64)
    /// 8 MiB.
    static let maximumDepth: UInt64 = 2048
    static let end: UInt64 = 1 << 52

    /// What to fetch for a read of `blocks`: these, unless they were before, and what comes next. Reads of
    /// several threads may come in another order than they were sent.
    func window(_ inode: InodeNumber, _ blocks: Range<UInt64>) -> Range<UInt64> {
        let count = UInt64(blocks.count)
        return lock.withLock {
            let index = Int(inode.rawValue % UInt64(readers.count))
            var reader = readers[index]
            if reader.inode == inode, blocks.lowerBound <= reader.fetched,
                blocks.upperBound + 2 * count >= reader.next
            {
                reader.depth = min(max(2 * reader.depth, count), Self.maximumDepth)
            } else {
                reader = Reader(inode: inode, fetched: blocks.lowerBound)
                if blocks.lowerBound == 0 { reader.depth = min(4 * count, Self.maximumDepth) }
            }
            reader.next = max(reader.next, blocks.upperBound)
            // In few large pieces: not before half of what there shall be is used up.
            guard reader.fetched < blocks.upperBound + reader.depth / 2 else {
                readers[index] = reader
                return reader.fetched..<reader.fetched
            }
            let end = min(max(blocks.upperBound + reader.depth, reader.fetched), Self.end)
            let window = min(reader.fetched, end)..<end
            reader.fetched = end
            readers[index] = reader
            return window
        }
    }
}
