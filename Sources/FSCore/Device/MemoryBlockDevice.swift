/// A device in memory, sparse: blocks that were never written take no room. For tests.
@safe
public final class MemoryBlockDevice: BlockDevice, @unchecked Sendable {
    public var byteCount: UInt64 { lock.withLock { size } }
    public let sectorSize = 512
    public let name = "memory"
    public let isReadOnly = false

    /// Pieces of 64 KiB by number.
    private static let pieceSize = 65536
    private let lock = Mutex()
    private var size: UInt64
    private var pieces: [UInt64: ByteBuffer] = [:]

    public init(byteCount: UInt64) { size = byteCount & ~4095 }

    /// What was cut off reads as zeros when it comes back.
    public func resize(to bytes: UInt64) throws(FSError) {
        lock.withLock {
            size = bytes & ~4095
            let piece = UInt64(Self.pieceSize)
            pieces = pieces.filter { $0.key * piece < size }
            if size % piece != 0, let last = pieces[size / piece] {
                last.bytes.zero(Int(size % piece), Int(piece - size % piece))
            }
        }
    }

    public func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try check(.read, offset, target.count)
        lock.withLock {
            forEachPart(offset, target.count) { piece, within, done, count in
                if let buffer = pieces[piece] {
                    target.slice(done, count).copy(buffer.view.slice(within, count))
                } else {
                    target.zero(done, count)
                }
            }
        }
    }

    public func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        try check(.write, offset, source.count)
        lock.withLock {
            forEachPart(offset, source.count) { piece, within, done, count in
                let buffer = pieces[piece] ?? ByteBuffer(count: Self.pieceSize)
                buffer.bytes.copy(source.slice(done, count), at: within)
                pieces[piece] = buffer
            }
        }
    }

    public func flush() throws(FSError) {}

    public func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw .device(.discard, errno: 22, offset: offset)
        }
    }

    private func check(
        _ operation: FSError.DeviceOperation, _ offset: UInt64, _ count: Int
    ) throws(FSError) {
        let size = lock.withLock { self.size }
        guard offset <= size, UInt64(count) <= size - offset else {
            throw .device(operation, errno: 22, offset: offset)
        }
    }

    private func forEachPart(
        _ offset: UInt64, _ count: Int, _ body: (UInt64, Int, Int, Int) -> Void
    ) {
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let within = Int(position % UInt64(Self.pieceSize))
            let part = min(Self.pieceSize - within, count - done)
            body(position / UInt64(Self.pieceSize), within, done, part)
            done += part
        }
    }
}
