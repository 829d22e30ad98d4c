/// Another size for an open volume: what it holds stays, whatever the way; what cannot be is refused
/// with the exact minimum; the check finds what is wrong with moved blocks.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct ResizeTests {
    /// A volume in memory, its files, and what must be in them.
    private final class Rig {
        let device: MemoryBlockDevice
        var volume: Volume
        var random: SeededRandom
        var files: [String: [UInt8]] = [:]

        init(megabytes: UInt64, seed: UInt64 = 1) throws {
            device = MemoryBlockDevice(byteCount: megabytes << 20)
            random = SeededRandom(seed: seed)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            volume = try Self.open(device)
        }

        static func open(_ device: any BlockDevice) throws -> Volume {
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            return try Volume.open(device, modules: .standard, options: options)
        }

        func reopen() throws {
            try volume.close()
            #expect(try checkerProblem(device) == nil)
            volume = try Self.open(device)
        }

        func write(_ name: String, bytes: Int) throws {
            let content = random.bytes(bytes)
            let made = try Array(name.utf8).withView {
                try volume.fileSystem.create(
                    $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            volume.fileSystem.release(made.inode, count: 1)
            _ = try content.withView {
                try volume.fileSystem.write(made.inode, at: 0, $0)
            }
            files[name] = content
        }

        func share(_ name: String, with other: String) throws {
            try write(name, bytes: 1)
            let (from, to) = (try lookup(other), try lookup(name))
            let content = files[other] ?? []
            _ = try volume.fileSystem.copyRange(
                from: from, at: 0, to: to, at: 0, count: UInt64(content.count))
            files[name] = content
        }

        func remove(_ name: String) throws {
            try Array(name.utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
            files[name] = nil
        }

        private func lookup(_ name: String) throws -> InodeNumber {
            let found = try Array(name.utf8).withView {
                try volume.fileSystem.lookup($0, in: .root)
            }
            volume.fileSystem.release(found.inode, count: 1)
            return found.inode
        }

        func verify(sourceLocation: SourceLocation = #_sourceLocation) throws {
            for (name, content) in files {
                let buffer = ByteBuffer(count: content.count)
                let count = try volume.fileSystem.read(
                    lookup(name), at: 0, into: buffer.bytes)
                #expect(
                    count == content.count && buffer.view.toArray() == content, "\(name)",
                    sourceLocation: sourceLocation)
            }
            let report = try Checker.check(volume)
            #expect(report.findings.isEmpty, "\(report.findings)", sourceLocation: sourceLocation)
        }

        var byteCount: UInt64 { volume.layout.blockCount << 12 }
        func free() throws -> UInt64 {
            for _ in 0...1 { try volume.checkpoint(force: true) }
            return volume.fileSystem.statistics().freeBlocks
        }
    }

    private func populated(_ rig: Rig, files: Int = 40) throws {
        for index in 0..<files {
            try rig.write("file\(index)", bytes: rig.random.pick([10, 5000, 100_000, 1_500_000]))
        }
        for index in 0..<5 { try rig.share("shared\(index)", with: "file\(index)") }
    }

    // MARK: Grow

    @Test func growsAtOnceAndUsesWhatCame() throws {
        let rig = try Rig(megabytes: 32)
        try populated(rig, files: 12)
        let before = rig.volume.fileSystem.statistics()
        let plan = try rig.volume.resize(.more(96 << 20))
        #expect(plan.newBytes == 128 << 20 && plan.movedBytes == 0)
        #expect(rig.device.byteCount == 128 << 20)
        let after = rig.volume.fileSystem.statistics()
        // Floors and the end are all that is not for writing.
        #expect(after.totalBlocks == before.totalBlocks + 96 << 8)
        #expect(after.availableBlocks > before.availableBlocks + 80 << 8)
        // Nobody can take the old end's superblocks for some.
        for pair in 0...1 {
            let place = DiskLayout.superblockPlaces(pair: pair, blockCount: 32 << 8).end
            let block = ByteBuffer(count: 4096)
            try rig.device.read(into: block.bytes, at: place << 12)
            #expect(Superblock.probe(block.view, modules: .standard) == .noMagic)
        }
        try rig.write("large", bytes: 80 << 20)
        try rig.verify()
        try rig.reopen()
        try rig.verify()
    }

    /// By steps that end just before, in and behind a region's fixed blocks.
    @Test func growsByAnySteps() throws {
        let rig = try Rig(megabytes: 16)
        try populated(rig, files: 6)
        var blocks = rig.byteCount >> 12
        for step in [16, 1, 17, 32, 28_000, 600, 64, 100, 32_768, 40, 70_000] as [UInt64] {
            blocks += step
            let expected = DiskLayout.supportedBlockCount(atMost: blocks)
            _ = try rig.volume.resize(.bytes(blocks << 12))
            #expect(rig.volume.layout.blockCount == expected)
            try rig.write("step\(step)", bytes: 300_000)
            try rig.verify()
        }
        try rig.reopen()
        try rig.verify()
    }

    // MARK: Shrink

    @Test(arguments: [1, 2, 3] as [UInt64]) func shrinksToTheMinimumAndBack(seed: UInt64) throws {
        let rig = try Rig(megabytes: 256, seed: seed)
        try populated(rig)
        for index in stride(from: 0, to: 40, by: 3) { try rig.remove("file\(index)") }
        try rig.write("solid", bytes: 12 << 20)
        let used = try rig.volume.planResize(.minimum)
        #expect(used.newBytes == used.minimumBytes && used.minimumBytes > 16 << 20)
        do throws(FSError) {
            _ = try rig.volume.resize(.bytes(used.minimumBytes - 4096))
            Issue.record("smaller than the minimum")
        } catch {
            guard case .cannotShrink(_, let minimum) = error else { throw error }
            #expect(minimum == used.minimumBytes)
        }
        let plan = try rig.volume.resize(.minimum)
        #expect(rig.byteCount == plan.minimumBytes && rig.device.byteCount == plan.minimumBytes)
        #expect(rig.volume.remaps.movedBlocks > 0)
        try rig.verify()
        try rig.reopen()
        try rig.verify()
        // Nothing was copied twice: sharing is as before.
        let again = try rig.volume.planResize(.minimum).minimumBytes
        #expect(again <= plan.minimumBytes + 256 << 10, "\(again), \(plan.minimumBytes)")

        // What was moved is deleted, shared, overwritten as anything else.
        for index in stride(from: 1, to: 40, by: 3) { try rig.remove("file\(index)") }
        try rig.share("again", with: "shared2")
        try rig.verify()
        try rig.reopen()
        _ = try rig.volume.resize(.more(512 << 20))
        #expect(rig.volume.remaps.movedBlocks == 0)
        try rig.write("large", bytes: 300 << 20)
        try rig.verify()
        try rig.reopen()
        #expect(!rig.volume.usesRemaps)
        try rig.verify()
        for name in rig.files.keys.sorted() { try rig.remove(name) }
        // What is left are the journal and some nodes.
        let journal = rig.volume.superblock.journalExtents.reduce(0) { $0 + $1.count }
        let pooled = UInt64(rig.volume.pool.count) * 8
        let kept = rig.volume.fileSystem.statistics().totalBlocks - (try rig.free()) - pooled
        #expect(kept < journal + 200, "\(kept), journal \(journal)")
    }

    /// A shrink moves again what the one before had moved, and numbers stay taken after regrowing.
    /// The minimum that is told can be reached, also where a thousand runs have to move into as many
    /// gaps.
    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func reachesTheMinimum(seed: UInt64) throws {
        let rig = try Rig(megabytes: 512, seed: seed)
        for index in 0..<2000 {
            try rig.write("file\(index)", bytes: rig.random.pick([20_000, 40_000, 100_000]))
        }
        try rig.volume.checkpoint()
        for index in 0..<2000 where rig.random.chance(1, in: 2) { try rig.remove("file\(index)") }
        // Also from a size that is not much larger.
        if seed > 2 {
            let minimum = try rig.volume.planResize(.minimum).minimumBytes
            _ = try rig.volume.resize(.bytes(minimum + 20 << 20))
        }
        let plan = try rig.volume.planResize(.minimum)
        let done = try rig.volume.resize(.minimum)
        #expect(done.newBytes == plan.minimumBytes && rig.byteCount == plan.minimumBytes)
        try rig.verify()
        try rig.reopen()
        try rig.verify()
        try rig.volume.close()
    }

    @Test func shrinksAgainAndAgain() throws {
        let rig = try Rig(megabytes: 512)
        try populated(rig)
        for size in [300, 140, 400, 200, 600, 100, 130, 90] as [UInt64] {
            do throws(FSError) {
                _ = try rig.volume.resize(.bytes(size << 20))
            } catch {
                guard case .cannotShrink = error else { throw error }
                continue
            }
            #expect(rig.byteCount == size << 20)
            let name = "after\(size)"
            try rig.write(name, bytes: 2_000_000)
            if let old = rig.files.keys.sorted().first(where: { $0 != name }) {
                try rig.remove(old)
            }
            try rig.verify()
            try rig.reopen()
            try rig.verify()
        }
    }

    @Test func isTheOldSizeAfterBeingCancelled() throws {
        let rig = try Rig(megabytes: 256)
        try populated(rig)
        let free = try rig.free()
        for limit in [0, 1, 5 << 20] as [UInt64] {
            let moved = Counter()
            #expect(throws: FSError.interrupted) {
                _ = try rig.volume.resize(
                    .bytes(64 << 20), isCancelled: { moved.value >= limit },
                    progress: { moved.value = $0.doneBytes })
            }
            #expect(rig.byteCount == 256 << 20)
            try rig.verify()
            #expect(rig.volume.remaps.movedBlocks == 0)
            #expect(try rig.free() + 64 >= free)
            try rig.reopen()
        }
        try rig.verify()
    }

    /// Parts of files are dropped right while their blocks are copied back: the rest comes home later,
    /// and neither place is handed out too early.
    @Test func dropsWhatComesHome() throws {
        let device = HookedBlockDevice(MemoryBlockDevice(byteCount: 256 << 20))
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Rig.open(device)
        let fs = volume.fileSystem
        var random = SeededRandom(seed: 5)
        func write(_ name: String, _ content: [UInt8]) throws -> InodeNumber {
            let made = try Array(name.utf8).withView { (name) throws(FSError) in
                try fs.create(name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            _ = try content.withView { (view) throws(FSError) in
                try fs.write(made.inode, at: 0, view)
            }
            return made.inode
        }
        var files: [(inode: InodeNumber, content: [UInt8])] = []
        for index in 0..<40 {
            let content = random.bytes(1 << 20)
            files.append((try write("file\(index)", content), content))
        }
        let small = try volume.resize(.minimum).newBytes
        #expect(volume.remaps.movedBlocks > 0)
        var times = 0
        device.beforeWrite = { offset in
            guard offset >= small, times < 20, times < files.count else { return }
            // All files, since it could be any of them.
            let start = 4096 * UInt64(20 + times * 7)
            times += 1
            for file in files {
                try? fs.allocate(file.inode, at: start, count: 4096, [.punchHole, .keepSize])
            }
        }
        _ = try volume.resize(.bytes(256 << 20))
        device.beforeWrite = { _ in }
        #expect(times == 20 && volume.remaps.movedBlocks == 0)
        for index in files.indices {
            for time in 0..<times {
                let start = 4096 * (20 + time * 7)
                files[index].content.replaceSubrange(
                    start..<start + 4096, with: [UInt8](repeating: 0, count: 4096))
            }
        }
        for index in 0..<400 {
            do { _ = try write("more\(index)", random.bytes(1 << 20)) } catch FSError.noSpace {
                break
            }
        }
        for file in files {
            let buffer = ByteBuffer(count: 1 << 20)
            let count = try fs.read(file.inode, at: 0, into: buffer.bytes)
            #expect(count == 1 << 20 && buffer.view.toArray() == file.content)
        }
        #expect(try Checker.check(volume).isClean)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// Tells of each write before it is made.
    private final class HookedBlockDevice: BlockDevice, @unchecked Sendable {
        private let device: MemoryBlockDevice
        var beforeWrite: (UInt64) -> Void = { _ in }

        init(_ device: MemoryBlockDevice) { self.device = device }
        var byteCount: UInt64 { device.byteCount }
        var sectorSize: Int { device.sectorSize }
        var name: String { device.name }
        var isReadOnly: Bool { device.isReadOnly }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            try device.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            beforeWrite(offset)
            try device.write(source, at: offset)
        }
        func flush() throws(FSError) { try device.flush() }
        func resize(to bytes: UInt64) throws(FSError) { try device.resize(to: bytes) }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            try device.discard(at: offset, count: count)
        }
    }

    private final class Counter: @unchecked Sendable { var value: UInt64 = 0 }

    /// Writers, readers and deleters go on while the size changes, again and again.
    /// `AEGISFS_TEST_RESIZES` sets how often.
    @Test func changesItsSizeUnderLoad() throws {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 20
        options.cacheBytes = 4 << 20
        let volume = try Volume.open(device, modules: .standard, options: options)
        let load = ResizeLoad(volume, threads: 3)
        var random = SeededRandom(seed: UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 7)))
        for _ in 0..<TestMachine.count("AEGISFS_TEST_RESIZES", default: 20) {
            load.waitForRounds(20)
            let size = UInt64(random.integer(in: 60...400)) << 20
            do throws(FSError) {
                _ = try volume.resize(.bytes(size))
                #expect(volume.layout.blockCount == size >> 12)
            } catch {
                switch error {
                case .cannotShrink, .noSpace: break
                default: throw error
                }
            }
        }
        load.stop()
        #expect(load.problems.isEmpty, "\(load.problems.first ?? "")")
        let report = try Checker.check(volume)
        #expect(report.findings.isEmpty, "\(report.findings)")
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    // MARK: What the check finds

    private func findings(_ change: (Rig, Transaction) throws -> Void) throws -> Set<CheckIssue> {
        let rig = try Rig(megabytes: 64)
        try populated(rig, files: 6)
        try rig.volume.checkpoint(force: true) {
            $0.incompatible |= DiskFormat.Incompatible.remap
            $0.addressLimit = 40000
        }
        let transaction = Transaction()
        try change(rig, transaction)
        transaction.condition = { true }
        try rig.volume.commit(transaction, .ordinary)
        try rig.volume.checkpoint(force: true)
        return Set(try Checker.check(rig.device, modules: .standard).findings.map(\.issue))
    }

    @Test func checkFindsWhatIsWrongWithRemaps() throws {
        func put(_ transaction: Transaction, _ record: RemapRecord, change: Int? = nil) {
            var bytes = record.encoded()
            if let change { bytes[change] ^= 0x40 }
            transaction.put(record.key, bytes, tree: .volume)
        }
        let unused = RemapRecord(source: 33000, count: 8, target: 16000)
        #expect(
            try findings { put($1, unused, change: 0) }.isSuperset(of: [.remapRecordBad]))
        #expect(
            try findings { put($1, unused) }.isSuperset(of: [.remapUnreferenced]))
        #expect(
            try findings {
                put($1, unused)
                put($1, RemapRecord(source: 33004, count: 8, target: 15000))
            }.contains(.remapRecordBad))
        #expect(
            try findings {
                put($1, RemapRecord(source: 15000, count: 8, target: 16000))
                put($1, RemapRecord(source: 33000, count: 8, target: 15004))
            }.contains(.remapTargetMoved))
        #expect(
            try findings { rig, transaction in
                let inode = try Array("file1".utf8).withView {
                    try rig.volume.fileSystem.lookup($0, in: .root).inode
                }
                let extent = ExtentRecord(
                    blocks: 2, birth: BirthEpoch(1),
                    replicas: ReplicaList(BlockAddress(block: 34000)), sumKind: .crc32c,
                    sums: [UInt8](repeating: 0, count: 8))
                transaction.put(FileMap.key(inode, 5000), extent.encoded())
            }.contains(.addressBeyondEnd))
    }
}

