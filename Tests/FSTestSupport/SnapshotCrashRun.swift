/// Power cuts while snapshots are made, deleted, cloned, rolled back and swept: after each, all heads and
/// snapshots together are a state that the promise allows, the check finds nothing, and nothing is
/// held that nobody has.
public import FSCore
internal import FSModules

public final class SnapshotCrashRun {
    public let device: SimulatedBlockDevice
    private let options: OpenOptions
    public private(set) var firstEvent = 0
    private var moments: [Moment] = []
    /// From which event on which moment was durable.
    private var durable: [(event: Int, moment: Int)] = []
    public private(set) var trace: [String] = []

    private final class Moment {
        let event: Int
        private let state: SnapshotState
        init(event: Int, state: SnapshotState) {
            self.event = event
            self.state = state
        }
        lazy var hashes = TreeHashes(
            heads: state.heads.mapValues { $0.view.treeHash.value },
            snapshots: state.snapshots.mapValues { $0.view.treeHash.value })
    }

    private struct TreeHashes: Equatable {
        var heads: [UInt64: UInt64]
        var snapshots: [[UInt8]: UInt64]
    }

    public init(
        seed: UInt64, steps: Int, options: OpenOptions, resizes: Bool = false
    ) throws {
        self.options = options
        device = SimulatedBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let session = try SnapshotSession(seed: seed, device: device, options: options)
        session.reopens = false
        session.resizes = resizes
        firstEvent = device.eventCount
        note(session.state)
        durable = [(firstEvent, 0)]
        session.whenChanged = { [unowned self] in note($0) }
        session.whenDurable = { [unowned self] in
            durable.append((device.eventCount, moments.count - 1))
        }
        defer { trace = session.trace }
        try session.run(steps)
    }

    private func note(_ state: SnapshotState) {
        moments.append(Moment(event: device.eventCount, state: state))
    }

    /// What is wrong with the state that a crash leaves; nil if nothing is.
    public func problem(random: inout SeededRandom) -> String? {
        let event = random.integer(in: firstEvent...device.eventCount)
        var crashed = device.crashed(
            after: event, random.pick([.anySubset, .nothing, .everything, .allTorn]),
            tornAt: random.pick([512, 4096]), random: &random)
        do {
            if random.chance(1, in: 4) {
                // A second one, somewhere in the recovery and the sweeping that follows it.
                let volume = try Volume.open(crashed, modules: .standard, options: options)
                _ = try volume.snapshotStore.sweep()
                let again = random.integer(in: 0...crashed.eventCount)
                crashed = crashed.crashed(
                    after: again, .anySubset, tornAt: 512, random: &random)
            }
            return try problem(with: crashed, event).map { "event \(event): \($0)" }
        } catch { return "event \(event): \(error)" }
    }

    private func problem(with crashed: SimulatedBlockDevice, _ event: Int) throws -> String? {
        let volume = try Volume.open(crashed, modules: .standard, options: options)
        var found = try hashes(of: volume)
        let first = durable.last { $0.event <= event }?.moment ?? 0
        let last = moments.firstIndex { $0.event > event } ?? moments.count - 1
        guard (first...max(first, last)).contains(where: { moments[$0].hashes == found }) else {
            return "trees of no moment from \(first) to \(last): \(found)"
        }
        if let problem = try checked(volume) { return problem }
        try volume.snapshotStore.sweep()
        if let problem = try checked(volume) { return "after sweeping: \(problem)" }
        let after = try hashes(of: volume)
        guard after == found else { return "sweeping has changed a tree" }
        found = after
        try volume.close()
        return try checkerProblem(crashed)
    }

    private func checked(_ volume: Volume) throws -> String? {
        let report = try Checker.check(volume)
        guard let finding = report.findings.first else { return nil }
        return "\(finding.id) \(finding.message)"
    }

    private func hashes(of volume: Volume) throws -> TreeHashes {
        let store = volume.snapshotStore
        var found = TreeHashes(heads: [:], snapshots: [:])
        for head in store.headIDs {
            found.heads[head.rawValue] = try volume.files(of: head)?.treeView().treeHash.value
        }
        for name in store.snapshotNames {
            found.snapshots[name] = try store.files(of: name).treeView().treeHash.value
        }
        return found
    }
}
