/// open(2): what its flags mean.
internal import CCalls
internal import Glibc

func addOpenRules(to table: inout RuleTable) {
    addCreationRules(to: &table)
    addDescriptorRules(to: &table)
    addTemporaryFileRules(to: &table)
}

private func addCreationRules(to table: inout RuleTable) {
    table.rule("open O_CREAT: opens what is there with its contents") { t in
        t.file("f", "text")
        t.same(t.read(t.fd("f", O_CREAT | O_RDWR)).count, 4)
    }
    table.rule("open O_CREAT: through a dangling link makes the target") { t in
        t.ok(t.symlink("target", "l"))
        t.ok(t.open("l", O_CREAT | O_WRONLY))
        t.yes(t.exists("target"))
    }
    table.rule("open O_CREAT|O_EXCL: EEXIST for a link, dangling or not") { t in
        t.ok(t.symlink("target", "l"))
        t.fails(t.open("l", O_CREAT | O_EXCL | O_WRONLY), EEXIST)
        t.yes(!t.exists("target"))
    }
    table.rule("open O_CREAT|O_EXCL: of two, one wins") { t in
        t.ok(t.open("f", O_CREAT | O_EXCL | O_WRONLY))
        t.fails(t.open("f", O_CREAT | O_EXCL | O_WRONLY), EEXIST)
    }
    table.rule("open O_CREAT: a directory is EISDIR") { t in
        t.directory("d")
        t.fails(t.open("d", O_CREAT), EISDIR)
    }
    table.rule("open O_CREAT|O_DIRECTORY is EINVAL") { t in
        t.fails(t.open("d", O_CREAT | O_DIRECTORY), EINVAL)
    }
    table.rule("open O_CREAT|O_RDONLY with mode 0 can be read through the descriptor") { t in
        t.by(.alice) { t.same(t.read(t.fd("f", O_CREAT | O_RDONLY, mode: 0)).count, 0) }
    }
    table.rule("open O_TRUNC: a file becomes empty") { t in
        t.file("f", "text")
        t.ok(t.open("f", O_WRONLY | O_TRUNC))
        t.same(t.stat("f").size, 0)
    }
    table.rule("open O_TRUNC: a FIFO stays as it is") { t in
        t.ok(t.mkfifo("p"))
        t.ok(t.open("p", O_RDWR | O_TRUNC | O_NONBLOCK))
    }
    table.rule("open O_TRUNC: refused, it leaves the contents") { t in
        t.file("f", "text", mode: 0o444)
        t.by(.alice) { t.fails(t.open("f", O_WRONLY | O_TRUNC), EACCES) }
        t.same(t.stat("f").size, 4)
    }
    table.rule("open O_CREAT in a sticky directory follows protected_regular") { t in
        t.directory("d", mode: 0o1777)
        t.file("d/f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.ok(t.open("d/f", O_WRONLY)) }
    }
    table.rule("open O_EXCL without O_CREAT is passed over for a file") { t in
        t.file("f")
        t.ok(t.open("f", O_EXCL))
    }
    table.rule("open O_CREAT: the new file's links, size and blocks") { t in
        let stat = t.stat(t.fd("f", O_CREAT | O_WRONLY))
        t.same(stat.nlink, 1)
        t.same(stat.size, 0)
        t.same(stat.blocks, 0)
    }
    table.rule("creat: opens for writing only") { t in
        let file = t.fd("f", O_CREAT | O_WRONLY | O_TRUNC)
        var byte: UInt8 = 0
        t.fails(cc_read(file, &byte, 1), EBADF)
    }
}

private func addDescriptorRules(to table: inout RuleTable) {
    table.rule("open O_RDONLY: write is EBADF, ftruncate EINVAL") { t in
        t.file("f")
        let file = t.fd("f")
        t.fails(t.write(file, "x"), EBADF)
        t.fails(cc_ftruncate(file, 0), EINVAL)
    }
    table.rule("open O_APPEND: every write goes to the end") { t in
        t.file("f", "one")
        let first = t.fd("f", O_WRONLY | O_APPEND)
        let second = t.fd("f", O_WRONLY)
        t.ok(cc_lseek(first, 0, SEEK_SET))
        t.ok(t.pwrite(second, "two", 3))
        t.ok(t.write(first, "three"))
        t.same(t.text("f"), "onetwothree")
        t.same(cc_lseek(first, 0, SEEK_CUR), 11)
    }
    table.rule("open O_APPEND: pwrite appends too, says open(2)") { t in
        t.file("f", "one")
        let file = t.fd("f", O_WRONLY | O_APPEND)
        t.ok(t.pwrite(file, "two", 0))
        t.same(t.text("f"), "onetwo")
    }
    table.rule("open O_APPEND: F_SETFL turns it on and off") { t in
        t.file("f", "one")
        let file = t.fd("f", O_WRONLY)
        t.ok(cc_fcntl(file, F_SETFL, Int(O_APPEND)))
        t.ok(t.write(file, "two"))
        t.ok(cc_fcntl(file, F_SETFL, 0))
        t.ok(t.pwrite(file, "X", 0))
        t.same(t.text("f"), "Xnetwo")
    }
    table.rule("open O_DIRECTORY: a link to a directory is followed") { t in
        t.directory("d")
        t.ok(t.symlink("d", "l"))
        t.ok(t.open("l", O_DIRECTORY))
        t.fails(t.open("l", O_DIRECTORY | O_NOFOLLOW), ENOTDIR)
    }
    table.rule("open O_NOFOLLOW: a link as last name is ELOOP") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.fails(t.open("l", O_NOFOLLOW), ELOOP)
        t.fails(t.open("l", O_NOFOLLOW | O_CREAT | O_WRONLY), ELOOP)
    }
    table.rule("open O_NOFOLLOW: a link in the prefix is followed") { t in
        t.directory("d")
        t.file("d/f")
        t.ok(t.symlink("d", "l"))
        t.ok(t.open("l/f", O_NOFOLLOW))
    }
    table.rule("open O_PATH|O_NOFOLLOW: gives the link itself") { t in
        t.ok(t.symlink("target", "l"))
        let link = t.fd("l", Flag.path | O_NOFOLLOW)
        t.same(UInt32(t.stat(link).mode) & S_IFMT, S_IFLNK)
        var target = [CChar](repeating: 0, count: 100)
        t.same(cc_readlink(link, "", &target, 100), 6)
    }
    table.rule("open O_PATH: needs no permission, and reads nothing") { t in
        t.file("f", "text", mode: 0)
        t.by(.alice) {
            let file = t.fd("f", Flag.path)
            var byte: UInt8 = 0
            t.fails(cc_read(file, &byte, 1), EBADF)
            t.fails(cc_fsync(file), EBADF)
            t.fails(cc_fsetxattr(file, "user.x", "v", 1, 0), EBADF)
            t.same(t.stat(file).size, 4)
        }
    }
    table.rule("open O_PATH: a directory can be started from, with search permission") { t in
        t.directory("d", mode: 0o711)
        t.file("d/f")
        t.by(.alice) {
            let directory = t.fd("d", Flag.path)
            t.ok(cc_open(directory, "f", O_RDONLY, 0))
        }
    }
    table.rule("open O_PATH: opens again through /proc with the file's permission") { t in
        t.file("f", "text", mode: 0o644)
        t.by(.alice) {
            let file = t.fd("f", Flag.path)
            t.same(t.text("/proc/self/fd/\(file)"), "text")
            t.fails(t.open("/proc/self/fd/\(file)", O_WRONLY), EACCES)
        }
    }
    table.rule("open O_NOATIME: for the owner, EPERM for others") { t in
        t.file("f", mode: 0o644, owner: .bob)
        t.by(.alice) { t.fails(t.open("f", Flag.noAccessTime), EPERM) }
        t.by(.bob) { t.ok(t.open("f", Flag.noAccessTime)) }
    }
    table.rule("open O_DIRECT: whole blocks are written and read") { t in
        t.file("f")
        t.same(t.writeDirect("f"), 4096)
        t.same(t.text("f"), String(repeating: "x", count: 4096))
    }
    table.rule("open O_DIRECT: sees what was written through the cache") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDONLY | Flag.direct)
        let block = t.ok(cc_map(4096, 3, 0x22, -1, 0))
        guard let memory = UnsafeMutablePointer<UInt8>(bitPattern: block) else { return }
        t.same(cc_pread(file, memory, 4096, 0), 4096)
        t.same(memory[4095], 97)
        let writer = t.fd("f", O_WRONLY)
        t.ok(t.pwrite(writer, "b", 0))
        t.same(cc_pread(file, memory, 4096, 0), 4096)
        t.same(memory[0], 98)
    }
    for (name, flag) in [("O_SYNC", O_SYNC), ("O_DSYNC", O_DSYNC)] {
        table.rule("open \(name): writes and reads as ever") { t in
            let file = t.fd("f", O_CREAT | O_RDWR | flag)
            t.same(t.write(file, "text"), 4)
            t.same(t.pread(file, 10, 0).count, 4)
            t.same(cc_fcntl(file, F_GETFL, 0) & Int(flag), Int(flag))
        }
    }
    table.rule("open O_NONBLOCK: without meaning for a file") { t in
        t.file("f", "text")
        t.same(t.read(t.fd("f", O_NONBLOCK)).count, 4)
    }
    table.rule("open: two descriptors have two offsets, a duplicate one") { t in
        t.file("f", "abcdef")
        let first = t.fd("f")
        let second = t.fd("f")
        let duplicate = Int32(t.ok(cc_fcntl(first, F_DUPFD, 3)))
        t.same(t.read(first, 2), [97, 98])
        t.same(t.read(second, 2), [97, 98])
        t.same(t.read(duplicate, 2), [99, 100])
    }
    table.rule("open: a descriptor outlives renames of its file") { t in
        t.file("f", "text")
        t.file("g", "other")
        let file = t.fd("f", O_RDWR)
        let replaced = t.fd("g")
        t.ok(t.rename("f", "g"))
        t.ok(t.pwrite(file, "T", 0))
        t.same(t.text("g"), "Text")
        t.same(t.read(replaced).count, 5)
    }
    table.rule("open: a socket is ENXIO, a device without a driver too") { t in
        t.ok(t.mknod("s", S_IFSOCK | 0o666))
        t.fails(t.open("s", O_RDWR), ENXIO)
        t.ok(t.mknod("c", S_IFCHR | 0o666, device: 250 << 8 | 99))
        t.fails(t.open("c", O_RDWR), ENXIO)
    }
}

