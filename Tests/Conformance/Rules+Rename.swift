/// rename(2), renameat2(2).
internal import CCalls
internal import Glibc

/// Every kind of thing that a name can stand for.
let allKinds: [(name: String, isDirectory: Bool, make: @Sendable (Context, String) -> Void)] = [
    ("file", false, { $0.file($1, "text") }),
    ("directory", true, { $0.directory($1) }),
    ("symbolic link", false, { $0.ok($0.symlink("target", $1)) }),
    ("FIFO", false, { $0.ok($0.mkfifo($1)) }),
    ("socket", false, { $0.ok($0.mknod($1, S_IFSOCK | 0o644)) }),
    ("device", false, { $0.ok($0.mknod($1, S_IFCHR | 0o644, device: 0x103)) }),
]

func addRenameRules(to table: inout RuleTable) {
    for source in allKinds {
        for target in allKinds {
            table.rule("rename: a \(source.name) over a \(target.name)") { t in
                source.make(t, "a")
                target.make(t, "b")
                let (moved, replaced) = (t.stat("a").ino, t.stat("b").ino)
                let error: Int32? =
                    switch (source.isDirectory, target.isDirectory) {
                    case (true, false): ENOTDIR
                    case (false, true): EISDIR
                    default: nil
                    }
                t.gives(t.rename("a", "b"), error)
                t.same(t.exists("a"), error != nil)
                t.same(t.stat("b").ino, error == nil ? moved : replaced)
            }
            table.rule("rename exchange: a \(source.name) and a \(target.name)") { t in
                source.make(t, "a")
                target.make(t, "b")
                let (first, second) = (t.stat("a").ino, t.stat("b").ino)
                t.ok(t.rename("a", "b", Flag.renameExchange))
                t.same(t.stat("a").ino, second)
                t.same(t.stat("b").ino, first)
            }
        }
        table.rule("rename: a \(source.name) to a free name keeps inode, mode and times") { t in
            source.make(t, "a")
            let before = t.stat("a")
            t.directory("d")
            t.ok(t.rename("a", "d/b"))
            let after = t.stat("d/b")
            t.yes(!t.exists("a"))
            t.same(after.ino, before.ino)
            t.same(after.mode, before.mode)
            t.same(after.mtime.nanoseconds, before.mtime.nanoseconds)
        }
        table.rule("rename NOREPLACE: a \(source.name) to a free and to a taken name") { t in
            source.make(t, "a")
            t.file("b")
            t.fails(t.rename("a", "b", Flag.renameNoReplace), EEXIST)
            t.yes(t.exists("a"))
            t.ok(t.rename("a", "c", Flag.renameNoReplace))
            t.yes(!t.exists("a") && t.exists("c"))
        }
    }
    addDirectoryMoves(to: &table)
    addRenameFlags(to: &table)
    addRenamePermissions(to: &table)
}

