/// Reads the data of many extents from the medium in the order in which it lies there, in long pieces,
/// by several threads, and finds out which blocks are bad.
///
/// - Invariant: memory is bounded by the batch and `threadCount` pieces.
internal import FSCore
internal import Synchronization

struct ScrubReader {
    /// Long enough for a device to be as fast as it can.
    private static let pieceBlocks: UInt64 = 512
    private static let threadCount = 4

    /// A run of one copy of one extent.
    private struct Run {
        var start: UInt64
        var count: UInt64
        var extent: Int
        var copy: Int
        /// Of the extent's stored blocks.
        var first: Int
        var end: UInt64 { start + count }
    }

    /// A block of which a copy is bad.
    struct Bad: Hashable, Comparable {
        var extent: Int
        var block: Int
        static func < (a: Self, b: Self) -> Bool { (a.extent, a.block) < (b.extent, b.block) }
    }

    let volume: Volume
    let extents: [ExaminedExtent]
    private let pieces: [ArraySlice<Run>]

    init(_ volume: Volume, _ extents: [ExaminedExtent]) {
        self.volume = volume
        self.extents = extents
        pieces = Self.pieces(extents)
    }

    /// All runs in the order of the device, those of shared blocks once, cut into pieces that have no
    /// gap.
    private static func pieces(_ extents: [ExaminedExtent]) -> [ArraySlice<Run>] {
        var runs: [Run] = []
        for (index, extent) in extents.enumerated() {
            let stored = UInt64(extent.record.storedBlocks)
            for copy in 0..<extent.record.replicas.count {
                var first: UInt64 = 0
                while first < stored {
                    let count = min(stored - first, pieceBlocks)
                    runs.append(
                        Run(
                            start: extent.record.replicas[copy].block + first, count: count,
                            extent: index, copy: copy, first: Int(first)))
                    first += count
                }
            }
        }
        runs.sort { ($0.start, $0.count, $0.extent) < ($1.start, $1.count, $1.extent) }
        var unique: [Run] = []
        unique.reserveCapacity(runs.count)
        for run in runs {
            // The same blocks, referred to twice, have the same sums.
            if let last = unique.last, last.start == run.start, last.count == run.count,
                extents[last.extent].record.sums == extents[run.extent].record.sums
            {
                continue
            }
            unique.append(run)
        }
        var pieces: [ArraySlice<Run>] = []
        var begin = 0
        for index in unique.indices {
            let isNext = index + 1 < unique.count && unique[index + 1].start == unique[index].end
            let length = isNext ? unique[index + 1].end - unique[begin].start : 0
            if !isNext || length > pieceBlocks {
                pieces.append(unique[begin...index])
                begin = index + 1
            }
        }
        return pieces
    }

    /// Bytes that will be read.
    var byteCount: UInt64 {
        pieces.reduce(0) { $0 + $1.reduce(0) { $0 + $1.count } } << 12
    }

    /// - Parameters:
    ///   - turn: has each piece, of so many bytes, read in its time, by any thread; false to end.
    ///   - progress: told now and then how many bytes were read.
    func findBad(
        in turn: @escaping @Sendable (UInt64, () -> Void) -> Bool, progress: (UInt64) -> Void
    ) -> [Bad] {
        let state = State()
        let reader = UncheckedReader(reader: self)
        let threads = (0..<min(Self.threadCount, pieces.count)).map { _ in
            WorkerThread {
                defer { state.end() }
                let buffer = ByteBuffer(count: Int(Self.pieceBlocks) << 12)
                while let index = state.next(below: reader.reader.pieces.count) {
                    let piece = reader.reader.pieces[index]
                    let blocks = piece.reduce(0) { $0 + $1.count }
                    let wasDone = turn(blocks << 12) {
                        let bad = reader.reader.examine(piece, blocks, buffer)
                        state.add(bad, blocks << 12)
                    }
                    guard wasDone else { return }
                }
            }
        }
        while let bytes = state.wait(for: threads.count) { progress(bytes) }
        for thread in threads { thread.join() }
        return state.found.sorted()
    }

    private func examine(_ piece: ArraySlice<Run>, _ blocks: UInt64, _ buffer: ByteBuffer) -> [Bad]
    {
        var bad: [Bad] = []
        let start = piece[piece.startIndex].start
        let target = buffer.bytes.slice(0, Int(blocks) << 12)
        if (try? volume.readMedium(into: target, at: start << 12)) == nil {
            // What of it cannot be read is found block by block.
            for run in piece {
                for index in 0..<Int(run.count) {
                    let block = buffer.bytes.slice(0, 4096)
                    let place = (run.start + UInt64(index)) << 12
                    guard (try? volume.readMedium(into: block, at: place)) != nil else {
                        bad.append(Bad(extent: run.extent, block: run.first + index))
                        continue
                    }
                    volume.examine(extents[run.extent].record, block.view, from: run.first + index)
                    {
                        bad.append(Bad(extent: run.extent, block: $0))
                    }
                }
            }
            return bad
        }
        for run in piece {
            let part = target.view.slice(Int(run.start - start) << 12, Int(run.count) << 12)
            volume.examine(extents[run.extent].record, part, from: run.first) {
                bad.append(Bad(extent: run.extent, block: $0))
            }
        }
        return bad
    }

    /// Safe to share: it is never changed while threads use it.
    private struct UncheckedReader: @unchecked Sendable { let reader: ScrubReader }

    /// Which piece is next, how far the threads are, and what was found; behind the lock.
    private final class State: @unchecked Sendable {
        private let lock = Mutex()
        private var position = 0
        private var ended = 0
        private var bytes: UInt64 = 0
        private var bad: Set<Bad> = []
        var found: Set<Bad> { lock.withLock { bad } }
        func next(below count: Int) -> Int? {
            lock.withLock {
                guard position < count else { return nil }
                position += 1
                return position - 1
            }
        }
        func add(_ more: [Bad], _ read: UInt64) {
            lock.withLock {
                bad.formUnion(more)
                bytes += read
            }
        }
        func end() {
            lock.withLock {
                ended += 1
                lock.signalAll()
            }
        }
        /// Waits for a while; nil when all threads have ended.
        func wait(for threads: Int) -> UInt64? {
            lock.withLock {
                if ended < threads { lock.wait(milliseconds: 250) }
                return ended < threads ? bytes : nil
            }
        }
    }
}
