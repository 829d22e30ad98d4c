/// How much a volume was given to write and what it sent to its device for that, since it was opened.
/// The quotient is the write amplification.
internal import Synchronization

package final class DeviceCounters: Sendable {
    /// Bytes of file data that programs have written.
    let acceptedBytes = Atomic<UInt64>(0)
    /// Everything that was written: data, its copies, nodes, bitmaps, journal, superblocks.
    let writtenBytes = Atomic<UInt64>(0)
    let writes = Atomic<UInt64>(0)
    let flushes = Atomic<UInt64>(0)

    func noteWrite(_ byteCount: Int) {
        writtenBytes.add(UInt64(byteCount), ordering: .relaxed)
        writes.add(1, ordering: .relaxed)
    }

    var current: DeviceUse {
        DeviceUse(
            acceptedBytes: acceptedBytes.load(ordering: .relaxed),
            writtenBytes: writtenBytes.load(ordering: .relaxed),
            writes: writes.load(ordering: .relaxed), flushes: flushes.load(ordering: .relaxed))
    }
}

/// `DeviceCounters` at one moment.
public struct DeviceUse: Sendable, Equatable {
    public var acceptedBytes: UInt64
    public var writtenBytes: UInt64
    public var writes: UInt64
    public var flushes: UInt64
}
