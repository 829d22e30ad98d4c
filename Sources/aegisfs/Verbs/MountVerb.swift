/// `aegisfs mount`, its daemon, and mount(8)'s helper.
///
/// The visible command starts this program again as the daemon and waits on a pipe for one JSON
/// line: that the mount is ready, or why it failed. So the caller may use the mount at once, and an
/// error has its exit code.
internal import FSCore
internal import Glibc

enum MountVerb {
    /// What the daemon writes on the pipe.
    private struct ReadyDocument: Codable { var failure: FailureDocument? }
    private static let readyDescriptor: Int32 = 3

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try mount(
            arguments.operands[0], arguments.operand(1), try MountOptions(words(arguments)),
            foreground: arguments.has(.foreground))
    }

    private static func words(_ arguments: Arguments) -> [String] {
        arguments.values(.mountOptions) + (arguments.has(.readOnly) ? ["ro"] : [])
            + (arguments.value(.mountSnapshot).map { ["snapshot=\($0)"] } ?? [])
            + (arguments.value(.mountHead).map { ["head=\($0)"] } ?? [])
    }

    /// `mount.fuse.aegisfs SOURCE DIR -o OPTIONS`
    static func runHelper(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let options = try MountOptions(words(arguments), sloppy: arguments.has(.sloppy))
        if arguments.has(.fake) { return .done }
        return try mount(
            arguments.operands[0], arguments.operand(1), options, foreground: false)
    }

    private static func mount(
        _ target: String, _ directory: String?, _ options: MountOptions, foreground: Bool
    ) throws(Failure) -> ExitCode {
        if options.isRemount { return try remount(target, directory, options) }
        guard let directory else {
            throw .usage(
                "mount: DIR is missing", hint: "usage: aegisfs mount [options] TARGET DIR")
        }
        let mountpoint = try Mountpoint.check(directory, allowsNonEmpty: options.allowsNonEmpty)
        guard fileStatus(target) != nil else { throw Target.missing(target, errno) }
        let plan = MountDaemon.Plan(
            target: Paths.resolve(target) ?? target, mountpoint: mountpoint, options: options)
        if foreground {
            try MountDaemon.run(
                plan, log: { Terminal.notice($0) },
                ready: { Terminal.notice("\(plan.target) is mounted on \(plan.mountpoint)") })
            return .done
        }
        return try startDaemon(plan)
    }

    // MARK: The daemon's parent

    private static func startDaemon(_ plan: MountDaemon.Plan) throws(Failure) -> ExitCode {
        let (process, pipe) = try spawn(plan)
        let line = pipe.readAll(limit: 1 << 20) ?? []
        guard let answer = JSONOutput.decode(ReadyDocument.self, from: line) else {
            let status = ChildProcess.wait(for: process)
            throw Failure(
                .failed, .daemonDied,
                "the daemon ended before the mount was ready (status \(status))",
                hint: "'aegisfs mount --foreground' shows what it says")
        }
        if let failure = answer.failure {
            _ = ChildProcess.wait(for: process)
            throw failure.failure
        }
        return .done
    }

    /// Starts the daemon; the pipe's other end is open in it alone, so that its death is noticed.
    private static func spawn(
        _ plan: MountDaemon.Plan
    ) throws(Failure) -> (process: pid_t, pipe: Descriptor) {
        guard let pipe = Descriptor.pipe() else { throw .system("cannot make a pipe", errno) }
        var words = ["aegisfs", "mount-daemon", "--ready-fd", "\(readyDescriptor)"]
        if !plan.options.words.isEmpty {
            words += ["-o", plan.options.words.joined(separator: ",")]
        }
        words += ["--", plan.target, plan.mountpoint]
        // By its own path, so that the daemon is called by its name; a binary that was replaced
        // meanwhile still runs by way of /proc.
        let own = linkTarget("/proc/self/exe").flatMap { fileStatus($0) == nil ? nil : $0 }
        let process = ChildProcess.start(
            words, path: own ?? "/proc/self/exe", newSession: true,
            passing: (pipe.write.raw, readyDescriptor))
        guard let process else { throw .system("cannot start the daemon", errno) }
        return (process, pipe.read)
    }

    // MARK: The daemon

    static func serve(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let descriptor = arguments.value(.readyDescriptor).flatMap({ Int32($0) }) else {
            throw .usage("mount-daemon: --ready-fd is missing")
        }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        let plan = MountDaemon.Plan(
            target: arguments.operands[0], mountpoint: arguments.operands[1],
            options: try MountOptions(arguments.values(.mountOptions)))
        // The only reference: the parent reads until the descriptor is closed.
        let channel = ReadyChannel(Descriptor(descriptor))
        chdir("/")
        openlog("aegisfs", Int32(LOG_PID), Int32(LOG_DAEMON))
        do throws(Failure) {
            try MountDaemon.run(
                plan, log: { channel.log("\(plan.mountpoint): \($0)") },
                ready: {
                    // Whoever wanted the mount has been interrupted: nobody else would end it.
                    if !channel.send(JSONOutput.encode(ReadyDocument(failure: nil))) {
                        kill(getpid(), SIGTERM)
                    }
                    detach()
                })
        } catch {
            // After readiness nobody listens any more; the record and the log have it.
            _ = channel.send(JSONOutput.encode(ReadyDocument(failure: FailureDocument(error))))
            return error.code
        }
        return .done
    }

    /// Lets go of the terminal.
    private static func detach() {
        guard let null = Descriptor.open("/dev/null", O_RDWR) else { return }
        for stream in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] { dup2(null.raw, stream) }
    }

    // MARK: Remount

    /// Writing off or on, in the volume and in the kernel; off in the order that loses nothing.
    ///
    /// - Parameter target: the mountpoint, or the device if a directory is given, too.
    private static func remount(
        _ target: String, _ given: String?, _ options: MountOptions
    ) throws(Failure) -> ExitCode {
        let directory = given ?? target
        guard let mount = Target.mount(at: directory), let live = LiveMount.of(mount) else {
            throw Failure(
                .notFound, .notMounted, "no AegisFS volume is mounted on \(directory)",
                hint: "'aegisfs status' lists what is mounted")
        }
        if given != nil, let identity = DeviceIdentity(path: target),
            !identity.aliases.contains(live.record.identity)
        {
            throw Failure(
                .failed, .remountRefused,
                "\(directory) is the mountpoint of \(live.record.device), not of \(target)")
        }
        // What is not named stays as it is; mount(2) would take it for the opposite.
        let current =
            mount.options + mount.superOptions.filter { ["sync", "dirsync"].contains($0) }
        let options = try MountOptions(current + options.words, sloppy: true)
        func setVolumeReadOnly(_ flag: Bool) throws(Failure) {
            _ = try ControlClient.send(
                ControlRequest(command: .remount, readOnly: flag), to: live)
        }
        if options.isReadOnly {
            try remountKernel(mount.mountpoint, options)
            try setVolumeReadOnly(true)
        } else {
            try setVolumeReadOnly(false)
            do throws(Failure) {
                try remountKernel(mount.mountpoint, options)
            } catch {
                if mount.isReadOnly { try setVolumeReadOnly(true) }
                throw error
            }
        }
        return .done
    }

    private static func remountKernel(
        _ mountpoint: String, _ options: MountOptions
    ) throws(Failure) {
        // MS_REMOUNT and the flags of mount(2).
        var flags: UInt = 32
        if options.isReadOnly { flags |= 1 }
        if options.nosuid { flags |= 2 }
        if options.nodev { flags |= 4 }
        if options.noexec { flags |= 8 }
        if options.sync { flags |= 16 }
        if options.dirsync { flags |= 128 }
        if options.accessTime == .none { flags |= 1024 }
        guard Glibc.mount("none", mountpoint, nil, flags, nil) == 0 else {
            let error = errno
            throw Failure(
                error == EBUSY ? .busy : .failed, .remountRefused,
                "cannot remount \(mountpoint): \(systemMessage(error))",
                hint: error == EBUSY
                    ? "files on it are open for writing" : "run it as root")
        }
    }
}

/// The pipe to the parent until the mount is ready, the system log for what comes after.
private final class ReadyChannel: @unchecked Sendable {
    private let lock = Mutex()
    private var pipe: Descriptor?
    init(_ pipe: Descriptor) { self.pipe = pipe }

    /// Once; the parent reads to the end. False if it has gone.
    func send(_ line: String) -> Bool {
        lock.withLock {
            defer { pipe = nil }
            return pipe?.write(Array((line + "\n").utf8)) ?? true
        }
    }

    func log(_ message: String) {
        let isStarting = lock.withLock { pipe != nil }
        if isStarting { Terminal.notice(message) }
        withVaList([]) { vsyslog(Int32(LOG_NOTICE), message.replacing("%", with: "%%"), $0) }
    }
}
