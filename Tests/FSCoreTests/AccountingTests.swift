/// What stat, df and `usage` say of files that are compressed, shared, deduplicated and in snapshots is
/// one and the same, and deleting gives back what they said.
import FSTestSupport
import Testing

@testable import FSCore
@testable import FSModules

@Suite struct AccountingTests {
    /// Some files and what is done to them at random.
    private struct Rig {
        let volume: Volume
        var random: SeededRandom
        var files: [(name: String, inode: InodeNumber)] = []
        var snapshots: [[UInt8]] = []
        var nextName = 0
        var fs: FileSystem { volume.fileSystem }

        init(seed: UInt64) throws {
            let device = MemoryBlockDevice(byteCount: 256 << 20)
            var format = FormatOptions()
            format.dataCopies = seed % 3 == 0 ? 2 : 1
            _ = try VolumeFormatter.format(device, modules: .standard, options: format)
            var options = CrashRun.openOptions
            options.compression =
                [.inherited, .standard, .codec(.lz4, level: 1)][Int(seed / 2 % 3)]
            volume = try Volume.open(device, modules: .standard, options: options)
            random = SeededRandom(seed: seed)
            for _ in 0..<6 { try create() }
        }

        mutating func create() throws {
            nextName += 1
            let name = "file\(nextName)"
            let made = try Array(name.utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            fs.release(made.inode, count: 1)
            files.append((name, made.inode))
        }

        mutating func removeOne() throws {
            let file = files.remove(at: random.below(files.count))
            try Array(file.name.utf8).withView { try fs.unlink($0, in: .root) }
            try create()
        }

        mutating func step() throws {
            let file = random.pick(files).inode
            let place = UInt64(random.below(200)) << 12
            switch random.below(14) {
            case 0..<5:
                // Few different contents, so that there is something to be shared.
                let bytes = Payload(
                    random.pick([Payload.Pattern.text, .random]), seed: UInt64(random.below(3)),
                    count: random.pick([500, 9000, 131_072, 400_000])
                ).bytes
                _ = try bytes.withView { try fs.write(file, at: place, $0) }
            case 5: try fs.truncate(file, to: place + UInt64(random.below(4096)))
            case 6:
                try fs.allocate(
                    file, at: place, count: UInt64(random.below(60_000) + 1),
                    [.punchHole, .keepSize])
            case 7, 8:
                let source = random.pick(files).inode
                guard source != file else { return }
                _ = try fs.copyRange(
                    from: source, at: 0, to: file, at: place, count: UInt64(random.below(900_000)))
            case 9: _ = try fs.deduplicate(memoryBytes: 64 << 10)
            case 10:
                _ = try fs.defragment(
                    file, compression: random.pick([nil, CompressionSetting.standard]))
            case 11:
                snapshots.append(Array("s\(nextName)-\(random.next())".utf8))
                try volume.snapshotStore.create(SnapshotLabel(name: snapshots[snapshots.count - 1]))
            case 12:
                guard !snapshots.isEmpty else { return }
                let name = snapshots.remove(at: random.below(snapshots.count))
                try volume.snapshotStore.delete([name])
            default: try removeOne()
            }
        }

        /// Blocks that are free when all that was given back has arrived.
        func freeBlocks() throws -> Int64 {
            try volume.snapshotStore.sweep()
            for _ in 0...1 { try volume.checkpoint(force: true) }
            return Int64(fs.statistics().freeBlocks)
        }

        /// What nodes take, in two copies.
        func nodeBlocks() throws -> Int64 {
            Int64(try Checker.check(volume).nodes) * 2 * Int64(DiskFormat.nodeSize >> 12)
        }
    }

    private static let seeds = TestMachine.count("AEGISFS_TEST_ACCOUNTS", default: 6)

