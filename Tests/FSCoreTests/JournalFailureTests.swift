/// What must not be acknowledged: errors that somebody else has heard of, a remount that is still
/// under way, and rings that were made to mislead.
import FSTestSupport
import Testing

@testable import FSCore
@testable import FSModules

@Suite struct JournalFailureTests {
    private func formatted(_ mebibytes: UInt64 = 32) throws -> SimulatedBlockDevice {
        let device = SimulatedBlockDevice(byteCount: mebibytes << 20)
        var options = FormatOptions()
        options.journalByteCount = 2 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: options)
        return device
    }

    private func open(
        _ device: any BlockDevice, _ change: (inout OpenOptions) -> Void = { _ in }
    ) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        change(&options)
        return try Volume.open(device, modules: .standard, options: options)
    }

    private func create(_ name: String, _ volume: Volume) throws {
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create(
                $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        volume.fileSystem.release(made.inode, count: 1)
    }

    private func has(_ name: String, _ volume: Volume) -> Bool {
        (try? Array(name.utf8).withView { try volume.fileSystem.lookup($0, in: .root) }) != nil
    }

    /// An error while the volume is switched to read-only ends it like any other: nothing afterwards
    /// reports success, and what was synchronized is there at the next mount.
    @Test(arguments: [false, true]) func anErrorDuringRemount(writesAgain: Bool) throws {
        for call in [SimulatedBlockDevice.Fault.Call.write, .flush] {
            for count in 1...12 {
                let device = try formatted()
                let volume = try open(device)
                try create("acknowledged", volume)
                try volume.synchronize()
                try create("later", volume)
                device.inject(.init(call, .fail, after: count))
                do {
                    try volume.setReadOnly(true)
                    // Fewer calls than that.
                    device.clearFaults()
                    try volume.close()
                    continue
                } catch {}
                device.clearFaults()
                if writesAgain {
                    #expect(throws: FSError.self) { try volume.setReadOnly(false) }
                    #expect(throws: FSError.self) { try create("after", volume) }
                }
                #expect(throws: FSError.self) { try volume.synchronize() }
                #expect(throws: FSError.self) { try volume.close() }
                let again = try open(device)
                #expect(has("acknowledged", again), "\(call) \(count)")
                try again.close()
                #expect(try Checker.check(device, modules: .standard).isClean)
            }
        }
    }

    /// Linux tells of a failed write-back once, to the first flush that asks.
    private final class ForgetfulDevice: BlockDevice, @unchecked Sendable {
        let device: SimulatedBlockDevice
        private let lock = Mutex()
        private var fails = false
        init(_ device: SimulatedBlockDevice) { self.device = device }
        func failOnce() { lock.withLock { fails = true } }
        var byteCount: UInt64 { device.byteCount }
        var sectorSize: Int { device.sectorSize }
        var name: String { device.name }
        var isReadOnly: Bool { false }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            try device.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            try device.write(source, at: offset)
        }
        func flush() throws(FSError) {
            let isFailing = lock.withLock {
                defer { fails = false }
                return fails
            }
            if isFailing { throw .device(.flush, errno: 5, offset: 0) }
            try device.flush()
        }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            try device.discard(at: offset, count: count)
        }
    }

    @Test func aFlushErrorIsEverybodys() throws {
        let device = ForgetfulDevice(try formatted())
        let volume = try open(device)
        try create("one", volume)
        device.failOnce()
        #expect(throws: FSError.self) { try volume.device.flush() }
        // Somebody else took the error; the record of this one may be what was lost.
        #expect(throws: FSError.self) { try volume.synchronize() }
        #expect(throws: FSError.self) { try volume.checkpoint() }
        #expect(throws: FSError.self) { try volume.close() }
    }

    /// A synchronization during the switch to read-only waits for the checkpoint that makes it true.
    @Test func aRemountUnderWayIsNoSynchronization() throws {
        final class Gate: @unchecked Sendable {
            private let lock = Mutex()
            private var isDone = false
            func finish() { lock.withLock { isDone = true } }
            var isFinished: Bool { lock.withLock { isDone } }
            func pause() { lock.withLock { lock.wait(milliseconds: 100) } }
        }
        final class Holder: @unchecked Sendable {
            var volume: Volume?
            var thread: WorkerThread?
            var wasEarly = false
        }
        let (gate, holder) = (Gate(), Holder())
        let volume = try open(try formatted()) {
            $0.duringCheckpoint = {
                guard let volume = holder.volume, holder.thread == nil else { return }
                holder.thread = WorkerThread {
                    try? volume.synchronize()
                    gate.finish()
                }
                gate.pause()
                holder.wasEarly = gate.isFinished
            }
        }
        try create("file", volume)
        holder.volume = volume
        try volume.setReadOnly(true)
        holder.thread?.join()
        #expect(gate.isFinished && !holder.wasEarly)
        holder.volume = nil
        try volume.close()
    }

    // MARK: Crafted rings

    /// Puts a record with a right sum behind the last one of an unclean volume.
    private func plant(
        _ transactions: [Transaction], padding: Int = 0, on device: SimulatedBlockDevice
    ) throws {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let ring = JournalRing(device, superblock.journalExtents)
        let first = superblock.operations + 1
        var payload: [UInt8] = []
        for (index, transaction) in transactions.enumerated() {
            let buffer = ByteBuffer(count: TransactionCoder.size(transaction))
            TransactionCoder.encode(
                transaction, operation: first + UInt64(index), into: buffer.bytes
            ) { _, _ in }
            payload += buffer.view.toArray()
        }
        payload += [UInt8](repeating: 0, count: padding)
        let size = JournalFormat.headerSize + payload.count
        let record = ByteBuffer(count: Int(JournalFormat.blocks(size)) << 12)
        payload.withView { record.bytes.copy($0, at: JournalFormat.headerSize) }
        RecordHeader(
            kind: .transactions, internalUUID: superblock.internalUUID,
            incarnation: superblock.journalIncarnation, position: 1, firstOperation: first,
            lastOperation: first + UInt64(transactions.count) - 1, durableOperation: 0,
            durableSequence: superblock.sequence, payloadBytes: payload.count
        ).seal(
            record.bytes,
            ModuleSet.standard.recordSum(superblock, superblock.journalIncarnation))
        try ring.write(record.view, at: 1)
    }

    private func unclean() throws -> SimulatedBlockDevice {
        let device = try formatted()
        _ = try open(device)
        return device.copy()
    }

    /// Neither traps; both are damage of the journal or no record at all.
    private func opensOrRefuses(_ device: SimulatedBlockDevice) {
        for isReadOnly in [true, false] {
            do throws(FSError) {
                var options = OpenOptions()
                options.readOnly = isReadOnly
                options.checkpointIntervalMilliseconds = 0
                try Volume.open(device.copy(), modules: .standard, options: options).close()
            } catch {
                guard case .corrupt(let what) = error, what.structure == .journal else {
                    Issue.record("\(error)")
                    continue
                }
            }
        }
    }

    @Test func aRecordLargerThanItsRingAllows() throws {
        let device = try unclean()
        let transaction = Transaction()
        for index in 0..<110 as Range<UInt64> {
            transaction.put(Key(1 << 40, .attribute, index), [UInt8](repeating: 1, count: 3900))
        }
        try plant([transaction], on: device)
        opensOrRefuses(device)
    }

    @Test(arguments: [Int64.max, Int64.min, 1 << 55, -1 << 55, 1 << 47, -5])
    func deltasThatDoNotAddUp(delta: Int64) throws {
        for isInodes in [true, false] {
            let device = try unclean()
            let transactions = (0..<200).map { index in
                let transaction = Transaction()
                transaction.put(Key(0, .orphan, 1 << 40 + UInt64(index)), [])
                if isInodes {
                    transaction.inodeDelta = delta
                } else {
                    transaction.promisedDelta = delta
                }
                return transaction
            }
            try plant(transactions, on: device)
            opensOrRefuses(device)
        }
    }

    @Test func bytesBehindTheLastTransaction() throws {
        let device = try unclean()
        let transaction = Transaction()
        transaction.put(Key(0, .orphan, 1 << 40), [])
        try plant([transaction], padding: 100, on: device)
        opensOrRefuses(device)
    }
}
