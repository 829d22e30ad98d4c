/// Pieces of a file that helpers fetch ahead of a reader, past the page cache.
///
/// The page cache can be told to fetch a range, too, but then takes it in page by page, and that costs a
/// processor as much as everything else about reading it. Here a piece goes into memory that was used
/// before, and is copied once. Large pages make a piece one request to the device, which matters most:
/// 128 MiB in requests of 512 KiB took 120 ms, in requests of 2 MiB 50.
///
///     fetch ─▶ queued ─▶ reading ─▶ ready ─▶ copied by one reader, then forgotten
///                            └─▶ failed: who wants it reads it himself, and hears why
///
/// - Invariant: what is handed out was read after every write to its range that had returned when it was
///   asked for: who writes says so (`forget`) before he returns.
/// - Invariant: at most `capacity` bytes are held, and those that nobody came for give way after a second.
internal import Glibc
internal import Synchronization

final class FetchedPieces: @unchecked Sendable {
    /// Of one piece, and of all.
    static let pieceBytes = 2 << 20
    static let capacity = 32 << 20
    private static let helperCount = 2
    /// Buffers that are kept for the next pieces.
    private static let maximumIdle = 4
    private static let patience: UInt64 = 1_000_000_000

    private final class Piece {
        enum State { case queued, reading, ready, failed }
        let range: Range<UInt64>
        let buffer: ByteBuffer
        var state = State.queued
        /// Something was written to it; it is taken from the list.
        var isStale = false
        var readers = 0
        /// Bytes that were copied.
        var taken = 0
        var touched = monotonicNanoseconds()

        init(_ range: Range<UInt64>, _ buffer: ByteBuffer) {
            self.range = range
            self.buffer = buffer
        }
    }

    private final class Queue: @unchecked Sendable {
        let lock = Mutex()
        var pieces: [Piece] = []
        var waiting: [Piece] = []
        var idle: [ByteBuffer] = []
        var isEnding = false

        func recycle(_ piece: Piece) {
            if idle.count < FetchedPieces.maximumIdle { idle.append(piece.buffer) }
        }

        /// Pieces are read from this file, opened for direct access.
        func help(_ descriptor: Int32) {
            lock.lock()
            defer { lock.unlock() }
            while !isEnding {
                guard !waiting.isEmpty else {
                    lock.wait()
                    continue
                }
                let piece = waiting.removeFirst()
                piece.state = .reading
                lock.unlock()
                let count = Int(piece.range.upperBound - piece.range.lowerBound)
                let got = unsafe pread(
                    descriptor, piece.buffer.bytes.unsafeBytes.baseAddress, count,
                    off_t(piece.range.lowerBound))
                lock.lock()
                piece.state = got == count ? .ready : .failed
                if piece.isStale { recycle(piece) }
                lock.signalAll()
            }
        }
    }

    private let queue = Queue()
    /// Of `queue.pieces`; so who has none does not ask for the lock.
    private let count = Atomic<Int>(0)
    /// Guarded by the queue's lock.
    private var helpers: [WorkerThread] = []

    /// Ends the helpers. Nobody fetches or reads any more.
    func close() {
        queue.lock.withLock {
            queue.isEnding = true
            queue.lock.signalAll()
        }
        for helper in helpers { helper.join() }
        helpers = []
    }

    /// Has a range fetched, but for what is being fetched; false if there is no room for it.
    ///
    /// - Parameter descriptor: always the same, open until `close` has returned.
    func fetch(_ range: Range<UInt64>, from descriptor: Int32) -> Bool {
        queue.lock.withLock {
            guard !queue.isEnding, makeRoom(for: range) else { return false }
            while helpers.count < Self.helperCount {
                helpers.append(WorkerThread { [queue] in queue.help(descriptor) })
            }
            var start = range.lowerBound
            while start < range.upperBound {
                let end = min(start + UInt64(Self.pieceBytes), range.upperBound)
                if !queue.pieces.contains(where: { $0.range.overlaps(start..<end) }) {
                    let buffer = queue.idle.popLast() ?? Self.largeBuffer()
                    let piece = Piece(start..<end, buffer)
                    queue.pieces.append(piece)
                    queue.waiting.append(piece)
                }
                start = end
            }
            count.store(queue.pieces.count, ordering: .sequentiallyConsistent)
            queue.lock.signalAll()
            return true
        }
    }

    /// In a large page, if the kernel has one.
    private static func largeBuffer() -> ByteBuffer {
        let buffer = ByteBuffer(unfilled: pieceBytes, alignment: pieceBytes)
        // MADV_HUGEPAGE
        _ = unsafe madvise(buffer.bytes.unsafeBytes.baseAddress, pieceBytes, 14)
        return buffer
    }

    /// With the lock held.
    private func makeRoom(for range: Range<UInt64>) -> Bool {
        let wanted = range.count / Self.pieceBytes + 1
        let limit = Self.capacity / Self.pieceBytes
        if queue.pieces.count + wanted > limit {
            let now = monotonicNanoseconds()
            remove {
                $0.state == .failed || $0.state == .ready && $0.touched + Self.patience < now
            }
        }
        return queue.pieces.count + wanted <= limit
    }

    /// Takes pieces from the list. With the lock held.
    private func remove(where isGone: (Piece) -> Bool) {
        queue.pieces.removeAll { piece in
            guard isGone(piece) else { return false }
            if piece.readers == 0, piece.state == .ready || piece.state == .failed {
                queue.recycle(piece)
            } else {
                piece.isStale = true
                if piece.state == .queued { queue.waiting.removeAll { $0 === piece } }
            }
            return true
        }
        count.store(queue.pieces.count, ordering: .sequentiallyConsistent)
        // Who waits for a piece that no helper will come to reads it himself.
        queue.lock.signalAll()
    }

    /// Copies what was fetched from `offset` on, waiting for it if need be.
    ///
    /// - Returns: how many bytes of the target were filled, and how many behind them were not fetched.
    func take(into target: MutableByteView, at offset: UInt64) -> (filled: Int, missing: Int) {
        guard count.load(ordering: .sequentiallyConsistent) > 0 else { return (0, target.count) }
        queue.lock.lock()
        defer { queue.lock.unlock() }
        while let piece = queue.pieces.first(where: { $0.range.contains(offset) }) {
            switch piece.state {
            case .queued, .reading: queue.lock.wait()
            case .failed: remove { $0 === piece }
            case .ready:
                let filled = min(target.count, Int(piece.range.upperBound - offset))
                piece.readers += 1
                queue.lock.unlock()
                let start = Int(offset - piece.range.lowerBound)
                target.copy(piece.buffer.view.slice(start, filled))
                queue.lock.lock()
                piece.readers -= 1
                piece.taken += filled
                piece.touched = monotonicNanoseconds()
                if piece.isStale {
                    if piece.readers == 0 { queue.recycle(piece) }
                } else if piece.taken >= piece.range.count {
                    remove { $0 === piece }
                }
                return (filled, 0)
            }
        }
        let next = queue.pieces.lazy.map(\.range.lowerBound).filter { $0 > offset }.min()
        return (0, next.map { min(target.count, Int($0 - offset)) } ?? target.count)
    }

    /// Something was written to a range.
    func forget(_ range: Range<UInt64>) {
        // A helper that had not begun when the writing ended reads what was written.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        guard count.load(ordering: .sequentiallyConsistent) > 0 else { return }
        queue.lock.withLock { remove { $0.range.overlaps(range) } }
    }
}
