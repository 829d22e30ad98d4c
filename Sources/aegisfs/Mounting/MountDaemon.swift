/// The daemon of one mount: device, volume, FUSE session, control socket, and their end.
///
///     open device ─▶ open volume ─▶ mount ─▶ serve ─▶ unmounted ─▶ close volume ─▶ close device
///
/// - Invariant: readiness is reported only when the kernel has the mount and the volume is
///   recovered; a failure before that is reported instead, and leaves no mount behind.
/// - Invariant: the volume is closed whatever ended the mount, and how that went is the outcome.
internal import FSCore
internal import FSFuse
internal import FSModules
internal import Glibc

final class MountDaemon: ControlService {
    struct Plan: Sendable {
        var target: String
        var mountpoint: String
        var options: MountOptions
    }

    let volume: Volume
    private let device: HeldDevice
    let registration: MountRegistration
    let session: FuseSession
    private let scrubs: ScrubService
    private let advice: DamageAdvice
    let mounted: MountedTree
    /// What is mounted of the volume.
    let files: FileSystem
    private let log: @Sendable (String) -> Void

    /// Opens and mounts. Signals that end the daemon must be blocked already.
    private init(
        _ plan: Plan, volume: Volume, device: HeldDevice,
        log: @escaping @Sendable (String) -> Void, onReady: @escaping @Sendable () -> Void
    ) throws(Failure) {
        self.volume = volume
        self.device = device
        self.log = log
        let (kind, files) = try Self.tree(of: volume, plan)
        mounted = MountedTree(kind: kind, mountpoint: plan.mountpoint)
        self.files = files
        let status = volume.status()
        guard let identity = DeviceIdentity(path: plan.target) else {
            throw Target.missing(plan.target, errno)
        }
        let registration = try MountRegistration(
            MountRecord(
                pid: getpid(), uuid: status.uuid.description, label: status.label,
                device: Paths.resolve(plan.target) ?? plan.target, identity: identity,
                mountpoint: plan.mountpoint, mountDevice: nil, socket: "",
                isReadOnly: plan.options.isReadOnly, startedSeconds: Int64(time(nil)),
                state: .starting, outcome: nil))
        self.registration = registration
        scrubs = ScrubService(volume, log: log)
        advice = DamageAdvice(volume, log: log)
        var options = FuseMountOptions()
        options.source = plan.options.sourceName ?? registration.current.device
        options.ro = plan.options.isReadOnly
        options.allowOther = plan.options.allowOther
        options.nosuid = plan.options.nosuid
        options.nodev = plan.options.nodev
        options.noexec = plan.options.noexec
        options.noatime = plan.options.accessTime == .none
        options.sync = plan.options.sync
        options.dirsync = plan.options.dirsync
        options.writeback = plan.options.writeback
        options.log = log
        options.onReady = onReady
        do throws(FuseMountError) {
            session = try FuseSession(
                fileSystem: files,
                snapshots: mounted.head == nil
                    ? nil
                    : plan.options.snapshotAccess.map {
                        SnapshotBrowser(volume, head: files, access: $0)
                    }, mountpoint: plan.mountpoint, options: options)
        } catch {
            scrubs.stop()
            advice.stop()
            registration.remove()
            throw Failure(.failed, .mountRefused, error.description, hint: error.cure)
        }
    }

    /// A snapshot of a volume that is mounted can be seen without another mount.
    private static func browsingHint(_ plan: Plan, _ failure: Failure) -> Failure {
        guard failure.id == .locked, let wanted = plan.options.files, wanted.isSnapshot,
            let live = DeviceIdentity(path: plan.target).flatMap(LiveMount.of)
        else { return failure }
        var failure = failure
        failure.hint = "the snapshot is in \(live.record.mountpoint)/.snapshots/\(wanted.name)"
        return failure
    }

