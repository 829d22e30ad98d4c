/// Files that share blocks: what they cost, that they do not disturb each other, and that the last
/// one to go gives the space back.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct ShareTests {
    private let device: MemoryBlockDevice
    private let volume: Volume
    private var fs: FileSystem { volume.fileSystem }

    init() throws {
        device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        volume = try Volume.open(device, modules: .standard, options: options)
    }

    private func create(_ name: String) throws -> InodeNumber {
        let made = try Array(name.utf8).withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        fs.release(made.inode, count: 1)
        return made.inode
    }
    private func write(_ inode: InodeNumber, at offset: UInt64, _ bytes: [UInt8]) throws {
        _ = try bytes.withView { try fs.write(inode, at: offset, $0) }
    }
    private func content(_ inode: InodeNumber) throws -> [UInt8] {
        let buffer = ByteBuffer(count: Int(try fs.attributes(of: inode).size))
        let count = try fs.read(inode, at: 0, into: buffer.bytes)
        return buffer.view.slice(0, count).toArray()
    }
    private func unlink(_ name: String) throws {
        try Array(name.utf8).withView { try fs.unlink($0, in: .root) }
    }
    private func freeBlocks() throws -> UInt64 {
        try volume.checkpoint()
        try volume.checkpoint()
        return fs.statistics().freeBlocks
    }

    @Test func aCopyCostsNoDataAndStandsAlone() throws {
        var random = SeededRandom(seed: 1)
        let bytes = random.bytes(8 << 20 + 1234)
        let empty = try freeBlocks()
        let original = try create("original")
        try write(original, at: 0, bytes)
        let before = try freeBlocks()
        var copies: [InodeNumber] = []
        for index in 0..<5 {
            let copy = try create("copy\(index)")
            let count = try fs.copyRange(
                from: original, at: 0, to: copy, at: 0, count: UInt64(bytes.count))
            #expect(count == UInt64(bytes.count))
            #expect(try content(copy) == bytes)
            copies.append(copy)
        }
        #expect(before - (try freeBlocks()) < 64)
        #expect(
            try fs.attributes(of: copies[0]).blocks512
                == fs.attributes(of: original).blocks512)

        // Each changes something of its own; nobody else sees it.
        var expected = bytes
        for (index, copy) in copies.enumerated() {
            try write(copy, at: UInt64(index * 100_000), Array("changed".utf8))
            var changed = bytes
            changed.replaceSubrange(index * 100_000..<index * 100_000 + 7, with: "changed".utf8)
            #expect(try content(copy) == changed)
            if index == 0 { expected = changed }
        }
        #expect(try content(original) == bytes)
        try unlink("original")
        for index in 1..<5 { try unlink("copy\(index)") }
        #expect(try content(copies[0]) == expected)
        try unlink("copy0")
        #expect(empty - (try freeBlocks()) < 16)
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    /// The tally against a count block by block; a record of any size costs nothing by itself.
    @Test(arguments: 1...20 as ClosedRange<UInt64>) func tallyNoticesWrongCounts(
        seed: UInt64
    ) {
        var random = SeededRandom(seed: seed)
        var tally = ShareTally()
        var records: [ShareRecord] = []
        var position: UInt64 = 1000
        for _ in 0..<6 {
            position += random.chance(1, in: 2) ? 0 : UInt64(random.below(5))
            let blocks = UInt64(1 + random.below(8))
            records.append(
                ShareRecord(
                    start: BlockAddress(block: position), blocks: blocks,
                    references: UInt32(2 + random.below(2))))
            let isAdded = tally.add(records[records.count - 1])
            #expect(isAdded)
            position += blocks
        }
        let isAddedAgain = tally.add(records[5])
        #expect(!isAddedAgain)
        var counts: [UInt64: Int] = [:]
        for _ in 0..<random.integer(in: 0...30) {
            let run = BlockRun(
                BlockAddress(block: 998 + UInt64(random.below(60))), UInt64(1 + random.below(12)))
            var next = run.start.block
            tally.count(run) { part, isShared in
                #expect(part.start.block == next)
                next += part.count
                for block in part.start.block..<next {
                    let isRecorded = records.contains {
                        block >= $0.start.block && block < $0.end
                    }
                    #expect(isRecorded == isShared)
                }
            }
            #expect(next == run.start.block + run.count)
            for block in run.start.block..<next { counts[block, default: 0] += 1 }
        }
        var found: [ShareRecord] = []
        tally.forEachWrong { record, block, count, _ in
            #expect(counts[block] ?? 0 == count && count != Int(record.references))
            found.append(record)
        }
        #expect(
            found
                == records.filter { record in
                    (record.start.block..<record.end).contains {
                        counts[$0] ?? 0 != Int(record.references)
                    }
                })
    }

    /// Random copies between and inside a few files, against arrays.
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func randomCopies(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let inodes = try (0..<4).map { try create("file\($0)") }
        var models = [[UInt8]](repeating: [], count: 4)
        let empty = try freeBlocks()
        for step in 0..<600 {
            let target = random.below(4)
            switch random.below(8) {
            case 0, 1:
                let bytes = random.bytes(1 + random.below(60_000))
                let offset = random.below(200_000)
                Self.grow(&models[target], to: offset + bytes.count)
                models[target].replaceSubrange(offset..<offset + bytes.count, with: bytes)
                try write(inodes[target], at: UInt64(offset), bytes)
            case 2:
                let size = random.below(200_000)
                Self.grow(&models[target], to: size)
                models[target].removeSubrange(size...)
                try fs.truncate(inodes[target], to: UInt64(size))
            case 3:
                let offset = random.below(200_000)
                let count = 1 + random.below(50_000)
                try fs.allocate(
                    inodes[target], at: UInt64(offset), count: UInt64(count),
                    [.punchHole, .keepSize])
                for index in offset..<min(offset + count, max(models[target].count, offset)) {
                    models[target][index] = 0
                }
            default:
                let source = random.below(4)
                let isAligned = random.chance(3, in: 4)
                func place() -> Int {
                    isAligned ? random.below(50) * 4096 : random.below(200_000)
                }
                let (from, to, count) = (place(), place(), 1 + random.below(150_000))
                let available = max(0, min(count, models[source].count - from))
                if source == target, abs(from - to) < available { continue }
                let copied = try fs.copyRange(
                    from: inodes[source], at: UInt64(from), to: inodes[target], at: UInt64(to),
                    count: UInt64(count))
                #expect(copied == UInt64(available), "step \(step)")
                guard available > 0 else { continue }
                Self.grow(&models[target], to: to + available)
                models[target].replaceSubrange(
                    to..<to + available, with: models[source][from..<from + available])
            }
            if step % 60 == 59 { try volume.checkpoint() }
            if step % 100 == 99 {
                for (inode, model) in zip(inodes, models) {
                    #expect(try content(inode) == model, "step \(step)")
                }
            }
        }
        try volume.checkpoint()
        let report = try Checker.check(volume)
        #expect(report.isClean, "\(report.findings.prefix(3))")
        for index in 0..<4 { try unlink("file\(index)") }
        #expect(empty - min(empty, try freeBlocks()) < 16)
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    private static func grow(_ bytes: inout [UInt8], to count: Int) {
        if bytes.count < count { bytes += [UInt8](repeating: 0, count: count - bytes.count) }
    }
}
