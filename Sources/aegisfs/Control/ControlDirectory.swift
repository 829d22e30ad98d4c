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
        if user == 0 { return rootPath }
        if let runtime = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }),
            runtime.hasPrefix("/")
        {
            return runtime + "/aegisfs"
        }
        return fallback + "\(user)"
    }

    /// This process's user as the outside knows it: whoever is root of a user namespace of his own
    /// has not root's directory (user_namespaces(7)).
    private static let user: uid_t = {
        let inside = geteuid()
        for line in (fileText("/proc/self/uid_map") ?? "").split(separator: "\n") {
            let numbers = line.split(separator: " ").compactMap { uid_t($0) }
            if numbers.count == 3, inside >= numbers[0], inside - numbers[0] < numbers[2] {
                return numbers[1] &+ (inside - numbers[0])
            }
        }
        return inside
    }()

    /// For users without a runtime directory; their number follows.
    private static let fallback = "/tmp/aegisfs-"

    /// Where daemons that this process may talk to can be: root finds those of other users, too.
    static var searched: [String] {
        guard user == 0 else { return [own, rootPath] }
        let runtime = directoryNames("/run/user").map { "/run/user/\($0)/aegisfs" }
        // Anybody can make a directory in /tmp: only the user of the number counts.
        let temporary = directoryNames("/tmp").map { "/tmp/" + $0 }.filter { path in
            guard path.hasPrefix(fallback), let user = uid_t(path.dropFirst(fallback.count)) else {
                return false
            }
            let status = fileStatus(path, followLinks: false)
            return status?.isDirectory == true && status?.st_uid == user
        }
        return [own] + runtime + temporary
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
