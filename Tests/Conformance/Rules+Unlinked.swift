/// Files and directories without a name that are still open.
internal import CCalls
internal import Glibc

func addUnlinkedRules(to table: inout RuleTable) {
    let calls: [(String, (Context, Int32) -> Int)] = [
        ("read", { t, fd in t.pread(fd, 10, 0).count - 4 }),
        ("write", { t, fd in t.write(fd, "more") }),
        ("fsync", { _, fd in cc_fsync(fd) }),
        ("fdatasync", { _, fd in cc_fdatasync(fd) }),
        ("ftruncate", { _, fd in cc_ftruncate(fd, 100_000) }),
        ("fchmod", { _, fd in cc_fchmod(fd, 0o600) }),
        ("fchown", { _, fd in cc_fchown(fd, 5, 6) }),
        ("fsetxattr", { _, fd in cc_fsetxattr(fd, "user.x", "v", 1, 0) }),
        ("fallocate", { _, fd in cc_fallocate(fd, 0, 0, 100_000) }),
        ("punch a hole", { _, fd in cc_fallocate(fd, Flag.punchHole, 0, 4096) }),
        ("lseek", { _, fd in cc_lseek(fd, 0, SEEK_END) - 4 }),
        ("futimens", { _, fd in cc_utimens(fd, nil, nil, 0) }),
        ("flock", { _, fd in cc_flock(fd, 2) }),
        ("mmap", { _, fd in min(0, cc_map(4096, 3, 1, fd, 0)) }),
    ]
    for (name, run) in calls {
        table.rule("unlinked: \(name) works") { t in
            t.file("f", "text")
            let file = t.fd("f", O_RDWR)
            t.ok(t.unlink("f"))
            t.ok(run(t, file))
            t.same(t.stat(file).nlink, 0)
        }
        table.rule("replaced by rename: \(name) works") { t in
            t.file("f", "text")
            t.file("g")
            let file = t.fd("f", O_RDWR)
            t.ok(t.rename("g", "f"))
            t.ok(run(t, file))
            t.same(t.stat(file).nlink, 0)
        }
    }
    table.rule("unlinked: what was set stays set") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        t.ok(t.unlink("f"))
        t.ok(cc_fchmod(file, 0o604))
        t.ok(cc_fchown(file, 5, 6))
        t.ok(cc_ftruncate(file, 2))
        t.ok(cc_fsetxattr(file, "user.x", "v", 1, 0))
        let stat = t.stat(file)
        t.same(String(stat.mode & 0o777, radix: 8), "604")
        t.same([stat.uid, stat.gid], [5, 6])
        t.same(stat.size, 2)
        t.same(cc_fgetxattr(file, "user.x", nil, 0), 1)
    }
    table.rule("unlinked: opens again through /proc, also for writing") { t in
        t.file("f", "text")
        let file = t.fd("f")
        t.ok(t.unlink("f"))
        let again = t.fd("/proc/self/fd/\(file)", O_RDWR)
        t.ok(t.write(again, "T"))
        t.same(t.pread(file, 4, 0), Array("Text".utf8))
    }
    table.rule("unlinked: a new file of the name is another") { t in
        t.file("f", "old")
        let file = t.fd("f")
        t.ok(t.unlink("f"))
        t.file("f", "new")
        t.same(t.read(file), Array("old".utf8))
        t.yes(t.stat(file).ino != t.stat("f").ino)
    }
    table.rule("unlinked: a mapping lives on after close") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        let address = t.ok(cc_map(4096, 3, 1, file, 0))
        t.ok(t.unlink("f"))
        t.close(file)
        guard let bytes = UnsafeMutablePointer<UInt8>(bitPattern: address) else { return }
        t.same(bytes[0], 116)
        bytes[0] = 84
        t.ok(cc_msync(address, 4096, MS_SYNC))
        t.same(bytes[0], 84)
        t.ok(cc_unmap(address, 4096))
    }
    table.rule("unlinked: the space comes back after the last close") { t in
        let free = t.settledStatfs().bfree
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(t.unlink("f"))
        let block = String(repeating: "x", count: 1 << 20)
        for _ in 0..<8 { t.ok(t.write(file, block)) }
        t.ok(cc_fsync(file))
        t.yes(t.statfs().bfree + 1500 < free, "space is used")
        t.close(file)
        for _ in 0..<300 where t.statfs().bfree + 512 < free { t.pause() }
        t.yes(t.statfs().bfree + 512 >= free, "space is back")
    }
    addRemovedDirectories(to: &table)
}

private func addRemovedDirectories(to table: inout RuleTable) {
    let calls: [(String, (Context) -> Int)] = [
        ("open(O_CREAT)", { $0.open("n", O_CREAT | O_WRONLY) }),
        ("mkdir", { $0.mkdir("n") }),
        ("mkfifo", { $0.mkfifo("n") }),
        ("symlink", { $0.symlink("x", "n") }),
        ("link", { $0.link("../f", "n") }),
        ("rename into", { $0.rename("../f", "n") }),
        ("open of a name", { $0.open("n") }),
        ("stat of a name", { $0.lookUp("n").result }),
        ("stat of dot-dot's name", { $0.lookUp("../f").result - 0 }),
    ]
    for (name, run) in calls {
        table.rule("removed cwd: \(name)") { t in
            t.file("f")
            t.directory("d")
            t.ok(t.chdir("d"))
            t.ok(t.rmdir("../d"))
            // The kernel still knows the parent.
            t.gives(run(t), name.hasPrefix("stat of dot-dot") ? nil : ENOENT)
        }
    }
    table.rule("removed cwd: the listing is empty") { t in
        t.directory("d")
        t.ok(t.chdir("d"))
        t.ok(t.rmdir("../d"))
        let directory = t.open(".", O_DIRECTORY)
        if directory >= 0 { t.same(DirectoryListing.some(Int32(directory), 1000).entries.count, 0) }
    }
    table.rule("removed cwd: stat of dot has no links") { t in
        t.directory("d")
        t.ok(t.chdir("d"))
        t.ok(t.rmdir("../d"))
        t.same(t.stat(".").nlink, 0)
    }
    table.rule("removed cwd: getcwd is ENOENT") { t in
        t.directory("d")
        t.ok(t.chdir("d"))
        t.ok(t.rmdir("../d"))
        var path = [CChar](repeating: 0, count: 4096)
        t.fails(cc_getcwd(&path, 4096), ENOENT)
    }
    table.rule("removed open directory: getdents is ENOENT or empty") { t in
        t.directory("d")
        let directory = t.fd("d", O_DIRECTORY)
        t.ok(t.rmdir("d"))
        let (result, entries) = DirectoryListing.some(directory, 1000)
        t.yes(result == -Int(ENOENT) || entries.isEmpty)
    }
    table.rule("removed open directory: fstat, fchmod, fsync work") { t in
        t.directory("d")
        let directory = t.fd("d", O_DIRECTORY)
        t.ok(t.rmdir("d"))
        t.same(t.stat(directory).nlink, 0)
        t.ok(cc_fchmod(directory, 0o700))
        t.ok(cc_fsync(directory))
    }
    table.rule("replaced directory: an open one has no links and takes nothing") { t in
        t.directory("a")
        t.directory("b")
        let directory = t.fd("b", O_DIRECTORY)
        t.ok(t.rename("a", "b"))
        t.same(t.stat(directory).nlink, 0)
        t.fails(cc_mkdir(directory, "n", 0o755), ENOENT)
    }
}
