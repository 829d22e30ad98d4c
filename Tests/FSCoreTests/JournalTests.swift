/// The journal as a volume uses it: what an fsync costs, what recovery brings back, what becomes of
/// damage, of a full ring and of a full buffer.
import FSTestSupport
import Testing

@testable import FSCore
@testable import FSModules

@Suite struct JournalTests {
    private static let file = NewInode(mode: FileKind.regular.modeBits | 0o644)

    private func device(
        _ mebibytes: UInt64 = 64, journal: UInt64? = nil
    ) throws -> SimulatedBlockDevice {
        let device = SimulatedBlockDevice(byteCount: mebibytes << 20)
        var options = FormatOptions()
        options.journalByteCount = journal
        _ = try VolumeFormatter.format(device, modules: .standard, options: options)
        return device
    }

    private func open(
        _ device: any BlockDevice, readOnly: Bool = false, interval: Int = 0
    ) throws -> Volume {
        var options = OpenOptions()
        options.readOnly = readOnly
        options.checkpointIntervalMilliseconds = interval
        return try Volume.open(device, modules: .standard, options: options)
    }

    private func create(_ name: String, _ volume: Volume) throws -> InodeNumber {
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create($0, in: .root, Self.file)
        }
        volume.fileSystem.release(made.inode, count: 1)
        return made.inode
    }

    private func write(
        _ inode: InodeNumber, at offset: UInt64, _ bytes: [UInt8], _ volume: Volume
    ) throws {
        let count = try bytes.withView { try volume.fileSystem.write(inode, at: offset, $0) }
        #expect(count == bytes.count)
    }

    private func content(_ name: String, _ volume: Volume) throws -> [UInt8] {
        let found = try Array(name.utf8).withView { try volume.fileSystem.lookup($0, in: .root) }
        let buffer = ByteBuffer(count: Int(found.size))
        let count = try volume.fileSystem.read(found.inode, at: 0, into: buffer.bytes)
        volume.fileSystem.release(found.inode, count: 1)
        return buffer.view.slice(0, count).toArray()
    }

    /// What a power cut right now leaves, if the device loses all it has not flushed.
    private func afterPowerCut(_ device: SimulatedBlockDevice) -> SimulatedBlockDevice {
        var random = SeededRandom(seed: 1)
        return device.crashed(after: device.eventCount, .nothing, random: &random)
    }

    // MARK: Cost

    @Test(arguments: [100, 4096, 12000, 16384]) func aSmallFsyncIsOneWriteAndOneFlush(
        size: Int
    ) throws {
        let device = try device()
        let volume = try open(device)
        let inode = try create("file", volume)
        try volume.synchronize()
        var random = SeededRandom(seed: 1)
        for round in 0..<50 as Range<UInt64> {
            try write(inode, at: round * UInt64(size), random.bytes(size), volume)
            let before = device.counters
            try volume.synchronize()
            let after = device.counters
            #expect(after.writes - before.writes == 1, "round \(round)")
            #expect(after.flushes - before.flushes == 1, "round \(round)")
            #expect(after.bytesWritten - before.bytesWritten <= UInt64(size / 4096 + 3) << 12)
            // With nothing new there is nothing to do.
            try volume.synchronize()
            #expect(device.counters == after)
        }
        try volume.close()
    }

    /// Data that does not go through the journal is flushed before the record that refers to it.
    @Test func aLargeFsyncIsTwoFlushes() throws {
        let device = try device()
        let volume = try open(device)
        let inode = try create("file", volume)
        try volume.synchronize()
        try write(inode, at: 0, [UInt8](repeating: 7, count: 1 << 20), volume)
        let before = device.counters
        try volume.synchronize()
        #expect(device.counters.writes - before.writes == 1)
        #expect(device.counters.flushes - before.flushes == 2)
        try volume.close()
    }

    @Test func manyThreadsShareFlushes() throws {
        let device = try device()
        let slow = SlowFlushDevice(device)
        let volume = try open(slow)
        let inodes = try (0..<64).map { try create("file\($0)", volume) }
        let before = device.counters.flushes
        let rounds = 8
        let threads = inodes.map { inode in
            WorkerThread {
                for round in 0..<rounds {
                    do {
                        let bytes = [UInt8](repeating: UInt8(round), count: 4096)
                        _ = try bytes.withView {
                            try volume.fileSystem.write(inode, at: UInt64(round) << 12, $0)
                        }
                        try volume.fileSystem.synchronize(inode)
                    } catch { Issue.record("\(error)") }
                }
            }
        }
        for thread in threads { thread.join() }
        let flushes = device.counters.flushes - before
        #expect(flushes <= UInt64(64 * rounds / 8), "\(flushes) flushes for \(64 * rounds) fsyncs")
        let crashed = try open(afterPowerCut(device))
        for number in 0..<64 {
            #expect(try content("file\(number)", crashed).count == rounds << 12)
        }
        try crashed.close()
        try volume.close()
    }

    private final class SlowFlushDevice: BlockDevice, @unchecked Sendable {
        let device: SimulatedBlockDevice
        private let lock = Mutex()
        init(_ device: SimulatedBlockDevice) { self.device = device }
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
            lock.withLock { lock.wait(milliseconds: 2) }
            try device.flush()
        }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            try device.discard(at: offset, count: count)
        }
    }

    // MARK: Recovery

    @Test func recoveryBringsBackWhatWasSynchronized() throws {
        let device = try device()
        let volume = try open(device)
        var random = SeededRandom(seed: 2)
        let small = random.bytes(9000)
        let large = random.bytes(3 << 20)
        try write(try create("small", volume), at: 0, small, volume)
        try write(try create("large", volume), at: 0, large, volume)
        try volume.synchronize()
        _ = try create("later", volume)
        let crashed = afterPowerCut(device)

        // For reading: in memory, and the device stays as it is.
        let copy = crashed.copy()
        let reader = try open(copy, readOnly: true)
        #expect(reader.recovery.map { $0.operations == 4 && $0.bytes > 9000 } == true)
        #expect(try content("small", reader) == small)
        #expect(try content("large", reader) == large)
        try reader.close()
        #expect(copy.counters.writes == 0 && copy.counters.flushes == 0)

        for _ in 0..<2 {
            let recovered = try open(crashed)
            #expect(try content("small", recovered) == small)
            #expect(try content("large", recovered) == large)
            #expect(throws: FSError.noSuchEntry) { try content("later", recovered) }
            try recovered.close()
            #expect(try Checker.check(crashed, modules: .standard).isClean)
        }
        // The first of the two was the recovery.
        #expect(try open(crashed).recovery == nil)
    }

    /// Many times around a small ring, with no checkpoint but those the ring itself asks for.
    @Test func theRingWraps() throws {
        let device = try device(64, journal: 2 << 20)
        let volume = try open(device)
        let inode = try create("file", volume)
        var random = SeededRandom(seed: 3)
        var expected: [UInt8] = []
        for round in 0..<1500 {
            let bytes = random.bytes(1 + random.below(9000))
            let offset = random.below(expected.count + 1)
            if expected.count < offset + bytes.count {
                expected += [UInt8](repeating: 0, count: offset + bytes.count - expected.count)
            }
            expected.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            try write(inode, at: UInt64(offset), bytes, volume)
            try volume.synchronize()
            guard round % 100 == 99 else { continue }
            let crashed = afterPowerCut(device)
            let recovered = try open(crashed)
            #expect(try content("file", recovered) == expected, "round \(round)")
            try recovered.close()
            #expect(try Checker.check(crashed, modules: .standard).isClean, "round \(round)")
        }
        let status = try #require(volume.status().journal)
        #expect(status.bytesWritten > 3 * status.ringBytes)
        #expect(status.usedBytes <= status.ringBytes)
        try volume.close()
    }

    /// Small writes that nobody synchronizes: the buffer is bounded, and nothing is lost of it.
    @Test func theBufferIsBounded() throws {
        let device = try device(512)
        let volume = try open(device)
        let inode = try create("file", volume)
        var bytes = [UInt8](repeating: 0, count: 16384)
        let count = 3 * JournalBuffer.capacity / bytes.count
        for index in 0..<count {
            bytes[0] = UInt8(truncatingIfNeeded: index)
            bytes[1] = UInt8(truncatingIfNeeded: index >> 8)
            try write(inode, at: UInt64(index * bytes.count), bytes, volume)
        }
        let buffer = ByteBuffer(count: bytes.count)
        for index in stride(from: 0, to: count, by: 37) {
            _ = try volume.fileSystem.read(
                inode, at: UInt64(index * bytes.count), into: buffer.bytes)
            #expect(Int(buffer.view.u16(0)) == index & 0xFFFF)
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    /// Durable without any fsync, a second after it was done.
    @Test func theTimerFlushes() throws {
        let device = try device()
        let volume = try open(device, interval: 60_000)
        let inode = try create("file", volume)
        try write(inode, at: 0, [1, 2, 3], volume)
        // A second, on a machine that has nothing else to do.
        let lock = Mutex()
        var isThere = false
        for _ in 0..<200 where !isThere {
            lock.withLock { lock.wait(milliseconds: 300) }
            let recovered = try open(afterPowerCut(device))
            isThere = (try? content("file", recovered)) == [1, 2, 3]
            try recovered.close()
        }
        #expect(isThere)
        try volume.close()
    }

    @Test func withoutAJournalEveryFsyncIsACheckpoint() throws {
        let device = try device(64, journal: 0)
        let volume = try open(device)
        #expect(volume.status().journal == nil)
        try write(try create("file", volume), at: 0, [1, 2, 3], volume)
        let before = volume.status().checkpoints
        try volume.synchronize()
        #expect(volume.status().checkpoints == before + 1)
        let recovered = try open(afterPowerCut(device))
        #expect(try content("file", recovered) == [1, 2, 3])
        try recovered.close()
        try volume.close()
    }

    // MARK: Damage

    /// Twenty synchronized operations and a power cut.
    private func crashedAfterTwenty() throws -> (SimulatedBlockDevice, [JournalRecord]) {
        let device = try device()
        let volume = try open(device)
        for index in 0..<20 {
            _ = try create("file\(index)", volume)
            try volume.synchronize()
        }
        let crashed = afterPowerCut(device)
        let superblock = try SuperblockStore.newest(crashed, modules: .standard)
        let journal = try #require(try ModuleSet.standard.journal(crashed, superblock))
        return (crashed, journal.records { _, _ in }.filter { $0.kind == .transactions })
    }

    private func damage(_ record: JournalRecord, _ device: SimulatedBlockDevice) throws {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let ring = JournalRing(device, superblock.journalExtents)
        let offset = ring.locate(record.ringBlock).offset + 100
        device.overwrite(device.bytes(at: offset, count: 1).map { ~$0 }, at: offset)
    }

    @Test func aTornTailIsNoDamage() throws {
        let (device, records) = try crashedAfterTwenty()
        try damage(records[19], device)
        let volume = try open(device)
        #expect(volume.recovery?.damage == nil)
        #expect(throws: FSError.noSuchEntry) { try content("file19", volume) }
        #expect(try content("file18", volume) == [])
        try volume.close()
    }

    @Test(arguments: [0, 7, 18]) func damageInTheMiddleIsTold(index: Int) throws {
        let (device, records) = try crashedAfterTwenty()
        try damage(records[index], device)
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.contains { $0.issue == .journalDamaged })
        let volume = try open(device)
        #expect(volume.recovery?.damage?.structure == .journal)
        #expect(volume.status().state == .readOnly)
        #expect(throws: FSError.readOnly) { _ = try create("more", volume) }
        if index > 0 { #expect(try content("file\(index - 1)", volume) == []) }
        #expect(throws: FSError.noSuchEntry) { try content("file\(index)", volume) }
        try volume.close()
        #expect(device.counters.writes == 0)
    }

    /// No later record calls the last one durable, but fsync may have returned for it: a place that
    /// the device cannot read is not taken for the torn tail of a crash.
    @Test func anUnreadableLastRecordIsTold() throws {
        let (device, records) = try crashedAfterTwenty()
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let ring = JournalRing(device, superblock.journalExtents)
        device.makeUnreadable(at: ring.locate(records[19].ringBlock).offset)
        let volume = try open(device)
        #expect(volume.recovery?.damage?.structure == .journal)
        #expect(volume.status().state == .readOnly)
        #expect(throws: FSError.noSuchEntry) { try content("file19", volume) }
        try volume.close()
        #expect(device.counters.writes == 0)
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.contains { $0.issue == .journalDamaged })

        // Read again, it is there; and elsewhere in the ring a bad block is nobody's concern.
        device.clearFaults()
        device.makeUnreadable(at: ring.locate(records[19].ringBlock + 2).offset)
        let recovered = try open(device)
        #expect(recovered.recovery?.damage == nil)
        #expect(try content("file19", recovered) == [])
        try recovered.close()
    }

    /// A seal follows the last fsync, so that even the last record's damage is known as damage.
    @Test func theSealCoversTheLastRecord() throws {
        let device = try device()
        let volume = try open(device)
        _ = try create("file", volume)
        try volume.synchronize()
        let before = device.counters
        try volume.writeBack()
        #expect(device.counters.writes - before.writes == 1)
        #expect(device.counters.flushes == before.flushes)
        var random = SeededRandom(seed: 1)
        let crashed = device.crashed(after: device.eventCount, .everything, random: &random)
        let superblock = try SuperblockStore.newest(crashed, modules: .standard)
        let journal = try #require(try ModuleSet.standard.journal(crashed, superblock))
        let records = journal.records { _, _ in }
        let last = try #require(records.last { $0.kind == .transactions })
        try damage(last, crashed)
        #expect(try open(crashed).recovery?.damage != nil)
        try volume.close()
    }

    /// Data of users that is a copy of a record, on a block of its own inside a record, is data.
    @Test func aRecordInsideAFileIsNoRecord() throws {
        let device = try device()
        let volume = try open(device)
        _ = try create("first", volume)
        try volume.synchronize()
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let journal = try #require(try ModuleSet.standard.journal(device, superblock))
        let record = try #require(journal.records { _, _ in }.last)
        let ring = JournalRing(device, superblock.journalExtents)
        let copy = device.bytes(at: ring.locate(record.ringBlock).offset, count: 4096)
        try Array("first".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        // Every alignment that a record's data can have to a block.
        for shift in stride(from: 0, to: 4096, by: 64) {
            let bytes = [UInt8](repeating: 0, count: shift) + copy + copy
            try write(try create("copy\(shift)", volume), at: 0, bytes, volume)
            try volume.synchronize()
        }
        let recovered = try open(afterPowerCut(device))
        #expect(recovered.recovery?.damage == nil)
        #expect(throws: FSError.noSuchEntry) { try content("first", recovered) }
        #expect(try content("copy4032", recovered).count == 4032 + 8192)
        try recovered.close()
        try volume.close()
    }

    // MARK: The buffer that outlives the process

    @Test func theBufferHoldsWhatTheRingLacks() throws {
        let device = try device()
        let volume = try open(device)
        let inode = try create("file", volume)
        try volume.synchronize()
        try write(inode, at: 0, [UInt8](repeating: 0x5A, count: 5000), volume)
        _ = try create("other", volume)
        let journal = try #require(volume.journal as? WriteAheadJournal)
        let view = try JournalBuffer.View(descriptor: journal.bufferDescriptor)
        #expect(view.internalUUID == volume.internalUUID)
        #expect(view.firstOperation == view.lastOperation - 1)
        var operations: [UInt64] = []
        var staged = 0
        let transaction = Transaction()
        try view.forEach { (bytes) throws(FSError) in
            var reader = ByteReader(bytes, .journal, at: 0)
            operations.append(
                try TransactionCoder.decode(&reader, volume.layout, into: transaction))
            staged += transaction.data.count
        }
        #expect(operations == [view.firstOperation, view.lastOperation])
        #expect(staged == 8192)
        try volume.close()
    }

    // MARK: Faults

    /// A read that fails once is tried again.
    @Test func aTransientReadErrorIsNone() throws {
        let device = try device()
        let volume = try open(device)
        try write(try create("file", volume), at: 0, [UInt8](repeating: 3, count: 1 << 20), volume)
        try volume.close()
        let again = try open(device)
        for count in 1...3 {
            for call in 1...count {
                device.inject(.init(.read, .fail, after: call))
            }
            #expect(try content("file", again).count == 1 << 20)
            device.clearFaults()
        }
        #expect(again.status().errors.allSatisfy { $0.count == 0 })
        try again.close()
    }
}