    /// The tree that the plan asks for.
    private static func tree(
        of volume: Volume, _ plan: Plan
    ) throws(Failure) -> (MountedTree.Kind, FileSystem) {
        guard let wanted = plan.options.files else { return (.head(.head), volume.fileSystem) }
        let store = volume.snapshotStore
        let name = Array(wanted.name.utf8)
        do throws(FSError) {
            if wanted.isSnapshot {
                let found = try store.snapshot(named: name)
                return (.snapshot(found.id), found.files)
            }
            if let head = store.head(named: name), let files = try volume.files(of: head) {
                return (.head(head), files)
            }
        } catch .noSuchEntry {} catch { throw Failure(error, target: plan.target) }
        throw Failure(
            .notFound, .noSnapshot,
            "\(plan.target): there is no \(wanted.isSnapshot ? "snapshot" : "clone") '\(wanted.name)'",
            hint: "'aegisfs snapshot list \(plan.target)' shows all")
    }

    /// Serves the mount until it ends; returns how closing the volume went.
    ///
    /// - Parameter ready: called once when the mount can be used.
    static func run(
        _ plan: Plan, log: @escaping @Sendable (String) -> Void,
        ready: @escaping @Sendable () -> Void
    ) throws(Failure) {
        blockSignals()
        if DeviceUsage.uses(of: plan.target).contains(where: { $0.kind != .attachedLoop }) {
            throw DeviceAccess.busy(plan.target)
        }
        let device: HeldDevice
        do throws(Failure) {
            device = try DeviceAccess.open(
                plan.target, plan.options.isReadOnly ? .readOnly : .readWrite, notice: log)
        } catch {
            throw browsingHint(plan, error)
        }
        let relay = EventRelay(log: log, mountpoint: plan.mountpoint)
        let volume: Volume
        do throws(FSError) {
            volume = try Volume.open(
                device.device, modules: .standard, options: plan.options.openOptions,
                observer: relay)
        } catch {
            device.close()
            throw Failure(error, target: plan.target)
        }
        relay.attach(volume)
        let daemon: MountDaemon
        let readiness = Readiness(ready)
        do throws(Failure) {
            daemon = try MountDaemon(
                plan, volume: volume, device: device, log: log,
                onReady: { readiness.kernelIsReady() })
        } catch {
            try? volume.close()
            device.close()
            throw error
        }
        relay.whenDamaged { [weak daemon] in daemon?.advice.wake() }
        try daemon.serve(readiness)
        withExtendedLifetime(relay) {}
    }

    private func serve(_ readiness: Readiness) throws(Failure) {
        let number = session.deviceNumber
        registration.update {
            $0.mountDevice = "\(number.major):\(number.minor)"
            $0.state = .mounted
        }
        var server: ControlServer?
        var failure: Failure?
        do throws(Failure) {
            server = try ControlServer(path: registration.socketPath, service: self)
        } catch { failure = error }
        if failure != nil { session.unmount() }
        readiness.daemonIsReady()
        let session = session
        let signals = WorkerThread {
            if Self.waitForSignal() { session.requestExit() }
        }
        let status = session.run()
        if status != 0 { log("the FUSE session ended: \(systemMessage(status))") }
        registration.update { $0.state = .finishing }
        server?.stop()
        scrubs.stop()
        advice.stop()
        // Wakes the signal thread, which has nothing left to do.
        kill(getpid(), SIGUSR1)
        signals.join()
        do throws(FSError) {
            try volume.close()
        } catch {
            var closing = Failure(error, target: registration.current.device)
            closing.id = .closeFailed
            failure = failure ?? closing
            log("closing the volume failed: \(error)")
        }
        device.close()
        registration.update {
            $0.state = .closed
            $0.outcome = failure.map(FailureDocument.init)
        }
        registration.remove()
        if let failure { throw failure }
    }

    // MARK: Signals

