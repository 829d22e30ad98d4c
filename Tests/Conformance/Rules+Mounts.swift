/// File handles, and what the options of a mount do: read-only, access times, nosuid, nodev, noexec;
/// and what is the same after unmounting and mounting again.
internal import CCalls
internal import Glibc

func addHandleRules(to table: inout RuleTable) {
    for kind in allKinds {
        table.rule("file handle: of a \(kind.name) leads back to it") { t in
            kind.make(t, "n")
            var handle = t.handle("n")
            let file = t.ok(cc_open_handle(t.fd(t.base), &handle, Flag.path | O_NOFOLLOW))
            t.same(t.stat(Int32(file)).ino, t.stat("n").ino)
        }
    }
    table.rule("file handle: is the same for every name, and after a rename") { t in
        t.file("f")
        let first = t.handle("f")
        t.ok(t.link("f", "g"))
        t.ok(t.rename("f", "h"))
        t.same(t.handle("g").bytesUsed, first.bytesUsed)
        t.same(t.handle("h").bytesUsed, first.bytesUsed)
    }
    table.rule("file handle: reads and writes") { t in
        t.file("f", "text")
        var handle = t.handle("f")
        let file = Int32(t.ok(cc_open_handle(t.fd(t.base), &handle, O_RDWR)))
        t.ok(t.pwrite(file, "T", 0))
        t.same(t.text("f"), "Text")
    }
    table.rule("file handle: of a removed file is ESTALE") { t in
        t.file("f")
        var handle = t.handle("f")
        t.ok(t.unlink("f"))
        t.fails(cc_open_handle(t.fd(t.base), &handle, O_RDONLY), ESTALE)
    }
    table.rule("file handle: opens after the kernel's caches were dropped") { t in
        t.directory("a")
        t.directory("a/b")
        t.file("a/b/f", "text")
        var (file, directory) = (t.handle("a/b/f"), t.handle("a/b"))
        t.dropCaches()
        let opened = Int32(t.ok(cc_open_handle(t.fd(t.base), &file, O_RDONLY)))
        t.same(t.read(opened), Array("text".utf8))
        let listed = Int32(t.ok(cc_open_handle(t.fd(t.base), &directory, O_DIRECTORY)))
        t.same(DirectoryListing.read(listed).count, 3)
    }
    table.rule("file handle: a buffer that is too small is EOVERFLOW") { t in
        t.file("f")
        var handle = cc_handle()
        var mount: Int32 = 0
        t.fails(cc_handle_of(HERE, "f", &handle, &mount, 0), EOVERFLOW)
        t.yes(handle.bytes > 0)
    }
    table.rule("file handle: opening one is for root only") { t in
        t.file("f")
        var handle = t.handle("f")
        t.by(.alice) { t.fails(cc_open_handle(t.fd(t.base), &handle, O_RDONLY), EPERM) }
    }
    table.rule("dropped caches: everything is as it was") { t in
        t.file("f", "text", mode: 0o640, owner: .alice)
        t.ok(t.setxattr("f", "user.a", [1]))
        t.ok(t.utimens("f", (11, 111), (22, 222)))
        let before = t.stat("f")
        t.dropCaches()
        let after = t.stat("f")
        t.same(after.ino, before.ino)
        t.same(after.mtime.nanoseconds, 222)
        t.same(after.ctime.nanoseconds, before.ctime.nanoseconds)
        t.same(t.attribute("f", "user.a"), [1])
        t.same(t.mode("f"), "640")
        t.same(t.text("f"), "text")
    }
}

extension cc_handle {
    /// The handle without what is behind it.
    var bytesUsed: [UInt8] {
        withUnsafeBytes(of: data) { Array($0.prefix(Int(bytes))) }
    }
}

extension Context {
    fileprivate func handle(_ path: String, line: Int = #line) -> cc_handle {
        var handle = cc_handle()
        var mount: Int32 = 0
        handle.bytes = 128
        ok(cc_handle_of(HERE, path, &handle, &mount, 0), line: line)
        return handle
    }
    /// Everybody's clean names, inodes and pages on this machine.
    fileprivate func dropCaches() {
        // An earlier rule may have left data behind that is refused only now.
        _ = cc_syncfs(fd(".", O_DIRECTORY))
        let switchFile = fd("/proc/sys/vm/drop_caches", O_WRONLY)
        ok(write(switchFile, "3"))
        close(switchFile)
    }
}

// MARK: Other mounts of the same volume

