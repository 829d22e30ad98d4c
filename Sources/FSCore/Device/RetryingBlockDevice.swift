internal import Synchronization

/// The device as an open volume uses it: reads are tried again, since what fails once and then
/// succeeds is no damage; writes and flushes are not, since after a failed one nobody knows what the
/// medium holds.
///
/// - Invariant: after a failed flush every flush fails. The kernel reports a failed write
///   back once, to whoever asks first; all others must hear of it too. So one flush runs at a time,
///   and the lock is held over it.
@safe
final class RetryingBlockDevice: BlockDevice, @unchecked Sendable {
    private let device: any BlockDevice
    private let counters: DeviceCounters
    private static let attempts = 4

    private let flushLock = Mutex()
    /// Guarded by `flushLock`.
    private var failure: FSError?

    init(_ device: any BlockDevice, _ counters: DeviceCounters) {
        self.device = device
        self.counters = counters
    }

    var byteCount: UInt64 { device.byteCount }
    var sectorSize: Int { device.sectorSize }
    var name: String { device.name }
    var isReadOnly: Bool { device.isReadOnly }

    func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try retrying { () throws(FSError) in try device.read(into: target, at: offset) }
    }
    func prefetch(at offset: UInt64, count: UInt64) { device.prefetch(at: offset, count: count) }
    func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try retrying { () throws(FSError) in try device.readMedium(into: target, at: offset) }
    }
    private func retrying(_ body: () throws(FSError) -> Void) throws(FSError) {
        var failure: FSError?
        for _ in 0..<Self.attempts {
            do throws(FSError) { return try body() } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }
    func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        try device.write(source, at: offset)
        counters.noteWrite(source.count)
    }
    func write(parts: [ByteView], at offset: UInt64) throws(FSError) {
        try device.write(parts: parts, at: offset)
        counters.noteWrite(parts.reduce(0) { $0 + $1.count })
    }
    func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool {
        counters.noteWrite(source.count)
        return try device.rewrite(source, at: offset)
    }
    func flush() throws(FSError) {
        try flushLock.withLock { () throws(FSError) in
            if let failure { throw failure }
            do throws(FSError) { try device.flush() } catch {
                failure = error
                throw error
            }
            counters.flushes.add(1, ordering: .relaxed)
        }
    }
    func resize(to bytes: UInt64) throws(FSError) { try device.resize(to: bytes) }
    func refresh() throws(FSError) { try device.refresh() }
    func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        try device.discard(at: offset, count: count)
    }
}
