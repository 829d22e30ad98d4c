/// flock(2), fcntl(2) locks of processes and open files, leases; inotify(7).
internal import CCalls
internal import Glibc

private let (getLock, setLock): (Int32, Int32) = (5, 6)
private let (getOpenLock, setOpenLock): (Int32, Int32) = (36, 37)
private let (readLock, writeLock, noLock): (Int16, Int16, Int16) = (0, 1, 2)
private let (shared, exclusive, noWait, release): (Int32, Int32, Int32, Int32) = (1, 2, 4, 8)

extension Context {
    fileprivate func lock(
        _ fd: Int32, _ type: Int16, _ start: Int64 = 0, _ length: Int64 = 0,
        command: Int32 = setOpenLock
    ) -> Int {
        var lock = cc_lock()
        lock.type = type
        lock.start = start
        lock.length = length
        return cc_lock(fd, command, &lock)
    }
    /// The type of the lock that stands in the way; `noLock` if none does.
    fileprivate func conflict(
        _ fd: Int32, _ type: Int16, _ start: Int64 = 0, _ length: Int64 = 0,
        command: Int32 = getOpenLock
    ) -> Int16 {
        var lock = cc_lock()
        lock.type = type
        lock.start = start
        lock.length = length
        ok(cc_lock(fd, command, &lock))
        return lock.type
    }
}

func addLockRules(to table: inout RuleTable) {
    table.rule("flock: two shared ones, no exclusive one beside") { t in
        t.file("f")
        let (a, b, c) = (t.fd("f"), t.fd("f"), t.fd("f"))
        t.ok(cc_flock(a, shared))
        t.ok(cc_flock(b, shared))
        t.fails(cc_flock(c, exclusive | noWait), EWOULDBLOCK)
        t.ok(cc_flock(a, release))
        t.ok(cc_flock(b, release))
        t.ok(cc_flock(c, exclusive | noWait))
        t.fails(cc_flock(a, shared | noWait), EWOULDBLOCK)
    }
    table.rule("flock: is released by the last close") { t in
        t.file("f")
        let (a, b) = (t.fd("f"), t.fd("f"))
        t.ok(cc_flock(a, exclusive))
        let duplicate = Int32(t.ok(cc_fcntl(a, F_DUPFD, 0)))
        t.close(a)
        t.fails(cc_flock(b, exclusive | noWait), EWOULDBLOCK)
        t.close(duplicate)
        t.ok(cc_flock(b, exclusive | noWait))
    }
    table.rule("flock: of a directory, of another name") { t in
        t.directory("d")
        t.ok(cc_flock(t.fd("d"), exclusive))
        t.fails(cc_flock(t.fd("d"), exclusive | noWait), EWOULDBLOCK)
        t.file("f")
        t.ok(t.link("f", "g"))
        t.ok(cc_flock(t.fd("f"), exclusive))
        t.fails(cc_flock(t.fd("g"), exclusive | noWait), EWOULDBLOCK)
    }
    table.rule("flock: O_PATH is EBADF, an unknown operation EINVAL") { t in
        t.file("f")
        t.fails(cc_flock(t.fd("f", Flag.path), shared), EBADF)
        t.fails(cc_flock(t.fd("f"), 0), EINVAL)
    }
    table.rule("open file lock: ranges that meet conflict, others not") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, writeLock, 100, 10))
        t.ok(t.lock(b, writeLock, 110, 10))
        t.ok(t.lock(b, writeLock, 90, 10))
        t.fails(t.lock(b, readLock, 109, 1), EAGAIN)
        t.same(t.conflict(b, readLock, 109, 1), writeLock)
        t.ok(t.lock(a, noLock, 105, 5))
        t.ok(t.lock(b, readLock, 109, 1))
    }
    table.rule("open file lock: shared ones go together") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, readLock))
        t.ok(t.lock(b, readLock))
        t.fails(t.lock(b, writeLock), EAGAIN)
    }
    table.rule("open file lock: a length of 0 is to the end of all") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, writeLock, 1000, 0))
        t.fails(t.lock(b, writeLock, 1 << 50, 1), EAGAIN)
        t.ok(t.lock(b, writeLock, 0, 1000))
    }
    table.rule("open file lock: is released by close, and needs the access") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, writeLock))
        t.close(a)
        t.ok(t.lock(b, writeLock))
        t.fails(t.lock(t.fd("f"), writeLock), EBADF)
        t.fails(t.lock(t.fd("f", O_WRONLY), readLock), EBADF)
    }
    table.rule("process lock: conflicts with an open file lock") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, writeLock, 0, 10, command: setLock))
        t.fails(t.lock(b, writeLock, 5, 1), EAGAIN)
        t.same(t.conflict(b, writeLock, 5, 1), writeLock)
        t.ok(t.lock(b, writeLock, 10, 1))
        t.fails(t.lock(a, writeLock, 10, 1, command: setLock), EAGAIN)
    }
    table.rule("process lock: closing any descriptor of the file releases it") { t in
        t.file("f")
        let (a, b, c) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR), t.fd("f"))
        t.ok(t.lock(a, writeLock, 0, 10, command: setLock))
        t.close(c)
        t.ok(t.lock(b, writeLock, 5, 1))
    }
    table.rule("process lock: is upgraded and downgraded in place") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(t.lock(a, readLock, 0, 10, command: setLock))
        t.same(t.conflict(b, writeLock), readLock)
        t.ok(t.lock(a, writeLock, 0, 10, command: setLock))
        t.same(t.conflict(b, readLock), writeLock)
        t.ok(t.lock(a, noLock, 0, 10, command: setLock))
        t.same(t.conflict(b, writeLock), noLock)
    }
    table.rule("flock and process locks do not know each other") { t in
        t.file("f")
        let (a, b) = (t.fd("f", O_RDWR), t.fd("f", O_RDWR))
        t.ok(cc_flock(a, exclusive))
        t.ok(t.lock(b, writeLock))
    }
    table.rule("lease: a read lease is broken by an open for writing") { t in
        t.file("f")
        let file = t.fd("f")
        t.ok(cc_fcntl(file, 1024, Int(readLock)))
        t.same(cc_fcntl(file, 1025, 0), Int(readLock))
        t.ok(t.open("f"))
        t.fails(t.open("f", O_WRONLY | O_NONBLOCK), EWOULDBLOCK)
        t.ok(cc_fcntl(file, 1024, Int(noLock)))
        t.ok(t.open("f", O_WRONLY | O_NONBLOCK))
    }
    table.rule("lease: a write lease is broken by every open") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fcntl(file, 1024, Int(writeLock)))
        t.fails(t.open("f", O_RDONLY | O_NONBLOCK), EWOULDBLOCK)
    }
    table.rule("lease: none beside other opens") { t in
        t.file("f")
        let file = t.fd("f", O_RDWR)
        t.ok(t.open("f"))
        t.fails(cc_fcntl(file, 1024, Int(writeLock)), EAGAIN)
        t.fails(cc_fcntl(file, 1024, Int(readLock)), EAGAIN)
    }
    table.rule("lease: only for the owner's files") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.fails(cc_fcntl(t.fd("f"), 1024, Int(readLock)), EACCES) }
    }
}

