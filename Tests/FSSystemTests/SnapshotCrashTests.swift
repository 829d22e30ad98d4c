/// Power cuts while snapshots come and go.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotCrashTests {
    /// Some of them with a size that changes.
    @Test(arguments: 1...8 as ClosedRange<UInt64>, [false, true]) func everyCrashLeavesAMoment(
        seed: UInt64, resizes: Bool
    ) throws { try crash(seed, compression: .inherited, resizes: resizes) }

    /// The same with encoded extents.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func everyCrashOfCompressedHeadsLeavesAMoment(
        seed: UInt64
    ) throws { try crash(100 + seed, compression: .codec(.lz4, level: 1)) }

    private func crash(
        _ seed: UInt64, compression: CompressionSetting, resizes: Bool = false
    ) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        var options = CrashRun.openOptions
        options.compression = compression
        let run = try SnapshotCrashRun(
            seed: seed, steps: 60, options: options, resizes: resizes)
        var random = SeededRandom(seed: seed)
        for number in 0..<60 {
            if let problem = run.problem(random: &random) {
                Issue.record(
                    "seed \(seed), crash \(number): \(problem)\n\(run.trace.joined(separator: "\n"))"
                )
                return
            }
        }
    }
}
