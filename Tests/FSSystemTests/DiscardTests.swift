/// Discards: what a crash may bring back is never discarded, what is in use neither, and images get
/// holes where nothing is.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct DiscardTests {
    /// On a device where discarded blocks are garbage at once.
    private func problem(rule: BrokenRules, seeds: Range<UInt64>, crashes: Int) throws -> String? {
        for seed in seeds {
            let run = try CrashRun(seed: 300 + seed, byteCount: 24 << 20)
            run.options.discards = true
            run.options.brokenRules = rule
            run.operationsDuringCheckpoint = 3
            do {
                try run.record(operations: 200, synchronizeEvery: 8, closes: seed % 2 == 0)
            } catch { return "\(error)" }
            guard run.device.counters.discards > 0 else { return "nothing was discarded" }
            var random = SeededRandom(seed: seed)
            for number in 0..<crashes {
                let event = random.integer(in: run.firstEvent...run.device.eventCount)
                let problem =
                    number % 4 == 0
                    ? run.problemAfterTwoCrashes(random: &random)
                    : run.problem(afterCrashAt: event, .anySubset, random: &random)
                if let problem { return "seed \(seed), event \(event): \(problem)" }
            }
        }
        return nil
    }

    @Test func nothingThatACrashBringsBack() throws {
        let found = try problem(
            rule: [], seeds: 0..<4,
            crashes: TestMachine.count("AEGISFS_TEST_CRASHES", default: 250) / 2)
        #expect(found == nil, "\(found ?? "")")
    }

    @Test func discardingTooEarlyIsCaught() throws {
        let found = try problem(rule: .discardAtRelease, seeds: 0..<8, crashes: 100)
        #expect(found != nil && found != "nothing was discarded")
    }

    /// Everything free becomes garbage while others write; nothing else does.
    @Test func trimsBesideWriters() throws {
        let device = SimulatedBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let session = RandomSession(
            seed: 5, profile: OperationProfile(), model: ReferenceFileSystem(),
            executor: FileSystemExecutor(volume.fileSystem))
        for _ in 0..<6 {
            try session.run(150)
            let trimmer = WorkerThread { _ = try? volume.trim() }
            try session.run(60)
            trimmer.join()
            try session.compareTrees()
        }
        let free = volume.fileSystem.statistics().freeBlocks
        #expect(try volume.trim() > (free - 200) << 12)
        try session.compareTrees()
        session.dropHandles()
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    @Test(.enabled(if: TestMachine.canMount)) func imagesFollowTheirContent() throws {
        try withVolume(size: "512M") { volume, folder in
            let mount = volume.directory.path
            func kept() throws -> Int {
                let line = try require(["stat", "-c", "%b", volume.target])
                return (Int(line.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0) / 2048
            }
            func write() throws {
                try require(["/bin/sh", "-c", "head -c 200M /dev/urandom > \(mount)/large"])
                try require(["/bin/sh", "-c", "head -c 1M /dev/urandom > \(folder.path)/small"])
                try require(["cp", folder.path + "/small", mount + "/small"])
                _ = try AegisCommand.require("sync", mount)
                #expect(try kept() > 195)
                try require(["rm", mount + "/large"])
            }
            // All along.
            try volume.mount(options: "discard,commit=1")
            try write()
            var megabytes = try kept()
            for _ in 0..<50 where megabytes > 40 {
                Thread.sleep(forTimeInterval: 0.2)
                megabytes = try kept()
            }
            #expect(megabytes <= 40)
            try volume.unmount()
            // An empty range, or one behind the end, is a mistake of the caller's.
            for range in [["--length", "0"], ["--offset", "2T"]] {
                let refused = try run(["fstrim"] + range + [mount])
                #expect(refused.exitCode != 0 && refused.errors.contains("Invalid argument"))
            }
            // By the verb and by fstrim(8) on a mount, and without one.
            for trim in [
                [try AegisCommand.requirePath(), "trim", mount], ["fstrim", mount],
            ] {
                try volume.mount()
                try write()
                try require(trim)
                #expect(try kept() <= 40, "\(trim)")
                try require(["cmp", folder.path + "/small", mount + "/small"])
                try volume.unmount()
            }
            try volume.mount()
            try write()
            try volume.unmount()
            let output = try AegisCommand.require("trim", volume.target, "--json")
            #expect(output.contains("trimmed_bytes"))
            let map = try AegisCommand.require("inspect", "space", volume.target)
            #expect(map.contains("mean_free_run_blocks") && map.contains("......"))
            let status = try AegisCommand.require("status", volume.target, "--json")
            #expect(status.contains("mean_run_bytes"))
            #expect(try kept() <= 40)
            #expect(try volume.check().exitCode == 0)
        }
    }
}
