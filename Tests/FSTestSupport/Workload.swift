/// Short sequences of operations on a small fixed tree, all of them or a sample: what the bounded
/// black-box testing of crash consistency found bugs with (Mohan and others, OSDI 2018).
public import FSCore
internal import FSModules

/// How an operation of a workload is made durable, if at all.
public enum WorkloadSync: CaseIterable, Sendable {
    case none
    /// fsync or fdatasync, which are one here: a record of the journal.
    case synchronize
    /// What the journal's timer does.
    case writeBack
    /// sync: a checkpoint.
    case checkpoint
}

public struct WorkloadStep: Sendable, CustomStringConvertible {
    public var operation: FileOperation
    public var sync: WorkloadSync
    public init(_ operation: FileOperation, _ sync: WorkloadSync) {
        self.operation = operation
        self.sync = sync
    }
    public var description: String { "\(operation), \(sync)" }
}

/// The operations that workloads are made of, over two directories with two names each.
public enum WorkloadAlphabet {
    /// What is there at the beginning: a file in blocks with an attribute, a second name of it in the
    /// other directory, and a file that is small enough for the tree.
    static var start: [FileOperation] {
        [
            .create(Path("A"), directory), .create(Path("B"), directory),
            .create(Path("A/f"), file), .write(.path(Path("A/f")), at: 0, bytes(9000)),
            .setExtendedAttribute(
                .path(Path("A/f")), name: attribute, bytes(40), .createOrReplace),
            .link(.path(Path("A/f")), Path("B/f")),
            .create(Path("B/g"), file), .write(.path(Path("B/g")), at: 0, bytes(300)),
        ]
    }

    private static let directory = NewInode(mode: FileKind.directory.modeBits | 0o755)
    private static let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
    private static let attribute = Array("user.a".utf8)
    private static let files = ["A/f", "A/g", "B/f", "B/g"].map { Path($0) }
    private static let directories = ["A", "B"].map { Path($0) }

    private static func bytes(_ count: Int) -> Payload {
        Payload(.random, seed: UInt64(count), count: count)
    }

    /// Every operation, whether or not it is possible at a given moment.
    public static let operations: [FileOperation] = {
        var all: [FileOperation] = []
        for path in files {
            let target = Target.path(path)
            all += [
                .create(path, file), .create(path, directory),
                .symbolicLink(path, target: Array("where".utf8)), .unlink(path),
                .removeDirectory(path),
            ]
            // Appended inside the tree and beyond it, over a part of a block, past the journal.
            all += [
                .write(target, at: 300, bytes(1000)), .write(target, at: 4000, bytes(5000)),
                .write(target, at: 0, bytes(40_000)),
            ]
            all += [
                .allocate(target, at: 0, count: 20_000, []),
                .allocate(target, at: 4096, count: 12_288, .keepSize),
                .allocate(target, at: 100, count: 5000, [.punchHole, .keepSize]),
                .allocate(target, at: 0, count: 4096, .zeroRange),
            ]
            all += [.truncate(target, 0), .truncate(target, 5000), .truncate(target, 30_000)]
            all += [
                .setExtendedAttribute(target, name: attribute, bytes(100), .createOrReplace),
                .setExtendedAttribute(target, name: attribute, bytes(6000), .createOrReplace),
                .removeExtendedAttribute(target, name: attribute),
            ]
            for other in files where other != path {
                all += [.link(target, other), .rename(path, other, [])]
            }
        }
        all += directories.map { .removeDirectory($0) }
        all += [
            .rename(directories[0], directories[1], []),
            .rename(directories[0], directories[1], .exchange),
            .rename(files[0], files[3], .exchange), .rename(directories[0], files[2], []),
            .rename(directories[1], files[1], []), .rename(files[0], files[2], .whiteout),
            .setExtendedAttribute(
                .path(directories[0]), name: attribute, bytes(100), .createOrReplace),
        ]
        return all
    }()

    /// Those that are possible in `model`.
    public static func possible(_ model: ReferenceFileSystem) -> [FileOperation] {
        operations.filter {
            var next = model
            if case .success = next.perform($0) { return true }
            return false
        }
    }

    /// The model of the tree at the beginning.
    public static let model: ReferenceFileSystem = {
        var model = ReferenceFileSystem()
        for operation in start { _ = model.perform(operation) }
        return model
    }()
}

