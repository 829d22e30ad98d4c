/// `aegisfs umount`: returns when the daemon has ended and its device is free, with the daemon's own
/// verdict on closing the volume.
internal import FSCore
internal import Glibc

enum UmountVerb {
    private static let noticeMilliseconds = 2_000
    private static let patienceMilliseconds = 5_000
    private static let pollMilliseconds = 10

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let mount: MountTable.Entry
        let live: LiveMount?
        if let found = Target.mount(at: path) {
            mount = found
            live = LiveMount.of(found)
        } else {
            switch try Target.resolve(path) {
            case .live(let daemon):
                live = daemon
                guard let entry = daemon.mount else {
                    // Unmounted by somebody else; what is left is to wait.
                    try wait(for: daemon, path)
                    return .done
                }
                mount = entry
            case .offline:
                guard
                    let dead = Target.deadMounts().first(where: { entry in
                        Paths.resolve(path).map { Paths.areEqual($0, entry.source) } ?? false
                    })
                else {
                    throw Failure(
                        .notFound, .notMounted, "\(path) is not mounted",
                        hint: "'aegisfs status' lists what is mounted")
                }
                live = nil
                mount = dead
            }
        }
        let isDead = live == nil && Target.isDead(mount)
        try detach(mount, lazily: arguments.has(.lazy))
        if arguments.has(.lazy) { return .done }
        if let live {
            try wait(for: live, path)
        } else if isDead {
            Terminal.notice(
                "the mount on \(mount.mountpoint) is gone, but its daemon had died before "
                    + "[\(MessageID.endedUncleanly.rawValue)]")
            return .damaged
        } else {
            waitForLock(on: mount.source)
        }
        return .done
    }

    /// Until nobody holds the device: all that can be seen of a daemon that has no record here.
    private static func waitForLock(on source: String) {
        guard DeviceIdentity(path: source) != nil,
            let file = Descriptor.open(source, O_RDONLY | O_NONBLOCK)
        else { return }
        while !file.tryLock(.shared) { sleep(milliseconds: pollMilliseconds) }
    }

    private static func detach(_ mount: MountTable.Entry, lazily: Bool) throws(Failure) {
        var error: Int32 = 0
        if geteuid() == 0 {
            // MNT_DETACH, UMOUNT_NOFOLLOW
            if umount2(mount.mountpoint, (lazily ? 2 : 0) | 8) != 0 { error = errno }
        } else {
            let words = ["fusermount3", lazily ? "-uz" : "-u", "--", mount.mountpoint]
            guard let status = ChildProcess.run(words) else {
                throw Failure(
                    .failed, .unmountFailed, "fusermount3 could not be started",
                    hint: "install the package fuse3, or run as root")
            }
            if status != 0, MountTable.current()?.entry(at: mount.mountpoint) != nil {
                // Its exit status does not tell; it has printed the reason.
                error = ProcessTable.users(of: mount).isEmpty ? EPERM : EBUSY
            }
        }
        if error == 0 { return }
        guard error == EBUSY else {
            throw Failure(
                .failed, .unmountFailed,
                "cannot unmount \(mount.mountpoint): \(systemMessage(error))",
                hint: error == EPERM ? "root can" : nil)
        }
        let users = ProcessTable.users(of: mount).filter { $0.id != getpid() }
        let names = users.prefix(8).map(\.description).joined(separator: ", ")
        throw Failure(
            .busy, .mountBusy,
            "\(mount.mountpoint) is in use" + (users.isEmpty ? "" : " by \(names)"),
            hint: "end those processes, or use --lazy to detach it now")
    }

    /// Until the daemon has ended; its outcome is ours.
    private static func wait(for live: LiveMount, _ path: String) throws(Failure) {
        var waited = 0
        var outcome: FailureDocument?
        while !live.hasEnded {
            outcome = live.latest.outcome ?? outcome
            // With its last mount the daemon would have begun to close the volume.
            if waited >= patienceMilliseconds, live.latest.state == .mounted {
                throw Failure(
                    .busy, .mountBusy,
                    "\(path) is unmounted here, but a bind mount or another mount namespace still has "
                        + "the volume",
                    hint: "unmount it there, too; then its daemon ends")
            }
            if waited == noticeMilliseconds {
                Terminal.notice("writing back what \(path) still has in memory")
            }
            sleep(milliseconds: pollMilliseconds)
            waited += pollMilliseconds
        }
        let last = live.latest
        if let failure = (last.outcome ?? outcome)?.failure { throw failure }
        guard last.state == .closed else {
            throw Failure(
                .failed, .endedUncleanly,
                "the daemon ended without closing the volume",
                hint: "see the system log; the next mount recovers to the last checkpoint")
        }
    }
}
