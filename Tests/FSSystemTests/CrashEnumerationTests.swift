/// Every state that a crash can leave of short runs: all prefixes, all subsets of the writes in
/// flight (or many of them), torn sectors, second crashes.
///
/// `AEGISFS_TEST_CRASH_SEEDS` sets how many seeds each kind of run gets, `AEGISFS_TEST_SEED` where
/// they begin.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct CrashEnumerationTests {
    static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
    static let seeds = UInt64(TestMachine.count("AEGISFS_TEST_CRASH_SEEDS", default: 6))

    enum Kind: CaseIterable {
        /// Synchronisations, timer flushes and checkpoints in turn.
        case mixed
        /// Operations in the middle of every checkpoint.
        case busyCheckpoints
        /// Small files and names: everything goes through the journal.
        case small
        /// Data that goes past the journal.
        case large
        /// Encoded extents, cut and shared.
        case encoded
        /// So many records that the ring wraps and is retired.
        case wrap
        /// The third life of a volume whose first two ended in crashes.
        case generations
        /// A tree of two levels: many nodes in flight.
        case manyNodes
        /// Every synchronisation is a checkpoint.
        case noJournal
    }

    @Test(arguments: Kind.allCases.flatMap { kind in (0..<seeds).map { (kind, firstSeed + $0) } })
    func keepsItsPromise(kind: Kind, seed: UInt64) throws {
        var run = try CrashRun(
            seed: seed, byteCount: 16 << 20,
            journalBytes: kind == .noJournal ? 0 : 2 << 20,
            compression: kind == .encoded ? .codec(.lz4, level: 1) : .inherited)
        run.profile.population = 14
        run.profile.largestWrite = 9 << 10
        run.profile.largestOffset = 40 << 10
        run.profile.largestExtendedAttribute = 5000
        var plan = CrashPlan()
        plan.exhaustiveWrites = 11
        switch kind {
        case .mixed: try run.record(operations: 60, synchronizeEvery: 5, closes: true)
        case .busyCheckpoints:
            run.operationsDuringCheckpoint = 3
            try run.record(operations: 48, synchronizeEvery: 4, closes: false)
        case .small:
            run.profile.largestWrite = 1800
            run.profile.largestOffset = 2000
            try run.record(operations: 60, synchronizeEvery: 3, closes: false)
        case .large:
            run.profile.largestWrite = 60 << 10
            run.profile.largestOffset = 200 << 10
            try run.record(operations: 40, synchronizeEvery: 6, closes: false)
        case .encoded:
            run.profile.largestWrite = 80 << 10
            run.profile.largestOffset = 160 << 10
            try run.record(operations: 60, synchronizeEvery: 5, closes: seed % 2 == 0)
        case .wrap:
            run.synchronizations = [.synchronize, .synchronize, .writeBack]
            try run.record(operations: 1200, synchronizeEvery: 1, closes: false)
            plan.exhaustiveWrites = 4
            plan.tornVersions = 1
            plan.randomSubsets = 8
            #expect(run.journal.bytesWritten > 2 * run.journal.ringBytes)
        case .generations:
            for life in 1...2 as ClosedRange<UInt64> {
                try run.record(operations: 45, synchronizeEvery: 7, closes: false)
                run = try CrashRun(continuing: run, seed: seed &* 31 &+ life)
            }
            try run.record(operations: 40, synchronizeEvery: 5, closes: false)
        case .manyNodes:
            run.profile.population = 400
            run.profile.largestWrite = 2500
            try run.record(operations: 700, synchronizeEvery: 140, closes: true)
            plan.tornVersions = 1
        case .noJournal:
            // There is nothing that a timer could write back.
            run.synchronizations = [.checkpoint, .synchronize]
            try run.record(operations: 40, synchronizeEvery: 5, closes: true)
        }
        let tally = run.enumerate(plan)
        #expect(tally.problem == nil, "\(kind), seed \(seed): \(tally.problem ?? "")")
        print(
            "distinct crash states: \(tally.distinctStates) (\(kind), seed \(seed); "
                + "\(tally.secondCrashes) second crashes)")
    }
}
