/// A device over another one that is only read: what is written stays in memory and is forgotten in the
/// end. So a change can be tried by the very code that makes it.
///
/// Blocks that are written cost their size; behind a limit writes fail as on a full device.
@safe
public final class ScratchBlockDevice: BlockDevice, @unchecked Sendable {
    private let base: any BlockDevice
    private let limit: Int
    private let lock = Mutex()
    private var written: [UInt64: ByteBuffer] = [:]

    /// - Parameter byteLimit: so much may be written.
    public init(_ base: any BlockDevice, byteLimit: Int = 1 << 30) {
        self.base = base
        limit = byteLimit / DiskFormat.blockSize
    }

    public var byteCount: UInt64 { base.byteCount }
    public var sectorSize: Int { base.sectorSize }
    public var name: String { base.name }
    public var isReadOnly: Bool { false }

    public func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try base.read(into: target, at: offset)
        lock.withLock {
            guard !written.isEmpty else { return }
            for index in 0..<target.count >> 12 {
                guard let block = written[offset >> 12 + UInt64(index)] else { continue }
                target.copy(block.view, at: index << 12)
            }
        }
    }

    public func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        guard offset + UInt64(source.count) <= byteCount else {
            throw .device(.write, errno: 28, offset: offset)
        }
        try lock.withLock { () throws(FSError) in
            for index in 0..<source.count >> 12 {
                let part = source.slice(index << 12, DiskFormat.blockSize)
                let number = offset >> 12 + UInt64(index)
                if written[number] == nil, written.count >= limit {
                    throw .device(.write, errno: 28, offset: offset)
                }
                written[number] = ByteBuffer(copying: part)
            }
        }
    }

    public func flush() throws(FSError) {}
    public func discard(at offset: UInt64, count: UInt64) throws(FSError) {}
}
