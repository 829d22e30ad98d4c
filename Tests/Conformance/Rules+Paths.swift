/// Path resolution (path_resolution(7), POSIX 4.13) and the order of its errors, for every call
/// that takes a path.
internal import CCalls
internal import Glibc

/// A call with a path that has to exist.
private struct ExistingCall {
    var name: String
    var follows = true
    /// What it says of a directory, a plain file, a file with a slash behind it.
    var onDirectory: Int32?
    var onFile: Int32?
    var onFileSlash: Int32? = ENOTDIR
    /// Needs write and search permission for the directory and not for the inode.
    var removes = false
    var run: @Sendable (Context, String) -> Int
}

private let existingCalls: [ExistingCall] = [
    ExistingCall(name: "open(O_RDONLY)") { $0.open($1) },
    ExistingCall(name: "open(O_WRONLY)", onDirectory: EISDIR) { $0.open($1, O_WRONLY) },
    ExistingCall(name: "open(O_RDWR|O_TRUNC)", onDirectory: EISDIR) {
        $0.open($1, O_RDWR | O_TRUNC)
    },
    ExistingCall(name: "open(O_PATH)") { $0.open($1, Flag.path) },
    ExistingCall(name: "open(O_DIRECTORY)", onFile: ENOTDIR) { $0.open($1, O_DIRECTORY) },
    ExistingCall(name: "open(O_TMPFILE)", onFile: ENOTDIR) {
        $0.open($1, Flag.tmpfile | O_RDWR)
    },
    ExistingCall(name: "truncate", onDirectory: EISDIR) { $0.truncate($1) },
    ExistingCall(name: "chmod") { $0.chmod($1, 0o755) },
    ExistingCall(name: "chown") { $0.chown($1, 0, 0) },
    ExistingCall(name: "lchown", follows: false) { $0.lchown($1, 0, 0) },
    ExistingCall(name: "utimensat") { $0.touch($1) },
    ExistingCall(name: "utimensat(AT_SYMLINK_NOFOLLOW)", follows: false) {
        $0.utimens($1, (1, 0), (1, 0), flags: Flag.noFollowSymlink)
    },
    ExistingCall(name: "stat") { $0.lookUp($1, follow: true).result },
    ExistingCall(name: "lstat", follows: false) { $0.lookUp($1).result },
    ExistingCall(name: "access") { $0.access($1, F_OK) },
    ExistingCall(name: "statfs") {
        var result = cc_statfs()
        _ = $0
        return cc_statfs($1, &result)
    },
    ExistingCall(name: "chdir", onFile: ENOTDIR) { $0.chdir($1) },
    ExistingCall(name: "setxattr") { $0.setxattr($1, "user.x") },
    ExistingCall(name: "getxattr", onDirectory: ENODATA, onFile: ENODATA) {
        $0.getxattr($1, "user.none")
    },
    ExistingCall(name: "listxattr") { $0.listxattr($1) },
    ExistingCall(name: "removexattr", onDirectory: ENODATA, onFile: ENODATA) {
        $0.removexattr($1, "user.none")
    },
    ExistingCall(name: "readlink", follows: false, onDirectory: EINVAL, onFile: EINVAL) {
        $0.readlink($1)
    },
    ExistingCall(name: "unlink", follows: false, onDirectory: EISDIR, removes: true) {
        $0.unlink($1)
    },
    ExistingCall(name: "rmdir", follows: false, onFile: ENOTDIR, removes: true) { $0.rmdir($1) },
    ExistingCall(name: "link(from)", follows: false, onDirectory: EPERM) { $0.link($1, "new") },
    ExistingCall(name: "rename(from)", follows: false, removes: true) { $0.rename($1, "new") },
    ExistingCall(name: "inotify_add_watch") { _, path in
        cc_watch(Int32(cc_inotify()), path, 0x100)
    },
    ExistingCall(name: "name_to_handle_at", follows: false) { _, path in
        var handle = cc_handle()
        var mount: Int32 = 0
        handle.bytes = 128
        return cc_handle_of(HERE, path, &handle, &mount, 0)
    },
]

