/// Snapshots, clones, rollbacks and deletes in any order, against a model that holds every
/// snapshot's tree.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotModelTests {
    @Test(arguments: 1...12 as ClosedRange<UInt64>) func everySnapshotKeepsItsTree(
        seed: UInt64
    ) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let session = try SnapshotSession(
            seed: seed, device: device, options: CrashRun.openOptions)
        try session.run(250)
        try session.finish()
    }
}
