/// Random operations on a volume over a simulated device, and the question after every crash: is
/// the recovered tree one that the promise allows?
///
/// Allowed is the model's tree after the last operation that was durable when the crash came, or
/// after any later one that had begun: prefix consistency with the last synchronisation as floor.
/// Without a journal that is the last checkpoint, or one that was under way.
public import FSCore
internal import FSModules

public final class CrashRun {
    public let device: SimulatedBlockDevice
    public let seed: UInt64
    public var profile: OperationProfile
    public var options = CrashRun.openOptions
    private(set) var history = CrashHistory()
    /// Of the tree that a run begins with.
    private var model = ReferenceFileSystem()
    /// How the run synchronizes, in turn.
    public enum Synchronization: Sendable { case checkpoint, synchronize, writeBack }
    public var synchronizations: [Synchronization] = [
        .checkpoint, .synchronize, .writeBack, .synchronize,
    ]
    /// Operations that run in the middle of each checkpoint, between its freeze and its writes.
    public var operationsDuringCheckpoint = 0
    /// How often, in operations, all files are deduplicated and written anew, which nobody sees; 0: never.
    public var rewriteEvery = 0
    /// Sizes that the volume gets in turn, each after so many operations.
    public var sizes: [ResizeTarget] = []
    public var resizeEvery = 0
    /// Where the recording begins: the volume as it was first opened.
    public private(set) var firstEvent = 0
    /// How often the size has changed, and how much was moved for that.
    public private(set) var resizes = 0
    public private(set) var movedBytes: UInt64 = 0
    /// What the run has written to the journal.
    public private(set) var journal = JournalStatus()

    /// - Parameters:
    ///   - journalBytes: nil = by the volume's size, 0 = no journal.
    ///   - compression: of the mount; what is written then can be compressed.
    public init(
        seed: UInt64, byteCount: UInt64 = 64 << 20, journalBytes: UInt64? = nil,
        compression: CompressionSetting = .inherited
    ) throws {
        self.seed = seed
        profile = OperationProfile()
        profile.largestWrite = 64 << 10
        profile.largestOffset = 1 << 20
        profile.isCompressible = compression != .inherited
        options.compression = compression
        device = SimulatedBlockDevice(byteCount: byteCount)
        var format = FormatOptions(variant: seed)
        format.journalByteCount = journalBytes
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
    }

    /// A run that goes on with what a crash, at any moment, has left of another.
    public init(continuing run: CrashRun, seed: UInt64) throws {
        self.seed = seed
        profile = run.profile
        options = run.options
        var random = SeededRandom(seed: seed)
        let event = random.integer(in: run.firstEvent...run.device.eventCount)
        device = run.device.crashed(after: event, .anySubset, random: &random)
        let volume = try Volume.open(device.copy(), modules: .standard, options: options)
        let view = try volume.fileSystem.treeView()
        try volume.close()
        let range = run.history.allowed(from: event + 1, to: event)
        guard var model = run.history.model(of: view, range) else {
            throw InconsistentTree(path: .root, problem: "not allowed after event \(event)")
        }
        model.dropHandles()
        self.model = model
    }

    public static var openOptions: OpenOptions {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return options
    }

    private func rewrite(_ files: FileSystem, _ number: Int) throws(FSError) {
        _ = try files.deduplicate(memoryBytes: 64 << 10)
        let settings: [CompressionSetting?] = [nil, CompressionSetting.none, .standard]
        for inode in try files.regularFiles(below: [.root]) {
            do throws(FSError) {
                _ = try files.defragment(inode, compression: settings[number % settings.count])
            } catch {
                // Some are immutable, and small volumes are full at times.
                guard error == .notPermitted || error == .noSpace else { throw error }
            }
        }
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
        let session = RandomSession(
            seed: seed, profile: profile, model: model, executor: executor)
        session.compareEvery = operations
        history = CrashHistory(begins: session.model, atEvent: firstEvent)
        func synchronized(_ operation: Int) {
            history.synchronized(operation, atEvent: device.eventCount)
        }
        inside.body = { [unowned self] in
            inside.frozen = history.lastOperation
            try session.run(operationsDuringCheckpoint)
        }
        session.betweenOperations = { [unowned self] number in
            history.add(session.model, atEvent: device.eventCount)
            let current = history.lastOperation
            if case .synchronize? = session.lastOperation { synchronized(current) }
            if !inside.isRunning, !sizes.isEmpty, number % resizeEvery == 0 {
                inside.isExpected = true
                defer { inside.isExpected = false }
                inside.frozen = current
                try resize(volume, to: sizes[number / resizeEvery % sizes.count])
                synchronized(inside.frozen)
                if let failure = inside.failure { throw failure }
            }
            if !inside.isRunning, rewriteEvery > 0, number % rewriteEvery == 0 {
                try rewrite(volume.fileSystem, number / rewriteEvery)
            }
            guard !inside.isRunning, number % interval == 0 else { return }
            inside.isExpected = true
            defer { inside.isExpected = false }
            switch synchronizations[number / interval % synchronizations.count] {
            case .checkpoint:
                inside.frozen = current
                try volume.checkpoint()
                synchronized(inside.frozen)
            case .writeBack:
                try volume.writeBack()
                synchronized(current)
            case .synchronize:
                try volume.synchronize()
                synchronized(current)
            }
            if let failure = inside.failure { throw failure }
        }
        try session.run(operations)
        session.betweenOperations = nil
        journal = volume.status().journal ?? JournalStatus()
        executor.dropHandles()
        session.dropHandles()
        if closes {
            inside.body = nil
            try volume.close()
            synchronized(history.lastOperation)
        }
    }

    /// What does not fit is refused; the rest of the run goes on in the old size.
    private func resize(_ volume: Volume, to target: ResizeTarget) throws(FSError) {
        do throws(FSError) {
            movedBytes += try volume.resize(target).movedBytes
            resizes += 1
        } catch {
            switch error {
            case .cannotShrink, .noSpace: return
            default: throw error
            }
        }
    }

    /// What runs in the middle of a checkpoint.
    private final class CheckpointOperations: @unchecked Sendable {
        var body: (() throws -> Void)?
        /// A checkpoint that an operation needs for itself holds locks that others would wait for.
        var isExpected = false
        var isRunning = false
        var frozen = 0
        var failure: (any Error)?
        func run() {
            guard let body, isExpected, !isRunning else { return }
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
        return problem(with: crashed, afterEvent: event)
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
        return problem(with: second, afterEvent: event).map {
            "event \(event), then \(again): \($0)"
        }
    }

    private func problem(with crashed: SimulatedBlockDevice, afterEvent event: Int) -> String? {
        do {
            let volume = try Volume.open(crashed, modules: .standard, options: options)
            let view = try volume.fileSystem.treeView()
            // The operation that was under way may have got through.
            let range = history.allowed(from: event + 1, to: event)
            if let problem = history.problem(view, view.treeHash, range) { return problem }
            try volume.close()
            return try checkerProblem(crashed)
        } catch {
            return "\(error)"
        }
    }
}

/// The findings of a full check, in words; nil if there are none.
public func checkerProblem(_ device: any BlockDevice) throws(FSError) -> String? {
    let report = try Checker.check(device, modules: .standard, progress: { _ in })
    guard !report.findings.isEmpty else { return nil }
    return "check: "
        + report.findings.prefix(3).map { "\($0.id) \($0.message)" }.joined(separator: "; ")
}
