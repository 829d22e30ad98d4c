/// Power loss at any moment: the volume opens by itself, to a state that the promise allows, and
/// the checker finds nothing. Negative controls show that the rig can fail.
///
/// `AEGISFS_TEST_CRASHES` sets how many crashes each seed tries, `AEGISFS_TEST_SEED` where the
/// seeds begin.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite(.serialized) struct CrashTests {
    static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
    static let crashes = TestMachine.count("AEGISFS_TEST_CRASHES", default: 250)

    /// Moments of all kinds: between any two events, with nothing, everything, a torn last write,
    /// or any subset of what was under way.
    @Test(arguments: (0..<8).map { firstSeed + $0 })
    func recoversFromPowerLoss(seed: UInt64) throws {
        let run = try CrashRun(seed: seed)
        try run.record(operations: 500, synchronizeEvery: 20, closes: seed % 2 == 0)
        let problems = findProblems(in: run, crashes: Self.crashes, stopsAtFirst: true)
        #expect(problems.isEmpty, "\(problems.first ?? "")")
    }

    /// The same with encoded extents.
    @Test(arguments: (0..<4).map { firstSeed + $0 })
    func recoversCompressedFiles(seed: UInt64) throws {
        let run = try CrashRun(
            seed: seed, compression: seed % 2 == 0 ? .standard : .codec(.lz4, level: 1))
        run.profile.largestWrite = 200 << 10
        try run.record(operations: 500, synchronizeEvery: 20, closes: seed % 4 < 2)
        let problems = findProblems(in: run, crashes: Self.crashes, stopsAtFirst: true)
        #expect(problems.isEmpty, "\(problems.first ?? "")")
    }

    /// The same with a tree of several levels, of which the cache holds a part.
    @Test(arguments: (0..<2).map { firstSeed + $0 })
    func recoversALargerTree(seed: UInt64) throws {
        let run = try CrashRun(seed: seed, byteCount: 256 << 20)
        run.profile.population = 2000
        run.profile.largestExtendedAttribute = 3000
        run.options.cacheBytes = 1 << 20
        try run.record(operations: 8000, synchronizeEvery: 400, closes: false)
        let problems = findProblems(in: run, crashes: Self.crashes / 6, stopsAtFirst: true)
        #expect(problems.isEmpty, "\(problems.first ?? "")")
    }

    /// Every single moment of one short run, so that no event is missed by chance.
    @Test func recoversAtEveryEvent() throws {
        let run = try CrashRun(seed: Self.firstSeed, byteCount: 16 << 20)
        try run.record(operations: 24, synchronizeEvery: 6, closes: true)
        var random = SeededRandom(seed: Self.firstSeed)
        for event in run.firstEvent...run.device.eventCount {
            for inFlight in [
                SimulatedBlockDevice.InFlight.nothing, .everything, .lastTorn, .allTorn,
            ] {
                let problem = run.problem(afterCrashAt: event, inFlight, random: &random)
                #expect(problem == nil, "event \(event), \(inFlight): \(problem ?? "")")
            }
        }
    }

    /// A crash while the volume recovers from a crash.
    @Test(arguments: (0..<3).map { firstSeed + $0 })
    func recoversTwice(seed: UInt64) throws {
        let run = try CrashRun(seed: seed)
        try run.record(operations: 120, synchronizeEvery: 15, closes: false)
        var random = SeededRandom(seed: seed)
        for _ in 0..<20 {
            let event = random.integer(in: run.firstEvent...run.device.eventCount)
            let first = run.device.crashed(after: event, .anySubset, random: &random)
            let allowed = try treeAfterOpening(first.copy())
            let begin = first.eventCount
            let volume = try Volume.open(first, modules: .standard, options: CrashRun.openOptions)
            try volume.close()
            for _ in 0..<5 {
                let again = random.integer(in: begin...first.eventCount)
                let second = first.crashed(after: again, .anySubset, random: &random)
                let difference = try treeAfterOpening(second).firstDifference(
                    fromExpected: allowed)
                #expect(difference == nil, "seed \(seed), event \(event), then \(again)")
                #expect(try checkerProblem(second) == nil)
            }
        }
    }

    /// After a recovery the volume is as good as any: it takes operations, and keeps them.
    @Test(arguments: (0..<3).map { firstSeed + $0 })
    func goesOnAfterRecovery(seed: UInt64) throws {
        let run = try CrashRun(seed: seed)
        try run.record(operations: 150, synchronizeEvery: 25, closes: false)
        var random = SeededRandom(seed: seed)
        for _ in 0..<8 {
            let event = random.integer(in: run.firstEvent...run.device.eventCount)
            let device = run.device.crashed(after: event, .anySubset, random: &random)
            var expected = try treeAfterOpening(device.copy())
            let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
            let executor = FileSystemExecutor(volume.fileSystem)
            for path in expected.entries.keys.sorted().reversed() where path != .root {
                let isDirectory = expected.entries[path]!.attributes.mode >> 12 == 4
                let removal = isDirectory ? FileOperation.removeDirectory(path) : .unlink(path)
                #expect(try executor.perform(removal) == .done)
            }
            let session = RandomSession(
                seed: seed, model: Self.emptied(&expected), executor: executor)
            try session.run(200)
            session.dropHandles()
            executor.dropHandles()
            try session.compareTrees()
            try volume.close()
            #expect(try checkerProblem(device) == nil)
        }
    }

    /// A model of a root directory that was emptied.
    private static func emptied(_ view: inout TreeView) -> ReferenceFileSystem {
        let root = view.entries[.root]!.attributes
        return ReferenceFileSystem(
            rootMode: root.mode & ModeBits.permissions, rootUser: root.user, rootGroup: root.group)
    }

    // MARK: Superblocks

    enum SuperblockDamage: CaseIterable { case zeroed, garbage, oneBit, older }

    /// Each of the four copies lost in turn, in each way: the volume opens to the same state, and
    /// after the next checkpoints the copy is whole again.
    @Test(arguments: SuperblockDamage.allCases) func survivesLossOfAnySuperblock(
        _ damage: SuperblockDamage
    ) throws {
        let run = try CrashRun(seed: 5, byteCount: 32 << 20)
        try run.record(operations: 100, synchronizeEvery: 10, closes: true)
        let expected = try treeAfterOpening(run.device.copy())
        let blocks = run.device.byteCount / 4096
        for pair in 0...1 {
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: blocks)
            for block in [places.front, places.end] {
                let device = run.device.copy()
                var random = SeededRandom(seed: block)
                var bytes = device.bytes(at: block * 4096, count: 4096)
                switch damage {
                case .zeroed: bytes = [UInt8](repeating: 0, count: 4096)
                case .garbage: bytes = random.bytes(4096)
                case .oneBit: bytes[random.below(512)] ^= 1 << UInt8(random.below(8))
                case .older:
                    // The other pair's copy, whole and right, in a place where it does not belong.
                    let other = DiskLayout.superblockPlaces(pair: 1 - pair, blockCount: blocks)
                    bytes = device.bytes(at: other.front * 4096, count: 4096)
                }
                device.overwrite(bytes, at: block * 4096)
                let difference = try treeAfterOpening(device).firstDifference(
                    fromExpected: expected)
                #expect(difference == nil, "block \(block)")
                let volume = try Volume.open(
                    device, modules: .standard, options: CrashRun.openOptions)
                try volume.checkpoint()
                try volume.close()
                #expect(try checkerProblem(device) == nil, "block \(block)")
            }
        }
    }

    // MARK: Wrong bytes

    /// Writes that go nowhere, elsewhere or wrong: what is read later is right or an error, never
    /// something else.
    @Test func neverHandsOutWrongBytes() throws {
        var refusals = 0
        for seed in (0..<40).map({ Self.firstSeed + $0 }) {
            let device = SimulatedBlockDevice(byteCount: 64 << 20)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            injectWrongWrites(into: device, seed: seed)
            let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
            let session = RandomSession(
                seed: seed, executor: FileSystemExecutor(volume.fileSystem))
            session.compareEvery = .max
            var model = session.model
            session.betweenOperations = { number in
                model = session.model
                if number % 50 == 0 { try volume.checkpoint() }
            }
            do {
                try session.run(400)
            } catch let divergence as Divergence {
                // An error may come in the middle; a wrong answer may not.
                guard case .failed? = divergence.outcome else { throw divergence }
                refusals += 1
            } catch is FSError {
                refusals += 1
            }
            session.betweenOperations = nil
            try? volume.close()
            refusals += try verifyContents(of: device, model, seed: seed)
        }
        #expect(refusals > 0, "the faults did not meet what was read")
    }

    private func injectWrongWrites(into device: SimulatedBlockDevice, seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<4 {
            let effect: SimulatedBlockDevice.Fault.Effect = random.pick([
                .loseWrite, .misdirectWrite(blocks: UInt64(1 + random.below(2000))),
                .flipBit(random.below(1 << 20)),
            ])
            device.inject(.init(.write, effect, after: 5 + random.below(300)))
        }
    }

    /// Reads every file that the model has and the volume still shows in the same size; returns
    /// how many reads, or attempts to get so far, were refused.
    private func verifyContents(
        of device: SimulatedBlockDevice, _ model: ReferenceFileSystem, seed: UInt64
    ) throws -> Int {
        var refusals = 0
        guard
            let volume = try? Volume.open(
                device, modules: .standard, options: CrashRun.openOptions)
        else { return 1 }
        var model = model
        let executor = FileSystemExecutor(volume.fileSystem)
        for (path, entry) in model.view.entries where entry.content != nil {
            guard case .attributes(let attributes) = try executor.perform(.stat(.path(path))),
                attributes.size == entry.attributes.size
            else {
                refusals += 1
                continue
            }
            for offset in stride(from: 0, to: attributes.size, by: 65536) {
                let read = FileOperation.read(.path(path), at: offset, count: 65536)
                guard case .bytes(let bytes) = try executor.perform(read) else {
                    refusals += 1
                    continue
                }
                let problem = model.perform(read).mismatch(with: .bytes(bytes))
                #expect(problem == nil, "seed \(seed), \(path) at \(offset): \(problem ?? "")")
            }
        }
        try? volume.close()
        return refusals
    }

    /// A device that fails: the operation or the next synchronisation says so, later ones do not
    /// claim success, and what was durable before is still there.
    @Test(arguments: [SimulatedBlockDevice.Fault.Call.write, .flush])
    func reportsDeviceErrors(_ call: SimulatedBlockDevice.Fault.Call) throws {
        for count in 1...12 {
            let device = SimulatedBlockDevice(byteCount: 32 << 20)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            let volume = try Volume.open(
                device, modules: .standard, options: CrashRun.openOptions)
            let session = RandomSession(
                seed: UInt64(count), executor: FileSystemExecutor(volume.fileSystem))
            try session.run(40)
            try volume.checkpoint()
            var (durable, attempted) = (session.model.view, session.model.view)
            device.inject(
                SimulatedBlockDevice.Fault(call, .fail, after: count, isSticky: true))
            var isReported = false
            for _ in 0..<count where !isReported {
                do {
                    try session.run(10)
                    attempted = session.model.view
                    try volume.checkpoint()
                    durable = attempted
                } catch let divergence as Divergence {
                    guard case .failed? = divergence.outcome else { throw divergence }
                    isReported = true
                } catch is FSError {
                    isReported = true
                }
            }
            #expect(isReported, "\(call) \(count)")
            #expect(throws: FSError.self, "\(call) \(count): claimed success later") {
                try volume.checkpoint()
            }
            try? volume.close()
            device.clearFaults()
            let tree = try treeAfterOpening(device)
            let isOld = tree.firstDifference(fromExpected: durable) == nil
            let isNew = tree.firstDifference(fromExpected: attempted) == nil
            #expect(isOld || isNew, "\(call) \(count)")
            #expect(try checkerProblem(device) == nil, "\(call) \(count)")
        }
    }

    // MARK: Negative controls

    /// What a lying disk leaves must be noticed: flushes that do nothing at all, only those before
    /// the superblocks, only those after them.
    @Test(arguments: [1, 2, 3] as [UInt64]) func noticesDroppedFlushes(which: UInt64) throws {
        let run = try CrashRun(seed: 11)
        run.device.dropFlushes { number in which == 3 || number % 2 == which % 2 }
        try run.record(operations: 200, synchronizeEvery: 10, closes: false)
        let problems = findProblems(in: run, crashes: 300, stopsAtFirst: true)
        #expect(!problems.isEmpty, "no crash state was wrong although flushes were dropped")
    }

    // MARK: Helpers

    private func findProblems(
        in run: CrashRun, crashes: Int, stopsAtFirst: Bool
    ) -> [String] {
        var random = SeededRandom(seed: run.seed ^ 0x5EED)
        var problems: [String] = []
        for number in 0..<crashes {
            let event = random.integer(in: run.firstEvent...run.device.eventCount)
            let inFlight: SimulatedBlockDevice.InFlight = random.weighted([
                (1, .nothing), (1, .everything), (2, .lastTorn), (1, .allTorn), (6, .anySubset),
            ])
            if let problem = run.problem(afterCrashAt: event, inFlight, random: &random) {
                problems.append(
                    "seed \(run.seed), crash \(number) after event \(event), \(inFlight): "
                        + problem)
                if stopsAtFirst { break }
            }
        }
        return problems
    }

    private func treeAfterOpening(_ device: SimulatedBlockDevice) throws -> TreeView {
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let view = try volume.fileSystem.treeView()
        try volume.close()
        return view
    }
}
