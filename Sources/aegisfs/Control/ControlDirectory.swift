/// Where daemons leave their sockets and records: `/run/aegisfs` of root, and a directory of each
/// other user.
///
/// - Invariant: a daemon uses a directory only if it belongs to its own user and is closed to
///   everybody else, so that nobody can put a socket in its place.
internal import Glibc

enum ControlDirectory {
    private static let rootPath = "/run/aegisfs"

    /// The directory of this process's user.
    static var own: String {
        if geteuid() == 0 { return rootPath }
        if let runtime = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }),
            runtime.hasPrefix("/")
        {
            return runtime + "/aegisfs"
        }
        return "/tmp/aegisfs-\(geteuid())"
    }

    /// Where daemons that this process may talk to can be: root finds those of other users, too.
    static var searched: [String] {
        let others =
            geteuid() == 0
            ? directoryNames("/run/user").map { "/run/user/\($0)/aegisfs" } : [rootPath]
        return [own] + others
    }

    /// Makes the user's directory if it is missing, and checks it.
    static func prepare() throws(Failure) -> String {
        let path = own
        if mkdir(path, 0o700) != 0, errno != EEXIST {
            throw .system("cannot make the control directory \(path)", errno)
        }
        guard let status = fileStatus(path, followLinks: false), status.isDirectory,
            status.st_uid == geteuid()
        else {
            throw Failure(
                .failed, .controlDirectory, "\(path) is not a directory of this user",
                hint: "remove it, or set XDG_RUNTIME_DIR to a directory of your own")
        }
        if status.st_mode & 0o077 != 0, chmod(path, 0o700) != 0 {
            throw .system("cannot close \(path) to other users", errno)
        }
        return path
    }
}
