/// All short sequences of operations on a small tree, each with every way to make it durable, and
/// all crash states of each.
///
/// `AEGISFS_TEST_WORKLOADS` sets how many sequences of two operations are tried, which are all if it
/// is large enough, and a twentieth as many of other kinds; `AEGISFS_TEST_SEED` where the sample begins.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct ExhaustiveWorkloadTests {
    static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
    static let workloads = TestMachine.count("AEGISFS_TEST_WORKLOADS", default: 2400)
    /// Parts that may run side by side.
    static let parts = 8

    private static var plan: CrashPlan {
        var plan = CrashPlan()
        plan.exhaustiveWrites = 4
        plan.randomSubsets = 6
        plan.tornVersions = 1
        plan.secondCrashEvery = 40
        plan.reopenEvery = 20
        return plan
    }

    /// One operation: nothing is left out.
    @Test(arguments: [0, 2 << 20] as [UInt64]) func oneOperation(journalBytes: UInt64) throws {
        let rig = try WorkloadRig(journalBytes: journalBytes)
        rig.plan = Self.plan
        rig.plan.exhaustiveWrites = 7
        rig.plan.tornVersions = 4
        var campaign = Campaign(rig: rig, seed: Self.firstSeed)
        for operation in WorkloadAlphabet.possible(WorkloadAlphabet.model) {
            for sync in Self.durable(journalBytes) {
                try campaign.run([WorkloadStep(operation, sync)])
            }
        }
        campaign.finish("one operation, journal \(journalBytes)")
    }

    /// Two operations, the first with or without a synchronisation behind it.
    @Test(arguments: 0..<parts) func twoOperations(part: Int) throws {
        let sequences = Self.pairs
        let wanted = min(Self.workloads, sequences.count)
        var campaign = Campaign(rig: try WorkloadRig(), seed: Self.firstSeed &+ UInt64(part))
        campaign.rig.plan = Self.plan
        for index in stride(from: part, to: wanted, by: Self.parts) {
            // Spread over all of them, elsewhere with another seed.
            let place =
                (index * sequences.count / wanted + Int(Self.firstSeed % 1_000_003))
                % sequences.count
            try campaign.run(sequences[place])
        }
        campaign.finish("two operations, part \(part) of \(wanted) of \(sequences.count)")
    }

    /// A sample of three, with and without a journal.
    @Test(arguments: [0, 2 << 20] as [UInt64]) func threeOperations(journalBytes: UInt64) throws {
        var campaign = Campaign(
            rig: try WorkloadRig(journalBytes: journalBytes), seed: Self.firstSeed)
        campaign.rig.plan = Self.plan
        var random = SeededRandom(seed: Self.firstSeed &+ journalBytes)
        for _ in 0..<Self.workloads / 20 {
            var model = WorkloadAlphabet.model
            var steps: [WorkloadStep] = []
            for number in 1...3 {
                let operation = random.pick(WorkloadAlphabet.possible(model))
                _ = model.perform(operation)
                let syncs = Self.durable(journalBytes) + (number < 3 ? [.none, .none] : [])
                steps.append(WorkloadStep(operation, random.pick(syncs)))
            }
            try campaign.run(steps)
        }
        campaign.finish("three operations, journal \(journalBytes)")
    }

    /// The second operation in the middle of a checkpoint that begins after the first.
    @Test(arguments: [0, 2 << 20] as [UInt64]) func insideACheckpoint(
        journalBytes: UInt64
    ) throws {
        var campaign = Campaign(
            rig: try WorkloadRig(journalBytes: journalBytes), seed: Self.firstSeed)
        campaign.rig.plan = Self.plan
        var random = SeededRandom(seed: Self.firstSeed &+ journalBytes)
        for _ in 0..<Self.workloads / 20 {
            var model = WorkloadAlphabet.model
            let first = random.pick(WorkloadAlphabet.possible(model))
            _ = model.perform(first)
            try campaign.run(
                [WorkloadStep(first, .checkpoint)],
                inside: random.pick(WorkloadAlphabet.possible(model)))
        }
        campaign.finish("inside a checkpoint, journal \(journalBytes)")
    }

    /// The ways to synchronize that do something.
    private static func durable(_ journalBytes: UInt64) -> [WorkloadSync] {
        journalBytes == 0 ? [.checkpoint] : [.synchronize, .writeBack, .checkpoint]
    }

    private static let pairs: [[WorkloadStep]] = {
        var all: [[WorkloadStep]] = []
        for first in WorkloadAlphabet.possible(WorkloadAlphabet.model) {
            var model = WorkloadAlphabet.model
            _ = model.perform(first)
            for second in WorkloadAlphabet.possible(model) {
                for between in WorkloadSync.allCases {
                    for last in durable(1) {
                        all.append([WorkloadStep(first, between), WorkloadStep(second, last)])
                    }
                }
            }
        }
        return all
    }()

    /// Workloads on one volume, until the first that breaks the promise.
    private struct Campaign {
        let rig: WorkloadRig
        let seed: UInt64
        private var tally = CrashTally()
        private var count: UInt64 = 0

        init(rig: WorkloadRig, seed: UInt64) {
            self.rig = rig
            self.seed = seed
        }

        mutating func run(_ steps: [WorkloadStep], inside: FileOperation? = nil) throws {
            guard tally.problem == nil else { return }
            count += 1
            tally.add(try rig.run(steps, inside: inside, seed: seed &* 1_000_003 &+ count))
        }

        func finish(_ what: String) {
            #expect(tally.problem == nil, "\(what), seed \(seed): \(tally.problem ?? "")")
            print(
                "distinct crash states: \(tally.distinctStates) (\(what): \(count) workloads; "
                    + "\(tally.secondCrashes) second crashes)")
        }
    }
}
