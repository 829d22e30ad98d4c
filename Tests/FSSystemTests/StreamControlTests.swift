/// The rules of streams, each switched off in turn: what `StreamTests` asks for is not there then.
@testable internal import FSCore
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct StreamControlTests {
    private static func receiver(_ rule: BrokenRules) throws -> Volume {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = CrashRun.openOptions
        options.brokenRules = rule
        return try Volume.open(device, modules: .standard, options: options)
    }

    /// Whether both volumes have the same under a name.
    private static func isSame(_ name: [UInt8], _ a: Volume, _ b: Volume) throws -> Bool {
        let from = try a.snapshotStore.files(of: name).treeView()
        let to = try b.snapshotStore.files(of: name).treeView()
        return to.firstDifference(fromExpected: from) == nil
    }

    /// A receiver that does not look at sums takes over what is not what was sent.
    @Test(arguments: [false, true]) func unverifiedRecordsAreCaught(isBroken: Bool) throws {
        let source = try StreamTests.pair(5)
        let bytes = try StreamTests.stream(source, StreamTests.two)
        var random = SeededRandom(seed: 5)
        for _ in 0..<60 {
            var damaged = bytes
            damaged[random.integer(in: 0...bytes.count - 1)] ^= UInt8(1 << random.below(8))
            let target = try Self.receiver(isBroken ? .streamUnverified : [])
            guard StreamTests.failure(of: damaged, into: target) == nil else { continue }
            #expect(isBroken, "a bit was not noticed")
            // The name may be what was changed.
            let name = try #require(target.snapshotStore.snapshotNames.first)
            let isSame = try name == StreamTests.two && Self.isSame(name, source, target)
            if !isSame { return }
        }
        #expect(!isBroken, "records without verified sums were not caught")
    }

    /// A receiver that takes any base makes something else of what changed since another.
    @Test(arguments: [false, true]) func theWrongBaseIsCaught(isBroken: Bool) throws {
        var caught = false
        for seed in 1...6 as ClosedRange<UInt64> {
            let source = try StreamTests.pair(seed)
            let target = try Self.receiver(isBroken ? .streamUponAnyBase : [])
            let other = try StreamTests.pair(seed + 100)
            let foreign = try StreamTests.stream(other, StreamTests.one)
            try StreamTests.receive(foreign, into: target, as: Array("foreign".utf8))
            let upon = try StreamTests.stream(source, StreamTests.two, from: StreamTests.one)
            let failure = StreamTests.failure(of: upon, into: target)
            if case .wrongBase = failure { continue }
            caught = true
            #expect(isBroken, "\(String(describing: failure))")
            guard failure == nil else { continue }
            #expect(try !Self.isSame(StreamTests.two, source, target))
        }
        #expect(caught == isBroken)
    }
}
