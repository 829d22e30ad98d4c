/// A device in memory that remembers every write and flush, can be asked for its contents after a
/// crash at any moment, and breaks on request.
///
/// It keeps the contract of `BlockDevice` as narrowly as a disk may: nothing is durable before a
/// flush, and what was discarded reads as garbage at once.
///
/// - Invariant: the log is complete: the initial contents and the events up to a moment determine
///   everything that a crash at that moment can leave (`crashed`).
public import FSCore

public final class SimulatedBlockDevice: BlockDevice, @unchecked Sendable {
    public var byteCount: UInt64 { lock.withLock { size } }
    public let sectorSize: Int
    public let name: String
    public let isReadOnly = false

    public struct Counters: Equatable, Sendable {
        public var reads: UInt64 = 0
        public var writes: UInt64 = 0
        public var flushes: UInt64 = 0
        public var discards: UInt64 = 0
        public var bytesRead: UInt64 = 0
        public var bytesWritten: UInt64 = 0
    }

    enum Event: Sendable {
        case write(DeviceWrite)
        case flush
        /// Reported as done, but no barrier: what a lying disk does.
        case droppedFlush
    }

    // All guarded by the lock.
    private let lock = Mutex()
    private var current: BlockImage
    private var size: UInt64
    /// What a crash leaves may be from when the device was this long.
    private var largestSize: UInt64
    private var log: [Event] = []
    /// The durable contents just before some events, so that no crash needs the whole log.
    private var bases: [(event: Int, image: BlockImage)]
    private var durable: BlockImage
    private var durableEvent = 0
    private var faults: [Fault] = []
    /// Whether a write makes the block readable again.
    private var unreadable: [UInt64: Bool] = [:]
    private var dropsFlush: (@Sendable (UInt64) -> Bool)?
    private var counted = Counters()

    public convenience init(byteCount: UInt64, sectorSize: Int = 512) {
        self.init(BlockImage(), byteCount: byteCount, sectorSize: sectorSize, name: "simulated")
    }

    init(_ image: BlockImage, byteCount: UInt64, sectorSize: Int, name: String) {
        precondition(byteCount % UInt64(BlockImage.blockSize) == 0)
        size = byteCount
        largestSize = byteCount
        self.sectorSize = sectorSize
        self.name = name
        current = image
        durable = image
        bases = [(0, image)]
    }

    public var counters: Counters { lock.withLock { counted } }
    /// How many events the log holds: the moment after the last one.
    public var eventCount: Int { lock.withLock { log.count } }

    // MARK: BlockDevice

