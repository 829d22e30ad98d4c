/// Proof that the crash rig can fail: each rule of the design is switched off in turn, and a crash
/// state that breaks the promise must turn up. A control that is no longer caught says that either
/// the rig or the rule has lost its meaning.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite(.serialized) struct NegativeControlTests {
    /// Rules whose breach shows after one crash, or after a second one during recovery.
    @Test(arguments: [
        ("superblock before the tree", BrokenRules.superblockBeforeTree, 1),
        ("bit set at allocation", .bitAtAllocation, 1),
        ("free in the frozen bitmap", .freeInFrozenBitmap, 1),
        ("re-use before the checkpoint", .reuseBeforeCheckpoint, 1),
        ("sequence re-used after recovery", .sequenceReusedAfterRecovery, 2),
        ("record block rewritten", .recordBlockRewritten, 1),
        ("counts of shared blocks skipped", .sharesSkipped, 1),
    ])
    func isCaught(name: String, rule: BrokenRules, crashes: Int) throws {
        for seed in 0..<12 as Range<UInt64> {
            let run = try CrashRun(seed: 900 + seed, byteCount: 24 << 20)
            run.options.brokenRules = rule
            run.operationsDuringCheckpoint = 4
            do {
                try run.record(operations: 160, synchronizeEvery: 9, closes: false)
            } catch {
                // The breach may already show while nothing has crashed.
                return
            }
            var random = SeededRandom(seed: seed)
            for _ in 0..<150 {
                let problem =
                    crashes == 2
                    ? run.problemAfterTwoCrashes(random: &random)
                    : run.problem(
                        afterCrashAt: random.integer(
                            in: run.firstEvent...run.device.eventCount), .anySubset,
                        random: &random)
                if problem != nil { return }
            }
        }
        Issue.record("'\(name)' was not caught")
    }

    /// A reference too few shows in a check, without any crash.
    @Test func partsThatAreNotReferencedAreCaught() throws {
        for isBroken in [false, true] {
            let run = try CrashRun(seed: 7, compression: .standard)
            run.profile.largestWrite = 200 << 10
            if isBroken { run.options.brokenRules = .partsNotReferenced }
            var isCaught = false
            do {
                try run.record(operations: 400, synchronizeEvery: 20, closes: true)
                isCaught = try checkerProblem(run.device) != nil
            } catch { isCaught = true }
            #expect(isCaught == isBroken)
        }
    }

    /// The same rules, by the enumeration of all crash states of short runs.
    @Test(arguments: [
        ("superblock before the tree", BrokenRules.superblockBeforeTree),
        ("bit set at allocation", .bitAtAllocation),
        ("free in the frozen bitmap", .freeInFrozenBitmap),
        ("re-use before the checkpoint", .reuseBeforeCheckpoint),
        ("sequence re-used after recovery", .sequenceReusedAfterRecovery),
        ("record block rewritten", .recordBlockRewritten),
    ])
    func isCaughtByEnumeration(name: String, rule: BrokenRules) throws {
        var plan = CrashPlan()
        plan.exhaustiveWrites = 6
        plan.tornVersions = 2
        plan.secondCrashEvery = 2
        for seed in 0..<12 as Range<UInt64> {
            let run = try CrashRun(seed: 900 + seed, byteCount: 24 << 20)
            run.options.brokenRules = rule
            run.operationsDuringCheckpoint = 4
            do {
                try run.record(operations: 160, synchronizeEvery: 9, closes: false)
            } catch {
                // The breach may already show while nothing has crashed.
                return
            }
            if run.enumerate(plan).problem != nil { return }
        }
        Issue.record("'\(name)' was not caught")
    }

    /// And by workloads of two operations, those that two operations can show.
    @Test(arguments: [
        ("superblock before the tree", BrokenRules.superblockBeforeTree),
        ("bit set at allocation", .bitAtAllocation),
        ("re-use before the checkpoint", .reuseBeforeCheckpoint),
        ("record block rewritten", .recordBlockRewritten),
    ])
    func isCaughtByWorkloads(name: String, rule: BrokenRules) throws {
        let rig = try WorkloadRig()
        rig.options.brokenRules = rule
        let operations = WorkloadAlphabet.possible(WorkloadAlphabet.model)
        var random = SeededRandom(seed: 1)
        for number in 0..<400 as Range<UInt64> {
            let steps = [
                WorkloadStep(random.pick(operations), random.pick([.none, .synchronize])),
                WorkloadStep(random.pick(operations), random.pick([.synchronize, .checkpoint])),
            ]
            var model = WorkloadAlphabet.model
            _ = model.perform(steps[0].operation)
            guard case .success = model.perform(steps[1].operation) else { continue }
            do {
                if try rig.run(steps, seed: number).problem != nil { return }
            } catch { return }
        }
        Issue.record("'\(name)' was not caught")
    }

    /// Flushes that do nothing, all of them or every other one.
    @Test(arguments: [1, 2, 3] as [UInt64]) func enumerationNoticesDroppedFlushes(
        which: UInt64
    ) throws {
        let run = try CrashRun(seed: 11, byteCount: 24 << 20)
        run.device.dropFlushes { number in which == 3 || number % 2 == which % 2 }
        try run.record(operations: 60, synchronizeEvery: 6, closes: false)
        #expect(run.enumerate(CrashPlan()).problem != nil)
    }

    /// The control of the controls: with all rules on, the same search finds nothing.
    @Test func nothingIsCaughtOtherwise() throws {
        for seed in 0..<4 as Range<UInt64> {
            let run = try CrashRun(seed: 900 + seed, byteCount: 24 << 20)
            run.operationsDuringCheckpoint = 4
            try run.record(operations: 160, synchronizeEvery: 9, closes: false)
            var random = SeededRandom(seed: seed)
            for number in 0..<150 {
                let event = random.integer(in: run.firstEvent...run.device.eventCount)
                let problem =
                    number % 3 == 0
                    ? run.problemAfterTwoCrashes(random: &random)
                    : run.problem(afterCrashAt: event, .anySubset, random: &random)
                #expect(problem == nil, "seed \(seed), event \(event): \(problem ?? "")")
            }
        }
    }

    /// Blocks that are released while they are copied, by runs that shrink and grow.
    @Test func movesOfReleasedBlocksAreCaught() throws {
        var random = SeededRandom(seed: 1)
        for seed in 0..<20 as Range<UInt64> {
            let run = try CrashRun(seed: 700 + seed, byteCount: 48 << 20)
            run.options.brokenRules = .releasedBlocksMoved
            run.operationsDuringCheckpoint = 6
            run.sizes = [.minimum, .more(3 << 20), .bytes(48 << 20)]
            run.resizeEvery = 15
            // The breach may already show while nothing has crashed.
            guard (try? run.record(operations: 240, synchronizeEvery: 7, closes: true)) != nil
            else { return }
            if run.problem(afterCrashAt: run.device.eventCount, .everything, random: &random) != nil
            {
                return
            }
        }
        Issue.record("not caught")
    }

    /// A volume that has grown again, before its blocks have come home, is filled up.
    @Test(arguments: [false, true]) func numbersOfMovedBlocksAreTaken(isBroken: Bool) throws {
        var options = CrashRun.openOptions
        if isBroken { options.brokenRules = .movedNumbersReused }
        let device = MemoryBlockDevice(byteCount: 48 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var random = SeededRandom(seed: 1)
        let volume = try Volume.open(device, modules: .standard, options: options)
        let fs = volume.fileSystem
        func write(_ name: String, _ content: [UInt8]) throws -> InodeNumber {
            let inode = try Array(name.utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                    .inode
            }
            _ = try content.withView { try fs.write(inode, at: 0, $0) }
            return inode
        }
        var files: [(InodeNumber, [UInt8])] = []
        for index in 0..<18 {
            let content = random.bytes(1 << 20)
            files.append((try write("file\(index)", content), content))
        }
        _ = try volume.resize(.minimum)
        _ = try volume.resize(.bytes(48 << 20), isCancelled: { true })
        for index in 0..<200 {
            do { _ = try write("more\(index)", random.bytes(1 << 20)) } catch { break }
        }
        let isIntact = files.allSatisfy { inode, content in
            let buffer = ByteBuffer(count: content.count)
            let count = try? fs.read(inode, at: 0, into: buffer.bytes)
            return count == content.count && buffer.view.toArray() == content
        }
        try? volume.close()
        let finds = try checkerProblem(device) != nil
        #expect((isIntact && !finds) == !isBroken)
    }

    /// Nodes that replay needs first, and data that lies, since the last checkpoint, where it looks
    /// for room for them.
    @Test(arguments: [false, true]) func noClaimingPass(isBroken: Bool) throws {
        var options = CrashRun.openOptions
        if isBroken { options.brokenRules = .noClaimingPass }
        let device = SimulatedBlockDevice(byteCount: 16 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: options)
        let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
        var random = SeededRandom(seed: 1)
        let content = random.bytes(7 << 20)
        let large = try Array("large".utf8).withView {
            try volume.fileSystem.create($0, in: .root, file).inode
        }
        func create(_ names: Range<Int>) throws {
            for index in names {
                _ = try Array("file\(index)".utf8).withView {
                    try volume.fileSystem.create($0, in: .root, file)
                }
            }
        }
        // Old nodes leave room at the front; the allocator has moved on.
        try create(0..<1500)
        try volume.checkpoint()
        for index in 0..<1500 {
            try Array("file\(index)".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        }
        try volume.checkpoint()
        try volume.checkpoint()
        try create(0..<600)
        // In pieces that fit between the nodes.
        let piece = 32 << 10
        for offset in stride(from: 0, to: content.count, by: piece) {
            _ = try Array(content[offset..<offset + piece]).withView {
                try volume.fileSystem.write(large, at: UInt64(offset), $0)
            }
        }
        try volume.synchronize()
        let crashed = device.crashed(after: device.eventCount, .nothing, random: &random)
        func isIntact() throws -> Bool {
            let recovered = try Volume.open(crashed, modules: .standard, options: options)
            let buffer = ByteBuffer(count: content.count)
            let count = try recovered.fileSystem.read(large, at: 0, into: buffer.bytes)
            try recovered.close()
            return try count == content.count && buffer.view.toArray() == content
                && checkerProblem(crashed) == nil
        }
        let result = (try? isIntact()) ?? false
        #expect(result == !isBroken)
    }

    /// Both copies of the newest superblock lost: the older one would be a silent step back.
    @Test(arguments: [false, true]) func fallBackToTheOlderSuperblock(isBroken: Bool) throws {
        var options = CrashRun.openOptions
        let device = SimulatedBlockDevice(byteCount: 24 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: options)
        let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
        for index in 0..<20 {
            _ = try Array("file\(index)".utf8).withView {
                try volume.fileSystem.create($0, in: .root, file)
            }
            try volume.checkpoint()
        }
        try volume.close()
        let newest = try SuperblockStore.newest(device, modules: .standard)
        let places = DiskLayout.superblockPlaces(
            pair: Int(newest.sequence.rawValue % 2), blockCount: newest.blockCount)
        for block in [places.front, places.end] {
            device.overwrite([UInt8](repeating: 0xEE, count: 4096), at: block << 12)
        }
        if isBroken { options.brokenRules = .fallBackToOlderSuperblock }
        func isRefused() -> Bool {
            do throws(FSError) {
                try Volume.open(device.copy(), modules: .standard, options: options).close()
                return false
            } catch .superblockLost { return true } catch { return false }
        }
        #expect(isRefused() == !isBroken)
        guard !isBroken else { return }
        // For reading it opens, and the check says what is wrong.
        options.readOnly = true
        let old = try Volume.open(device, modules: .standard, options: options)
        try old.close()
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.contains { $0.issue == .superblockLost })
    }
}