    @Test(arguments: 0..<UInt64(seeds)) func allFiguresAgree(seed: UInt64) throws {
        var rig = try Rig(seed: seed)
        for round in 0..<12 {
            for _ in 0..<15 { try rig.step() }
            let note: Comment = "seed \(seed), round \(round)"
            _ = try rig.freeBlocks()
            var (held, logical): (UInt64, UInt64) = (0, 0)
            var blocks: Set<UInt64> = []
            for file in rig.files {
                let extents = try rig.fs.extents(of: file.inode, from: 0, limit: .max)
                let attributes = try rig.fs.attributes(of: file.inode)
                guard try rig.fs.record(of: file.inode).content != .inline else {
                    logical += attributes.size
                    continue
                }
                // A part of an encoded extent counts for its share of the stored blocks.
                let own = try rig.fs.fileMap.extents(file.inode, 0..<1 << 51)
                    .reduce(0) { $0 + $1.record.heldBlocks }
                #expect(attributes.blocks512 / 8 == own, note)
                held += own
                logical += extents.reduce(0) { $0 + $1.length }
                for extent in extents {
                    for place in extent.places {
                        blocks.formUnion((place >> 12)..<(place + extent.stored) >> 12)
                    }
                }
            }
            let (superblock, all) = (rig.volume.superblock, try rig.fs.usage(of: [.root]))
            #expect(superblock.headCounts.referenced == held, note)
            #expect(all.storedBytes == UInt64(blocks.count) << 12, note)
            #expect(all.logicalBytes == logical && all.files == 6, note)
            #expect(all.exclusiveBytes + all.snapshotBytes <= all.storedBytes, note)
            let statistics = rig.fs.statistics()
            let used = (statistics.totalBlocks - statistics.freeBlocks) << 12
            #expect(used >= all.storedBytes, note)
            if rig.snapshots.isEmpty {
                // What is in no snapshot belongs to the files; the rest is metadata and its reserve.
                #expect(all.exclusiveBytes == all.storedBytes, note)
                #expect(used - all.storedBytes < 8 << 20, note)
            }

            // Deleting gives back what is exclusive, besides nodes and places kept ready for them.
            let count = 1 + rig.random.below(3)
            rig.files.shuffle(using: &rig.random)
            let said = try rig.fs.usage(of: rig.files.prefix(count).map(\.inode))
            let before = try rig.freeBlocks() + rig.nodeBlocks()
            for file in rig.files.prefix(count) {
                try Array(file.name.utf8).withView { try rig.fs.unlink($0, in: .root) }
            }
            let freed = try rig.freeBlocks() + rig.nodeBlocks() - before
            #expect(abs(freed - Int64(said.exclusiveBytes >> 12)) <= 96, note)
            rig.files.removeFirst(count)
            for _ in 0..<count { try rig.create() }
        }
        let findings = try Checker.check(rig.volume).findings
        #expect(findings.isEmpty, "\(findings.prefix(3))")
        try rig.volume.close()
    }

    /// Writing anew what a snapshot has would take its space twice: it is left alone, and said.
    @Test func defragmentationLeavesWhatSnapshotsHave() throws {
        let rig = try Rig(seed: 1)
        let file = rig.files[0].inode
        let bytes = Payload(.text, seed: 1, count: 131_072).bytes
        for offset in stride(from: 0, to: bytes.count, by: 8192) {
            _ = try Array(bytes[offset..<offset + 8192]).withView {
                try rig.fs.write(file, at: UInt64(offset), $0)
            }
            _ = try bytes.withView { try rig.fs.write(rig.files[1].inode, at: UInt64(offset), $0) }
        }
        try rig.volume.snapshotStore.create(SnapshotLabel(name: Array("s".utf8)))
        let free = try rig.freeBlocks()
        let result = try rig.fs.defragment(file, compression: .standard)
        #expect(result.rewrittenBytes == 0 && result.sharedBytes == 131_072)
        #expect(try rig.freeBlocks() == free)
        #expect(try rig.fs.extents(of: file, from: 0, limit: 100).allSatisfy(\.isInSnapshot))
        let usage = try rig.fs.usage(of: [file])
        #expect(usage.exclusiveBytes == 0 && usage.snapshotBytes == 131_072)
        try rig.volume.snapshotStore.delete([Array("s".utf8)])
        _ = try rig.freeBlocks()
        #expect(try rig.fs.usage(of: [file]).exclusiveBytes == 131_072)
        #expect(try rig.fs.defragment(file, compression: .standard).rewrittenBytes == 131_072)
        try rig.volume.close()
    }
}