    public func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try requireInside(.read, offset, target.count)
        try lock.withLock { () throws(FSError) in
            counted.reads += 1
            counted.bytesRead += UInt64(target.count)
            let block = offset / UInt64(BlockImage.blockSize)
            let end = block + UInt64(target.count / BlockImage.blockSize)
            let isUnreadable = unreadable.keys.contains { $0 >= block && $0 < end }
            if strike(.read) != nil || isUnreadable { throw failure(.read, offset) }
            current.read(into: target, at: offset)
        }
    }

    public func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        try requireInside(.write, offset, source.count)
        try lock.withLock { () throws(FSError) in
            counted.writes += 1
            counted.bytesWritten += UInt64(source.count)
            var write = DeviceWrite(source, at: offset)
            for block in unreadable.keys
            where block >= write.firstBlock
                && block < write.firstBlock + UInt64(write.blocks.count)
            {
                guard unreadable[block] == true else { throw failure(.write, offset) }
                unreadable[block] = nil
            }
            switch strike(.write) {
            case .fail: throw failure(.write, offset)
            case .loseWrite: return
            case .misdirectWrite(let distance):
                let last = size / UInt64(BlockImage.blockSize) - UInt64(write.blocks.count)
                write.firstBlock = min(write.firstBlock &+ distance, last)
            case .flipBit(let bit):
                let index = bit % (write.blocks.count * BlockImage.blockSize * 8)
                let byte = index / 8
                write.blocks[byte / BlockImage.blockSize][byte % BlockImage.blockSize] ^=
                    1 << UInt8(index % 8)
            case nil: break
            }
            record(write)
        }
    }

    public func flush() throws(FSError) {
        try lock.withLock { () throws(FSError) in
            counted.flushes += 1
            if strike(.flush) != nil { throw failure(.flush, 0) }
            if dropsFlush?(counted.flushes) == true {
                log.append(.droppedFlush)
                return
            }
            log.append(.flush)
            for case .write(let write) in log[durableEvent...] { durable.apply(write) }
            durableEvent = log.count
            if log.count - bases.last!.event >= 256 { bases.append((log.count, durable)) }
        }
    }

    public func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        try requireInside(.discard, offset, Int(count))
        lock.withLock {
            counted.discards += 1
            let garbage = BlockImage.Block(repeating: 0xDD, count: BlockImage.blockSize)
            for block in 0..<count / UInt64(BlockImage.blockSize) {
                garbage.withView {
                    record(DeviceWrite($0, at: offset + block * UInt64(BlockImage.blockSize)))
                }
            }
        }
    }

    /// Longer at once, as a file whose length is flushed with what is written to it; what is cut off
    /// turns into garbage, of which a crash may bring back any part.
    public func resize(to bytes: UInt64) throws(FSError) {
        lock.withLock {
            let garbage = BlockImage.Block(repeating: 0xDD, count: BlockImage.blockSize)
            let first = bytes / UInt64(BlockImage.blockSize)
            for number in current.blocks.keys.sorted() where number >= first {
                garbage.withView {
                    record(DeviceWrite($0, at: number * UInt64(BlockImage.blockSize)))
                }
            }
            size = bytes
            largestSize = max(largestSize, bytes)
        }
    }

    private func record(_ write: DeviceWrite) {
        current.apply(write)
        log.append(.write(write))
    }

    private func requireInside(
        _ operation: FSError.DeviceOperation, _ offset: UInt64, _ count: Int
    ) throws(FSError) {
        let block = UInt64(BlockImage.blockSize)
        precondition(offset % block == 0 && count % Int(block) == 0, "unaligned \(operation)")
        guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
            throw .device(operation, errno: 28, offset: offset)
        }
    }

    private func failure(_ operation: FSError.DeviceOperation, _ offset: UInt64) -> FSError {
        .device(operation, errno: 5, offset: offset)
    }

    // MARK: Faults

    /// Something that goes wrong with the n-th call of its kind from now on (1 is the next one),
    /// once or from then on.
    public struct Fault: Sendable {
        public enum Call: Sendable { case read, write, flush }
        public enum Effect: Sendable {
            /// EIO; nothing happens.
            case fail
            /// Reported as done, but nothing is written.
            case loseWrite
            /// Written this many blocks behind its place, or at the end of the device.
            case misdirectWrite(blocks: UInt64)
            case flipBit(Int)
        }
        var call: Call
        var effect: Effect
        var remaining: Int
        var isSticky: Bool

        public init(_ call: Call, _ effect: Effect, after count: Int, isSticky: Bool = false) {
            self.call = call
            self.effect = effect
            remaining = count
            self.isSticky = isSticky
        }
    }

    public func inject(_ fault: Fault) { lock.withLock { faults.append(fault) } }
    /// The block at this offset cannot be read until it is written, or cannot be written either.
    public func makeUnreadable(at offset: UInt64, untilWritten: Bool = true) {
        lock.withLock { unreadable[offset / UInt64(BlockImage.blockSize)] = untilWritten }
    }
    public func clearFaults() {
        lock.withLock {
            faults = []
            unreadable = [:]
        }
    }

    /// Lets flushes lie: those, by their number from 1 on, for which the closure says so.
    public func dropFlushes(_ isDropped: (@Sendable (UInt64) -> Bool)?) {
        lock.withLock { dropsFlush = isDropped }
    }

    private func strike(_ call: Fault.Call) -> Fault.Effect? {
        var effect: Fault.Effect?
        for index in faults.indices where faults[index].call == call {
            faults[index].remaining -= 1
            let left = faults[index].remaining
            if left == 0 || left < 0 && faults[index].isSticky {
                effect = effect ?? faults[index].effect
            }
        }
        faults.removeAll { $0.remaining <= 0 && !$0.isSticky }
        return effect
    }

    /// Changes the medium itself, behind everybody's back.
    public func overwrite(_ bytes: [UInt8], at offset: UInt64) {
        lock.withLock {
            for (index, byte) in bytes.enumerated() {
                let position = offset + UInt64(index)
                let block = position / UInt64(BlockImage.blockSize)
                current[block][Int(position % UInt64(BlockImage.blockSize))] = byte
            }
        }
    }

    public func bytes(at offset: UInt64, count: Int) -> [UInt8] {
        lock.withLock {
            (0..<UInt64(count)).map {
                let position = offset + $0
                return current[position / UInt64(BlockImage.blockSize)][
                    Int(position % UInt64(BlockImage.blockSize))]
            }
        }
    }

    // MARK: Crashes

    /// What of the writes since the last flush reached the medium.
    public enum InFlight: Sendable {
        case nothing
        case everything
        /// All whole but the last, which is torn.
        case lastTorn
        /// Every one of them torn.
        case allTorn
        /// Any subset, in any order, any of them torn.
        case anySubset
    }

    /// A device with what a crash right after `event` events leaves; it has a log of its own.
    public func crashed(
        after event: Int, _ inFlight: InFlight, lost: LostSectors = .any,
        tornAt sectorSize: Int? = nil, random: inout SeededRandom
    ) -> SimulatedBlockDevice {
        let (base, events) = lock.withLock {
            let base = bases.last { $0.event <= event }!
            return (base.image, Array(log[base.event..<event]))
        }
        var image = base
        let barrier = events.lastIndex { if case .flush = $0 { true } else { false } } ?? -1
        for case .write(let write) in events[..<(barrier + 1)] { image.apply(write) }
        var pending: [DeviceWrite] = []
        for case .write(let write) in events[(barrier + 1)...] { pending.append(write) }
        let sector = sectorSize ?? self.sectorSize
        switch inFlight {
        case .nothing: break
        case .everything: for write in pending { image.apply(write) }
        case .lastTorn:
            for write in pending.dropLast() { image.apply(write) }
            if let last = pending.last {
                image.apply(last, sectorSize: sector, random: &random, lost: lost)
            }
        case .allTorn:
            for write in pending {
                image.apply(write, sectorSize: sector, random: &random, lost: lost)
            }
        case .anySubset:
            pending.shuffle(using: &random)
            let density = random.pick([1, 4, 8, 12, 15])
            for write in pending where random.chance(density, in: 16) {
                if random.chance(1, in: 8) {
                    image.apply(write, sectorSize: sector, random: &random, lost: lost)
                } else {
                    image.apply(write)
                }
            }
        }
        return SimulatedBlockDevice(
            image, byteCount: lock.withLock { largestSize }, sectorSize: self.sectorSize,
            name: "\(name), crashed after event \(event)")
    }

    /// The durable contents after `event` events, and what happened behind that barrier.
    func history(from event: Int) -> (durable: BlockImage, barrier: Int, events: [Event]) {
        lock.withLock {
            let barrier =
                log[..<event].lastIndex { if case .flush = $0 { true } else { false } }
                .map { $0 + 1 } ?? 0
            let base = bases.last { $0.event <= barrier }!
            var image = base.image
            for case .write(let write) in log[base.event..<barrier] { image.apply(write) }
            return (image, barrier, Array(log[barrier...]))
        }
    }

    /// The moments right after each flush.
    public var flushEvents: [Int] {
        lock.withLock {
            log.indices.compactMap { if case .flush = log[$0] { $0 + 1 } else { nil } }
        }
    }

    /// Hands out every block that is not zero, by its offset.
    public func forEachBlock(_ body: (UInt64, [UInt8]) throws -> Void) rethrows {
        let blocks = lock.withLock { current.blocks }
        for (number, block) in blocks where block != BlockImage.zeroBlock {
            try body(number * UInt64(BlockImage.blockSize), block)
        }
    }

    /// A device with the same contents and a log of its own.
    public func copy() -> SimulatedBlockDevice {
        SimulatedBlockDevice(
            lock.withLock { current }, byteCount: byteCount, sectorSize: sectorSize, name: name)
    }
}
