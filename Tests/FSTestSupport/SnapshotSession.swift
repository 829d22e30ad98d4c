/// Random operations on several heads with snapshots, clones, rollbacks and deletes between them,
/// beside a model that holds every snapshot's whole tree.
internal import FSModules
public import FSCore

/// All trees of a volume, as the model has them.
public struct SnapshotState {
    public var heads: [UInt64: ReferenceFileSystem]
    public var snapshots: [[UInt8]: ReferenceFileSystem]
}

public final class SnapshotSession {
    public struct Failure: Error, CustomStringConvertible { public var description: String }

    private struct Head {
        var session: RandomSession
        var executor: FileSystemExecutor
        /// Nil for the default head.
        var name: [UInt8]?
    }

    public let device: any BlockDevice
    public var options: OpenOptions
    public private(set) var volume: Volume
    private var heads: [TreeID: Head] = [:]
    /// What each snapshot must show.
    private var snapshots: [[UInt8]: ReferenceFileSystem] = [:]
    public var whenDurable: () -> Void = {}
    /// Whether steps close the volume or look at all of it.
    public var reopens = true
    /// Whether steps change the size of the volume.
    public var resizes = false
    /// What that has moved.
    public private(set) var movedBytes: UInt64 = 0
    private let inside = Inside()
    private var random: SeededRandom
    private let seed: UInt64
    private var nextName = 0
    private var profile = OperationProfile()
    public private(set) var trace: [String] = []
    /// Called after everything that one crash may come before and another behind.
    public var whenChanged: (SnapshotState) -> Void = { _ in }

    public init(seed: UInt64, device: any BlockDevice, options: OpenOptions) throws {
        self.seed = seed
        self.device = device
        self.options = options
        random = SeededRandom(seed: seed)
        profile.largestWrite = 64 << 10
        profile.largestOffset = 1 << 20
        profile.population = 60
        if options.compression != .inherited {
            profile.isCompressible = true
            profile.largestWrite = 200 << 10
        }
        let inside = inside
        self.options.duringCheckpoint = { inside.body?() }
        volume = try Volume.open(device, modules: .standard, options: self.options)
        try begin(.head, ReferenceFileSystem(), name: nil)
    }

    /// One in memory that has gone on for a while: several heads, rollbacks and clones, and at least one
    /// snapshot. Every other seed compresses.
    public static func grown(seed: UInt64) throws -> SnapshotSession {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = CrashRun.openOptions
        if seed % 2 == 0 { options.compression = .codec(.lz4, level: 1) }
        let session = try SnapshotSession(seed: seed, device: device, options: options)
        session.reopens = false
        try session.run(120)
        try session.perform(.create)
        return session
    }

    /// What runs in the middle of a checkpoint, on the thread that makes it.
    private final class Inside: @unchecked Sendable {
        var body: (() -> Void)?
    }

    public var snapshotNames: [[UInt8]] {
        snapshots.keys.sorted { $0.lexicographicallyPrecedes($1) }
    }
    private var headIDs: [TreeID] { heads.keys.sorted { $0.rawValue < $1.rawValue } }

    private func begin(_ id: TreeID, _ model: ReferenceFileSystem, name: [UInt8]?) throws {
        guard let files = try volume.files(of: id) else {
            throw Failure(description: "head \(id.rawValue) has no files")
        }
        var model = model
        model.dropHandles()
        let executor = FileSystemExecutor(files)
        let session = RandomSession(
            seed: random.next(), profile: profile, model: model, executor: executor)
        session.compareEvery = .max
        session.betweenOperations = { [unowned self] _ in noteChange() }
        heads[id] = Head(session: session, executor: executor, name: name)
    }

    private func dropHandles(_ id: TreeID) {
        heads[id]?.executor.dropHandles()
        heads[id]?.session.dropHandles()
    }

    private func freshName() -> [UInt8] {
        nextName += 1
        return Array("s\(nextName)".utf8)
    }

    private static func text(_ name: [UInt8]) -> String { String(decoding: name, as: UTF8.self) }

    // MARK: Steps

    public enum Step: CaseIterable {
        case operations, create, clone, rollback, delete, deleteHead, sweep, checkpoint, reopen
        case synchronize, verify, resize
    }

    public func run(_ count: Int) throws {
        for number in 0..<count {
            let step: Step = random.weighted([
                (8, .operations), (4, .create), (1, .clone), (1, .rollback), (3, .delete),
                (1, .deleteHead), (2, .sweep), (2, .checkpoint), (2, .synchronize),
                (reopens ? 1 : 0, .reopen), (reopens ? 1 : 0, .verify),
                (resizes ? 3 : 0, .resize),
            ])
            do { try perform(step) } catch {
                throw Failure(
                    description: "seed \(seed), step \(number), \(step): \(error)\n"
                        + trace.suffix(30).joined(separator: "\n"))
            }
            noteChange()
        }
    }

    public var state: SnapshotState {
        SnapshotState(
            heads: Dictionary(
                uniqueKeysWithValues: heads.map { ($0.key.rawValue, $0.value.session.model) }),
            snapshots: snapshots)
    }

    private func noteChange() { whenChanged(state) }

