/// Deduplication, defragmentation and the figures about shared space.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct DeduplicationTests {
    private let device = MemoryBlockDevice(byteCount: 256 << 20)
    private let volume: Volume
    private var fs: FileSystem { volume.fileSystem }

    init() throws {
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        volume = try Volume.open(device, modules: .standard, options: options)
    }

    private func create(_ name: String, _ setting: String = "default") throws -> InodeNumber {
        let made = try Array(name.utf8).withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        fs.release(made.inode, count: 1)
        try fs.setProperty(.compression, of: made.inode, setting)
        return made.inode
    }
    private func write(_ inode: InodeNumber, at offset: Int, _ bytes: [UInt8]) throws {
        for start in stride(from: 0, to: bytes.count, by: 1 << 20) {
            let piece = Array(bytes[start..<min(start + 1 << 20, bytes.count)])
            _ = try piece.withView { try fs.write(inode, at: UInt64(offset + start), $0) }
        }
    }
    private func content(_ inode: InodeNumber) throws -> [UInt8] {
        let buffer = ByteBuffer(count: Int(try fs.attributes(of: inode).size))
        let count = try fs.read(inode, at: 0, into: buffer.bytes)
        return buffer.view.slice(0, count).toArray()
    }
    private func usedBlocks() throws -> UInt64 {
        try volume.checkpoint()
        try volume.checkpoint()
        let statistics = fs.statistics()
        return statistics.totalBlocks - statistics.freeBlocks
    }
    private func finish() throws {
        try volume.close()
        let report = try Checker.check(device, modules: .standard)
        #expect(report.isClean, "\(report.findings.prefix(3))")
    }

    /// Two copies of a tree of files of all sizes take the space of one; either may go.
    @Test(arguments: ["none", "zstd:3", "lz4"]) func copiesBecomeOne(setting: String) throws {
        var random = SeededRandom(seed: 4)
        var files: [(a: InodeNumber, b: InodeNumber, bytes: [UInt8])] = []
        let empty = try usedBlocks()
        for (index, size) in [3000, 4096, 9000, 70_000, 131_072, 1_500_000, 5 << 20].enumerated() {
            let bytes = Payload(
                index % 2 == 0 ? .text : .random, seed: random.next(), count: size
            ).bytes
            let (a, b) = (try create("a\(index)", setting), try create("b\(index)", setting))
            try write(a, at: 0, bytes)
            files.append((a, b, bytes))
        }
        let one = try usedBlocks() - empty
        for file in files { try write(file.b, at: 0, file.bytes) }
        let before = try files.map { try fs.attributes(of: $0.b) }
        let result = try fs.deduplicate()
        #expect(result.isComplete && result.passes == 1)
        let two = try usedBlocks() - empty
        #expect(two <= one + one / 50 + 24, "\(one) blocks for one copy, \(two) for two")
        for (file, attributes) in zip(files, before) {
            #expect(try content(file.a) == file.bytes)
            #expect(try content(file.b) == file.bytes)
            // Nobody can see it by the times.
            let after = try fs.attributes(of: file.b)
            #expect(after.modificationTime == attributes.modificationTime)
            #expect(after.changeTime == attributes.changeTime && after.size == attributes.size)
        }
        let usage = try fs.usage(of: files.map(\.b))
        #expect(usage.exclusiveBytes < usage.storedBytes / 50 + 9 * 4096)
        let both = try fs.usage(of: [.root])
        #expect(both.exclusiveBytes == both.storedBytes)
        #expect(both.logicalBytes == 2 * usage.logicalBytes)

        // A second run reads next to nothing.
        let again = try fs.deduplicate()
        #expect(again.sharedBytes == 0 && again.comparedBytes < 1 << 20)
        for index in files.indices {
            try Array("a\(index)".utf8).withView { try fs.unlink($0, in: .root) }
        }
        for file in files { #expect(try content(file.b) == file.bytes) }
        try finish()
    }

    /// A table that holds a small part of the blocks finds as much, in more passes.
    @Test func memoryIsBounded() throws {
        var random = SeededRandom(seed: 5)
        let bytes = random.bytes(24 << 20)
        let (a, b) = (try create("a"), try create("b"))
        try write(a, at: 0, bytes)
        let one = try usedBlocks()
        try write(b, at: 0, bytes)
        let result = try fs.deduplicate(memoryBytes: 64 << 10)
        #expect(result.tableBytes <= 64 << 10 && result.passes > 4)
        #expect(try usedBlocks() <= one + one / 50 + 16)
        #expect(try content(b) == bytes)
        try finish()
    }

    /// Only what lies below the given directories is gone through, however deep and wide they are, and each
    /// contents once, however many names they have.
    @Test func onlyBelowTheGivenDirectories() throws {
        func directory(_ name: String, in parent: InodeNumber) throws -> InodeNumber {
            try Array(name.utf8).withView {
                try fs.create($0, in: parent, NewInode(mode: FileKind.directory.modeBits | 0o755))
            }.inode
        }
        let bytes = Payload(.random, seed: 1, count: 20_000).bytes
        var outside: [InodeNumber] = []
        var inside: [InodeNumber] = []
        let top = try directory("top", in: .root)
        var deepest = top
        for level in 0..<60 { deepest = try directory("level\(level)", in: deepest) }
        for index in 0..<150 {
            outside.append(try create("outside\(index)"))
            try write(outside[index], at: 0, bytes)
            let place = index % 3 == 0 ? deepest : top
            let name = Array("inside\(index)".utf8)
            let made = try name.withView {
                try fs.create($0, in: place, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            inside.append(made.inode)
            try write(made.inode, at: 0, bytes)
            _ = try Array("link\(index)".utf8).withView { try fs.link(made.inode, as: $0, in: top) }
        }
        let result = try fs.deduplicate([top])
        #expect(result.sharedBytes == 149 * 5 * 4096)
        #expect(try fs.usage(of: inside).storedBytes == 5 * 4096)
        #expect(try fs.usage(of: outside).storedBytes == 150 * 5 * 4096)
        let all = try fs.deduplicate(outside + [top])
        #expect(all.sharedBytes == 299 * 5 * 4096)
        #expect(try fs.usage(of: [.root]).storedBytes == 5 * 4096)
        try finish()
    }

    /// Equal sums are no proof: nothing is shared whose bytes differ.
    @Test func bytesAreCompared() throws {
        var random = SeededRandom(seed: 6)
        let (a, b) = (try create("a"), try create("b"))
        let bytes = random.bytes(8 * 4096)
        try write(a, at: 0, bytes)
        try write(b, at: 0, random.bytes(8 * 4096))
        try volume.checkpoint()
        let other = try content(b)
        // The tree says that both have the same sums; the bytes of b stay what they are.
        let (first, second) = (
            try fs.fileMap.extents(a, 0..<8)[0], try fs.fileMap.extents(b, 0..<8)[0]
        )
        var forged = second.record
        forged.sums = first.record.sums
        let transaction = Transaction()
        transaction.put(FileMap.key(b, 0), forged.encoded())
        try volume.commit(transaction, .ordinary)
        // A wrong sum is damage, and an error; what matters is that b does not become a.
        _ = try? fs.deduplicate()
        #expect(try fs.fileMap.extents(b, 0..<8)[0].record.replicas == second.record.replicas)
        let back = Transaction()
        back.put(FileMap.key(b, 0), second.record.encoded())
        try volume.commit(back, .ordinary)
        #expect(try content(b) == other)
        try finish()
    }

    /// Random files with common parts, changed between runs, against arrays.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func randomFiles(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let setting = ["default", "lz4", "zstd:1", "default"][Int(seed) - 1]
        let inodes = try (0..<6).map { try create("f\($0)", setting) }
        var models = [[UInt8]](repeating: [], count: 6)
        let parts = (0..<5).map {
            Payload($0 % 2 == 0 ? .text : .random, seed: UInt64($0), count: 300_000).bytes
        }
        for round in 0..<12 {
            for _ in 0..<10 {
                let target = random.below(6)
                let part = random.pick(parts)
                let from = random.chance(3, in: 4) ? random.below(20) * 4096 : random.below(9000)
                let bytes = Array(part[from..<min(from + 1 + random.below(200_000), part.count)])
                let at = random.chance(3, in: 4) ? random.below(100) * 4096 : random.below(400_000)
                let missing = at + bytes.count - models[target].count
                if missing > 0 { models[target] += [UInt8](repeating: 0, count: missing) }
                models[target].replaceSubrange(at..<at + bytes.count, with: bytes)
                try write(inodes[target], at: at, bytes)
            }
            if random.chance(1, in: 2) {
                _ = try fs.defragment(
                    random.pick(inodes),
                    compression: random.pick([nil, CompressionSetting.none, .standard]))
            }
            let used = try usedBlocks()
            _ = try fs.deduplicate(memoryBytes: random.pick([64 << 10, 1 << 20]))
            #expect(try usedBlocks() <= used + 24, "round \(round)")
            for (inode, model) in zip(inodes, models) {
                try #require(content(inode) == model, "round \(round)")
            }
            let findings = try Checker.check(volume).findings
            try #require(findings.isEmpty, "round \(round): \(findings.prefix(3))")
        }
        try finish()
    }

    // MARK: Defragmentation

    @Test func manySmallExtentsBecomeFew() throws {
        let (a, b) = (try create("a"), try create("b"))
        let bytes = Payload(.text, seed: 1, count: 1 << 20).bytes
        // In turns, so that neither lies in one piece.
        for offset in stride(from: 0, to: bytes.count, by: 20_480) {
            let piece = Array(bytes[offset..<min(offset + 20_480, bytes.count)])
            try write(a, at: offset, piece)
            try write(b, at: offset, piece)
        }
        let before = try fs.attributes(of: a)
        let result = try fs.defragment(a)
        #expect(result.extentsBefore > 20 && result.extentsAfter <= 2)
        #expect(try content(a) == bytes)
        #expect(try fs.attributes(of: a).modificationTime == before.modificationTime)
        let compressed = try fs.defragment(a, compression: .standard)
        #expect(compressed.rewrittenBytes == 1 << 20)
        #expect(try fs.attributes(of: a).blocks512 < before.blocks512 / 2)
        #expect(try content(a) == bytes)
        // What is as it should be is left alone; so is what is shared.
        #expect(try fs.defragment(a, compression: .standard).rewrittenBytes == 0)
        let copy = try create("copy")
        _ = try fs.copyRange(from: a, at: 0, to: copy, at: 0, count: 1 << 20)
        let shared = try fs.defragment(copy, compression: CompressionSetting.none)
        #expect(shared.rewrittenBytes == 0 && shared.sharedBytes == 1 << 20)
        let extents = try fs.extents(of: copy, from: 0, limit: 100)
        #expect(extents.allSatisfy { $0.references == 2 && $0.codec == .zstd })
        #expect(extents.reduce(0) { $0 + $1.length } == 1 << 20)
        try finish()
    }
}