func addMountRules(to table: inout RuleTable) {
    table.rule("kept: what later mounts look at") { t in
        t.ok(t.chdir(t.base))
        FileTree.remove("kept")
        t.directory("kept", mode: 0o777)
        t.ok(t.chdir("kept"))
        t.file("file", "text", mode: 0o666)
        t.directory("dir", mode: 0o777)
        t.file("dir/f")
        t.file("script", "#!/bin/true\n", mode: 0o755)
        t.ok(t.mknod("null", S_IFCHR | 0o666, device: 0x103))
        t.ok(t.symlink("file", "link"))
        t.ok(t.copy("/usr/bin/test", "bobs-test"))
        t.ok(t.chown("bobs-test", User.bob.id))
        t.ok(t.chmod("bobs-test", 0o4755))
        t.ok(t.setxattr("file", "user.kept", [1, 2]))
        t.ok(t.utimens("file", (-5, 123), (15_032_385_534, 456)))
        let handles = t.fd("handles", O_CREAT | O_WRONLY)
        for name in ["file", "dir"] {
            var handle = t.handle(name)
            t.ok(cc_write(handles, &handle, MemoryLayout<cc_handle>.size))
        }
    }
    addReadOnly(to: &table)
    addAccessTimes(to: &table)
    addRestricted(to: &table)
    addRemounted(to: &table)
    table.stage = .plain
}

private func addReadOnly(to table: inout RuleTable) {
    table.stage = .readOnly
    let refused: [(String, (Context) -> Int)] = [
        ("open(O_WRONLY)", { $0.open("file", O_WRONLY) }),
        ("open(O_RDWR)", { $0.open("file", O_RDWR) }),
        ("open(O_RDONLY|O_TRUNC)", { $0.open("file", O_TRUNC) }),
        ("open(O_CREAT) of a new name", { $0.open("new", O_CREAT | O_WRONLY) }),
        ("O_TMPFILE", { $0.open(".", Flag.tmpfile | O_RDWR) }),
        ("mkdir", { $0.mkdir("new") }),
        ("mkfifo", { $0.mkfifo("new") }),
        ("symlink", { $0.symlink("x", "new") }),
        ("link", { $0.link("file", "new") }),
        ("rename", { $0.rename("file", "new") }),
        ("unlink", { $0.unlink("file") }),
        ("rmdir", { $0.rmdir("dir") }),
        ("truncate", { $0.truncate("file") }),
        ("chmod", { $0.chmod("file", 0o600) }),
        ("chown", { $0.chown("file", 5) }),
        ("utimensat", { $0.touch("file") }),
        ("setxattr", { $0.setxattr("file", "user.x") }),
        ("removexattr", { $0.removexattr("file", "user.kept") }),
        ("access(W_OK)", { $0.access("file", W_OK) }),
        ("chmod by another than the owner", { t in t.by(.alice) { t.chmod("file", 0) } }),
    ]
    for (name, run) in refused {
        table.rule("read-only mount \(name): EROFS") { t in t.fails(run(t), EROFS) }
    }
    table.rule("read-only mount: ENOENT and EEXIST come before EROFS") { t in
        t.fails(t.chmod("missing", 0), ENOENT)
        t.fails(t.mkdir("dir"), EEXIST)
        t.fails(t.truncate("missing"), ENOENT)
    }
    table.rule("read-only mount: reading, listing and O_CREAT of what is there") { t in
        t.same(t.text("file"), "text")
        t.same(t.names("dir"), ["f"])
        t.ok(t.open("file", O_CREAT))
        t.ok(t.open("null", O_RDWR))
        t.same(t.statfs().flags & 1, 1)
    }
}

