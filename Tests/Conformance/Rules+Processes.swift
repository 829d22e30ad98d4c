/// What needs a second process: programs with set-id bits and capabilities, locks across fork(2),
/// signals.
internal import CCalls
internal import Glibc

extension Context {
    /// Runs something in a child, whose exit code it is; the wait status comes back. The process has
    /// one thread only, so that a child may do everything.
    fileprivate func inChild(_ body: () -> Int32) -> Int32 {
        let child = cc_fork()
        if child == 0 { _exit(body()) }
        var status: Int32 = 0
        ok(cc_wait(Int32(child), &status))
        return status
    }

    fileprivate static func splice(_ text: String, into file: Int32) -> Int {
        var ends: [Int32] = [0, 0]
        _ = cc_pipe(&ends)
        _ = cc_write(ends[1], text, text.utf8.count)
        return cc_splice(ends[0], nil, file, nil, text.utf8.count)
    }

    fileprivate func lock(_ fd: Int32, _ type: Int16, _ start: Int64, wait: Bool = false) -> Int {
        var lock = cc_lock()
        lock.type = type
        lock.start = start
        lock.length = 1
        return cc_lock(fd, wait ? 7 : 6, &lock)
    }

    /// A program that is true if its file `-O` belongs to its effective user, `-G` group.
    fileprivate func program(_ path: String, _ source: String, _ mode: UInt32) {
        ok(copy(source, path))
        ok(chown(path, User.bob.id, User.bobsGroup))
        ok(chmod(path, mode))
    }
}

func addProcessRules(to table: inout RuleTable) {
    addPrograms(to: &table)
    addLocksOfProcesses(to: &table)
    addSignals(to: &table)
}

private func addPrograms(to table: inout RuleTable) {
    let bits: [(String, UInt32, Int, Int)] = [
        ("set-user-id", 0o4755, 0, 1), ("set-group-id", 0o2755, 1, 0), ("both", 0o6755, 0, 0),
        ("neither", 0o755, 1, 1),
    ]
    for (name, mode, user, group) in bits {
        table.rule("execve: a program with \(name) of set-user-id and set-group-id") { t in
            t.program("test", "/usr/bin/test", mode)
            t.same(t.execute("test", "-O", "test", as: .alice), user)
            t.same(t.execute("test", "-G", "test", as: .alice), group)
        }
    }
    // Nobody asks for the mode in between. The program stays what it was, so that it still runs.
    let writes: [(String, (Context, Int32) -> Int)] = [
        ("write", { $0.pwrite($1, "\u{7F}", 0) }),
        ("fallocate", { cc_fallocate($1, Flag.keepSize, 0, 1) }),
        ("copy_file_range", { cc_copy($0.fd("other"), nil, $1, nil, 4) }),
        ("splice", { _, file in Context.splice("\u{7F}", into: file) }),
    ]
    for (name, write) in writes {
        table.rule("execve: set-user-id is without effect after an ordinary \(name)") { t in
            t.program("test", "/usr/bin/test", 0o6777)
            t.ok(t.copy("/usr/bin/test", "other"))
            t.same(t.execute("test", "-O", "test", as: .alice), 0)
            t.by(.alice) {
                let file = t.fd("test", O_WRONLY)
                t.ok(write(t, file))
                t.close(file)
            }
            t.same(t.execute("test", "-O", "test", as: .alice), 1)
            t.same(t.execute("test", "-G", "test", as: .alice), 1)
        }
    }
    table.rule("execve: a file capability is given to the program, and goes with it") { t in
        t.file("secret", "text", mode: 0)
        t.program("head", "/usr/bin/head", 0o755)
        t.same(t.execute("head", "-c0", "secret", as: .alice), 1)
        // cap_dac_override
        var capability = fileCapability
        (capability[4], capability[5]) = (2, 0)
        t.ok(t.setxattr("head", "security.capability", capability))
        t.same(t.execute("head", "-c0", "secret", as: .alice), 0)
        t.ok(t.removexattr("head", "security.capability"))
        t.same(t.execute("head", "-c0", "secret", as: .alice), 1)
    }
    table.rule("execve: a program that was unlinked runs on") { t in
        t.program("sleep", "/bin/sleep", 0o755)
        let program = t.fd("sleep")
        t.ok(t.unlink("sleep"))
        t.same(t.execute("/proc/self/fd/\(program)", "0"), 0)
    }
    table.rule("execve: a script's interpreter comes from its first line") { t in
        t.file("true", "#!/bin/true\n", mode: 0o755)
        t.file("false", "#!/bin/false\n", mode: 0o755)
        t.same(t.execute("true"), 0)
        t.same(t.execute("false"), 1)
    }
    table.rule("execve: neither a program nor a script is ENOEXEC") { t in
        t.file("f", "text", mode: 0o755)
        t.same(t.execute("f"), 128 + Int(ENOEXEC))
    }
    table.rule("fchmodat2: the mode of a symbolic link cannot be changed") { t in
        t.ok(t.symlink("x", "l"))
        t.fails(cc_chmod_link(HERE, "l", 0o600, Flag.noFollowSymlink), EOPNOTSUPP)
    }
}

