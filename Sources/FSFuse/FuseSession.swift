/// One mount: from mounting over serving requests to the end.
///
///     init ──────▶ mounted ──run──▶ serving ──┬─ unmounted by anybody ─▶ ended
///                     │                       └─ requestExit ──────────▶ ended
///                     └─ requestExit, then run ─▶ ended
///
/// What ends the loop: when the kernel has no user of the mount left, reading `/dev/fuse` fails
/// with ENODEV in every thread. If somebody still uses it, `requestExit` takes it off its path,
/// has the kernel send what it holds back, and stops the loop; the users then get ENOTCONN.
/// Requests under way are finished and answered in both cases.
///
/// - Invariant: `session` is valid until the state is `ended`, and used under `lock` by all but
///   the thread in `run`.
/// - Invariant: whoever unmounts does so while the loop can still answer, or after the
///   descriptor is closed; in between, the kernel would wait for an answer for ever.
internal import CFuse3
public import FSCore
internal import Glibc

public final class FuseSession: @unchecked Sendable {
    /// The device number of the mount, as stat(2) shows it for every file in it.
    public let deviceNumber: DeviceNumber
    /// Absolute and without symbolic links.
    public var mountpoint: String { place.path }
    /// Whether requests come by io_uring: then `/dev/fuse` has only what rings do not carry.
    public var usesRings: Bool { channel.hasRings }

    private let place: FuseMountpoint
    let channel: FuseChannel
    private let session: OpaquePointer
    private let lock = Mutex()
    private var state = State.mounted
    private var exitRequested = false
    /// Threads that tell the kernel something just now.
    private var notifying = 0

    private enum State {
        case mounted
        case serving(pthread_t)
        case ending
        case ended
    }

    /// Mounts. Whoever enters the mount waits until `run` is called.
    ///
    /// - Parameter snapshots: what `.snapshots` in the root shows; nil: there is no such directory.
    public init(
        fileSystem: FileSystem, snapshots: (any SnapshotNamespace)? = nil, mountpoint: String,
        options: FuseMountOptions
    ) throws(FuseMountError) {
        let isPrivileged = geteuid() == 0
        let place = try FuseMountpoint(mountpoint, options: options, isPrivileged: isPrivileged)
        let onReady = options.onReady
        let channel = FuseChannel(
            fileSystem: fileSystem, snapshots: snapshots,
            writeback: options.writeback, usesRings: options.usesRings, log: options.log
        ) {
            place.deviceNumber.map(BackingDeviceLimits.raise)
            onReady()
        }
        guard
            let session = Self.makeSession(
                channel, options.arguments(isPrivileged: isPrivileged))
        else { throw .noSession }
        guard fuse_session_mount(session, place.path) == 0 else {
            fuse_session_destroy(session)
            throw .refused(mountpoint)
        }
        guard let deviceNumber = place.deviceNumber else {
            fuse_session_unmount(session)
            fuse_session_destroy(session)
            throw .refused(mountpoint)
        }
        channel.attach(to: session)
        self.place = place
        self.channel = channel
        self.session = session
        self.deviceNumber = deviceNumber
        channel.notify { [weak self] in self?.withSession($0) }
    }

    private static func makeSession(
        _ channel: FuseChannel, _ arguments: [String]
    ) -> OpaquePointer? {
        var argv = arguments.map { strdup($0) }
        defer { argv.forEach { free($0) } }
        var operations = FuseOperations.table()
        return argv.withUnsafeMutableBufferPointer { argv in
            var parsed = fuse_args(
                argc: Int32(argv.count), argv: argv.baseAddress, allocated: 0)
            defer { fuse_opt_free_args(&parsed) }
            return fuse_session_new(
                &parsed, &operations, MemoryLayout<fuse_lowlevel_ops>.size,
                Unmanaged.passUnretained(channel).toOpaque())
        }
    }

    deinit {
        if case .mounted = state { end() }
    }

    /// Serves requests until the mount is gone or an exit is requested; once per session.
    ///
    /// - Returns: 0, or the error number that ended it.
    public func run() -> Int32 {
        WakeUpSignal.letIn()
        let mayServe = lock.withLock {
            guard case .mounted = state, !exitRequested else { return false }
            state = .serving(pthread_self())
            return true
        }
        let status = mayServe ? serve() : 0
        end()
        return status
    }

    private func serve() -> Int32 {
        guard let configuration = fuse_loop_cfg_create() else { return ENOMEM }
        defer { fuse_loop_cfg_destroy(configuration) }
        // libfuse starts a thread when all others are busy and, by default, ends none. Most wait for
        // the device: the more there are, the more calls of fsync share a flush.
        fuse_loop_cfg_set_max_threads(configuration, Self.maximumThreads)
        // When the loop has ended, the mount is gone or shall be.
        defer { channel.stopRings() }
        return abs(fuse_session_loop_mt(session, configuration))
    }

    /// Unmounts now if nobody uses the mount; the loop then ends by itself.
    ///
    /// - Returns: whether the mount is gone.
    @discardableResult
    public func unmount() -> Bool {
        place.unmount(deviceNumber, lazily: false) == .unmounted
    }

    /// Ends the mount and the loop, even if somebody still uses the mount, and returns when the
    /// loop has ended. For a thread of its own: neither a callback of the options nor the thread
    /// in `run` may call it.
    public func requestExit() {
        if place.unmount(deviceNumber, lazily: false) != .unmounted {
            if isServing { place.flush() }
            _ = place.unmount(deviceNumber, lazily: true)
        }
        lock.withLock {
            exitRequested = true
            // A signal that comes just before the loop's thread waits is lost, so repeat it.
            while case .serving(let thread) = state {
                fuse_session_exit(session)
                pthread_kill(thread, WakeUpSignal.number)
                lock.wait(milliseconds: 20)
            }
        }
    }

    private static let maximumThreads: UInt32 = 64

    /// Lends the session for a notification, which may wait for others in the kernel.
    func withSession(_ body: (OpaquePointer) -> Void) {
        let isServing = lock.withLock {
            guard case .serving = state else { return false }
            notifying += 1
            return true
        }
        guard isServing else { return }
        body(session)
        lock.withLock {
            notifying -= 1
            lock.signalAll()
        }
    }

    private var isServing: Bool {
        lock.withLock { if case .serving = state { true } else { false } }
    }

    /// Closes the descriptor, by which the kernel answers ENOTCONN to all who still wait, and only
    /// then removes a mount that is still there. (`fuse_session_unmount` would unmount whatever
    /// lies on the path.)
    private func end() {
        lock.withLock {
            if case .ended = state { return }
            if case .serving = state { state = .ending }
            // Nobody answers any more what a notification may wait for. The process is about to
            // end, and the kernel closes the descriptor then.
            for _ in 0..<100 where notifying > 0 { lock.wait(milliseconds: 20) }
            if notifying == 0 { fuse_session_destroy(session) }
            state = .ended
            lock.signalAll()
        }
        _ = place.unmount(deviceNumber, lazily: true)
    }
}

/// The signal that wakes the thread in `fuse_session_loop_mt` from waiting for its workers, as
/// libfuse's own handlers for SIGTERM would, and those of the rings from waiting for requests. SIGURG is
/// ignored by default and sent by nobody else.
enum WakeUpSignal {
    static let number = SIGURG

    /// Lets the signal interrupt the calling thread. The handler stays: other sessions of the
    /// process may need it.
    static func letIn() {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(number, &action, nil)
        var only = sigset_t()
        sigemptyset(&only)
        sigaddset(&only, number)
        pthread_sigmask(SIG_UNBLOCK, &only, nil)
    }
}