/// A call with a path that it gives to something new.
private struct CreatingCall {
    var name: String
    /// What it says if the name is taken by a file, a directory, a symbolic link to nothing; and
    /// of a free name with a slash behind it.
    var onFile: Int32? = EEXIST
    var onDirectory: Int32? = EEXIST
    var onDangling: Int32? = EEXIST
    var onSlash: Int32? = ENOENT
    var run: @Sendable (Context, String) -> Int
}

private let creatingCalls: [CreatingCall] = [
    CreatingCall(
        name: "open(O_CREAT)", onFile: nil, onDirectory: EISDIR, onDangling: nil, onSlash: EISDIR
    ) { $0.open($1, O_CREAT | O_WRONLY) },
    CreatingCall(name: "open(O_CREAT|O_EXCL)", onSlash: EISDIR) {
        $0.open($1, O_CREAT | O_EXCL | O_WRONLY)
    },
    CreatingCall(name: "mkdir", onSlash: nil) { $0.mkdir($1) },
    CreatingCall(name: "mknod(S_IFREG)") { $0.mknod($1, S_IFREG | 0o644) },
    CreatingCall(name: "mkfifo") { $0.mkfifo($1) },
    CreatingCall(name: "mknod(S_IFSOCK)") { $0.mknod($1, S_IFSOCK | 0o644) },
    CreatingCall(name: "symlink") { $0.symlink("anything", $1) },
    CreatingCall(name: "link(to)") { $0.link("file", $1) },
    CreatingCall(
        name: "rename(to)", onFile: nil, onDirectory: EISDIR, onDangling: nil, onSlash: ENOTDIR
    ) { $0.rename("file", $1) },
]

/// What every rule here finds.
private func prepare(_ t: Context) {
    t.file("file", "text")
    t.directory("dir")
    t.directory("private", mode: 0o700)
    t.file("private/file")
    t.ok(t.symlink("loop", "loop"))
    t.ok(t.symlink("nowhere", "dangling"))
    t.ok(t.symlink("file", "filelink"))
    t.ok(t.symlink("dir", "dirlink"))
}

private let longName = String(repeating: "n", count: 256)

func addPathRules(to table: inout RuleTable) {
    for call in existingCalls { addExisting(call, to: &table) }
    for call in creatingCalls { addCreating(call, to: &table) }
    addResolution(to: &table)
}

/// The problems with a prefix, which are the same for every call.
private func addPrefixRules(
    _ name: String, to table: inout RuleTable, _ run: @escaping (Context, String) -> Int
) {
    func rule(_ what: String, _ path: String, _ error: Int32, as user: User? = nil) {
        table.rule("path \(name): \(what)") { t in
            prepare(t)
            let result = user.map { t.by($0) { run(t, path) } } ?? run(t, path)
            t.fails(result, error)
        }
    }
    rule("an empty path is ENOENT", "", ENOENT)
    rule("a missing prefix is ENOENT", "missing/x", ENOENT)
    rule("a file as prefix is ENOTDIR", "file/x", ENOTDIR)
    rule("a link to a file as prefix is ENOTDIR", "filelink/x", ENOTDIR)
    rule("a dangling link as prefix is ENOENT", "dangling/x", ENOENT)
    rule("a loop in the prefix is ELOOP", "loop/x", ELOOP)
    rule("a prefix without search permission is EACCES", "private/x", EACCES, as: .alice)
    rule("EACCES also where the rest is a directory", "private/../dir", EACCES, as: .alice)
    rule("a last name of 256 bytes is ENAMETOOLONG", "dir/" + longName, ENAMETOOLONG)
    rule("a prefix name of 256 bytes is ENAMETOOLONG", longName + "/x", ENAMETOOLONG)
    rule(
        "a path of 4096 bytes is ENAMETOOLONG", String(repeating: "./", count: 2046) + "file",
        ENAMETOOLONG)
}

