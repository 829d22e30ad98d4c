/// A fixed list of steps on a volume whose device fails at some call, and the question what is on
/// it afterwards.
///
/// Allowed is a state between the last one that was acknowledged as durable and the last one that
/// was asked for. An operation that failed without latching the volume must have changed nothing.
public import FSCore
internal import FSModules

public final class FaultRun {
    public enum Step: Sendable {
        case operation(FileOperation)
        /// fsync.
        case synchronize
        /// What the journal's timer does.
        case writeBack
        case checkpoint
        case reopen
    }

    public let device: SimulatedBlockDevice
    /// The newest state that answers speak of, and before it all back to the acknowledged one.
    private var states: [ReferenceFileSystem]
    private var model: ReferenceFileSystem
    private var volume: Volume?
    /// What a step did that it must not.
    public private(set) var problems: [String] = []
    /// Errors that somebody was told.
    public private(set) var failures: [FSError] = []

    /// Formats a device of its own unless one is given, which must be empty.
    public init(byteCount: UInt64 = 16 << 20, journalByteCount: UInt64? = nil) throws {
        device = SimulatedBlockDevice(byteCount: byteCount)
        var options = FormatOptions()
        options.journalByteCount = journalByteCount
        _ = try VolumeFormatter.format(device, modules: .standard, options: options)
        model = ReferenceFileSystem()
        states = [model]
        volume = try Self.open(device)
    }

    public static func open(_ device: any BlockDevice) throws(FSError) -> Volume {
        try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
    }

    /// Whether writing has ended, as `status` says it.
    public var isLatched: Bool {
        guard case .latched? = volume?.status().state else { return false }
        return true
    }

    /// Runs the steps, failures or not; stops only where nothing is open any more.
    public func perform(_ steps: [Step]) throws {
        for (number, step) in steps.enumerated() {
            guard volume != nil else { return }
            let wasLatched = isLatched
            try perform(step, "step \(number)", wasLatched)
            if wasLatched, volume != nil, !isLatched {
                problems.append("step \(number): no longer latched")
            }
        }
    }

    private func perform(_ step: Step, _ name: String, _ wasLatched: Bool) throws {
        guard let volume else { return }
        switch step {
        case .operation(let operation):
            try perform(operation, volume.fileSystem, "\(name): \(operation)")
        case .synchronize, .writeBack, .checkpoint:
            do throws(FSError) {
                switch step {
                case .synchronize: try volume.synchronize()
                case .writeBack: try volume.writeBack()
                default: try volume.checkpoint()
                }
                if wasLatched { problems.append("\(name): \(step) succeeds after the failure") }
                acknowledge()
            } catch { failures.append(error) }
        case .reopen:
            self.volume = nil
            do throws(FSError) {
                try volume.close()
                if wasLatched { problems.append("\(name): closed without an error") }
                acknowledge()
                self.volume = try Self.open(device)
            } catch { failures.append(error) }
        }
    }

    private func acknowledge() { states = [states[states.count - 1]] }

    private func perform(
        _ operation: FileOperation, _ fileSystem: FileSystem, _ name: String
    ) throws {
        let before = model
        let expectation = model.perform(operation)
        let outcome = try FileSystemExecutor(fileSystem).perform(operation)
        if let mismatch = expectation.mismatch(with: outcome) {
            guard case .failed(let error) = outcome, error.isOfTheMedium else {
                problems.append("\(name): \(mismatch)")
                return
            }
            failures.append(error)
            // Latched, the volume may hold it or not; else it holds nothing of it.
            if isLatched { states.insert(model, at: states.count - 1) }
            model = before
            return
        }
        if operation.changes { states.append(model) }
        if case .synchronize = operation, case .success = expectation { acknowledge() }
    }

    /// Why `device`, a state of this run's device, is not what it may be; nil if it is.
    public func problem(with device: SimulatedBlockDevice) -> String? {
        do throws(FSError) {
            let volume = try Self.open(device)
            if let difference = difference(of: volume) { return difference }
            try volume.close()
            return try checkerProblem(device)
        } catch { return "\(error)" }
    }