private func addLocksOfProcesses(to table: inout RuleTable) {
    let (write, none): (Int16, Int16) = (1, 2)
    table.rule("process lock: a child does not inherit it") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        t.ok(t.lock(file, write, 0))
        let status = t.inChild { t.lock(file, write, 0) == -Int(EAGAIN) ? 7 : 8 }
        t.same(status, 7 << 8)
    }
    table.rule("process lock: ends with its process, though others have the file open") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        _ = t.inChild { t.lock(file, write, 0) >= 0 ? 0 : 1 }
        t.ok(t.lock(file, write, 0))
    }
    table.rule("process lock: F_GETLK names the process") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        t.ok(t.lock(file, write, 0))
        let owner = getpid()
        let status = t.inChild {
            var lock = cc_lock()
            lock.type = write
            return cc_lock(file, 5, &lock) == 0 && lock.pid == owner ? 7 : 8
        }
        t.same(status, 7 << 8)
    }
    table.rule("process lock: in a circle of two that wait, one hears EDEADLK") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        t.ok(t.lock(file, write, 0))
        var ends: [Int32] = [0, 0]
        t.ok(cc_pipe(&ends))
        let child = cc_fork()
        if child == 0 {
            guard t.lock(file, write, 10) >= 0 else { _exit(1) }
            t.write(ends[1], "x")
            _exit(t.lock(file, write, 0, wait: true) == -Int(EDEADLK) ? 8 : 7)
        }
        t.same(t.read(ends[0], 1).count, 1)
        // Whoever comes second closes the circle.
        let isRefused = t.lock(file, write, 10, wait: true) == -Int(EDEADLK)
        t.ok(t.lock(file, none, 0))
        var status: Int32 = 0
        t.ok(cc_wait(Int32(child), &status))
        t.same(status >> 8, isRefused ? 7 : 8)
    }
    table.rule("flock: a child shares it, and may release it") { t in
        t.file("f")
        let (file, other) = (t.fd("f"), t.fd("f"))
        t.ok(cc_flock(file, 2))
        t.same(t.inChild { cc_flock(file, 8) >= 0 ? 7 : 8 }, 7 << 8)
        t.ok(cc_flock(other, 2 | 4))
    }
    table.rule("open file lock: a child shares it") { t in
        t.file("f")
        let (file, other) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        func lock(_ fd: Int32) -> Int {
            var lock = cc_lock()
            lock.type = write
            return cc_lock(fd, 37, &lock)
        }
        t.ok(lock(file))
        t.same(t.inChild { lock(file) >= 0 && lock(other) == -Int(EAGAIN) ? 7 : 8 }, 7 << 8)
    }
    table.rule("open: a child shares the position") { t in
        t.file("f", "abcdef")
        let file = t.fd("f")
        t.same(t.inChild { t.read(file, 4).count == 4 ? 7 : 8 }, 7 << 8)
        t.same(t.read(file), Array("ef".utf8))
    }
    table.rule("mmap shared: is one memory with a child's") { t in
        t.file("f", "abcdef")
        let address = t.ok(cc_map(4096, 3, 1, t.fd("f", O_RDWR), 0))
        guard let bytes = UnsafeMutablePointer<UInt8>(bitPattern: address) else { return }
        _ = t.inChild {
            bytes[0] = 65
            return 0
        }
        t.same(bytes[0], 65)
        t.same(t.text("f"), "Abcdef")
    }
}

