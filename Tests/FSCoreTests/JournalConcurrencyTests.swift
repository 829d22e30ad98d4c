/// Power cuts under several threads that append and synchronize beside constant checkpoints: every
/// file has at least what its thread was told is durable, and what it has is what was written.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct JournalConcurrencyTests {
    /// What one thread was told: `records` records were durable when the log had `event` events.
    private struct Acknowledgement {
        var event: Int
        var thread: Int
        var records: Int
    }

    private final class Witness: @unchecked Sendable {
        private let lock = Mutex()
        private var notes: [Acknowledgement] = []
        private var problems: [String] = []
        func note(_ acknowledgement: Acknowledgement) {
            lock.withLock { notes.append(acknowledgement) }
        }
        func fail(_ problem: String) { lock.withLock { problems.append(problem) } }
        var all: [Acknowledgement] { lock.withLock { notes } }
        var failures: [String] { lock.withLock { problems } }
    }

    private static let threads = 6

    /// Record `index` of a thread: sizes on both sides of what goes through the journal.
    private static func record(_ thread: Int, _ index: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(thread * 1000 + index))
        return random.bytes(random.pick([40, 700, 4096, 5000, 16384, 40_000]))
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func acknowledgedAppendsSurvive(
        seed: UInt64
    ) throws {
        let device = SimulatedBlockDevice(byteCount: 256 << 20)
        var format = FormatOptions()
        format.journalByteCount = 2 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = seed % 2 == 0 ? 3 : 200
        options.cacheBytes = 4 << 20
        let volume = try Volume.open(device, modules: .standard, options: options)
        let firstEvent = device.eventCount
        let fs = volume.fileSystem
        let witness = Witness()
        let workers = (0..<Self.threads).map { thread in
            WorkerThread {
                do {
                    var random = SeededRandom(seed: seed * 100 + UInt64(thread))
                    let inode = try Array("file\(thread)".utf8).withView {
                        try fs.create(
                            $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                    }.inode
                    var size: UInt64 = 0
                    for index in 0..<60 {
                        let bytes = Self.record(thread, index)
                        _ = try bytes.withView { try fs.write(inode, at: size, $0) }
                        size += UInt64(bytes.count)
                        guard random.chance(2, in: 3) else { continue }
                        try fs.synchronize(inode)
                        witness.note(
                            Acknowledgement(
                                event: device.eventCount, thread: thread, records: index + 1))
                    }
                } catch { witness.fail("thread \(thread): \(error)") }
            }
        }
        for worker in workers { worker.join() }
        #expect(witness.failures.isEmpty, "\(witness.failures)")
        try volume.close()

        var random = SeededRandom(seed: seed)
        options.checkpointIntervalMilliseconds = 0
        for _ in 0..<60 {
            let event = random.integer(in: firstEvent...device.eventCount)
            let crashed = device.crashed(
                after: event, random.pick([.nothing, .everything, .lastTorn, .anySubset]),
                tornAt: 512, random: &random)
            guard let recovered = try? Volume.open(crashed, modules: .standard, options: options)
            else {
                Issue.record("seed \(seed), event \(event): does not open")
                continue
            }
            for thread in 0..<Self.threads {
                let promised =
                    witness.all.filter { $0.thread == thread && $0.event <= event }
                    .map(\.records).max() ?? 0
                let found = try Self.content("file\(thread)", recovered) ?? []
                let expected = (0..<60).map { Self.record(thread, $0) }
                let floor = expected.prefix(promised).joined().count
                #expect(found.count >= floor, "seed \(seed), event \(event), thread \(thread)")
                #expect(
                    found == Array(expected.joined().prefix(found.count)),
                    "seed \(seed), event \(event), thread \(thread)")
            }
            try recovered.close()
            let report = try Checker.check(crashed, modules: .standard)
            #expect(report.isClean, "seed \(seed), event \(event): \(report.findings.prefix(3))")
        }
    }

    private static func content(_ name: String, _ volume: Volume) throws -> [UInt8]? {
        guard
            let found = try? Array(name.utf8).withView({
                try volume.fileSystem.lookup($0, in: .root)
            })
        else { return nil }
        let buffer = ByteBuffer(count: Int(found.size))
        let count = try volume.fileSystem.read(found.inode, at: 0, into: buffer.bytes)
        volume.fileSystem.release(found.inode, count: 1)
        return buffer.view.slice(0, count).toArray()
    }
}