private func addExisting(_ call: ExistingCall, to table: inout RuleTable) {
    addPrefixRules(call.name, to: &table, call.run)
    func rule(_ what: String, _ path: String, _ error: Int32?) {
        table.rule("path \(call.name): \(what)") { t in
            prepare(t)
            t.gives(call.run(t, path), error)
        }
    }
    rule("a missing last name is ENOENT", "missing", ENOENT)
    rule("a missing last name with a slash is ENOENT", "missing/", ENOENT)
    rule("a file", "file", call.onFile)
    rule("a directory", "dir", call.onDirectory)
    rule("a directory with a slash", "dir/", call.onDirectory)
    rule("a file with a slash is ENOTDIR", "file/", call.onFileSlash)
    rule(
        "a path of 4095 bytes", String(repeating: "./", count: 2045) + "/file",
        call.onFile)
    if call.follows {
        rule("follows a link to a file", "filelink", call.onFile)
        rule("follows a link to a directory", "dirlink", call.onDirectory)
        rule("a dangling link is ENOENT", "dangling", ENOENT)
        rule("a loop is ELOOP", "loop", ELOOP)
    }
    if call.removes {
        table.rule("path \(call.name): needs write permission for the directory") { t in
            t.directory("d", mode: 0o755)
            if call.onFile == nil { t.file("d/f", mode: 0o777) } else { t.directory("d/f") }
            t.by(.alice) { t.fails(call.run(t, "d/f"), EACCES) }
            t.by(.alice) { t.fails(call.run(t, "d/missing"), ENOENT) }
            t.ok(t.chmod("d", 0o777))
            t.by(.alice) { t.ok(call.run(t, "d/f")) }
        }
    }
}

private func addCreating(_ call: CreatingCall, to table: inout RuleTable) {
    addPrefixRules(call.name, to: &table, call.run)
    func rule(_ what: String, _ path: String, _ error: Int32?) {
        table.rule("path \(call.name): \(what)") { t in
            prepare(t)
            t.gives(call.run(t, path), error)
        }
    }
    rule("a free name", "dir/new", nil)
    rule("a free name of 255 bytes", "dir/" + longName.dropLast(), nil)
    rule("a free name with a slash", "dir/new/", call.onSlash)
    rule("a name that a file has", "private/file", call.onFile)
    rule("a name that a directory has", "dir", call.onDirectory)
    rule("a name that a dangling link has", "dangling", call.onDangling)
    rule("a free name below a link to a directory", "dirlink/new", nil)
    table.rule("path \(call.name): needs write permission for the directory") { t in
        t.file("file", mode: 0o666, owner: .alice)
        t.directory("d", mode: 0o755)
        t.by(.alice) { t.fails(call.run(t, "d/new"), EACCES) }
        t.ok(t.chmod("d", 0o772))
        t.by(.alice) { t.fails(call.run(t, "d/new"), EACCES) }
        t.ok(t.chmod("d", 0o773))
        t.by(.alice) { t.ok(call.run(t, "d/new")) }
        t.yes(t.exists("d/new"))
    }
    table.rule("path \(call.name): a failed call makes nothing") { t in
        t.file("file", owner: .alice)
        t.directory("d")
        let before = t.stat("d")
        t.pause()
        _ = t.by(.alice) { call.run(t, "d/new") }
        t.same(t.names("d"), [])
        t.same(t.stat("d").mtime.nanoseconds, before.mtime.nanoseconds)
    }
}

