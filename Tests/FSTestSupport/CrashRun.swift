/// Random operations on a volume over a simulated device, and the question after every crash: is
/// the recovered tree one that the promise allows?
///
/// Allowed is the model's tree after the last operation that was durable when the crash came, or
/// after any later one that had begun: prefix consistency with the last synchronisation as floor.
/// Without a journal that is the last checkpoint, or one that was under way.
public import FSCore
internal import FSModules

public final class CrashRun {
    /// One moment of the run, taken after an operation and what followed it.
    struct Moment {
        var operation: Int
        /// Events of the device when the operation was over.
        var event: Int
        /// True if all up to this operation is durable.
        var isDurable: Bool
        var model: ReferenceFileSystem
    }

    public let device: SimulatedBlockDevice
    public let seed: UInt64
    public var profile: OperationProfile
    public var options = CrashRun.openOptions
    var moments: [Moment] = []
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
        let volume = try Volume.open(device, modules: .standard, options: options)
        firstEvent = device.eventCount
        let executor = FileSystemExecutor(volume.fileSystem)
        let session = RandomSession(seed: seed, profile: profile, executor: executor)
        session.compareEvery = operations
        moments = [
            Moment(operation: 0, event: firstEvent, isDurable: true, model: session.model)
        ]
        session.betweenOperations = { [unowned self] number in
            let isDurable =
                if case .synchronize? = session.lastOperation { true } else { false }
            moments.append(
                Moment(
                    operation: number, event: device.eventCount, isDurable: isDurable,
                    model: session.model))
            guard number % interval == 0 else { return }
            try volume.checkpoint()
            moments.append(
                Moment(
                    operation: number, event: device.eventCount, isDurable: true,
                    model: session.model))
        }
        try session.run(operations)
        executor.dropHandles()
        session.dropHandles()
        if closes {
            try volume.close()
            moments.append(
                Moment(
                    operation: operations, event: device.eventCount, isDurable: true,
                    model: session.model))
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
        let candidates = allowed(atEvent: event)
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
            first = first ?? "operation \(moment.operation): \(difference)"
        }
        return first ?? "no state is allowed"
    }

    /// The moments whose state may be found, the likeliest first: what was durable, and what a
    /// synchronisation that was under way makes durable; then everything between.
    private func allowed(atEvent event: Int) -> [Moment] {
        let floor = moments.lastIndex { $0.isDurable && $0.event <= event }!
        let ceiling = moments.firstIndex { $0.event > event } ?? moments.count - 1
        let range = moments[floor...max(floor, ceiling)]
        let likely = [range.first!, range.last!]
        return likely + range.dropFirst().dropLast()
    }
}

/// The findings of a full check, in words; nil if there are none.
public func checkerProblem(_ device: any BlockDevice) throws(FSError) -> String? {
    let report = try Checker.check(device, modules: .standard, progress: { _ in })
    guard !report.findings.isEmpty else { return nil }
    return "check: "
        + report.findings.prefix(3).map { "\($0.id) \($0.message)" }.joined(separator: "; ")
}