    /// How the tree differs from every one that is allowed; an error while reading is none.
    public func difference(of volume: Volume, toleratesErrors: Bool = false) -> String? {
        let view: TreeView
        do { view = try volume.fileSystem.treeView() } catch {
            let isOfTheMedium = (error as? InconsistentTree)?.error?.isOfTheMedium == true
            return toleratesErrors && isOfTheMedium ? nil : "\(error)"
        }
        var first: String?
        for state in states.reversed() {
            guard let difference = view.firstDifference(fromExpected: state.view) else {
                return nil
            }
            first = first ?? difference
        }
        return "the tree is none of the \(states.count) allowed: \(first ?? "")"
    }

    /// Ends the use without a close, as a process that dies.
    public func abandon() { volume = nil }

    /// What of the device is left: all that was written, only what was flushed, or a part.
    public func remains(_ inFlight: SimulatedBlockDevice.InFlight) -> SimulatedBlockDevice {
        var random = SeededRandom(seed: UInt64(device.eventCount))
        return device.crashed(after: device.eventCount, inFlight, random: &random)
    }
}

extension FSError {
    /// Whether the device or damage is to blame, not the caller.
    public var isOfTheMedium: Bool {
        switch self {
        case .device, .corrupt, .latched: true
        default: false
        }
    }
}

extension FileOperation {
    /// Whether a success changes the tree.
    fileprivate var changes: Bool {
        switch self {
        case .stat, .list, .readLink, .read, .seek, .extendedAttribute, .extendedAttributeNames,
            .synchronize:
            false
        default: true
        }
    }
}

extension FaultRun {
    /// Everything a volume does with its device, once or twice.
    public static var script: [Step] {
        var steps: [Step] = []
        func path(_ name: String) -> Path { Path(name) }
        func create(_ name: String) { steps.append(.operation(.create(path(name), .file))) }
        func write(_ name: String, _ offset: UInt64, _ count: Int) {
            let payload = Payload(.random, seed: UInt64(steps.count), count: count)
            steps.append(.operation(.write(.path(path(name)), at: offset, payload)))
        }
        func read(_ name: String, _ count: Int) {
            steps.append(.operation(.read(.path(path(name)), at: 0, count: count)))
        }
        steps.append(.operation(.create(path("dir"), .directory)))
        create("dir/small")
        write("dir/small", 0, 100)
        create("medium")
        write("medium", 0, 9000)
        steps.append(.synchronize)
        create("large")
        write("large", 0, 300_000)
        read("large", 300_000)
        steps.append(.operation(.synchronize(.path(path("large")))))
        write("medium", 4096, 12_000)
        steps.append(.writeBack)
        steps.append(.operation(.rename(path("dir/small"), path("renamed"), [])))
        write("large", 100_000, 16_384)
        steps.append(.checkpoint)
        steps.append(.operation(.unlink(path("medium"))))
        steps.append(.operation(.truncate(.path(path("large")), 120_001)))
        create("again")
        write("again", 0, 200_000)
        steps.append(.synchronize)
        steps.append(.reopen)
        read("large", 120_001)
        read("again", 200_000)
        steps.append(.operation(.list(.root)))
        write("again", 50_000, 15_000)
        write("renamed", 90, 3000)
        steps.append(.synchronize)
        steps.append(.operation(.link(.path(path("again")), path("dir/link"))))
        steps.append(.operation(.unlink(path("again"))))
        steps.append(.operation(.unlink(path("renamed"))))
        steps.append(.writeBack)
        create("last")
        write("last", 0, 5000)
        steps.append(.operation(.synchronize(.path(.root))))
        read("dir/link", 200_000)
        read("last", 5000)
        return steps
    }

    /// Several times around the smallest ring, with the checkpoints it asks for.
    public static var ringScript: [Step] {
        var steps: [Step] = [.operation(.create(Path("file"), .file))]
        for round in 0..<16 as Range<UInt64> {
            for index in 0..<12 as Range<UInt64> {
                let payload = Payload(.random, seed: round << 8 | index, count: 16_000)
                steps.append(
                    .operation(.write(.path(Path("file")), at: index * 16_000, payload)))
            }
            steps.append(round % 4 == 3 ? .writeBack : .synchronize)
        }
        steps.append(.operation(.read(.path(Path("file")), at: 0, count: 12 * 16_000)))
        return steps
    }
}

extension NewInode {
    fileprivate static var file: NewInode { NewInode(mode: FileKind.regular.modeBits | 0o644) }
    fileprivate static var directory: NewInode {
        NewInode(mode: FileKind.directory.modeBits | 0o755)
    }
}