private func addResolution(to table: inout RuleTable) {
    table.rule("path: 40 links in a row are followed, 41 are ELOOP") { t in
        t.file("l0")
        for number in 1...41 { t.ok(t.symlink("l\(number - 1)", "l\(number)")) }
        t.ok(t.lookUp("l40", follow: true).result)
        t.fails(t.lookUp("l41", follow: true).result, ELOOP)
    }
    table.rule("path: a directory without read permission can be searched") { t in
        t.directory("d", mode: 0o711)
        t.file("d/f")
        t.by(.alice) { t.ok(t.lookUp("d/f").result) }
        t.by(.alice) { t.fails(t.open("d"), EACCES) }
    }
    table.rule("path: a directory without search permission can be listed") { t in
        t.directory("d", mode: 0o744)
        t.file("d/f")
        t.by(.alice) { t.same(t.names("d"), ["f"]) }
        t.by(.alice) { t.fails(t.lookUp("d/f").result, EACCES) }
    }
    table.rule("path: EACCES of a prefix comes before ENOENT of the rest") { t in
        t.directory("d", mode: 0o700)
        t.by(.alice) { t.fails(t.lookUp("d/missing/x").result, EACCES) }
    }
    table.rule("path: dot and dot-dot need search permission as any name") { t in
        t.directory("d", mode: 0o744)
        t.by(.alice) { t.fails(t.lookUp("d/.").result, EACCES) }
        t.by(.alice) { t.fails(t.lookUp("d/..").result, EACCES) }
    }
    table.rule("path: dot-dot of a moved directory is its new parent") { t in
        t.directory("a")
        t.directory("b")
        t.directory("a/d")
        t.ok(t.rename("a/d", "b/d"))
        t.same(t.stat("b/d/..").ino, t.stat("b").ino)
    }
    table.rule("path: slashes in a row are one") { t in
        t.directory("d")
        t.file("d/f")
        t.ok(t.lookUp("d////f").result)
    }
    table.rule("path: names differ by bytes, not by letters") { t in
        t.file("name")
        t.file("NAME")
        t.file("na\u{E9}")
        t.file("nae\u{301}")
        t.same(t.names(".").count, 4)
    }
    table.rule("path: a name may have every byte but slash and NUL") { t in
        for byte in 1...255 where byte != 47 {
            let name: [CChar] = [120, CChar(bitPattern: UInt8(byte)), 0]
            t.ok(cc_open(HERE, name, O_CREAT | O_EXCL | O_WRONLY, 0o644))
        }
        t.same(t.names(".").count, 254)
    }
    for (name, run, dot, dotDot) in lastDots {
        table.rule("path \(name): a dot as last name") { t in
            t.directory("d")
            t.file("file")
            t.gives(run(t, "d/."), dot)
        }
        table.rule("path \(name): dot-dot as last name") { t in
            t.directory("d")
            t.directory("d/e")
            t.file("file")
            t.gives(run(t, "d/e/.."), dotDot)
        }
    }
    table.rule("path: at-calls resolve from the descriptor, also of a moved directory") { t in
        t.directory("d")
        t.file("d/f")
        let d = t.fd("d", O_RDONLY | O_DIRECTORY)
        t.ok(t.rename("d", "e"))
        t.ok(cc_open(d, "f", O_RDONLY, 0))
        t.ok(cc_mkdir(d, "sub", 0o755))
        t.yes(t.exists("e/sub"))
    }
    table.rule("path: at-calls from a file's descriptor are ENOTDIR") { t in
        t.file("f")
        let f = t.fd("f")
        t.fails(cc_open(f, "x", O_RDONLY, 0), ENOTDIR)
        t.fails(cc_mkdir(f, "x", 0o755), ENOTDIR)
    }
    table.rule("path: getcwd after the directory was moved") { t in
        t.directory("a")
        t.ok(t.mkdir("a/b"))
        t.ok(t.chdir("a/b"))
        t.ok(t.rename("../../a", "../../c"))
        var path = [CChar](repeating: 0, count: 4096)
        let count = t.ok(cc_getcwd(&path, 4096))
        let bytes = path.prefix(max(0, count - 1)).map { UInt8(bitPattern: $0) }
        t.yes(String(decoding: bytes, as: UTF8.self).hasSuffix("/c/b"))
    }
}

/// Calls that say something of their own about "." and ".." as the last name.
private let lastDots: [(String, @Sendable (Context, String) -> Int, Int32?, Int32?)] = [
    ("mkdir", { $0.mkdir($1) }, EEXIST, EEXIST),
    ("mkfifo", { $0.mkfifo($1) }, EEXIST, EEXIST),
    ("symlink", { $0.symlink("x", $1) }, EEXIST, EEXIST),
    ("link(to)", { $0.link("file", $1) }, EEXIST, EEXIST),
    ("unlink", { $0.unlink($1) }, EISDIR, EISDIR),
    ("rmdir", { $0.rmdir($1) }, EINVAL, ENOTEMPTY),
    ("rename(from)", { $0.rename($1, "new") }, EBUSY, EBUSY),
    ("rename(to)", { $0.rename("file", $1) }, EBUSY, EBUSY),
    ("open(O_CREAT)", { $0.open($1, O_CREAT | O_WRONLY) }, EISDIR, EISDIR),
    ("open(O_CREAT|O_EXCL)", { $0.open($1, O_CREAT | O_EXCL | O_WRONLY) }, EEXIST, EEXIST),
]