private func addAccessTimes(to table: inout RuleTable) {
    func readAt(_ t: Context, _ atime: Int, _ mtime: Int) -> Bool {
        if !t.exists("f") { t.file("f", "text") }
        t.ok(t.utimens("f", (atime, 0), (mtime, 0)))
        let before = t.stat("f")
        t.pause()
        t.same(t.text("f"), "text")
        return t.stat("f").atime.isAfter(before.atime)
    }
    let now = Int(time(nil))
    table.stage = .plain
    table.rule("relatime: a read moves an access time older than the last change") { t in
        t.yes(readAt(t, 1000, 2000))
    }
    table.rule("relatime: a second read moves nothing") { t in
        t.file("f", "text")
        t.pause()
        _ = t.text("f")
        let before = t.stat("f")
        t.pause()
        _ = t.text("f")
        t.yes(!t.stat("f").atime.isAfter(before.atime))
    }
    table.rule("relatime: a read moves an access time older than a day") { t in
        t.file("f", "text")
        t.yes(readAt(t, now - 100_000, now - 200_000))
    }
    table.rule("relatime: readlink and readdir move it too") { t in
        t.ok(t.symlink("x", "l"))
        t.ok(t.utimens("l", (1000, 0), (2000, 0), flags: Flag.noFollowSymlink))
        _ = t.target("l")
        t.yes(t.stat("l").atime.seconds > 1000, "link")
        t.directory("d")
        t.ok(t.utimens("d", (1000, 0), (2000, 0)))
        _ = t.names("d")
        t.yes(t.stat("d").atime.seconds > 1000, "directory")
    }
    table.rule("O_NOATIME: a read moves nothing") { t in
        t.file("f", "text")
        t.ok(t.utimens("f", (1000, 0), (2000, 0)))
        t.same(t.read(t.fd("f", Flag.noAccessTime)).count, 4)
        t.same(Int(t.stat("f").atime.seconds), 1000)
    }
    table.stage = .strictAccessTime
    table.rule("strictatime: every read moves the access time") { t in
        t.yes(readAt(t, now - 10, now - 20))
        let before = t.stat("f")
        t.pause()
        _ = t.text("f")
        t.yes(t.stat("f").atime.isAfter(before.atime))
    }
    table.rule("strictatime: listing moves a directory's") { t in
        t.directory("d")
        let before = t.stat("d")
        t.pause()
        _ = t.names("d")
        t.yes(t.stat("d").atime.isAfter(before.atime))
    }
    table.stage = .noAccessTime
    table.rule("noatime: a read moves nothing, however old it is") { t in
        t.yes(!readAt(t, 1000, 2000))
    }
    table.rule("noatime: listing and readlink move nothing") { t in
        t.directory("d")
        t.ok(t.symlink("x", "l"))
        t.ok(t.utimens("d", (1000, 0), (2000, 0)))
        t.ok(t.utimens("l", (1000, 0), (2000, 0), flags: Flag.noFollowSymlink))
        _ = t.names("d")
        _ = t.target("l")
        t.same(Int(t.stat("d").atime.seconds), 1000)
        t.same(Int(t.stat("l").atime.seconds), 1000)
    }
    table.rule("noatime: utimensat sets it all the same") { t in
        t.file("f")
        t.ok(t.utimens("f", (1234, 0), (2000, 0)))
        t.same(Int(t.stat("f").atime.seconds), 1234)
    }
}

private func addRestricted(to table: inout RuleTable) {
    table.stage = .restricted
    table.rule("noexec: execve is EACCES, mapping to execute EPERM") { t in
        t.ok(t.chdir(t.base + "/kept"))
        t.same(t.execute("script"), 128 + Int(EACCES))
        t.fails(cc_map(4096, 5, 2, t.fd("script"), 0), EPERM)
    }
    table.rule("noexec: access(X_OK) of a file is EACCES, of a directory allowed") { t in
        t.ok(t.chdir(t.base + "/kept"))
        t.fails(t.access("script", X_OK), EACCES)
        t.ok(t.access("dir", X_OK))
    }
    table.rule("nodev: opening a device is EACCES") { t in
        t.ok(t.chdir(t.base + "/kept"))
        t.fails(t.open("null"), EACCES)
        t.ok(t.mknod("null2", S_IFCHR | 0o666, device: 0x103))
        t.fails(t.open("null2"), EACCES)
        t.ok(t.unlink("null2"))
    }
    table.rule("nosuid: the bit is kept and shown") { t in
        t.ok(t.chdir(t.base + "/kept"))
        t.same(t.mode("bobs-test"), "4755")
        t.same(t.statfs().flags & 0xE, 0xE)
    }
}

private func addRemounted(to table: inout RuleTable) {
    table.stage = .remounted
    table.rule("remounted: contents, times and attributes are as they were") { t in
        t.ok(t.chdir(t.base + "/kept"))
        t.same(t.text("file"), "text")
        t.same(Int(t.stat("file").mtime.seconds), 15_032_385_534)
        t.same(t.stat("file").mtime.nanoseconds, 456)
        t.same(t.attribute("file", "user.kept"), [1, 2])
        t.same(t.mode("bobs-test"), "4755")
        t.same(t.target("link"), "file")
    }
    table.rule("remounted: file handles from before open") { t in
        t.ok(t.chdir(t.base + "/kept"))
        let file = t.fd("handles")
        for name in ["file", "dir"] {
            var handle = cc_handle()
            t.same(
                cc_read(file, &handle, MemoryLayout<cc_handle>.size), MemoryLayout<cc_handle>.size)
            let opened = t.ok(cc_open_handle(t.fd(t.base), &handle, O_RDONLY))
            t.same(t.stat(Int32(opened)).ino, t.stat(name).ino)
        }
    }
    table.rule("remounted: a set-user-id program runs as its owner") { t in
        t.ok(t.chdir(t.base + "/kept"))
        // True if the file belongs to the effective user.
        t.same(t.execute("bobs-test", "-O", "bobs-test", as: .alice), 0)
    }
}
