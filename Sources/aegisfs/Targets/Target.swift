/// What TARGET on the command line means: a volume that a daemon has mounted, or an image or
/// device that nobody has.
internal import Glibc

enum Target: Sendable {
    case live(LiveMount)
    case offline(path: String)

    /// Finds out which, or says why it is neither.
    static func resolve(_ path: String) throws(Failure) -> Target {
        let target = try find(path)
        if case .live(let mount) = target { try ControlClient.requireRunning(mount) }
        return target
    }

    private static func find(_ path: String) throws(Failure) -> Target {
        if let mount = mount(at: path) {
            if let live = LiveMount.of(mount) { return .live(live) }
            throw unreachable(path, mount)
        }
        guard let status = fileStatus(path) else {
            let error = errno
            // An image that was deleted or moved while it is mounted is still meant by its old name.
            if let mount = LiveMount.of(formerPath: path) { return .live(mount) }
            throw missing(path, error)
        }
        if let identity = DeviceIdentity(status) {
            return LiveMount.of(identity).map(Target.live) ?? .offline(path: path)
        }
        if status.isDirectory {
            throw Failure(
                .notFound, .notMounted, "\(path) is a directory on which no volume is mounted",
                hint: "'aegisfs status' lists what is mounted")
        }
        throw Failure(
            .failed, .wrongKindOfTarget, "\(path) is neither an image nor a block device",
            hint: "a volume lives in a regular file or on a block device")
    }

    /// Our mount on exactly this directory.
    static func mount(at path: String) -> MountTable.Entry? {
        guard let table = MountTable.current() else { return nil }
        func find(_ resolved: String?) -> MountTable.Entry? {
            resolved.flatMap { table.entry(at: $0) }.flatMap { $0.isAegisFS ? $0 : nil }
        }
        return find(Paths.resolveParent(path)) ?? find(Paths.resolve(path))
    }

    /// Mounts whose daemon has died, or which belong to a user whose daemons cannot be seen.
    static func deadMounts() -> [MountTable.Entry] {
        let alive = Set(LiveMount.all().compactMap(\.record.mountDevice))
        return (MountTable.current()?.entries ?? []).filter {
            $0.isAegisFS && !alive.contains($0.device)
        }
    }

    static func missing(_ path: String, _ error: Int32) -> Failure {
        guard error == ENOENT || error == ENOTDIR else { return .system(path, error) }
        return Failure(
            .notFound, .targetMissing, "\(path): \(systemMessage(error))",
            hint: "check the name; 'aegisfs status' lists what is mounted")
    }

    /// There is a mount, but no daemon that this user may talk to.
    static func unreachable(_ path: String, _ mount: MountTable.Entry) -> Failure {
        if isDead(mount) {
            return Failure(
                .failed, .endedUncleanly, "the daemon of the mount on \(path) has died",
                hint: "'aegisfs umount \(mount.mountpoint)' clears it away; then mount again")
        }
        return Failure(
            .failed, .controlUnreachable, "the daemon of the mount on \(path) cannot be reached",
            hint: geteuid() == 0
                ? "it was started in another container or with another XDG_RUNTIME_DIR"
                : "it belongs to another user; run the command as root")
    }

    /// Whether the daemon has gone and left its mount behind. Waits for a daemon that hangs.
    static func isDead(_ mount: MountTable.Entry) -> Bool {
        var statistics = statvfs()
        return statvfs(mount.mountpoint, &statistics) != 0 && errno == ENOTCONN
    }
}