private func addDirectoryMoves(to table: inout RuleTable) {
    table.rule("rename: a directory into itself is EINVAL") { t in
        t.directory("d")
        t.fails(t.rename("d", "d/e"), EINVAL)
    }
    table.rule("rename: a directory below its own subdirectory is EINVAL") { t in
        t.directory("d")
        t.directory("d/e")
        t.directory("d/e/f")
        t.fails(t.rename("d", "d/e/f/g"), EINVAL)
    }
    table.rule("rename: over an own ancestor is ENOTEMPTY") { t in
        t.directory("d")
        t.directory("d/e")
        t.fails(t.rename("d/e", "d"), ENOTEMPTY)
    }
    table.rule("rename: a directory over a full one is ENOTEMPTY") { t in
        t.directory("a")
        t.directory("b")
        t.file("b/f")
        t.fails(t.rename("a", "b"), ENOTEMPTY)
        t.yes(t.exists("a") && t.exists("b/f"))
    }
    table.rule("rename: a full directory over an empty one") { t in
        t.directory("a")
        t.file("a/f")
        t.directory("b")
        t.ok(t.rename("a", "b"))
        t.same(t.names("b"), ["f"])
    }
    table.rule("rename: link counts of both parents follow a directory") { t in
        t.directory("a")
        t.directory("b")
        t.directory("a/d")
        t.ok(t.rename("a/d", "b/d"))
        t.same(t.stat("a").nlink, 2)
        t.same(t.stat("b").nlink, 3)
        t.same(t.stat("b/d").nlink, 2)
    }
    table.rule("rename: link count of the parent after a directory replaced another") { t in
        t.directory("a")
        t.directory("b")
        t.directory("a/d")
        t.directory("b/d")
        t.ok(t.rename("a/d", "b/d"))
        t.same(t.stat("a").nlink, 2)
        t.same(t.stat("b").nlink, 3)
    }
    table.rule("rename: two names of one inode stay as they are") { t in
        t.file("a")
        t.ok(t.link("a", "b"))
        let before = t.stat("a")
        t.pause()
        t.ok(t.rename("a", "b"))
        t.yes(t.exists("a") && t.exists("b"))
        t.same(t.stat("a").nlink, 2)
        t.same(t.stat("a").ctime.nanoseconds, before.ctime.nanoseconds)
    }
    table.rule("rename: a name to itself is nothing") { t in
        t.file("a")
        t.ok(t.rename("a", "a"))
        t.directory("d")
        t.ok(t.rename("d", "./d"))
        t.yes(t.exists("a") && t.exists("d"))
    }
    table.rule("rename: the replaced file's other name has one link less") { t in
        t.file("a")
        t.file("b")
        t.ok(t.link("b", "c"))
        t.ok(t.rename("a", "b"))
        t.same(t.stat("c").nlink, 1)
    }
    table.rule("rename: a link is moved, not what it points to") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.ok(t.rename("l", "m"))
        t.same(t.target("m"), "f")
        t.yes(t.exists("f"))
    }
    table.rule("rename: over a link replaces the link") { t in
        t.file("f", "old")
        t.file("g", "new")
        t.ok(t.symlink("f", "l"))
        t.ok(t.rename("g", "l"))
        t.same(t.text("f"), "old")
        t.same(t.text("l"), "new")
    }
    table.rule("rename: a directory's name may have a slash behind it, a file's not") { t in
        t.directory("d")
        t.file("f")
        t.ok(t.rename("d/", "e/"))
        t.fails(t.rename("f/", "g"), ENOTDIR)
        t.fails(t.rename("f", "g/"), ENOTDIR)
    }
    table.rule("rename: a missing source comes before a bad target") { t in
        t.directory("d")
        t.fails(t.rename("missing", "d"), ENOENT)
    }
    table.rule("rename: to another filesystem is EXDEV") { t in
        t.file("f")
        t.fails(t.rename("f", "/tmp/aegisfs-conformance-none"), EXDEV)
        t.fails(t.link("f", "/tmp/aegisfs-conformance-none"), EXDEV)
    }
    table.rule("rename: a directory in use as cwd moves with it") { t in
        t.directory("a")
        t.ok(t.chdir("a"))
        t.ok(t.rename("../a", "../b"))
        t.file("f")
        t.ok(t.chdir(".."))
        t.yes(t.exists("b/f"))
    }
    table.rule("rename: an open directory can be listed and filled after it was moved") { t in
        t.directory("a")
        let directory = t.fd("a", O_DIRECTORY)
        t.ok(t.rename("a", "b"))
        t.ok(cc_mkdir(directory, "sub", 0o755))
        t.same(DirectoryListing.read(directory).count, 3)
    }
    table.rule("rename: into a directory without a name is ENOENT") { t in
        t.directory("d")
        t.file("f")
        let directory = t.fd("d", O_DIRECTORY)
        t.ok(t.rmdir("d"))
        t.fails(cc_rename(HERE, "f", directory, "g", 0), ENOENT)
    }
    table.rule("rename: the new name is seen at once in a listing, the old one is gone") { t in
        for number in 0..<100 { t.file("a\(number)") }
        for number in 0..<100 { t.ok(t.rename("a\(number)", "b\(number)")) }
        t.yes(t.names(".").count == 100 && t.names(".").allSatisfy { $0.hasPrefix("b") })
    }
}

