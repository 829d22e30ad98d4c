/// A device in memory that goes back to kept contents at the cost of what was written since, not
/// of its size: for campaigns that try thousands of changes of one volume.
public import FSCore

public final class OverlayBlockDevice: BlockDevice, @unchecked Sendable {
    public let byteCount: UInt64
    public let sectorSize = 512
    public let name = "overlay"
    public let isReadOnly = false

    // All guarded by the lock.
    private let lock = Mutex()
    private let current: ByteBuffer
    private let kept: ByteBuffer
    private var isChanged: [Bool]
    private var changed: [Int] = []

    public init(byteCount: UInt64) {
        self.byteCount = byteCount
        current = ByteBuffer(count: Int(byteCount))
        kept = ByteBuffer(count: Int(byteCount))
        isChanged = [Bool](repeating: false, count: Int(byteCount) >> 12)
    }

    /// Makes the contents of now those that `revert` goes back to.
    public func keep() { settle(from: current, to: kept) }

    /// Takes back every write since `keep`.
    public func revert() { settle(from: kept, to: current) }

    private func settle(from source: ByteBuffer, to target: ByteBuffer) {
        lock.withLock {
            for block in changed {
                target.bytes.copy(source.view.slice(block << 12, 4096), at: block << 12)
                isChanged[block] = false
            }
            changed.removeAll(keepingCapacity: true)
        }
    }

    public func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try requireInside(.read, offset, target.count)
        lock.withLock { target.copy(current.view.slice(Int(offset), target.count)) }
    }

    public func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        try requireInside(.write, offset, source.count)
        lock.withLock {
            current.bytes.copy(source, at: Int(offset))
            for block in Int(offset) >> 12..<(Int(offset) + source.count) >> 12
            where !isChanged[block] {
                isChanged[block] = true
                changed.append(block)
            }
        }
    }

    public func flush() throws(FSError) {}

    public func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw .device(.discard, errno: 28, offset: offset)
        }
    }

    private func requireInside(
        _ operation: FSError.DeviceOperation, _ offset: UInt64, _ count: Int
    ) throws(FSError) {
        precondition(offset % 4096 == 0 && count % 4096 == 0, "unaligned \(operation)")
        guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
            throw .device(operation, errno: 28, offset: offset)
        }
    }
}
