/// The lowest seam: a row of 4 KiB blocks that can be read, written, flushed and discarded.
///
/// A device promises nothing about order or durability between two flushes: a crash may keep any
/// subset of the unflushed writes, in any order, torn at any sector. After `flush` returned,
/// everything written before it was called is durable.
///
/// Implementations are thread-safe. Offsets and lengths are bytes and multiples of 4096.
/// Errors are `FSError.device`.
public protocol BlockDevice: AnyObject, Sendable {
    /// The size in bytes, rounded down to whole blocks.
    var byteCount: UInt64 { get }
    /// The unit that the medium writes without tearing, in bytes.
    var sectorSize: Int { get }
    /// For messages: the path, or what the device is.
    var name: String { get }
    var isReadOnly: Bool { get }

    /// Fills `target` from `offset` on. A read beyond the end is an error, never short.
    func read(into target: MutableByteView, at offset: UInt64) throws(FSError)
    /// Says that a range will be read soon: a device that can fetch it beside other work may do so.
    func prefetch(at offset: UInt64, count: UInt64)
    /// The same as `read`, past any cache on the way where that is possible: what the medium itself holds.
    func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError)
    /// Writes all of `source` at `offset`.
    func write(_ source: ByteView, at offset: UInt64) throws(FSError)
    /// Writes the parts one behind the other, starting at `offset`.
    func write(parts: [ByteView], at offset: UInt64) throws(FSError)
    /// Writes over what the medium has and reads it back, past any cache on the way where that is
    /// possible; false if the medium does not keep it. Tells nothing about other writes, and a failure
    /// of it does not come up in a later flush.
    func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool
    /// Makes every write that returned before this call durable.
    func flush() throws(FSError)
    /// Makes the device this long (a multiple of 4096): an image file is extended or cut. What has a
    /// size of its own must have at least this one.
    func resize(to bytes: UInt64) throws(FSError)
    /// Reads the size again, of what others may have enlarged.
    func refresh() throws(FSError)
    /// Tells the device that a range holds nothing of value; it may read as anything afterwards.
    func discard(at offset: UInt64, count: UInt64) throws(FSError)
}

extension BlockDevice {
    public func prefetch(at offset: UInt64, count: UInt64) {}
    /// For devices without a cache.
    public func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try read(into: target, at: offset)
    }
    /// For devices without a cache.
    public func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool {
        try write(source, at: offset)
        let check = ByteBuffer(count: source.count)
        try read(into: check.bytes, at: offset)
        return check.view.equals(source)
    }

    public func resize(to bytes: UInt64) throws(FSError) {
        guard bytes <= byteCount else { throw .device(.resize, errno: 95, offset: bytes) }
    }
    public func refresh() throws(FSError) {}
    /// One write after the other, for devices without a vectored call.
    public func write(parts: [ByteView], at offset: UInt64) throws(FSError) {
        var position = offset
        for part in parts {
            try write(part, at: position)
            position += UInt64(part.count)
        }
    }
}
