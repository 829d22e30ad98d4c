/// Snapshots while others write.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

/// Snapshots beside writers: what a snapshot shows was all there at one moment, and nothing is freed
/// that it holds.
@Suite struct SnapshotConcurrencyTests {
    /// Three writers each fill files with one number after the other; a snapshot's files must hold
    /// whole numbers, its contents never change, and the check finds nothing while all goes on.
    private func run(_ rule: BrokenRules, seconds: Int) throws -> String? {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 7
        options.brokenRules = rule
        let volume = try Volume.open(device, modules: .standard, options: options)
        defer { try? volume.close() }
        let files = volume.fileSystem
        let isDone = Flag()
        let inodes = try (0..<6).map { number in
            try Array("file\(number)".utf8).withView {
                try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                    .inode
            }
        }
        let failures = Failures()
        let writers = (0..<3).map { writer in
            WorkerThread {
                var random = SeededRandom(seed: UInt64(writer))
                var number: UInt8 = 1
                while !isDone.value {
                    let bytes = [UInt8](repeating: number, count: 8192 * (1 + random.below(10)))
                    number = number == 255 ? 1 : number + 1
                    do {
                        let inode = inodes[2 * writer + random.below(2)]
                        _ = try bytes.withView {
                            try files.write(inode, at: UInt64(random.below(8)) * 4096, $0)
                        }
                        if random.chance(1, in: 40) {
                            var changes = AttributeChanges()
                            changes.size = 0
                            _ = try files.setAttributes(of: inode, changes)
                        }
                    } catch { failures.add("\(error)") }
                }
            }
        }
        let problem = try look(at: volume, seconds: seconds)
        isDone.set()
        for writer in writers { writer.join() }
        if let problem = problem ?? failures.first { return problem }
        try volume.close()
        return try checkerProblem(device)
    }

    private func look(at volume: Volume, seconds: Int) throws -> String? {
        let store = volume.snapshotStore
        var random = SeededRandom(seed: 99)
        var hashes: [(name: [UInt8], hash: UInt64)] = []
        let end = monotonicNanoseconds() + UInt64(seconds) * 1_000_000_000
        var number = 0
        do {
            while monotonicNanoseconds() < end {
                number += 1
                let name = Array("snapshot\(number)".utf8)
                try store.create(SnapshotLabel(name: name))
                hashes.append((name, try store.files(of: name).treeView().treeHash.value))
                if hashes.count > 5 {
                    let gone = hashes.remove(at: random.below(hashes.count))
                    try store.delete([gone.name])
                }
                for (name, hash) in hashes {
                    guard try store.files(of: name).treeView().treeHash.value == hash else {
                        return "snapshot \(String(decoding: name, as: UTF8.self)) has changed"
                    }
                }
                if number % 10 == 0 {
                    let report = try Checker.check(volume)
                    if let finding = report.findings.first {
                        return "\(finding.id) \(finding.message)"
                    }
                }
            }
        } catch { return "\(error)" }
        return nil
    }

    @Test func snapshotsBesideWriters() throws {
        let problem = try run([], seconds: 3)
        #expect(problem == nil)
    }

    @Test func birthAtAllocationIsCaught() throws {
        for _ in 0..<40 where try run(.birthAtAllocation, seconds: 3) != nil { return }
        Issue.record("births given at allocation were not caught")
    }
}

private final class Flag: @unchecked Sendable {
    private let lock = Mutex()
    private var isSet = false
    var value: Bool { lock.withLock { isSet } }
    func set() { lock.withLock { isSet = true } }
}

private final class Failures: @unchecked Sendable {
    private let lock = Mutex()
    private var all: [String] = []
    var first: String? { lock.withLock { all.first } }
    func add(_ text: String) { lock.withLock { all.append(text) } }
}
