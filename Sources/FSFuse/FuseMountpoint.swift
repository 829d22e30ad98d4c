/// A directory to mount on: what must hold before, and how a mount on it ends.
///
/// - Invariant: after the mount, nothing here sends a request to the filesystem behind it, except
///   `flush`; the caller may be the only one who could answer.
/// - Invariant: only the mount with the given device number is ever unmounted, whatever lies on
///   the path by now.
internal import CFuse3
internal import FSCore
internal import Glibc

struct FuseMountpoint: Sendable {
    /// Absolute and without symbolic links, so that it stays valid when the program changes its
    /// directory.
    let path: String

    private static let device = "/dev/fuse"

    /// Checks all that can be checked before, to say clearly what is missing.
    init(_ path: String, options: FuseMountOptions, isPrivileged: Bool) throws(FuseMountError) {
        guard let resolved = realpath(path, nil) else { throw Self.error(path, errno) }
        defer { free(resolved) }
        self.path = String(cString: resolved)
        var status = stat()
        guard stat(resolved, &status) == 0 else { throw Self.error(path, errno) }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .mountpointNotDirectory(path) }

        let descriptor = open(Self.device, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw errno == EACCES || errno == EPERM ? .devicePermission : .deviceMissing
        }
        close(descriptor)
        guard !isPrivileged else { return }
        guard access(resolved, W_OK) == 0 else { throw .mountpointPermission(path) }
        guard FuseMountHelper.isInstalled else { throw .helperMissing }
        guard !options.allowOther || FuseMountHelper.allowsOther else { throw .allowOtherForbidden }
    }

    private static func error(_ path: String, _ code: Int32) -> FuseMountError {
        switch code {
        case ENOENT: .mountpointMissing(path)
        case ENOTDIR: .mountpointNotDirectory(path)
        case EACCES, EPERM: .mountpointPermission(path)
        case ENOTCONN, ECONNABORTED: .mountpointDead(path)
        default: .mountpointUnusable(path, errno: code)
        }
    }

    /// The device number of what lies on the path, from the kernel alone: an empty mask asks the
    /// server for nothing.
    var deviceNumber: DeviceNumber? {
        var result = statx()
        let status = statx(
            AT_FDCWD, path, Int32(AEGIS_AT_STATX_DONT_SYNC), 0, &result)
        guard status == 0 else { return nil }
        return DeviceNumber(major: result.stx_dev_major, minor: result.stx_dev_minor)
    }

    enum Outcome { case unmounted, busy, failed }

    /// Unmounts what has this device number. Lazily, it vanishes from the path at once and ends
    /// with its last user.
    func unmount(_ device: DeviceNumber, lazily: Bool) -> Outcome {
        guard deviceNumber == device else { return .unmounted }
        if umount2(path, lazily ? Int32(MNT_DETACH) : 0) == 0 { return .unmounted }
        switch errno {
        case EBUSY: return .busy
        case EPERM: break
        default: return .failed
        }
        FuseMountHelper.run(["-u", "-q"] + (lazily ? ["-z"] : []) + ["--", path])
        // The helper's exit status does not tell busy from forbidden.
        return deviceNumber == device ? .busy : .unmounted
    }

    /// Has the kernel send what it still holds back; somebody must be there to take it.
    func flush() {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        _ = syncfs(descriptor)
        close(descriptor)
    }
}

/// `fusermount3`, which is set-user-id and mounts for unprivileged users.
enum FuseMountHelper {
    private static let name = "fusermount3"

    /// libfuse looks in `/usr/bin` first, then along the path.
    static var isInstalled: Bool {
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        return (["/usr/bin"] + path.split(separator: ":").map(String.init)).contains {
            access($0 + "/" + name, X_OK) == 0
        }
    }

    /// Whether `/etc/fuse.conf` has the line `user_allow_other`.
    static var allowsOther: Bool {
        guard let file = fopen("/etc/fuse.conf", "r") else { return false }
        defer { fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var capacity = 0
        defer { free(line) }
        while getline(&line, &capacity, file) >= 0 {
            let words = String(cString: line.unsafelyUnwrapped)
                .split { $0 == " " || $0 == "\t" || $0 == "\n" }
            if words == ["user_allow_other"] { return true }
        }
        return false
    }

    static func run(_ arguments: [String]) {
        var argv = ([name] + arguments).map { strdup($0) }
        argv.append(nil)
        defer { argv.forEach { free($0) } }
        var process = pid_t()
        guard posix_spawnp(&process, name, nil, nil, argv, environ) == 0 else { return }
        while waitpid(process, nil, 0) < 0, errno == EINTR {}
    }
}