/// Runs workloads on one volume again and again from the same beginning.
public final class WorkloadRig {
    private let recorder: OverlayBlockDevice
    private let trials: OverlayBlockDevice
    public var options = CrashRun.openOptions
    public var plan = CrashPlan()

    /// - Parameter journalBytes: 0 = no journal.
    public init(journalBytes: UInt64 = 2 << 20) throws {
        recorder = OverlayBlockDevice(byteCount: 16 << 20)
        var format = FormatOptions()
        format.journalByteCount = journalBytes
        _ = try VolumeFormatter.format(recorder, modules: .standard, options: format)
        let volume = try Volume.open(recorder, modules: .standard, options: CrashRun.openOptions)
        let executor = FileSystemExecutor(volume.fileSystem)
        for operation in WorkloadAlphabet.start {
            if case .failed(let error) = try executor.perform(operation) { throw error }
        }
        try volume.close()
        recorder.keep()
        trials = OverlayBlockDevice(copying: recorder)
    }

    /// Runs the steps and tries every crash from the beginning of the last one on. What a crash
    /// before that leaves belongs to the shorter workload.
    ///
    /// - Parameter inside: an operation in the middle of the checkpoint that ends the last step; it
    ///   is synchronized after that.
    public func run(
        _ steps: [WorkloadStep], inside: FileOperation? = nil, seed: UInt64
    ) throws -> CrashTally {
        recorder.revert()
        recorder.startRecording()
        let middle = Middle()
        var options = options
        if inside != nil { options.duringCheckpoint = { middle.body?() } }
        let volume = try Volume.open(recorder, modules: .standard, options: options)
        let session = Session(volume, recorder)
        var fresh = 0
        do {
            for (index, step) in steps.enumerated() {
                fresh = recorder.eventCount
                try session.perform(step.operation)
                if let inside, index == steps.count - 1 {
                    middle.body = { middle.result = Result { try session.perform(inside) } }
                }
                try session.synchronize(step.sync)
            }
            if inside != nil {
                middle.body = nil
                try middle.result?.get()
                try session.synchronize(.synchronize)
            }
        } catch let wrong as WrongAnswer {
            _ = recorder.stopRecording()
            var tally = CrashTally()
            tally.problem = "\(steps): \(wrong.description)"
            return tally
        }
        let events = recorder.stopRecording()
        let enumeration = CrashEnumeration(
            trials, session.history, plan, options: self.options, seed: seed)
        var tally = enumeration.run(events, fresh: fresh)
        tally.problem = tally.problem.map {
            "\(steps)\(inside.map { ", inside: \($0)" } ?? ""): \($0)"
        }
        return tally
    }

    /// What runs between the freeze of a checkpoint and its writes.
    private final class Middle: @unchecked Sendable {
        var body: (() -> Void)?
        var result: Result<Void, any Error>?
    }

    private struct WrongAnswer: Error { var description: String }

    /// A volume and the model beside it.
    private final class Session {
        private let volume: Volume
        private let recorder: OverlayBlockDevice
        private let executor: FileSystemExecutor
        private var model = WorkloadAlphabet.model
        private(set) var history: CrashHistory

        init(_ volume: Volume, _ recorder: OverlayBlockDevice) {
            self.volume = volume
            self.recorder = recorder
            executor = FileSystemExecutor(volume.fileSystem)
            history = CrashHistory(begins: model, atEvent: recorder.eventCount)
        }

        func perform(_ operation: FileOperation) throws {
            let expectation = model.perform(operation)
            let outcome = try executor.perform(operation)
            if let problem = expectation.mismatch(with: outcome) {
                throw WrongAnswer(description: "\(operation): \(problem)")
            }
            history.add(model, atEvent: recorder.eventCount)
        }

        func synchronize(_ how: WorkloadSync) throws {
            // What happens in the middle of a checkpoint is not promised by it.
            let promised = history.lastOperation
            switch how {
            case .none: return
            case .synchronize: try volume.synchronize()
            case .writeBack: try volume.writeBack()
            case .checkpoint: try volume.checkpoint()
            }
            history.synchronized(promised, atEvent: recorder.eventCount)
        }
    }
}
