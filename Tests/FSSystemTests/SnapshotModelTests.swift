/// Snapshots, clones, rollbacks and deletes in any order, against a model that holds every
/// snapshot's tree.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotModelTests {
    @Test(arguments: 1...12 as ClosedRange<UInt64>) func everySnapshotKeepsItsTree(
        seed: UInt64
    ) throws { try run(seed, compression: .inherited) }

    /// The same with encoded extents, which are cut and shared while snapshots hold them.
    @Test(arguments: 1...8 as ClosedRange<UInt64>) func everySnapshotKeepsItsCompressedTree(
        seed: UInt64
    ) throws {
        try run(100 + seed, compression: seed % 2 == 0 ? .standard : .codec(.lz4, level: 1))
    }

    private func run(_ seed: UInt64, compression: CompressionSetting) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = CrashRun.openOptions
        options.compression = compression
        let session = try SnapshotSession(seed: seed, device: device, options: options)
        try session.run(250)
        try session.finish()
    }

    /// A volume with a hundred snapshots that becomes as small as it can holds as much as before: what
    /// they share is moved once.
    @Test func shrinkingKeepsSharingWithAHundredSnapshots() throws {
        let device = MemoryBlockDevice(byteCount: 512 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(
            device, modules: .standard, options: CrashRun.openOptions)
        let fs = volume.fileSystem
        var random = SeededRandom(seed: 1)
        var files: [(InodeNumber, [UInt8])] = []
        for index in 0..<120 {
            let content = random.bytes(400_000)
            let inode = try Array("file\(index)".utf8).withView {
                try fs.create(
                    $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644)
                ).inode
            }
            _ = try content.withView { try fs.write(inode, at: 0, $0) }
            files.append((inode, content))
        }
        var old: [UInt8: [UInt8]] = [:]
        for number in 0..<100 as Range<UInt8> {
            old[number] = files[Int(number)].1
            try volume.snapshotStore.create(
                SnapshotLabel(name: Array("snapshot\(number)".utf8)), of: .head)
            let change = random.bytes(50_000)
            _ = try change.withView { try fs.write(files[Int(number)].0, at: 8192, $0) }
            files[Int(number)].1.replaceSubrange(8192..<58192, with: change)
        }
        func used() throws -> UInt64 {
            for _ in 0...1 { try volume.checkpoint(force: true) }
            let statistics = fs.statistics()
            return statistics.totalBlocks - statistics.freeBlocks
        }
        let before = try used()
        let plan = try volume.resize(.minimum)
        let after = try used()
        // The entries of what was moved stand in some nodes of their own.
        #expect(after <= before + 400, "\(before) before, \(after) after")
        #expect(plan.movedBytes > 10 << 20)
        for number in 0..<100 as Range<UInt8> {
            let view = try volume.snapshotStore.files(of: Array("snapshot\(number)".utf8))
            let buffer = ByteBuffer(count: 400_000)
            let count = try view.read(files[Int(number)].0, at: 0, into: buffer.bytes)
            #expect(count == 400_000 && buffer.view.toArray() == old[number])
        }
        #expect(try Checker.check(volume).isClean)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// The same while the volume shrinks and grows: what moves is what snapshots share, too.
    @Test(arguments: 1...8 as ClosedRange<UInt64>) func everySizeKeepsAllTrees(
        seed: UInt64
    ) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let session = try SnapshotSession(
            seed: seed, device: device, options: CrashRun.openOptions)
        session.resizes = true
        try session.run(250)
        #expect(session.movedBytes > 0)
        try session.finish()
    }
}
