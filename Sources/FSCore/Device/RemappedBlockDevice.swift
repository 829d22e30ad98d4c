/// The one place between a volume and its device where block numbers that were moved (`RemapTable`)
/// are turned into where the blocks are now. Superblocks go past it: their places are fixed.
///
/// - Invariant: a volume without moved blocks pays one atomic load for a request.
@safe
final class RemappedBlockDevice: BlockDevice, @unchecked Sendable {
    let physical: any BlockDevice
    let remaps: RemapTable
    /// Of an open volume.
    let counters: DeviceCounters

    init(
        _ physical: any BlockDevice, _ remaps: RemapTable,
        counters: DeviceCounters = DeviceCounters()
    ) {
        self.physical = physical
        self.remaps = remaps
        self.counters = counters
    }

    /// As an open volume uses a device.
    convenience init(of device: any BlockDevice) {
        let counters = DeviceCounters()
        self.init(
            RetryingBlockDevice(device, counters), RemapTable(), counters: counters)
    }

    var byteCount: UInt64 { physical.byteCount }
    var sectorSize: Int { physical.sectorSize }
    var name: String { physical.name }
    var isReadOnly: Bool { physical.isReadOnly }

    func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        guard remaps.mayTouch(upTo: offset + UInt64(target.count)) else {
            return try physical.read(into: target, at: offset)
        }
        try forEachPart(offset, target.count) { (place, done, count) throws(FSError) in
            try physical.read(into: target.slice(done, count), at: place)
        }
    }

    /// Moved blocks are read when they are wanted.
    func prefetch(at offset: UInt64, count: UInt64) {
        if !remaps.mayTouch(upTo: offset + count) { physical.prefetch(at: offset, count: count) }
    }

    func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        guard remaps.mayTouch(upTo: offset + UInt64(target.count)) else {
            return try physical.readMedium(into: target, at: offset)
        }
        try forEachPart(offset, target.count) { (place, done, count) throws(FSError) in
            try physical.readMedium(into: target.slice(done, count), at: place)
        }
    }

    func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        guard remaps.mayTouch(upTo: offset + UInt64(source.count)) else {
            return try physical.write(source, at: offset)
        }
        try forEachPart(offset, source.count) { (place, done, count) throws(FSError) in
            try physical.write(source.slice(done, count), at: place)
        }
    }

    func write(parts: [ByteView], at offset: UInt64) throws(FSError) {
        let total = parts.reduce(0) { $0 + $1.count }
        guard remaps.mayTouch(upTo: offset + UInt64(total)) else {
            return try physical.write(parts: parts, at: offset)
        }
        var position = offset
        for part in parts {
            try write(part, at: position)
            position += UInt64(part.count)
        }
    }

    func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool {
        guard remaps.mayTouch(upTo: offset + UInt64(source.count)) else {
            return try physical.rewrite(source, at: offset)
        }
        var isKept = true
        try forEachPart(offset, source.count) { (place, done, count) throws(FSError) in
            if try !physical.rewrite(source.slice(done, count), at: place) { isKept = false }
        }
        return isKept
    }

    func flush() throws(FSError) { try physical.flush() }
    func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        try physical.discard(at: offset, count: count)
    }
    func resize(to bytes: UInt64) throws(FSError) { try physical.resize(to: bytes) }
    func refresh() throws(FSError) { try physical.refresh() }

    /// Hands out where the parts of a request lie. Whoever moves blocks waits for it to end.
    private func forEachPart(
        _ offset: UInt64, _ count: Int,
        _ body: (_ place: UInt64, _ done: Int, _ count: Int) throws(FSError) -> Void
    ) throws(FSError) {
        let token = remaps.readers.enter()
        defer { _ = remaps.readers.leave(token) }
        let first = offset >> 12
        var done = 0
        for part in remaps.translate(first..<first + UInt64(count >> 12)) {
            let size = Int(part.count) << 12
            try body(part.start << 12, done, size)
            done += size
        }
    }
}
