/// The rules of the snapshots, each switched off in turn.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

/// Each rule of the snapshots, switched off, is noticed.
@Suite struct SnapshotControlTests {
    @Test(arguments: [
        ("epoch used twice", BrokenRules.epochReused),
        ("deadlist as a set", .deadlistIsSet),
        ("global latest snapshot", .globalLatestSnapshot),
        ("freed down to the nearest visible ancestor", .freesToVisibleAncestor),
    ])
    func isCaught(name: String, rule: BrokenRules) throws {
        for seed in 1...20 as ClosedRange<UInt64> {
            let device = MemoryBlockDevice(byteCount: 128 << 20)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            var options = CrashRun.openOptions
            options.brokenRules = rule
            do {
                let session = try SnapshotSession(seed: seed, device: device, options: options)
                try session.run(250)
                try session.finish()
            } catch { return }
        }
        Issue.record("'\(name)' was not caught")
    }

    /// Rule 6 for encoded extents: what is left of one that was cut is born anew.
    @Test func partsThatKeepTheirBirthAreCaught() throws {
        for seed in 101...120 as ClosedRange<UInt64> {
            let device = MemoryBlockDevice(byteCount: 256 << 20)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            var options = CrashRun.openOptions
            options.compression = .codec(.lz4, level: 1)
            options.brokenRules = .partsKeepTheirBirth
            do {
                let session = try SnapshotSession(seed: seed, device: device, options: options)
                try session.run(250)
                try session.finish()
            } catch { return }
        }
        Issue.record("parts that keep their birth were not caught")
    }

    @Test func sweepOfUndurableEntriesIsCaught() throws {
        for seed in 1...20 as ClosedRange<UInt64> {
            var options = CrashRun.openOptions
            options.brokenRules = .sweepsUndurable
            guard let run = try? SnapshotCrashRun(seed: seed, steps: 60, options: options) else {
                return
            }
            var random = SeededRandom(seed: seed)
            for _ in 0..<60 where run.problem(random: &random) != nil { return }
        }
        Issue.record("the sweep of undurable entries was not caught")
    }
}