/// Threads that create, check and delete files of their own until they are stopped.
private final class ResizeLoad: @unchecked Sendable {
    private let lock = Mutex()
    private var isStopping = false
    private(set) var problems: [String] = []
    private(set) var rounds = 0
    private var threads: [WorkerThread] = []

    init(_ volume: Volume, threads count: Int) {
        for number in 0..<count {
            threads.append(
                WorkerThread { [self] in
                    do { try run(volume, number) } catch {
                        lock.withLock {
                            problems.append("thread \(number): \(error)")
                            lock.signalAll()
                        }
                    }
                })
        }
    }

    /// Until so many more are done.
    func waitForRounds(_ count: Int) {
        lock.withLock {
            let target = rounds + count
            while rounds < target, problems.isEmpty { lock.wait() }
        }
    }

    func stop() {
        lock.withLock { isStopping = true }
        for thread in threads { thread.join() }
    }

    private func run(_ volume: Volume, _ number: Int) throws {
        let fs = volume.fileSystem
        var random = SeededRandom(seed: UInt64(number) + 100)
        var files: [(name: [UInt8], inode: InodeNumber, content: [UInt8])] = []
        var made = 0
        while !lock.withLock({ isStopping }) {
            if files.count < 12 || random.chance(1, in: 2) && files.count < 24 {
                let name = Array("thread\(number)-\(made)".utf8)
                made += 1
                let content = random.bytes(random.pick([300, 4096, 20_000, 700_000]))
                do throws(FSError) {
                    let inode = try name.withView { (name) throws(FSError) in
                        try fs.create(
                            name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644)
                        ).inode
                    }
                    fs.release(inode, count: 1)
                    _ = try content.withView { (view) throws(FSError) in
                        try fs.write(inode, at: 0, view)
                    }
                    files.append((name, inode, content))
                    if random.chance(1, in: 4) { try volume.synchronize() }
                } catch {
                    guard error == .noSpace else { throw error }
                    try? name.withView { try fs.unlink($0, in: .root) }
                }
            } else {
                let file = files.remove(at: random.below(files.count))
                try file.name.withView { try fs.unlink($0, in: .root) }
            }
            if let file = files.randomElement(using: &random) {
                let buffer = ByteBuffer(count: file.content.count)
                let count = try fs.read(file.inode, at: 0, into: buffer.bytes)
                if count != file.content.count || buffer.view.toArray() != file.content {
                    lock.withLock { problems.append("thread \(number): wrong content") }
                }
            }
            lock.withLock {
                rounds += 1
                lock.signalAll()
            }
        }
    }
}
