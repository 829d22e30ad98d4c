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
    private var recorded: [SimulatedBlockDevice.Event]?

    public init(byteCount: UInt64) {
        self.byteCount = byteCount
        current = ByteBuffer(count: Int(byteCount))
        kept = ByteBuffer(count: Int(byteCount))
        isChanged = [Bool](repeating: false, count: Int(byteCount) >> 12)
    }

    /// The same contents, kept, in memory of its own.
    public convenience init(copying other: OverlayBlockDevice) {
        self.init(byteCount: other.byteCount)
        other.lock.withLock {
            current.bytes.copy(other.current.view)
            kept.bytes.copy(other.current.view)
        }
    }

    convenience init(_ image: BlockImage, byteCount: UInt64) {
        self.init(byteCount: byteCount)
        for (number, block) in image.blocks {
            block.withView {
                current.bytes.copy($0, at: Int(number) << 12)
                kept.bytes.copy($0, at: Int(number) << 12)
            }
        }
    }

    /// From now on writes and flushes are noted.
    func startRecording() { lock.withLock { recorded = [] } }

    /// How many events were noted so far.
    var eventCount: Int { lock.withLock { recorded?.count ?? 0 } }

    /// What was noted; nothing more is.
    func stopRecording() -> [SimulatedBlockDevice.Event] {
        lock.withLock {
            defer { recorded = nil }
            return recorded ?? []
        }
    }

    /// The block as it is now.
    func block(_ number: UInt64) -> BlockImage.Block {
        lock.withLock { current.view.slice(Int(number) << 12, 4096).toArray() }
    }

    /// Changes the medium itself; it is not noted, but `revert` takes it back.
    func put(_ block: BlockImage.Block, at number: UInt64) {
        block.withView { bytes in lock.withLock { store(bytes, at: Int(number) << 12) } }
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
            store(source, at: Int(offset))
            recorded?.append(.write(DeviceWrite(source, at: offset)))
        }
    }

    /// With the lock held.
    private func store(_ source: ByteView, at offset: Int) {
        current.bytes.copy(source, at: offset)
        for block in offset >> 12..<(offset + source.count) >> 12 where !isChanged[block] {
            isChanged[block] = true
            changed.append(block)
        }
    }

    public func flush() throws(FSError) { lock.withLock { recorded?.append(.flush) } }

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
