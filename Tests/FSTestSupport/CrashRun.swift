/// Random operations on a volume over a simulated device, and the question after every crash: is
/// the recovered tree one that the promise allows?
///
/// Allowed is the model's tree after the last operation that was durable when the crash came, or
/// after any later one that had begun: prefix consistency with the last synchronisation as floor.
/// Without a journal that is the last checkpoint, or one that was under way.
public import FSCore
internal import FSModules

public final class CrashRun {
    /// The state after an operation.
    struct Moment {
        /// Events of the device when the operation was over.
        var event: Int
        var model: ReferenceFileSystem
    }
    /// Operations up to `operation` are durable from `event` on.
    struct Floor {
        var event: Int
        var operation: Int
    }

    public let device: SimulatedBlockDevice
    public let seed: UInt64
    public var profile: OperationProfile
    public var options = CrashRun.openOptions
    /// By number of operation; 0 is the volume as it was first opened.
    var moments: [Moment] = []
    var floors: [Floor] = []
    /// Operations that run in the middle of each checkpoint, between its freeze and its writes.
    public var operationsDuringCheckpoint = 0
    /// Where the recording begins: the volume as it was first opened.
    public private(set) var firstEvent = 0

    public init(seed: UInt64, byteCount: UInt64 = 64 << 20) throws {
        self.seed = seed
        profile = OperationProfile()
        profile.largestWrite = 64 << 10
        profile.largestOffset = 1 << 20
        device = SimulatedBlockDevice(byteCount: byteCount)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
    }

    public static var openOptions: OpenOptions {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return options
    }

    /// Runs operations with a synchronisation now and then; the volume is left as if the power
    /// had gone, or closed.
    public func record(operations: Int, synchronizeEvery interval: Int, closes: Bool) throws {
        let inside = CheckpointOperations()
        var options = options
        if operationsDuringCheckpoint > 0 { options.duringCheckpoint = { inside.run() } }
        let volume = try Volume.open(device, modules: .standard, options: options)
        firstEvent = device.eventCount
        let executor = FileSystemExecutor(volume.fileSystem)
        let session = RandomSession(seed: seed, profile: profile, executor: executor)
        session.compareEvery = operations
        moments = [Moment(event: firstEvent, model: session.model)]
        floors = [Floor(event: firstEvent, operation: 0)]
        func synchronized(_ operation: Int) {
            floors.append(Floor(event: device.eventCount, operation: operation))
        }
        inside.body = { [unowned self] in
            inside.frozen = moments.count - 1
            try session.run(operationsDuringCheckpoint)
        }
        session.betweenOperations = { [unowned self] number in
            moments.append(Moment(event: device.eventCount, model: session.model))
            let current = moments.count - 1
            if case .synchronize? = session.lastOperation { synchronized(current) }
            guard !inside.isRunning, number % interval == 0 else { return }
            switch (number / interval) % 4 {
            case 0:
                inside.frozen = current
                try volume.checkpoint()
                synchronized(inside.frozen)
            case 2:
                try volume.writeBack()
                synchronized(current)
            default:
                try volume.synchronize()
                synchronized(current)
            }
            if let failure = inside.failure { throw failure }
        }
        try session.run(operations)
        session.betweenOperations = nil
        executor.dropHandles()
        session.dropHandles()
        if closes {
            inside.body = nil
            try volume.close()
            synchronized(moments.count - 1)
        }
    }

    /// What runs in the middle of a checkpoint.
    private final class CheckpointOperations: @unchecked Sendable {
        var body: (() throws -> Void)?
        var isRunning = false
        var frozen = 0
        var failure: (any Error)?
        func run() {
            guard let body, !isRunning else { return }
            isRunning = true
            defer { isRunning = false }
            do { try body() } catch { failure = error }
        }
    }

    /// Why the state after a crash breaks the promise; nil if it keeps it. `event` is how many
    /// events had happened.
    public func problem(
        afterCrashAt event: Int, _ inFlight: SimulatedBlockDevice.InFlight,
        random: inout SeededRandom
    ) -> String? {
        let crashed = device.crashed(
            after: event, inFlight, tornAt: random.pick([512, 4096]), random: &random)
        return problem(with: crashed, allowed(atEvent: event))
    }

    /// The same after a second crash, at any moment of the recovery from the first.
    public func problemAfterTwoCrashes(random: inout SeededRandom) -> String? {
        let event = random.integer(in: firstEvent...device.eventCount)
        let first = device.crashed(after: event, .anySubset, random: &random)
        do {
            let volume = try Volume.open(first, modules: .standard, options: options)
            if random.chance(1, in: 2) { try volume.close() }
        } catch { return "event \(event): \(error)" }
        let again = random.integer(in: 0...first.eventCount)
        let second = first.crashed(
            after: again, random.pick([.anySubset, .lastTorn, .allTorn]), tornAt: 512,
            random: &random)
        return problem(with: second, allowed(atEvent: event)).map {
            "event \(event), then \(again): \($0)"
        }
    }

    private func problem(with crashed: SimulatedBlockDevice, _ candidates: [Moment]) -> String? {
        do {
            let volume = try Volume.open(crashed, modules: .standard, options: options)
            let view = try volume.fileSystem.treeView()
            if let difference = difference(of: view, from: candidates) {
                return "the tree is none of the \(candidates.count) allowed: \(difference)"
            }
            try volume.close()
            return try checkerProblem(crashed)
        } catch {
            return "\(error)"
        }
    }

    /// Whether `view` is none of the candidates, and how it differs from the first of them.
    private func difference(of view: TreeView, from candidates: [Moment]) -> String? {
        var first: String?
        for moment in candidates {
            guard let difference = view.firstDifference(fromExpected: moment.model.view) else {
                return nil
            }
            first = first ?? difference
        }
        return first ?? "no state is allowed"
    }

    /// The states that may be found, the likeliest first: what was durable, and what a
    /// synchronisation that was under way makes durable; then everything between.
    private func allowed(atEvent event: Int) -> [Moment] {
        let floor = floors.filter { $0.event <= event }.map(\.operation).max()!
        let ceiling = moments.firstIndex { $0.event > event } ?? moments.count - 1
        let range = moments[floor...max(floor, ceiling)]
        return [range.first!, range.last!] + range.dropFirst().dropLast()
    }
}

/// The findings of a full check, in words; nil if there are none.
public func checkerProblem(_ device: any BlockDevice) throws(FSError) -> String? {
    let report = try Checker.check(device, modules: .standard, progress: { _ in })
    guard !report.findings.isEmpty else { return nil }
    return "check: "
        + report.findings.prefix(3).map { "\($0.id) \($0.message)" }.joined(separator: "; ")
}