private func addSignals(to table: inout RuleTable) {
    table.rule("RLIMIT_FSIZE: a write beyond it is SIGXFSZ") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        let status = t.inChild {
            signal(SIGXFSZ, SIG_DFL)
            _ = cc_limit(4, [0, 0])
            _ = cc_limit(1, [1000, 1000])
            _ = t.pwrite(file, "x", 1000)
            return 0
        }
        t.same(status & 0x7F, SIGXFSZ)
        t.same(t.stat(file).size, 0)
    }
    table.rule("mmap: access beyond the end is SIGBUS") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        let address = t.ok(cc_map(8192, 3, 1, file, 0))
        let status = t.inChild {
            signal(SIGBUS, SIG_DFL)
            _ = cc_limit(4, [0, 0])
            return Int32(UnsafePointer<UInt8>(bitPattern: address + 4096)?.pointee ?? 0)
        }
        t.same(status & 0x7F, SIGBUS)
    }
    table.rule("mmap: access behind a truncate is SIGBUS") { t in
        t.file("f", String(repeating: "x", count: 8192))
        let file = t.fd("f", O_RDWR)
        let address = t.ok(cc_map(8192, 3, 1, file, 0))
        t.same(UnsafePointer<UInt8>(bitPattern: address + 4096)?.pointee, 120)
        t.ok(cc_ftruncate(file, 4096))
        let status = t.inChild {
            signal(SIGBUS, SIG_DFL)
            _ = cc_limit(4, [0, 0])
            return Int32(UnsafePointer<UInt8>(bitPattern: address + 4096)?.pointee ?? 0)
        }
        t.same(status & 0x7F, SIGBUS)
    }
    table.rule("times FIFO: a write moves mtime and ctime, a read atime") { t in
        t.ok(t.mkfifo("p"))
        t.ok(t.utimens("p", (1000, 0), (2000, 0)))
        let pipe = t.fd("p", O_RDWR | O_NONBLOCK)
        let before = t.stat("p")
        t.pause()
        t.ok(t.write(pipe, "x"))
        t.yes(t.stat("p").mtime.isAfter(before.mtime), "mtime")
        t.yes(t.stat("p").ctime.isAfter(before.ctime), "ctime")
        _ = t.read(pipe)
        t.yes(t.stat("p").atime.isAfter(before.atime), "atime")
    }
    table.rule("times mmap: reading a mapped page of an old file moves atime") { t in
        t.file("f", "text")
        t.ok(t.utimens("f", (1000, 0), (2000, 0)))
        let address = t.ok(cc_map(4096, 1, 1, t.fd("f"), 0))
        t.same(UnsafePointer<UInt8>(bitPattern: address)?.pointee, 116)
        t.yes(t.stat("f").atime.seconds > 1000)
    }
    table.rule("times execve: running an old program moves its atime") { t in
        t.file("f", "#!/bin/true\n", mode: 0o755)
        t.ok(t.utimens("f", (1000, 0), (2000, 0)))
        t.same(t.execute("f"), 0)
        t.yes(t.stat("f").atime.seconds > 1000)
    }
}
