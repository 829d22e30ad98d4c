/// Everything that takes, moves, lends and gives back space, at once: the size changes, free space is
/// trimmed, looked through and reported, snapshots come and go, files are written, read, cut and deleted,
/// and checkpoints follow each other. On a device where discarded blocks are garbage.
///
/// `AEGISFS_TEST_STRESS` sets for how many seconds, `AEGISFS_TEST_SEED` from which seed.
internal import FSModules
internal import FSTestSupport
internal import Testing

@testable internal import FSCore

@Suite struct SpaceStressTests {
    private static let seconds = TestMachine.count("AEGISFS_TEST_STRESS", default: 3)
    private static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))

    @Test(arguments: [firstSeed, firstSeed + 1])
    func allAtOnce(seed: UInt64) throws {
        let memory = MemoryBlockDevice(byteCount: 256 << 20)
        let device = ForgetfulDevice(memory)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 7
        options.cacheBytes = 4 << 20
        options.discards = seed % 2 == 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let stress = Stress(volume, seed)
        let end = monotonicNanoseconds() + UInt64(Self.seconds) * 1_000_000_000
        let threads =
            (0..<3).map { number in
                WorkerThread { stress.until(end, "writer \(number)") { try stress.write(number) } }
            } + [
                WorkerThread { stress.until(end, "resizer") { try stress.resize() } },
                WorkerThread { stress.until(end, "trimmer") { try stress.trim() } },
                WorkerThread { stress.until(end, "snapshots") { try stress.snapshot() } },
                WorkerThread { stress.until(end, "checks") { try stress.check() } },
            ]
        for thread in threads { thread.join() }
        #expect(stress.problems.isEmpty, "seed \(seed): \(stress.problems.joined(separator: "; "))")
        #expect(try stress.problemAtEnd() == nil)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
        print("stress: \(stress.counts)")
    }

    /// Discarded blocks, and what lies behind a cut, read as garbage.
    private final class ForgetfulDevice: BlockDevice, @unchecked Sendable {
        private let memory: MemoryBlockDevice
        private let garbage = ByteBuffer(copying: 1 << 20, of: 0xDB)
        init(_ memory: MemoryBlockDevice) { self.memory = memory }
        var byteCount: UInt64 { memory.byteCount }
        var sectorSize: Int { memory.sectorSize }
        var name: String { memory.name }
        var isReadOnly: Bool { false }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            try memory.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            try memory.write(source, at: offset)
        }
        func flush() throws(FSError) {}
        func resize(to bytes: UInt64) throws(FSError) { try memory.resize(to: bytes) }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            var done: UInt64 = 0
            while done < count {
                let part = min(count - done, UInt64(garbage.count))
                try memory.write(garbage.view.slice(0, Int(part)), at: offset + done)
                done += part
            }
        }
    }
}

extension ByteBuffer {
    fileprivate convenience init(copying count: Int, of byte: UInt8) {
        self.init(count: count)
        for index in 0..<count { bytes[index] = byte }
    }
}

/// What the threads do; each has a part of its own.
private final class Stress: @unchecked Sendable {
    private struct File {
        var name: [UInt8]
        var inode: InodeNumber
        var content: [UInt8]
    }
    /// What one thread has.
    private final class Part {
        var random: SeededRandom
        var files: [File] = []
        var made = 0
        init(_ seed: UInt64) { random = SeededRandom(seed: seed) }
    }
    private struct Wrong: Error { var what: String }

    private let volume: Volume
    private let parts: [Part]
    private var snapshots: [(name: [UInt8], hash: UInt64)] = []
    private let lock = Mutex()
    private(set) var problems: [String] = []
    private(set) var counts: [String: Int] = [:]

    init(_ volume: Volume, _ seed: UInt64) {
        self.volume = volume
        parts = (0..<6).map { Part(seed * 100 + $0) }
    }

    /// Repeats a step until the time is over or somebody has failed.
    func until(_ end: UInt64, _ who: String, _ step: () throws -> Void) {
        while monotonicNanoseconds() < end, lock.withLock({ problems.isEmpty }) {
            do {
                do { try step() } catch FSError.noSpace {}
                lock.withLock { counts[who, default: 0] += 1 }
            } catch { lock.withLock { problems.append("\(who): \(error)") } }
        }
    }

    // MARK: Files

