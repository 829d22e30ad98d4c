/// Power loss while a volume changes its size: it opens in one size or the other, with everything
/// that was durable, and the check finds nothing.
///
/// `AEGISFS_TEST_CRASHES` sets how many crashes each seed tries.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite(.serialized) struct ResizeCrashTests {
    private static let crashes = TestMachine.count("AEGISFS_TEST_CRASHES", default: 250)
    private static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))

    private func recorded(
        _ seed: UInt64, _ sizes: [ResizeTarget], operations: Int = 240, byteCount: UInt64 = 48 << 20
    ) throws -> CrashRun {
        let run = try CrashRun(seed: seed, byteCount: byteCount)
        run.sizes = sizes
        run.resizeEvery = 30
        run.operationsDuringCheckpoint = seed % 2 == 0 ? 3 : 0
        try run.record(operations: operations, synchronizeEvery: 8, closes: seed % 3 == 0)
        #expect(run.resizes >= operations / 30 / 2 && run.movedBytes > 0)
        return run
    }

    @Test(arguments: (0..<6).map { firstSeed + $0 })
    func isOneSizeOrTheOther(seed: UInt64) throws {
        let run = try recorded(
            seed, [.minimum, .more(20 << 20), .bytes(40 << 20), .less(6 << 20), .bytes(64 << 20)])
        var random = SeededRandom(seed: seed)
        for number in 0..<Self.crashes {
            let event = random.integer(in: run.firstEvent...run.device.eventCount)
            let problem =
                number % 4 == 0
                ? run.problemAfterTwoCrashes(random: &random)
                : run.problem(
                    afterCrashAt: event, random.pick([.anySubset, .lastTorn, .nothing]),
                    random: &random)
            #expect(problem == nil, "seed \(seed), event \(event): \(problem ?? "")")
            if problem != nil { return }
        }
    }

    /// Every single write and flush of a run that shrinks and grows.
    @Test func atEveryEvent() throws {
        let run = try recorded(
            Self.firstSeed, [.minimum, .bytes(40 << 20)], operations: 60, byteCount: 32 << 20)
        var random = SeededRandom(seed: Self.firstSeed)
        for event in run.firstEvent...run.device.eventCount {
            for inFlight in [SimulatedBlockDevice.InFlight.nothing, .everything, .lastTorn] {
                let problem = run.problem(afterCrashAt: event, inFlight, random: &random)
                #expect(problem == nil, "event \(event), \(inFlight): \(problem ?? "")")
                if problem != nil { return }
            }
        }
    }
}