    public func perform(_ step: Step) throws {
        let store = volume.snapshotStore
        let id = random.pick(headIDs)
        switch step {
        case .operations:
            let count = 1 + random.below(25)
            trace.append("\(count) operations on head \(id.rawValue)")
            try heads[id]?.session.run(count)
        case .create:
            let name = freshName()
            trace.append("create \(Self.text(name)) of \(id.rawValue)")
            try store.create(SnapshotLabel(name: name), of: id)
            snapshots[name] = heads[id]?.session.model
        case .clone:
            guard heads.count < 4, let source = snapshotNames.randomElement(using: &random) else {
                return
            }
            let name = freshName()
            let made = try store.clone(source, as: SnapshotLabel(name: name))
            trace.append("clone \(Self.text(source)) as \(made.rawValue)")
            try begin(made, snapshots[source] ?? ReferenceFileSystem(), name: name)
        case .rollback:
            guard let target = snapshotNames.randomElement(using: &random) else { return }
            let kept = freshName()
            trace.append(
                "rollback \(id.rawValue) to \(Self.text(target)), keeping \(Self.text(kept))")
            dropHandles(id)
            // What only a handle still held goes first, one by one.
            noteChange()
            snapshots[kept] = heads[id]?.session.model
            try store.rollback(id, to: target, keeping: SnapshotLabel(name: kept))
            try begin(id, snapshots[target] ?? ReferenceFileSystem(), name: heads[id]?.name)
        case .delete:
            guard let name = snapshotNames.randomElement(using: &random) else { return }
            trace.append("delete \(Self.text(name))")
            try store.delete([name])
            snapshots[name] = nil
        case .deleteHead:
            guard id != .head, let name = heads[id]?.name else { return }
            trace.append("delete head \(id.rawValue)")
            dropHandles(id)
            try store.delete([name])
            heads[id] = nil
        case .sweep:
            trace.append("sweep")
            if random.chance(1, in: 2) {
                try store.sweep()
            } else {
                // A few transactions, with work left over.
                for _ in 0..<random.below(6) {
                    _ = try store.sweepOnce()
                }
            }
        case .checkpoint:
            trace.append("checkpoint")
            try sweepingInTheNextCheckpoint { try volume.checkpoint() }
            whenDurable()
        case .synchronize:
            trace.append("synchronize")
            try volume.synchronize()
            whenDurable()
        case .reopen:
            trace.append("reopen")
            try reopen()
        case .verify: try verify()
        case .resize: try resize()
        }
    }

    /// In the middle of the first checkpoint of `body` some of the sweeping goes on, and what it did
    /// becomes durable first.
    private func sweepingInTheNextCheckpoint(_ body: () throws -> Void) throws {
        var failure: (any Error)?
        inside.body = { [unowned self] in
            inside.body = nil
            do {
                let operations = volume.snapshotStore
                var hasSwept = false
                for _ in 0..<random.below(5) where try operations.sweepOnce() {
                    hasSwept = true
                }
                if hasSwept { try volume.synchronize() }
            } catch { failure = error }
        }
        defer { inside.body = nil }
        try body()
        if let failure { throw failure }
    }

    private func resize() throws {
        let target: ResizeTarget =
            random.chance(1, in: 2) ? .minimum : .bytes(UInt64(20 + random.below(60)) << 20)
        trace.append("resize to \(target)")
        try sweepingInTheNextCheckpoint { try change(to: target) }
    }

    private func change(to target: ResizeTarget) throws(FSError) {
        do throws(FSError) {
            movedBytes += try volume.resize(target).movedBytes
        } catch {
            guard case .cannotShrink = error else { throw error }
            return
        }
        whenDurable()
    }

    public func reopen() throws {
        for id in headIDs { dropHandles(id) }
        try volume.close()
        if let problem = try checkerProblem(device) { throw Failure(description: problem) }
        volume = try Volume.open(device, modules: .standard, options: options)
        for (id, head) in heads { try begin(id, head.session.model, name: head.name) }
    }

    /// Every head and every snapshot shows what it must, and the check finds nothing.
    public func verify() throws {
        trace.append("verify")
        for (id, head) in heads {
            try head.session.compareTrees()
            // What diff takes for the present is a checkpoint's state of that head.
            let present = try volume.withPresent(of: id) { (held) throws(FSError) in
                Result { try held.files.treeView() }
            }
            if let difference = try present.get().firstDifference(
                fromExpected: head.session.model.view)
            {
                throw Failure(description: "the present of \(id.rawValue): \(difference)")
            }
        }
        for (name, model) in snapshots {
            let view = try volume.snapshotStore.files(of: name).treeView()
            if let difference = view.firstDifference(fromExpected: model.view) {
                throw Failure(
                    description: "snapshot \(Self.text(name)) differs: \(difference)")
            }
        }
        let report = try Checker.check(volume)
        if !report.isClean {
            throw Failure(
                description: report.findings.prefix(4).map { "\($0.id) \($0.message)" }
                    .joined(separator: "; "))
        }
    }

    /// Everything goes but the default head; then nothing is left of the rest.
    public func finish() throws {
        try verify()
        for id in headIDs where id != .head {
            dropHandles(id)
            if let name = heads[id]?.name { try volume.snapshotStore.delete([name]) }
            heads[id] = nil
        }
        var names = snapshotNames
        names.shuffle(using: &random)
        for name in names {
            try volume.snapshotStore.delete([name])
            snapshots[name] = nil
            if random.chance(1, in: 3) { try volume.snapshotStore.sweep() }
        }
        try volume.snapshotStore.sweep()
        try verify()
        let left = volume.snapshotStore.nodeCount
        guard left == 1 else { throw Failure(description: "\(left) nodes are left") }
        var entries = 0
        var position: Key? = .minimum
        try volume.reading { () throws(TreeFault) in
            try volume.volumeTree.scan(&position, through: .maximum) { key, _ in
                if key.type == .deadlist || key.type == .segment { entries += 1 }
                return true
            }
        }
        guard entries == 0 else {
            throw Failure(description: "\(entries) items of deadlists are left")
        }
        dropHandles(.head)
        try volume.close()
        if let problem = try checkerProblem(device) { throw Failure(description: problem) }
    }
}
