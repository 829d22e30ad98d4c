/// link(2), symlink(2), readlink(2), link counts, mkdir and rmdir.
internal import CCalls
internal import Glibc

func addLinkRules(to table: inout RuleTable) {
    for kind in allKinds {
        table.rule("link: of a \(kind.name)") { t in
            kind.make(t, "a")
            t.gives(t.link("a", "b"), kind.isDirectory ? EPERM : nil)
            guard !kind.isDirectory else { return }
            t.same(t.stat("a").ino, t.stat("b").ino)
            t.same(t.stat("a").nlink, 2)
            t.ok(t.unlink("a"))
            t.same(t.stat("b").nlink, 1)
        }
        table.rule("unlink: of a \(kind.name)") { t in
            kind.make(t, "a")
            t.gives(t.unlink("a"), kind.isDirectory ? EISDIR : nil)
            t.same(t.exists("a"), kind.isDirectory)
        }
        table.rule("rmdir: of a \(kind.name)") { t in
            kind.make(t, "a")
            t.gives(t.rmdir("a"), kind.isDirectory ? nil : ENOTDIR)
            t.same(t.exists("a"), !kind.isDirectory)
        }
    }
    addHardLinks(to: &table)
    addSymbolicLinks(to: &table)
    addDirectoryCounts(to: &table)
}

private func addHardLinks(to table: inout RuleTable) {
    table.rule("link: names share contents, mode and owner") { t in
        t.file("a", "text")
        t.ok(t.link("a", "b"))
        t.ok(t.pwrite(t.fd("b", O_WRONLY), "T", 0))
        t.ok(t.chmod("b", 0o600))
        t.ok(t.chown("b", 5, 6))
        t.same(t.text("a"), "Text")
        t.same(t.mode("a"), "600")
        t.same(t.stat("a").uid, 5)
    }
    table.rule("link: a symbolic link itself, AT_SYMLINK_FOLLOW its target") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.ok(t.link("l", "m"))
        t.same(UInt32(t.stat("m").mode) & S_IFMT, S_IFLNK)
        t.ok(t.link("l", "n", flags: Flag.followSymlink))
        t.same(t.stat("n").ino, t.stat("f").ino)
    }
    table.rule("link: AT_SYMLINK_FOLLOW of a dangling link is ENOENT") { t in
        t.ok(t.symlink("nowhere", "l"))
        t.fails(t.link("l", "m", flags: Flag.followSymlink), ENOENT)
    }
    table.rule("link: a missing file is ENOENT before a taken name is EEXIST") { t in
        t.file("f")
        t.fails(t.link("missing", "f"), ENOENT)
    }
    table.rule("link: a taken name before the directory's EPERM") { t in
        t.directory("d")
        t.file("f")
        t.fails(t.link("d", "f"), EEXIST)
    }
    table.rule("link: an unlinked open file is ENOENT") { t in
        t.file("f")
        let file = t.fd("f")
        t.ok(t.unlink("f"))
        t.fails(cc_link(file, "", HERE, "g", Flag.emptyPath), ENOENT)
    }
    table.rule("link: many names are counted") { t in
        t.file("f")
        t.directory("d")
        for number in 0..<2000 { t.ok(t.link("f", "d/\(number)")) }
        t.same(t.stat("f").nlink, 2001)
        for number in 0..<1000 { t.ok(t.unlink("d/\(number)")) }
        t.same(t.stat("f").nlink, 1001)
    }
    table.rule("link: beyond the limit EMLINK, and the count stays") { t in
        // What glibc knows of the filesystem; 127 stands for one that it does not know.
        let limit = pathconf(".", Int32(_PC_LINK_MAX))
        guard limit > 127, limit < 100_000 else {
            return t.skip("no limit that could be reached is known")
        }
        t.file("f")
        t.directory("d")
        for number in 1..<limit { t.ok(t.link("f", "d/\(number)")) }
        t.fails(t.link("f", "d/more"), EMLINK)
        t.same(Int(t.stat("f").nlink), limit)
        t.yes(!t.exists("d/more"))
    }
    table.rule("link: the last name that goes frees the space") { t in
        t.file("f", String(repeating: "x", count: 200_000))
        t.ok(t.link("f", "g"))
        let file = t.fd("g")
        t.ok(t.unlink("f"))
        t.ok(t.unlink("g"))
        t.same(t.stat(file).nlink, 0)
    }
    table.rule("link: needs write permission for the new name's directory") { t in
        t.directory("d")
        t.file("f", owner: .alice)
        t.by(.alice) { t.fails(t.link("f", "d/g"), EACCES) }
    }
}

