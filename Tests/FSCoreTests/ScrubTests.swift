/// The scrubber in this process: what it heals, leaves alone, remembers and goes on with.
import FSModules
import FSTestSupport
import Synchronization
import Testing

@testable import FSCore

@Suite struct ScrubTests {
    private let device = SimulatedBlockDevice(byteCount: 96 << 20)

    init() throws {
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try open()
        for index in 0..<300 { try write("small-\(index)", 1500, copies: "1", volume) }
        try write("double", 3 << 20, copies: "2", volume)
        try write("single", 1 << 20, copies: "1", volume)
        try volume.close()
    }

    private func open(readOnly: Bool = false) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.readOnly = readOnly
        return try Volume.open(device, modules: .standard, options: options)
    }
    private func write(_ name: String, _ count: Int, copies: String, _ volume: Volume) throws {
        var random = SeededRandom(seed: UInt64(count))
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
        }
        volume.fileSystem.release(made.inode, count: 1)
        try volume.fileSystem.setProperty(.copies, of: made.inode, copies)
        _ = try random.bytes(count).withView {
            try volume.fileSystem.write(made.inode, at: 0, $0)
        }
    }
    private func blocks(_ name: String, copy: Int) throws -> [UInt64] {
        let volume = try open(readOnly: true)
        defer { try? volume.close() }
        let found = try Array(name.utf8).withView {
            try volume.fileSystem.lookup($0, in: .root)
        }
        return try volume.fileSystem.fileMap.extents(found.inode, 0..<(1 << 40)).flatMap { extent in
            (0..<UInt64(extent.record.blocks)).map { extent.record.replicas[copy].block + $0 }
        }
    }
    private func spoil(_ block: UInt64) {
        var bytes = device.bytes(at: block << 12, count: 4096)
        bytes[17] ^= 4
        device.overwrite(bytes, at: block << 12)
    }
    private func scrub(
        _ volume: Volume, _ options: Scrubber.Options = .init(), continuing: ScrubRecord? = nil,
        command: @escaping @Sendable () -> Scrubber.Command = { .goOn }
    ) throws -> ScrubRecord {
        try Scrubber.run(
            volume, options, continuing: continuing, command: command, progress: { _ in })
    }

    @Test func secondCopiesAreHealedAndHistoryIsKept() throws {
        let second = try blocks("double", copy: 1)
        for block in second.prefix(40) { spoil(block) }
        let superblocks = DiskLayout.superblockPlaces(pair: 0, blockCount: 96 << 8)
        spoil(superblocks.end)
        var volume = try open()
        var record = try scrub(volume)
        #expect(record.state == .finished && record.lost == 0)
        #expect(record.found >= 40 && record.found == record.healed, "\(record)")
        #expect(record.doneBytes == record.totalBytes)
        try volume.close()
        volume = try open()
        record = try scrub(volume)
        #expect(record.found == 0 && record.number == 2)
        for _ in 0..<20 { _ = try scrub(volume) }
        #expect(ScrubRecord.last(in: volume)?.number == 22)
        let history = ScrubRecord.history(in: volume)
        #expect(history.map(\.number) == (6...21).reversed())
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    @Test func aDryRunChangesNothing() throws {
        for block in try blocks("double", copy: 0).prefix(5) { spoil(block) }
        spoil(try blocks("single", copy: 0)[3])
        let volume = try open(readOnly: true)
        let before = device.counters.writes
        var options = Scrubber.Options()
        options.isDryRun = true
        let record = try scrub(volume, options)
        #expect(record.found == 6 && record.healed == 0 && record.lost == 1)
        #expect(device.counters.writes == before)
        #expect(ScrubRecord.last(in: volume) == nil)
        #expect(volume.damage().isEmpty)
        try volume.close()
        // Nor on a volume that could be written, but for what opening it writes.
        let writable = try open()
        _ = try scrub(writable, options)
        #expect(writable.status().errors.allSatisfy { $0.count == 0 })
        #expect(ScrubRecord.last(in: writable) == nil)
        try writable.close()
    }

    @Test func lostDataIsListedUntilItIsGood() throws {
        let block = try blocks("single", copy: 0)[7]
        let whole = device.bytes(at: block << 12, count: 4096)
        spoil(block)
        var volume = try open()
        #expect(try scrub(volume).lost == 1)
        #expect(volume.damage().map(\.path) == ["/single"])
        #expect(volume.damage().map(\.offset) == [7 << 12])
        try volume.close()
        volume = try open()
        #expect(try scrub(volume).lost == 1)
        #expect(volume.damage().count == 1)
        // A cable was loose: the next scrub finds it good.
        device.overwrite(whole, at: block << 12)
        #expect(try scrub(volume).found == 0)
        #expect(volume.damage().isEmpty)
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    @Test func aPathIsScrubbedAlone() throws {
        spoil(try blocks("single", copy: 0)[1])
        for block in try blocks("double", copy: 1).suffix(9) { spoil(block) }
        let volume = try open()
        var options = Scrubber.Options()
        options.path = "/double"
        let record = try scrub(volume, options)
        #expect(record.found == 9 && record.healed == 9 && record.path == "/double")
        options.path = "/nothing"
        #expect(throws: FSError.noSuchEntry) { try scrub(volume, options) }
        try volume.close()
    }

    /// What only a snapshot has left is looked at, too; what trees share is looked at once.
    @Test func snapshotsAreScrubbed() throws {
        let second = try blocks("double", copy: 1)
        let single = try blocks("single", copy: 0)
        var volume = try open()
        let store = try #require(volume.snapshots as? Snapshots)
        try store.create(SnapshotLabel(name: Array("kept".utf8)))
        for name in ["double", "single"] {
            try Array(name.utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        }
        let before = try scrub(volume)
        #expect(before.found == 0)
        try store.create(SnapshotLabel(name: Array("again".utf8)))
        let shared = try scrub(volume)
        // A second snapshot of the same adds a few nodes and nothing else.
        #expect(shared.doneBytes < before.doneBytes + 1 << 20)
        try volume.close()
        for block in second.prefix(20) { spoil(block) }
        spoil(single[4])
        volume = try open()
        let record = try scrub(volume)
        #expect(record.found == 21 && record.healed == 20 && record.lost == 1, "\(record)")
        for block in second.prefix(3) { spoil(block) }
        var options = Scrubber.Options()
        options.path = "/.snapshots/kept/double"
        let part = try scrub(volume, options)
        #expect(part.found == 3 && part.healed == 3 && part.path == options.path, "\(part)")
        for path in ["/.snapshots/kept/none", "/.snapshots/none/double", "/.snapshots"] {
            options.path = path
            #expect(throws: FSError.noSuchEntry) { try scrub(volume, options) }
        }
        #expect(volume.damage().map(\.offset) == [4 << 12])
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    /// Paused again and again, the volume opened anew each time: all is looked at once.
    @Test func aScrubGoesOnWhereItWas() throws {
        for block in try blocks("double", copy: 1) { spoil(block) }
        var record: ScrubRecord?
        var rounds = 0
        repeat {
            let volume = try open()
            let calls = Calls(limit: 3 + rounds)
            record = try scrub(volume, continuing: record, command: { calls.command })
            #expect(ScrubRecord.last(in: volume) == record)
            try volume.close()
            rounds += 1
            try #require(rounds < 400)
        } while record?.state == .paused
        #expect(rounds > 1 && record?.state == .finished)
        #expect(
            record?.lost == 0 && record?.healed == record?.found, "\(String(describing: record))")
        let volume = try open()
        #expect(try scrub(volume).found == 0)
        try volume.close()
    }

    private final class Calls: Sendable {
        private let count = Atomic<Int>(0)
        private let limit: Int
        init(limit: Int) { self.limit = limit }
        var command: Scrubber.Command {
            count.add(1, ordering: .relaxed).newValue > limit ? .pause : .goOn
        }
    }

    /// A device that refuses a copy, and one that does not take a heal: then the copy is moved.
    @Test(arguments: [true, false]) func unreadableCopies(untilWritten: Bool) throws {
        let places = try blocks("double", copy: 1).prefix(4)
        for block in places { device.makeUnreadable(at: block << 12, untilWritten: untilWritten) }
        let volume = try open()
        let record = try scrub(volume)
        #expect(record.found == 4 && record.lost == 0 && record.healed == 4)
        #expect(volume.status().state == .online)
        #expect(volume.status().badBlocks.isEmpty == untilWritten)
        try volume.close()
    }

    /// Files come and go while it runs, and it makes way; whatever it finds is really bad.
    @Test func runsBesideChanges() throws {
        let volume = try open()
        let flag = Flag()
        let writer = WorkerThread {
            var random = SeededRandom(seed: 3)
            var number = 0
            while !flag.isSet {
                number += 1
                volume.activity.note()
                let name = Array("new-\(number % 40)".utf8)
                let bytes = random.bytes(random.integer(in: 1...200_000))
                _ = name.withView { try? volume.fileSystem.unlink($0, in: .root) }
                if let made = name.withView({
                    try? volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
                }) {
                    _ = bytes.withView {
                        try? volume.fileSystem.write(made.inode, at: 0, $0)
                    }
                    volume.fileSystem.release(made.inode, count: 1)
                }
                if number % 20 == 0 { try? volume.checkpoint() }
            }
        }
        for _ in 0..<12 {
            let record = try scrub(volume)
            #expect(record.found == 0 && record.state == .finished, "\(record)")
        }
        flag.set()
        writer.join()
        #expect(volume.status().errors.allSatisfy { $0.count == 0 })
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    private final class Flag: Sendable {
        private let value = Atomic<Bool>(false)
        var isSet: Bool { value.load(ordering: .acquiring) }
        func set() { value.store(true, ordering: .releasing) }
    }

    @Test func theRateIsKept() throws {
        let volume = try open()
        var options = Scrubber.Options()
        options.path = "/double"
        options.rateLimit = 12 << 20
        let start = monotonicNanoseconds()
        _ = try scrub(volume, options)
        // 6 MiB in two copies, at 12 MiB a second.
        #expect(monotonicNanoseconds() - start > 400_000_000)
        try volume.close()
    }
}
