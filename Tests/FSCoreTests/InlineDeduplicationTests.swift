/// Data that equals what was written before takes no space of its own, from the write on; nothing else
/// changes, whatever happens.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct InlineDeduplicationTests {
    private static let seeds = TestMachine.count("AEGISFS_TEST_CRASH_SEEDS", default: 4)

    private func volume(
        _ mebibytes: UInt64, deduplicates: Bool = true, memory: Int = 1 << 20
    ) throws -> (MemoryBlockDevice, Volume) {
        let device = MemoryBlockDevice(byteCount: mebibytes << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.deduplicates = deduplicates
        options.deduplicationMemory = memory
        return (device, try Volume.open(device, modules: .standard, options: options))
    }
    private func create(_ name: String, in directory: InodeNumber = .root, _ volume: Volume) throws
        -> InodeNumber
    {
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create(
                $0, in: directory, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        volume.fileSystem.release(made.inode, count: 1)
        return made.inode
    }
    private func write(_ inode: InodeNumber, _ bytes: [UInt8], _ volume: Volume) throws {
        for start in stride(from: 0, to: bytes.count, by: 1 << 20) {
            _ = try Array(bytes[start..<min(start + 1 << 20, bytes.count)]).withView {
                try volume.fileSystem.write(inode, at: UInt64(start), $0)
            }
        }
    }
    private func content(_ inode: InodeNumber, _ volume: Volume) throws -> [UInt8] {
        let size = Int(try volume.fileSystem.attributes(of: inode).size)
        let buffer = ByteBuffer(count: size)
        let count = try volume.fileSystem.read(inode, at: 0, into: buffer.bytes)
        return buffer.view.slice(0, count).toArray()
    }
    private func usedBlocks(_ volume: Volume) throws -> UInt64 {
        for _ in 0...1 { try volume.checkpoint(force: true) }
        let statistics = volume.fileSystem.statistics()
        return statistics.totalBlocks - statistics.freeBlocks
    }

    /// Two copies take the space of one as soon as they are written; either may go.
    @Test(arguments: ["none", "zstd:3", "lz4"]) func aCopyTakesNoSpace(setting: String) throws {
        let (device, volume) = try volume(256)
        let fs = volume.fileSystem
        try fs.setProperty(.compression, of: .root, setting)
        var random = SeededRandom(seed: 4)
        var files: [(bytes: [UInt8], a: InodeNumber, b: InodeNumber?)] = []
        let empty = try usedBlocks(volume)
        for (index, size) in [4096, 9000, 70_000, 131_072, 1_500_000, 5 << 20].enumerated() {
            let bytes = Payload(
                index % 2 == 0 ? .text : .random, seed: random.next(), count: size
            ).bytes
            let inode = try create("a\(index)", volume)
            try write(inode, bytes, volume)
            files.append((bytes, inode, nil))
        }
        let one = try usedBlocks(volume) - empty
        for index in files.indices {
            let inode = try create("b\(index)", volume)
            try write(inode, files[index].bytes, volume)
            files[index].b = inode
        }
        let two = try usedBlocks(volume) - empty
        #expect(two <= one + one / 50 + 32, "\(one) blocks for one copy, \(two) for two")
        for index in files.indices where index % 2 == 0 {
            try Array("a\(index)".utf8).withView { try fs.unlink($0, in: .root) }
        }
        for file in files { #expect(try content(#require(file.b), volume) == file.bytes) }
        #expect(try Checker.check(volume).isClean)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// The property says it for one directory; new files take it from there.
    @Test func thePropertyDecides() throws {
        let (device, volume) = try volume(64, deduplicates: false)
        let fs = volume.fileSystem
        let directory = try Array("dir".utf8).withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o755))
        }.inode
        #expect(try fs.property(.deduplication, of: directory).text == "default off")
        try fs.setProperty(.deduplication, of: directory, "on")
        var random = SeededRandom(seed: 1)
        let bytes = random.bytes(300_000)
        let files = try ["a", "b"].map { try create($0, in: directory, volume) }
        #expect(try fs.property(.deduplication, of: files[0]).text == "on")
        for file in files { try write(file, bytes, volume) }
        #expect(try fs.usage(of: [files[0]]).exclusiveBytes == 0)
        let plain = try create("plain", volume)
        try write(plain, bytes, volume)
        #expect(try fs.usage(of: [plain]).exclusiveBytes > 290_000)
        #expect(throws: FSError.invalidArgument) {
            try fs.setProperty(.deduplication, of: plain, "maybe")
        }
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// What is remembered does not grow with what is written, and what was forgotten is not shared.
    @Test func memoryIsBounded() throws {
        let (device, volume) = try volume(256, memory: 64 << 10)
        var random = SeededRandom(seed: 3)
        let bytes = random.bytes(100_000)
        try write(create("first", volume), bytes, volume)
        try write(create("long", volume), random.bytes(100 << 20), volume)
        #expect(volume.recentContents.byteCount <= 128 << 10)
        let late = try create("late", volume)
        try write(late, bytes, volume)
        #expect(try content(late, volume) == bytes)
        #expect(try volume.fileSystem.usage(of: [late]).exclusiveBytes > 0)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// The limit of `aegisfs dedup`, by a sixty-fourth: as many blocks as fit go into the table in as many
    /// passes as are made, and none is left out; 512 MiB are enough for 1 TiB of unique blocks in a
    /// dozen passes.
    @Test func theTableTakesEveryBlock() {
        let table = CandidateTable(byteCount: (512 << 20) / 64)
        let blocks: UInt64 = (1 << 28) / 64
        let passes = table.passes(blocks: blocks)
        #expect(table.byteCount <= (512 << 20) / 64 && passes <= 12)
        var taken: UInt64 = 0
        for pass in 0..<passes {
            table.removeAll()
            var asked = 0
            var random = SeededRandom(seed: 1)
            for block in 0..<blocks {
                let tag = random.next()
                guard tag % passes == pass else { continue }
                asked += 1
                _ = table.findOrInsert(
                    tag / passes, CandidateTable.Place(inode: 1, block: block))
            }
            // Two tags are one by chance now and then.
            #expect(table.count + asked / 1000 >= asked && asked <= table.room)
            taken += UInt64(table.count)
        }
        #expect(taken + blocks / 1000 >= blocks)
    }

    /// A run that was cut off goes on where it was: what it has shared is neither read nor counted again.
    @Test func aRunThatWasCutOffGoesOn() throws {
        let (device, volume) = try volume(256, deduplicates: false)
        var random = SeededRandom(seed: 9)
        var contents: [[UInt8]] = []
        for index in 0..<400 {
            contents.append(random.bytes(16384))
            for copy in ["a", "b"] {
                try write(create("\(copy)\(index)", volume), contents[index], volume)
            }
        }
        var steps = 0
        let first = try volume.fileSystem.deduplicate(isCancelled: {
            steps += 1
            return steps > 1
        })
        let second = try volume.fileSystem.deduplicate()
        #expect(!first.isComplete && second.isComplete)
        #expect(first.sharedBytes + second.sharedBytes == 400 * 16384)
        #expect(first.comparedBytes + second.comparedBytes <= 410 * 16384)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// Operations with few different contents, so that much is shared, and power cuts.
    @Test(arguments: 0..<UInt64(seeds)) func crashesLeaveWhatWasWritten(seed: UInt64) throws {
        let run = try CrashRun(
            seed: 300 + seed, compression: seed % 2 == 0 ? .inherited : .standard)
        run.options.deduplicates = true
        run.options.deduplicationMemory = 64 << 10
        run.profile.contents = 1
        run.profile.largestWrite = 100 << 10
        run.operationsDuringCheckpoint = seed % 2 == 0 ? 3 : 0
        // Also while everything is deduplicated afterwards, and written anew.
        run.rewriteEvery = seed % 2 == 0 ? 0 : 17
        try run.record(operations: 250, synchronizeEvery: 9, closes: false)
        if seed < 2 { #expect(try isShared(run.device)) }
        var random = SeededRandom(seed: seed)
        for number in 0..<120 {
            let event = random.integer(in: run.firstEvent...run.device.eventCount)
            let problem =
                number % 4 == 0
                ? run.problemAfterTwoCrashes(random: &random)
                : run.problem(afterCrashAt: event, .anySubset, random: &random)
            #expect(problem == nil, "seed \(seed), event \(event): \(problem ?? "")")
            if problem != nil { return }
        }
    }

    private func isShared(_ device: SimulatedBlockDevice) throws -> Bool {
        let volume = try Volume.open(
            device.copy(), modules: .standard, options: CrashRun.openOptions)
        defer { try? volume.close() }
        return volume.mayHaveShares
    }
}