private func addTemporaryFileRules(to table: inout RuleTable) {
    table.rule("O_TMPFILE: has no name and no links") { t in
        let file = t.fd(".", Flag.tmpfile | O_RDWR, mode: 0o640)
        t.same(t.stat(file).nlink, 0)
        t.same(String(t.stat(file).mode, radix: 8), "100640")
        t.same(t.names("."), [])
    }
    table.rule("O_TMPFILE: holds data") { t in
        let file = t.fd(".", Flag.tmpfile | O_RDWR)
        t.ok(t.write(file, "text"))
        t.same(t.pread(file, 10, 0).count, 4)
    }
    table.rule("O_TMPFILE: linkat by AT_EMPTY_PATH gives it a name") { t in
        let file = t.fd(".", Flag.tmpfile | O_RDWR)
        t.ok(t.write(file, "text"))
        t.ok(cc_link(file, "", HERE, "f", Flag.emptyPath))
        t.same(t.text("f"), "text")
        t.same(t.stat("f").nlink, 1)
    }
    table.rule("O_TMPFILE: linkat through /proc gives it a name, also to a user") { t in
        t.by(.alice) {
            let file = t.fd(".", Flag.tmpfile | O_RDWR)
            t.ok(t.link("/proc/self/fd/\(file)", "f", flags: Flag.followSymlink))
        }
        t.same(t.stat("f").uid, User.alice.id)
    }
    table.rule("O_TMPFILE|O_EXCL: can not be given a name") { t in
        let file = t.fd(".", Flag.tmpfile | O_RDWR | O_EXCL)
        t.fails(
            t.link("/proc/self/fd/\(file)", "f", flags: Flag.followSymlink), ENOENT)
    }
    table.rule("O_TMPFILE: read-only access is EINVAL") { t in
        t.fails(t.open(".", Flag.tmpfile | O_RDONLY), EINVAL)
    }
    table.rule("O_TMPFILE: the directory's times do not change") { t in
        let before = t.stat(".")
        t.pause()
        t.ok(t.open(".", Flag.tmpfile | O_RDWR))
        t.same(t.stat(".").mtime.nanoseconds, before.mtime.nanoseconds)
    }
    table.rule("O_TMPFILE: the umask applies") { t in
        _ = cc_umask(0o027)
        let file = t.fd(".", Flag.tmpfile | O_RDWR, mode: 0o666)
        t.same(String(t.stat(file).mode & 0o777, radix: 8), "640")
    }
    table.rule("O_TMPFILE: not in a removed directory") { t in
        t.directory("d")
        t.ok(t.chdir("d"))
        t.ok(t.rmdir("../d"))
        t.yes(t.open(".", Flag.tmpfile | O_RDWR) < 0)
    }
}
