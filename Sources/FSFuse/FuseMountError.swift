/// Why a mount failed, and what to do about it.
internal import Glibc

public enum FuseMountError: Error, Equatable, Sendable {
    /// `/dev/fuse` does not exist, or nothing is behind it.
    case deviceMissing
    /// `/dev/fuse` may not be opened.
    case devicePermission
    case mountpointMissing(String)
    case mountpointNotDirectory(String)
    /// The mount point cannot be reached or, by an unprivileged user, not be written.
    case mountpointPermission(String)
    /// A FUSE mount whose server is gone lies on the mount point.
    case mountpointDead(String)
    /// The mount point cannot be used for another reason.
    case mountpointUnusable(String, errno: Int32)
    /// `fusermount3` is needed by unprivileged users and not installed.
    case helperMissing
    /// `/etc/fuse.conf` does not let unprivileged users say `allow_other`.
    case allowOtherForbidden
    /// The kernel or `fusermount3` refused, and has said why on standard error.
    case refused(String)
    /// libfuse could not make a session.
    case noSession
}

extension FuseMountError: CustomStringConvertible {
    /// What is wrong, in one sentence without full stop.
    public var description: String {
        switch self {
        case .deviceMissing: "/dev/fuse does not exist: the kernel has no FUSE"
        case .devicePermission: "no permission to open /dev/fuse"
        case .mountpointMissing(let path): "the mount point \(path) does not exist"
        case .mountpointNotDirectory(let path): "the mount point \(path) is not a directory"
        case .mountpointPermission(let path): "no permission to mount on \(path)"
        case .mountpointDead(let path): "a FUSE mount without server lies on \(path)"
        case .mountpointUnusable(let path, let errno):
            "the mount point \(path) cannot be used: \(String(cString: strerror(errno)))"
        case .helperMissing: "fusermount3 is not installed"
        case .allowOtherForbidden: "allow_other is not allowed to unprivileged users here"
        case .refused(let path): "mounting on \(path) was refused"
        case .noSession: "libfuse could not make a session"
        }
    }

    /// What to do about it, in one sentence without full stop.
    public var cure: String {
        switch self {
        case .deviceMissing: "load the module with \"modprobe fuse\""
        case .devicePermission: "run as root, or give your user access to /dev/fuse"
        case .mountpointMissing(let path): "create it with \"mkdir -p \(path)\""
        case .mountpointNotDirectory: "name a directory"
        case .mountpointPermission: "run as root, or mount on a directory that you own"
        case .mountpointDead(let path): "remove it with \"umount -l \(path)\""
        case .mountpointUnusable: "name another directory"
        case .helperMissing: "install the package fuse3, or run as root"
        case .allowOtherForbidden: "add \"user_allow_other\" to /etc/fuse.conf, or run as root"
        case .refused:
            "read the message of the kernel or fusermount3; in a container, allow CAP_SYS_ADMIN"
        case .noSession: "check that memory is available and libfuse3 is intact"
        }
    }
}
