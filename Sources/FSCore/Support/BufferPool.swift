/// Large buffers that are used again: fresh memory costs a page fault for every 4 KiB, and a call to give
/// it back, which together are as much as writing the data.
///
/// - Invariant: what a buffer holds when it is taken is anything.
/// - Invariant: at most `maximumIdle` buffers of at most `maximumByteCount` are kept.
final class BufferPool: @unchecked Sendable {
    private static let maximumIdle = 4
    private static let maximumByteCount = 1 << 20
    private let lock = Mutex()
    private var idle: [ByteBuffer] = []

    /// Lends a buffer of at least `count` bytes.
    func with<R>(
        _ count: Int, _ body: (ByteBuffer) throws(FSError) -> R
    ) throws(FSError) -> R {
        guard count <= Self.maximumByteCount else { return try body(ByteBuffer(unfilled: count)) }
        let buffer =
            lock.withLock { idle.popLast() } ?? ByteBuffer(unfilled: Self.maximumByteCount)
        defer { lock.withLock { if idle.count < Self.maximumIdle { idle.append(buffer) } } }
        return try body(buffer)
    }
}