private func addRenameFlags(to table: inout RuleTable) {
    table.rule("rename flags: NOREPLACE and EXCHANGE together are EINVAL") { t in
        t.file("a")
        t.file("b")
        t.fails(t.rename("a", "b", 3), EINVAL)
        t.fails(t.rename("a", "b", 6), EINVAL)
        t.fails(t.rename("a", "b", 8), EINVAL)
    }
    table.rule("rename exchange: a missing target is ENOENT") { t in
        t.file("a")
        t.fails(t.rename("a", "b", Flag.renameExchange), ENOENT)
    }
    table.rule("rename exchange: of one inode's two names is nothing") { t in
        t.file("a")
        t.ok(t.link("a", "b"))
        t.ok(t.rename("a", "b", Flag.renameExchange))
        t.same(t.stat("a").ino, t.stat("b").ino)
    }
    table.rule("rename exchange: a directory with its own descendant is EINVAL") { t in
        t.directory("a")
        t.directory("a/b")
        t.directory("a/b/c")
        t.fails(t.rename("a", "a/b/c", Flag.renameExchange), EINVAL)
        t.fails(t.rename("a/b/c", "a", Flag.renameExchange), EINVAL)
    }
    table.rule("rename exchange: full directories, dot-dot and link counts follow") { t in
        t.directory("a")
        t.directory("b")
        t.directory("a/d")
        t.file("a/d/x")
        t.file("b/f")
        t.ok(t.rename("a/d", "b/f", Flag.renameExchange))
        t.same(t.stat("a").nlink, 2)
        t.same(t.stat("b").nlink, 3)
        t.same(t.stat("b/f/..").ino, t.stat("b").ino)
        t.same(t.names("b/f"), ["x"])
    }
    table.rule("rename exchange: both inodes' ctime moves, mtime not") { t in
        t.file("a")
        t.file("b")
        let (first, second) = (t.stat("a"), t.stat("b"))
        t.pause()
        t.ok(t.rename("a", "b", Flag.renameExchange))
        t.yes(t.stat("b").ctime.isAfter(first.ctime) && t.stat("a").ctime.isAfter(second.ctime))
        t.yes(!t.stat("b").mtime.isAfter(first.mtime))
    }
    table.rule("rename whiteout: leaves a character device 0:0") { t in
        t.file("a")
        t.ok(t.rename("a", "b", Flag.renameWhiteout))
        let left = t.stat("a")
        t.same(UInt32(left.mode) & S_IFMT, S_IFCHR)
        t.same([left.rdev_major, left.rdev_minor], [0, 0])
        t.yes(t.exists("b"))
    }
    table.rule("rename whiteout: over an existing name, and of a directory") { t in
        t.directory("a")
        t.directory("b")
        t.ok(t.rename("a", "b", Flag.renameWhiteout))
        t.same(UInt32(t.stat("a").mode) & S_IFMT, S_IFCHR)
        t.ok(t.unlink("a"))
        t.ok(t.rmdir("b"))
    }
    table.rule("rename whiteout and NOREPLACE go together") { t in
        t.file("a")
        t.file("b")
        t.fails(t.rename("a", "b", 5), EEXIST)
        t.ok(t.rename("a", "c", 5))
    }
    table.rule("mknod: a character device 0:0 needs no privilege") { t in
        t.ok(t.by(.alice) { t.mknod("w", S_IFCHR) })
    }
}

private func addRenamePermissions(to table: inout RuleTable) {
    table.rule("rename: both directories must be writable") { t in
        t.directory("a", mode: 0o777)
        t.directory("b", mode: 0o755)
        t.file("a/f", owner: .alice)
        t.by(.alice) { t.fails(t.rename("a/f", "b/f"), EACCES) }
        t.ok(t.chmod("a", 0o755))
        t.ok(t.chmod("b", 0o777))
        t.by(.alice) { t.fails(t.rename("a/f", "b/f"), EACCES) }
        t.ok(t.chmod("a", 0o777))
        t.by(.alice) { t.ok(t.rename("a/f", "b/f")) }
    }
    table.rule("rename: a file of another's needs no permission on the file") { t in
        t.file("f", mode: 0)
        t.by(.alice) { t.ok(t.rename("f", "g")) }
    }
    table.rule("rename: a directory to another parent must itself be writable") { t in
        t.directory("a", mode: 0o777)
        t.directory("b", mode: 0o777)
        t.directory("a/d", mode: 0o755)
        t.by(.alice) { t.ok(t.rename("a/d", "a/e")) }
        t.by(.alice) { t.fails(t.rename("a/e", "b/e"), EACCES) }
        t.ok(t.chmod("a/e", 0o777))
        t.by(.alice) { t.ok(t.rename("a/e", "b/e")) }
    }
    table.rule("rename: a refused one changes nothing") { t in
        t.directory("a")
        t.file("a/f")
        let before = t.stat("a/f")
        let directory = t.stat("a")
        t.pause()
        t.by(.alice) { t.fails(t.rename("a/f", "a/g"), EACCES) }
        t.same(t.names("a"), ["f"])
        t.yes(!t.stat("a/f").ctime.isAfter(before.ctime))
        t.yes(!t.stat("a").ctime.isAfter(directory.ctime))
    }
}