private func addSymbolicLinks(to table: inout RuleTable) {
    table.rule("symlink: an empty target is ENOENT") { t in
        t.fails(t.symlink("", "l"), ENOENT)
    }
    for length in [1, 59, 60, 61, 255, 1000, 4000, 4095] {
        table.rule("symlink: a target of \(length) bytes") { t in
            let target = String(repeating: "t", count: length)
            t.ok(t.symlink(target, "l"))
            t.same(t.target("l"), target)
            t.same(Int(t.stat("l").size), length)
        }
    }
    table.rule("symlink: a target of 4096 bytes is ENAMETOOLONG") { t in
        t.fails(t.symlink(String(repeating: "t", count: 4096), "l"), ENAMETOOLONG)
    }
    table.rule("readlink: cuts the target to the buffer, without a NUL") { t in
        t.ok(t.symlink("abcdef", "l"))
        t.same(t.readlink("l", size: 3), 3)
        t.same(t.readlink("l", size: 6), 6)
    }
    table.rule("readlink: a buffer of 0 bytes is EINVAL") { t in
        t.ok(t.symlink("abcdef", "l"))
        var target: CChar = 0
        t.fails(cc_readlink(HERE, "l", &target, 0), EINVAL)
    }
    table.rule("symlink: the target is kept byte for byte") { t in
        let target = "//a/../\u{1}\u{7F}é/./ "
        t.ok(t.symlink(target, "l"))
        t.same(t.target("l"), target)
    }
    table.rule("symlink: to a directory, with a slash behind it, is the directory") { t in
        t.directory("d")
        t.ok(t.symlink("d", "l"))
        t.same(UInt32(t.stat("l/").mode) & S_IFMT, S_IFDIR)
        t.fails(t.unlink("l/"), ENOTDIR)
        t.fails(t.rmdir("l/"), ENOTDIR)
    }
}

private func addDirectoryCounts(to table: inout RuleTable) {
    table.rule("mkdir: a new directory has two links, its parent one more") { t in
        t.directory("d")
        t.same(t.stat("d").nlink, 2)
        for number in 1...10 { t.directory("d/\(number)") }
        t.same(t.stat("d").nlink, 12)
        t.ok(t.rmdir("d/1"))
        t.same(t.stat("d").nlink, 11)
    }
    table.rule("mkdir: files do not count") { t in
        t.directory("d")
        t.file("d/f")
        t.ok(t.symlink(".", "d/l"))
        t.same(t.stat("d").nlink, 2)
    }
    table.rule("rmdir: a full directory is ENOTEMPTY") { t in
        t.directory("d")
        t.file("d/f")
        t.fails(t.rmdir("d"), ENOTEMPTY)
        t.ok(t.unlink("d/f"))
        t.ok(t.rmdir("d"))
    }
    table.rule("rmdir: every kind of entry makes it full") { t in
        for kind in allKinds {
            t.directory("d")
            kind.make(t, "d/e")
            t.fails(t.rmdir("d"), ENOTEMPTY)
            if kind.isDirectory { t.ok(t.rmdir("d/e")) } else { t.ok(t.unlink("d/e")) }
            t.ok(t.rmdir("d"))
        }
    }
    table.rule("rmdir: a link to a directory is ENOTDIR") { t in
        t.directory("d")
        t.ok(t.symlink("d", "l"))
        t.fails(t.rmdir("l"), ENOTDIR)
    }
    table.rule("rmdir: of the root of a mount is EBUSY") { t in
        t.fails(t.rmdir(t.base), EBUSY)
    }
    table.rule("mkdir: a depth of 500 directories") { t in
        for _ in 0..<500 {
            t.ok(t.mkdir("d"))
            t.ok(t.chdir("d"))
        }
        for _ in 0..<500 {
            t.ok(t.chdir(".."))
            t.ok(t.rmdir("d"))
        }
    }
    table.rule("unlink: a name can be used again at once") { t in
        for _ in 0..<50 {
            t.file("n")
            t.ok(t.unlink("n"))
            t.directory("n")
            t.ok(t.rmdir("n"))
        }
    }
    table.rule("unlink: a read-only file needs only its directory's permission") { t in
        t.file("f", mode: 0)
        t.by(.alice) { t.ok(t.unlink("f")) }
    }
}
