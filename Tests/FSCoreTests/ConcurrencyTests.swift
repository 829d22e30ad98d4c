/// Many threads on one volume with a small cache and constant checkpoints: every thread sees its own
/// files as it left them, and the volume is consistent while they run and afterwards.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct ConcurrencyTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func threadsShareAVolume(seed: UInt64) throws {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 5
        options.cacheBytes = 4 << 20
        let volume = try Volume.open(device, modules: .standard, options: options)
        let failures = Failures()
        let threads = (0..<6).map { number in
            WorkerThread {
                do {
                    try Self.work(volume.fileSystem, number, seed: seed)
                } catch { failures.add("thread \(number): \(error)") }
            }
        }
        let checker = WorkerThread {
            for _ in 0..<5 {
                do {
                    let report = try Checker.check(volume)
                    for finding in report.findings {
                        failures.add("live: \(finding.id) \(finding.message)")
                    }
                } catch { failures.add("live check: \(error)") }
            }
        }
        for thread in threads { thread.join() }
        checker.join()
        #expect(failures.all.isEmpty, "seed \(seed): \(failures.all.prefix(5))")
        try volume.close()
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.isEmpty, "seed \(seed): \(report.findings.prefix(5))")
    }

    /// A check that is cancelled ends soon, says so, and holds nothing back.
    @Test func checksCanBeCancelled() throws {
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard)
        for number in 0..<2000 {
            _ = try Array("file \(number)".utf8).withView {
                try volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
            }
        }
        var asked = 0
        let whole = try Checker.check(
            volume,
            isCancelled: {
                asked += 1
                return false
            })
        #expect(whole.isClean && asked > Int(whole.nodes))
        for limit in [0, 1, asked / 2, asked - 1] {
            var left = limit
            let part = try Checker.check(
                volume,
                isCancelled: {
                    left -= 1
                    return left < 0
                })
            #expect(!part.isComplete && !part.isClean && part.findings.isEmpty)
            #expect(left == -1, "asked again after it was cancelled")
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    /// A checkpoint that ends gives spare places for nodes back; never those that a commit has just
    /// counted on.
    @Test func checkpointsEndBesideCommits() throws {
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let failures = Failures()
        let running = Countdown(3)
        let threads = (0..<3).map { number in
            WorkerThread {
                do {
                    let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
                    for step in 0..<3000 {
                        let name = Array("\(number)-\(step % 50)".utf8)
                        try name.withView { name in
                            let made = try volume.fileSystem.create(name, in: .root, file)
                            volume.fileSystem.release(made.inode, count: 1)
                            try volume.fileSystem.unlink(name, in: .root)
                        }
                    }
                } catch { failures.add("thread \(number): \(error)") }
                running.down()
            }
        }
        while !running.isZero { try volume.checkpoint() }
        for thread in threads { thread.join() }
        #expect(failures.all.isEmpty, "\(failures.all.prefix(5))")
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).findings.isEmpty)
    }

    private final class Countdown: @unchecked Sendable {
        private let lock = Mutex()
        private var count: Int
        init(_ count: Int) { self.count = count }
        func down() { lock.withLock { count -= 1 } }
        var isZero: Bool { lock.withLock { count == 0 } }
    }

    private final class Failures: @unchecked Sendable {
        private let lock = Mutex()
        private var messages: [String] = []
        func add(_ message: String) { lock.withLock { messages.append(message) } }
        var all: [String] { lock.withLock { messages } }
    }
    private struct Wrong: Error { var what: String }

    /// Own files with known contents, and names in a directory that all threads fight over.
    private static func work(_ fs: FileSystem, _ number: Int, seed: UInt64) throws {
        var random = SeededRandom(seed: seed * 100 + UInt64(number))
        var contents: [String: [UInt8]] = [:]
        let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
        for step in 0..<600 {
            let name = "own-\(number)-\(random.below(20))"
            let bytes = Array(name.utf8)
            switch random.below(6) {
            case 0, 1:
                let data = random.bytes(random.below(20_000))
                try bytes.withView { name in
                    let inode: InodeNumber
                    if let found = try? fs.lookup(name, in: .root) {
                        inode = found.inode
                        var change = AttributeChanges()
                        change.size = 0
                        _ = try fs.setAttributes(of: inode, change)
                    } else {
                        inode = try fs.create(name, in: .root, file).inode
                    }
                    if !data.isEmpty { _ = try data.withView { try fs.write(inode, at: 0, $0) } }
                    fs.release(inode, count: 1)
                }
                contents[name] = data
            case 2:
                if contents.removeValue(forKey: name) != nil {
                    try bytes.withView { try fs.unlink($0, in: .root) }
                }
            case 3:
                guard let data = contents[name] else { continue }
                let buffer = ByteBuffer(count: 32768)
                let found = try bytes.withView { try fs.lookup($0, in: .root) }
                let count = try fs.read(found.inode, at: 0, into: buffer.bytes)
                fs.release(found.inode, count: 1)
                if buffer.view.slice(0, count).toArray() != data {
                    throw Wrong(what: "\(name) differs at step \(step)")
                }
            case 4:
                let shared = Array("shared-\(random.below(10))".utf8)
                shared.withView { name in
                    if let made = try? fs.create(name, in: .root, file) {
                        fs.release(made.inode, count: 1)
                    }
                }
            default:
                let shared = Array("shared-\(random.below(10))".utf8)
                let other = Array("shared-\(random.below(10))".utf8)
                shared.withView { name in
                    if random.chance(1, in: 2) {
                        try? fs.unlink(name, in: .root)
                    } else {
                        other.withView { try? fs.rename(name, in: .root, to: $0, in: .root, []) }
                    }
                }
            }
        }
    }
}
