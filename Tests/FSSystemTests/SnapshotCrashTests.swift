/// Power cuts while snapshots come and go.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotCrashTests {
    /// Some of them with a size that changes.
    @Test(arguments: 1...8 as ClosedRange<UInt64>, [false, true]) func everyCrashLeavesAMoment(
        seed: UInt64, resizes: Bool
    ) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let run = try SnapshotCrashRun(
            seed: seed, steps: 60, options: CrashRun.openOptions, resizes: resizes)
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