func addNotificationRules(to table: inout RuleTable) {
    let cases: [(String, UInt32, Int, (Context) -> Void)] = [
        ("IN_CREATE of a file", 0x100, 1, { $0.file("d/n") }),
        ("IN_CREATE of a directory", 0x100, 1, { $0.directory("d/n") }),
        ("IN_CREATE of a symbolic link", 0x100, 1, { $0.ok($0.symlink("x", "d/n")) }),
        ("IN_CREATE of a hard link", 0x100, 1, { $0.ok($0.link("d/f", "d/n")) }),
        ("IN_CREATE of a FIFO", 0x100, 1, { $0.ok($0.mkfifo("d/n")) }),
        ("IN_DELETE", 0x200, 1, { $0.ok($0.unlink("d/f")) }),
        ("IN_DELETE by rmdir", 0x200, 1, { $0.ok($0.rmdir("d/e")) }),
        ("IN_MODIFY by write", 0x2, 1, { $0.ok($0.write($0.fd("d/f", O_WRONLY), "x")) }),
        ("IN_MODIFY by truncate", 0x2, 1, { $0.ok($0.truncate("d/f", 1)) }),
        ("IN_ATTRIB by chmod", 0x4, 1, { $0.ok($0.chmod("d/f", 0o600)) }),
        ("IN_ATTRIB by setxattr", 0x4, 1, { $0.ok($0.setxattr("d/f", "user.x")) }),
        ("IN_ATTRIB by utimensat", 0x4, 1, { $0.ok($0.touch("d/f")) }),
        ("IN_ACCESS", 0x1, 1, { _ = $0.text("d/f") }),
        ("IN_OPEN", 0x20, 1, { $0.close($0.fd("d/f")) }),
        ("IN_CLOSE_WRITE", 0x8, 1, { $0.close($0.fd("d/f", O_WRONLY)) }),
        ("IN_CLOSE_NOWRITE", 0x10, 1, { $0.close($0.fd("d/f")) }),
        ("IN_MOVED_FROM and IN_MOVED_TO", 0xC0, 2, { $0.ok($0.rename("d/f", "d/g")) }),
        ("IN_MOVED_FROM alone", 0xC0, 1, { $0.ok($0.rename("d/f", "f")) }),
        ("nothing of a failed call", 0x3C6, 0, { $0.fails($0.mkdir("d/f"), EEXIST) }),
    ]
    for (name, events, count, run) in cases {
        table.rule("inotify: \(name)") { t in
            t.directory("d")
            t.directory("d/e")
            t.file("d/f", "text")
            let queue = Int32(t.ok(cc_inotify()))
            t.ok(cc_watch(queue, "d", events))
            run(t)
            t.same(t.events(queue), count)
        }
    }
    table.rule("inotify: IN_DELETE_SELF after the last name and the last close") { t in
        t.file("f")
        let file = t.fd("f")
        let queue = Int32(t.ok(cc_inotify()))
        t.ok(cc_watch(queue, "f", 0x400))
        t.ok(t.unlink("f"))
        t.same(t.events(queue), 0)
        t.close(file)
        // The event itself and IN_IGNORED.
        t.same(t.events(queue), 2)
    }
    table.rule("inotify: IN_MOVE_SELF") { t in
        t.file("f")
        let queue = Int32(t.ok(cc_inotify()))
        t.ok(cc_watch(queue, "f", 0x800))
        t.ok(t.rename("f", "g"))
        t.same(t.events(queue), 1)
    }
    table.rule("inotify: needs read permission") { t in
        t.file("f", mode: 0o600)
        t.by(.alice) { t.fails(cc_watch(Int32(cc_inotify()), "f", 1), EACCES) }
    }
}

extension Context {
    /// How many events wait; each has 16 bytes and its name.
    fileprivate func events(_ queue: Int32) -> Int {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = cc_read(queue, &bytes, bytes.count)
        var (offset, events) = (0, 0)
        bytes.withUnsafeBytes { raw in
            while offset < count {
                let length = raw.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self)
                offset += 16 + Int(length)
                events += 1
            }
        }
        return events
    }
}
