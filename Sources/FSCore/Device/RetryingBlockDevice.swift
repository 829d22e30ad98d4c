/// A device whose reads are tried again: what fails once and then succeeds is no damage. Writes and
/// flushes are not repeated: after a failed one nobody knows what the medium holds.
@safe
final class RetryingBlockDevice: BlockDevice {
    private let device: any BlockDevice
    private static let attempts = 4

    init(_ device: any BlockDevice) { self.device = device }

    var byteCount: UInt64 { device.byteCount }
    var sectorSize: Int { device.sectorSize }
    var name: String { device.name }
    var isReadOnly: Bool { device.isReadOnly }

    func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        var failure: FSError?
        for _ in 0..<Self.attempts {
            do throws(FSError) { return try device.read(into: target, at: offset) } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }
    func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        try device.write(source, at: offset)
    }
    func write(parts: [ByteView], at offset: UInt64) throws(FSError) {
        try device.write(parts: parts, at: offset)
    }
    func flush() throws(FSError) { try device.flush() }
    func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        try device.discard(at: offset, count: count)
    }
}
