/// Other programs, started and waited for.
internal import Glibc

enum ChildProcess {
    /// Starts a program from the PATH with this process's standard streams and nothing else that is
    /// open here: a daemon would keep it open for the life of its mount. Nil if that failed.
    static func start(
        _ words: [String], path: String? = nil, newSession: Bool = false,
        passing descriptor: (own: Int32, child: Int32)? = nil
    ) -> pid_t? {
        for number in directoryNames("/proc/self/fd").compactMap({ Int32($0) }) where number > 2 {
            _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let descriptor {
            posix_spawn_file_actions_adddup2(&actions, descriptor.own, descriptor.child)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // POSIX_SPAWN_SETSID of glibc
        if newSession { posix_spawnattr_setflags(&attributes, 0x80) }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        var process: pid_t = 0
        let outcome =
            path.map { posix_spawn(&process, $0, &actions, &attributes, arguments, environ) }
            ?? posix_spawnp(&process, words[0], &actions, &attributes, arguments, environ)
        return outcome == 0 ? process : nil
    }

    /// The exit status; 128 and the number for a signal.
    static func wait(for process: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
    }

    /// Runs a program to its end; nil if it could not be started.
    static func run(_ words: [String]) -> Int32? { start(words).map(wait) }
}