    func write(_ number: Int) throws {
        let part = parts[number]
        let files = volume.fileSystem
        switch part.random.below(8) {
        case 0...3 where part.files.count < 30:
            let name = Array("writer\(number)-\(part.made)".utf8)
            part.made += 1
            let content = part.random.bytes(
                part.random.pick([300, 4096, 20_000, 300_000, 1 << 20]))
            let inode = try name.withView {
                try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                    .inode
            }
            files.release(inode, count: 1)
            do {
                _ = try content.withView { try files.write(inode, at: 0, $0) }
            } catch FSError.noSpace {
                return try name.withView { try files.unlink($0, in: .root) }
            }
            part.files.append(File(name: name, inode: inode, content: content))
        case 4 where !part.files.isEmpty:
            // Some blocks in the middle anew.
            let index = part.random.below(part.files.count)
            let file = part.files[index]
            let start = part.random.below(file.content.count)
            let bytes = part.random.bytes(min(file.content.count - start, 30_000))
            _ = try bytes.withView { try files.write(file.inode, at: UInt64(start), $0) }
            part.files[index].content.replaceSubrange(start..<start + bytes.count, with: bytes)
        case 5 where !part.files.isEmpty:
            let index = part.random.below(part.files.count)
            let size = part.files[index].content.count * 2 / 3
            var changes = AttributeChanges()
            changes.size = UInt64(size)
            _ = try files.setAttributes(of: part.files[index].inode, changes)
            part.files[index].content.removeSubrange(size...)
        case 6: try volume.synchronize()
        default:
            guard part.files.count > 5 else { return }
            let file = part.files.remove(at: part.random.below(part.files.count))
            do {
                try file.name.withView { try files.unlink($0, in: .root) }
            } catch FSError.noSpace { part.files.append(file) }
        }
        if let file = part.files.randomElement(using: &part.random) { try compare(file) }
    }

    private func compare(_ file: File) throws {
        let buffer = ByteBuffer(count: max(file.content.count, 1))
        let count = try volume.fileSystem.read(file.inode, at: 0, into: buffer.bytes)
        guard count == file.content.count,
            buffer.view.slice(0, count).toArray() == file.content
        else { throw Wrong(what: String(decoding: file.name, as: UTF8.self)) }
    }

    // MARK: Space

    func resize() throws {
        let part = parts[3]
        let stopsAfter = part.random.chance(1, in: 3) ? part.random.below(40) : .max
        var asked = 0
        let target: ResizeTarget =
            part.random.chance(1, in: 8)
            ? .minimum : .bytes(UInt64(part.random.integer(in: 40...500)) << 20)
        do {
            _ = try volume.resize(
                target,
                isCancelled: {
                    asked += 1
                    return asked > stopsAfter
                })
        } catch FSError.cannotShrink {} catch FSError.interrupted {}
    }

    func trim() throws {
        let part = parts[4]
        switch part.random.below(5) {
        case 0: _ = try volume.trim(minimum: UInt64(part.random.below(3)) << 16)
        case 1: _ = try volume.freeRuns()
        case 2: _ = volume.status()
        case 3: _ = try volume.planResize(.minimum)
        default:
            let statistics = volume.fileSystem.statistics()
            guard statistics.availableBlocks <= statistics.freeBlocks,
                statistics.freeBlocks <= statistics.totalBlocks
            else { throw Wrong(what: "statistics \(statistics)") }
        }
    }

    // MARK: Snapshots

    func snapshot() throws {
        let part = parts[5]
        let store = volume.snapshotStore
        if snapshots.count < 3 {
            let name = Array("moment\(part.made)".utf8)
            part.made += 1
            try store.create(SnapshotLabel(name: name))
            snapshots.append((name, try hash(of: name)))
        } else {
            let gone = snapshots.remove(at: part.random.below(snapshots.count))
            try store.delete([gone.name])
            _ = try store.sweep()
        }
        if let one = snapshots.randomElement(using: &part.random) { try compare(one) }
    }

    private func hash(of name: [UInt8]) throws -> UInt64 {
        try volume.snapshotStore.files(of: name).treeView().treeHash.value
    }

    private func compare(_ snapshot: (name: [UInt8], hash: UInt64)) throws {
        guard try hash(of: snapshot.name) == snapshot.hash else {
            throw Wrong(what: "\(String(decoding: snapshot.name, as: UTF8.self)) has changed")
        }
    }

    // MARK: Looking

    func check() throws {
        let report = try Checker.check(volume)
        if let finding = report.findings.first {
            throw Wrong(what: "\(finding.id) \(finding.message)")
        }
        lock.withLock { lock.wait(milliseconds: 50) }
    }

    /// Everything is what it was written as, when all has come to rest.
    func problemAtEnd() throws -> String? {
        do {
            for part in parts { for file in part.files { try compare(file) } }
            for snapshot in snapshots { try compare(snapshot) }
        } catch { return "\(error)" }
        let report = try Checker.check(volume)
        return report.findings.first.map { "\($0.id) \($0.message)" }
    }
}
