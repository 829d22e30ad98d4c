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
}