    private static func ending() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] { sigaddset(&set, number) }
        return set
    }
    private static func blockSignals() {
        var set = ending()
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }
    /// True if the daemon is to end; SIGUSR1 only ends the waiting.
    private static func waitForSignal() -> Bool {
        var set = ending()
        var number: Int32 = 0
        while sigwait(&set, &number) != 0 {}
        return number != SIGUSR1
    }

    // MARK: Requests

    func perform(
        _ request: ControlRequest, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ControlReply {
        var reply = ControlReply.done
        let record = registration.current
        if request.command == .scrub {
            return try scrub(request, record.device, isCancelled, progress)
        }
        if [.extents, .usage, .defragment, .dedup].contains(request.command) {
            try FileRequests.perform(
                request, try files(of: request), record.device, &reply,
                isCancelled: isCancelled, progress: progress)
            return reply
        }
        if request.command == .snapshot {
            reply.snapshot = try changeSnapshots(request.snapshot)
            return reply
        }
        if request.command == .restore {
            reply.restore = try RestoreService(
                volume: volume, files: files, target: record.device
            ).perform(request.restore, isCancelled: isCancelled, progress: progress)
            return reply
        }
        do throws(FSError) {
            switch request.command {
            case .status:
                reply.status = StatusDocument(
                    volume.status(), superblocks: Checker.superblockFindings(volume),
                    device: record.device, mount: record,
                    condition: MountCondition(ofOwn: record))
                reply.status?.addFullness(of: volume)
                reply.status?.addScan(of: volume, scrubs.current)
                reply.status?.freeSpace = FreeSpaceDocument(of: volume)
                reply.status?.addSnapshots(of: volume)
                reply.status?.mountedTree = mounted.document(volume.snapshotStore)
            case .sync:
                try volume.synchronize()
            case .check:
                reply.check = CheckDocument(
                    try Checker.check(
                        volume, isCancelled: isCancelled,
                        progress: { progress(ProgressReporter.Step($0)) }))
            case .remount:
                guard let isReadOnly = request.readOnly else { throw .invalidArgument }
                if !isReadOnly {
                    guard mounted.head != nil else { throw .readOnly }
                    try device.allowWriting()
                }
                try volume.setReadOnly(isReadOnly)
                registration.update { $0.isReadOnly = isReadOnly }
            case .resize: reply.resize = try resize(request, isCancelled, progress)
            // A resize that this came for has ended.
            case .scrub, .cancel: break
            case .trim:
                reply.trim = TrimDocument(
                    trimmedBytes: try volume.trim(
                        isCancelled: isCancelled,
                        progress: { progress(ProgressReporter.Step(trim: $0)) }))
            case .mounts:
                reply.mounts = [record]
            case .extents, .usage, .defragment, .dedup, .snapshot, .stream, .restore: break
            case .shutdown:
                kill(getpid(), SIGTERM)
            }
        } catch .readOnly where request.command == .remount {
            throw Failure(
                .failed, .remountRefused,
                mounted.head == nil
                    ? "a snapshot of \(record.device) is mounted, which nobody writes to"
                    : "\(record.device) was mounted read-only with a journal to replay, and cannot"
                        + " become writable in place",
                hint: "'aegisfs umount \(record.mountpoint)', then mount it again without ro")
        } catch .busy where request.command == .resize {
            throw Failure(.busy, .resizeRunning, "\(record.device) is being resized already")
        } catch { throw Failure(error, target: record.device) }
        return reply
    }

    private func resize(
        _ request: ControlRequest, _ isCancelled: () -> Bool,
        _ progress: (ProgressReporter.Step) -> Void
    ) throws(FSError) -> ResizeDocument {
        guard let target = request.size?.target else { throw .invalidArgument }
        if request.isDryRun == true {
            return ResizeDocument(try volume.planResize(target), isDryRun: true)
        }
        let result = withoutActuallyEscaping(isCancelled) { isCancelled in
            withoutActuallyEscaping(progress) { progress -> Result<ResizePlan, FSError> in
                do throws(FSError) {
                    return .success(
                        try volume.resize(
                            target, rate: request.rateBps, isCancelled: isCancelled,
                            progress: { progress(ProgressReporter.Step($0)) }))
                } catch { return .failure(error) }
            }
        }
        return ResizeDocument(try result.get(), isDryRun: false)
    }

    private func scrub(
        _ request: ControlRequest, _ device: String, _ isCancelled: () -> Bool,
        _ progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ControlReply {
        guard let scrub = request.scrub else {
            throw Failure(.usage, .badRequest, "the request does not say what to do with a scrub")
        }
        var reply = ControlReply.done
        reply.scrub = try scrubs.perform(
            scrub, target: device, isCancelled: isCancelled, progress: progress)
        if scrub.action == .status {
            reply.history = ScrubRecord.history(in: volume).map { ScrubDocument($0) }
        }
        return reply
    }
}

extension MountDaemon {
    /// Where the inodes of a request are.
    fileprivate func files(of request: ControlRequest) throws(Failure) -> FileSystem {
        guard let name = request.inSnapshot else { return files }
        guard request.command == .extents || request.command == .usage else {
            throw Failure(.usage, .badRequest, "a snapshot is not changed")
        }
        do throws(FSError) { return try volume.snapshotStore.files(of: Array(name.utf8)) } catch {
            throw Failure(
                .notFound, .noSnapshot,
                "\(registration.current.device): there is no snapshot \(Quoting.name(name))",
                hint: "an @GMT- name is another for one in DIR/.snapshots")
        }
    }

    fileprivate func changeSnapshots(
        _ request: SnapshotRequest?
    ) throws(Failure) -> SnapshotDocument {
        let record = registration.current
        guard let request else {
            throw Failure(.usage, .badRequest, "the request does not say what to do")
        }
        let service = SnapshotService(volume: volume, target: record.device, mounted: mounted)
        let isMoment = request.action == .create || request.action == .rollback
        if isMoment, request.head == nil, mounted.head == nil {
            throw Failure(
                .busy, .mountBusy, "\(record.mountpoint) shows a snapshot, which stays as it is",
                hint: "name \(record.device) to mean the volume itself")
        }
        let head = try service.store.head(meant: request.head, mounted, record.device)
        if request.action == .rollback, head == mounted.head {
            return try rollBack(request, head, service)
        }
        return try service.perform(request)
    }
}

/// Both the kernel and the control socket must be ready before anybody is told.
private final class Readiness: @unchecked Sendable {
    private let lock = Mutex()
    private var waitingFor = 2
    private let report: @Sendable () -> Void
    init(_ report: @escaping @Sendable () -> Void) { self.report = report }

    func kernelIsReady() { countDown() }
    func daemonIsReady() { countDown() }
    private func countDown() {
        let isReady = lock.withLock {
            waitingFor -= 1
            return waitingFor == 0
        }
        if isReady { report() }
    }
}

/// Turns what a volume reports into lines of the log.
///
/// Safe to share: what changes is behind `lock`.
private final class EventRelay: VolumeObserver, @unchecked Sendable {
    private let log: @Sendable (String) -> Void
    private let mountpoint: String
    private let lock = Mutex()
    /// Guarded by `lock`.
    private weak var volume: Volume?
    private var lastFull: UInt64?
    private var advise: @Sendable () -> Void = {}
    /// Who deletes a tree hears of it once.
    private static let silentNanoseconds: UInt64 = 60_000_000_000

    init(log: @escaping @Sendable (String) -> Void, mountpoint: String) {
        self.log = log
        self.mountpoint = mountpoint
    }

    func attach(_ volume: Volume) { lock.withLock { self.volume = volume } }

    /// A delete or truncate found no space, which only snapshots can bring about.
    private func noteFull() {
        let now = monotonicNanoseconds()
        let volume: Volume? = lock.withLock {
            if let lastFull, now - lastFull < Self.silentNanoseconds { return nil }
            lastFull = now
            return self.volume
        }
        guard let volume else { return }
        log(
            "there is no space left even to delete"
                + (HeldSpace(of: volume).map { ": \($0.advice(mountpoint))" } ?? ""))
    }

    /// Also hears of what was found damaged until now.
    func whenDamaged(_ body: @escaping @Sendable () -> Void) {
        lock.withLock { advise = body }
        body()
    }

    func volume(_ event: VolumeEvent) {
        switch event {
        case .checkpoint: break
        case .recovered(let recovery):
            log(
                "the journal was replayed: \(recovery.operations) operations, "
                    + "\(recovery.bytes) bytes, \(Int(recovery.milliseconds)) ms")
        case .latched(let why): log("the volume takes no more changes: \(why)")
        case .full: noteFull()
        case .damage(let what):
            log("damage: \(what)")
            lock.withLock { advise }()
        case .healed(let what): log("healed: \(what)")
        }
    }
}
