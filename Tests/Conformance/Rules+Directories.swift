/// Listing directories (readdir(3), getdents(2)); inode flags (ioctl_iflags(2)).
internal import CCalls
internal import Glibc

func addDirectoryRules(to table: inout RuleTable) {
    addListing(to: &table)
    addPositions(to: &table)
}

private func addListing(to table: inout RuleTable) {
    table.rule("readdir: an empty directory has dot and dot-dot, each once") { t in
        t.directory("d")
        let entries = DirectoryListing.read(t.fd("d", O_DIRECTORY))
        t.same(entries.map(\.name).sorted(), [".", ".."])
    }
    table.rule("readdir: dot and dot-dot have the right inode numbers and kind") { t in
        t.directory("d")
        for entry in DirectoryListing.read(t.fd("d", O_DIRECTORY)) {
            t.same(entry.inode, t.stat("d/" + entry.name).ino)
            t.same(entry.kind, 4)
        }
    }
    for (number, kind) in allKinds.enumerated() {
        table.rule("readdir: d_ino and d_type of a \(kind.name)") { t in
            t.directory("d")
            kind.make(t, "d/n")
            let entries = DirectoryListing.read(t.fd("d", O_DIRECTORY))
            guard let entry = entries.first(where: { $0.name == "n" }) else {
                return t.fail("not listed", #line)
            }
            t.same(entry.inode, t.stat("d/n").ino)
            t.same(entry.kind, [8, 4, 10, 1, 12, 2][number])
        }
    }
    for count in [1, 10, 100, 3000] {
        table.rule("readdir: \(count) names, each once") { t in
            t.directory("d")
            for number in 0..<count { t.ok(t.mknod("d/name-\(number)", S_IFREG | 0o644)) }
            let names = t.names("d")
            t.same(names.count, count)
            t.same(Set(names).count, count)
        }
    }
    table.rule("readdir: names of 255 bytes through a small buffer") { t in
        t.directory("d")
        let tail = String(repeating: "n", count: 252)
        for number in 100..<200 { t.file("d/\(number)" + tail) }
        let directory = t.fd("d", O_DIRECTORY)
        var names: [String] = []
        while true {
            let (result, entries) = DirectoryListing.some(directory, 600)
            if t.ok(result) <= 0 { break }
            names += entries.map(\.name)
        }
        t.same(names.count, 102)
        t.same(Set(names).count, 102)
    }
    table.rule("readdir: a buffer too small for one entry is EINVAL") { t in
        t.fails(DirectoryListing.some(t.fd(".", O_DIRECTORY), 10).result, EINVAL)
    }
    table.rule("readdir: of a file is ENOTDIR") { t in
        t.file("f")
        t.fails(DirectoryListing.some(t.fd("f"), 1000).result, ENOTDIR)
    }
    table.rule("readdir: a new name is seen by the next listing, a removed one not") { t in
        t.directory("d")
        t.same(t.names("d"), [])
        t.file("d/f")
        t.same(t.names("d"), ["f"])
        t.ok(t.unlink("d/f"))
        t.same(t.names("d"), [])
    }
    table.rule("readdir: an open descriptor goes on after chmod") { t in
        t.directory("d", mode: 0o755)
        t.file("d/f")
        let directory = t.by(.alice) { t.fd("d", O_DIRECTORY) }
        t.ok(t.chmod("d", 0o700))
        t.by(.alice) { t.same(DirectoryListing.read(directory).count, 3) }
    }
    table.rule("readdir: two descriptors have two positions") { t in
        t.directory("d")
        for number in 0..<50 { t.file("d/\(number)") }
        let (a, b) = (t.fd("d", O_DIRECTORY), t.fd("d", O_DIRECTORY))
        t.yes(DirectoryListing.some(a, 200).entries.count < 52)
        t.same(DirectoryListing.read(b).count, 52)
    }
    table.rule("stat: a directory's size and blocks make sense") { t in
        t.directory("d")
        t.yes(t.stat("d").nlink >= 1)
        t.yes(t.stat("d").size < 1 << 30)
    }
}

private func addPositions(to table: inout RuleTable) {
    func make(_ t: Context, _ count: Int = 500) -> Int32 {
        t.directory("d")
        for number in 0..<count { t.ok(t.mknod("d/\(number)", S_IFREG | 0o644)) }
        return t.fd("d", O_DIRECTORY)
    }
    table.rule("rewinddir: shows everything again, also what is new") { t in
        let directory = make(t, 10)
        t.same(DirectoryListing.read(directory).count, 12)
        t.file("d/new")
        t.ok(cc_lseek(directory, 0, SEEK_SET))
        t.same(DirectoryListing.read(directory).count, 13)
    }
    table.rule("seekdir: to every position shows what followed it") { t in
        let directory = make(t, 60)
        let all = DirectoryListing.read(directory)
        for (index, entry) in all.enumerated() {
            t.ok(cc_lseek(directory, Int(entry.cookie), SEEK_SET))
            let rest = DirectoryListing.read(directory)
            t.same(rest.map(\.name), all.dropFirst(index + 1).map(\.name))
        }
    }
    table.rule("telldir: positions are positive and all different") { t in
        let all = DirectoryListing.read(make(t))
        t.same(Set(all.map(\.cookie)).count, all.count)
        t.yes(all.allSatisfy { $0.cookie > 0 })
    }
    table.rule("readdir: removing what was listed loses and repeats nothing") { t in
        let directory = make(t)
        var names: [String] = []
        while true {
            let entries = DirectoryListing.some(directory, 700).entries
            if entries.isEmpty { break }
            for entry in entries where !entry.name.hasPrefix(".") {
                names.append(entry.name)
                t.ok(t.unlink("d/" + entry.name))
            }
        }
        t.same(names.count, 500)
        t.same(t.names("d"), [])
    }
    table.rule("readdir: adding meanwhile repeats and loses nothing old") { t in
        let directory = make(t)
        var names: [String] = []
        var added = 0
        while true {
            let entries = DirectoryListing.some(directory, 700).entries
            if entries.isEmpty || added > 2000 { break }
            names += entries.map(\.name).filter { !$0.hasPrefix(".") && !$0.hasPrefix("new") }
            for _ in 0..<3 {
                added += 1
                t.file("d/new\(added)")
            }
        }
        t.same(names.count, 500)
        t.same(Set(names).count, 500)
    }
    table.rule("readdir: removing others meanwhile loses nothing that stays") { t in
        let directory = make(t)
        var names: [String] = []
        var next = 0
        while true {
            let entries = DirectoryListing.some(directory, 700).entries
            if entries.isEmpty { break }
            names += entries.map(\.name)
            while next < 500, next % 50 != 49 {
                _ = t.unlink("d/\(next)")
                next += 2
            }
            next += 2
        }
        let staying = t.names("d")
        t.yes(Set(names).isSuperset(of: staying), "all that stay")
        t.same(Set(names).count, names.count)
    }
    table.rule("readdir: a position lives through a removal of its entry") { t in
        let directory = make(t, 60)
        let all = DirectoryListing.read(directory)
        let entry = all[30]
        if !entry.name.hasPrefix(".") { t.ok(t.unlink("d/" + entry.name)) }
        t.ok(cc_lseek(directory, Int(entry.cookie), SEEK_SET))
        let rest = DirectoryListing.read(directory)
        t.same(rest.map(\.name), all.dropFirst(31).map(\.name))
    }
}

/// FS_*_FL
enum InodeFlag {
    static let immutable: Int32 = 0x10
    static let append: Int32 = 0x20
    static let noDump: Int32 = 0x40
    static let noAccessTime: Int32 = 0x80
    static let all: Int32 = 0xF0
}

extension Context {
    @discardableResult
    fileprivate func setFlags(_ path: String, _ flags: Int32, line: Int = #line) -> Int {
        let file = fd(path, O_RDONLY | O_NONBLOCK, line: line)
        defer { close(file) }
        var present: Int32 = 0
        ok(cc_ioctl(file, Flag.get, &present), line: line)
        // Some flags say how the filesystem stores the file: they have to stay.
        present = present & ~InodeFlag.all | flags
        return cc_ioctl(file, Flag.set, &present)
    }
    fileprivate func flags(_ path: String) -> Int32 {
        let file = fd(path)
        defer { close(file) }
        var flags: Int32 = 0
        ok(cc_ioctl(file, Flag.get, &flags))
        return flags & InodeFlag.all
    }
}

func addFlagRules(to table: inout RuleTable) {
    for flag in [
        InodeFlag.immutable, InodeFlag.append, InodeFlag.noDump, InodeFlag.noAccessTime,
    ] {
        table.rule("flags: 0x\(String(flag, radix: 16)) is set, shown and taken away") { t in
            t.file("f")
            t.same(t.flags("f"), 0)
            t.ok(t.setFlags("f", flag))
            t.same(t.flags("f"), flag)
            t.ok(t.setFlags("f", 0))
            t.same(t.flags("f"), 0)
        }
    }
    let refusals: [(String, Bool, (Context) -> Int)] = [
        ("chmod", true, { $0.chmod("d/f", 0o600) }),
        ("chown", true, { $0.chown("d/f", 5, 6) }),
        ("utimensat to a given time", true, { $0.utimens("d/f", (1, 0), (1, 0)) }),
        ("truncate", true, { $0.truncate("d/f") }),
        ("open(O_TRUNC)", true, { $0.open("d/f", O_WRONLY | O_TRUNC) }),
        ("unlink", true, { $0.unlink("d/f") }),
        ("rename", true, { $0.rename("d/f", "d/g") }),
        ("rename over", true, { $0.rename("other", "d/f") }),
        ("link", true, { $0.link("d/f", "d/g") }),
        ("setxattr", true, { $0.setxattr("d/f", "user.x") }),
        ("removexattr", true, { $0.removexattr("d/f", "user.there") }),
        ("punch a hole", true, { $0.allocate("d/f", Flag.punchHole) }),
        ("touch", false, { $0.touch("d/f") }),
        ("allocate space", false, { $0.allocate("d/f", 0) }),
        ("open(O_WRONLY)", true, { $0.open("d/f", O_WRONLY) }),
        ("open(O_WRONLY|O_APPEND)", false, { $0.open("d/f", O_WRONLY | O_APPEND) }),
    ]
    for (name, isForAppend, run) in refusals {
        func make(_ t: Context, _ flag: Int32) {
            t.directory("d")
            t.file("d/f", "text")
            t.file("other")
            t.ok(t.setxattr("d/f", "user.there"))
            t.ok(t.setFlags("d/f", flag))
        }
        table.rule("immutable file: \(name) is EPERM") { t in
            make(t, InodeFlag.immutable)
            t.fails(run(t), EPERM)
        }
        table.rule("append-only file: \(name) is \(isForAppend ? "EPERM" : "allowed")") { t in
            make(t, InodeFlag.append)
            t.gives(run(t), isForAppend ? EPERM : nil)
        }
    }
    table.rule("immutable file: can be read, listed and stat") { t in
        t.file("f", "text")
        t.ok(t.setFlags("f", InodeFlag.immutable))
        t.same(t.text("f"), "text")
        t.ok(t.listxattr("f"))
    }
    table.rule("append-only file: writes at the end") { t in
        t.file("f", "text")
        t.ok(t.setFlags("f", InodeFlag.append))
        t.same(t.write(t.fd("f", O_WRONLY | O_APPEND), "more"), 4)
        t.same(t.text("f"), "textmore")
    }
    for (name, run) in directoryChanges {
        table.rule("immutable directory: \(name) is EPERM") { t in
            makeFlagged(t, InodeFlag.immutable)
            t.fails(run(t), EPERM)
            t.same(t.names("d"), ["e", "f"])
        }
    }
    table.rule("append-only directory: names come, none goes") { t in
        makeFlagged(t, InodeFlag.append)
        t.ok(t.mkdir("d/new"))
        t.fails(t.unlink("d/f"), EPERM)
        t.fails(t.rmdir("d/e"), EPERM)
        t.fails(t.rename("d/f", "d/g"), EPERM)
        t.fails(t.rename("other", "d/f"), EPERM)
    }
    table.rule("immutable directory: files in it can be written") { t in
        makeFlagged(t, InodeFlag.immutable)
        t.ok(t.write(t.fd("d/f", O_WRONLY), "x"))
    }
    table.rule("flags: immutable and append-only are for root only") { t in
        t.file("f", owner: .alice)
        t.by(.alice) {
            t.fails(t.setFlags("f", InodeFlag.immutable), EPERM)
            t.fails(t.setFlags("f", InodeFlag.append), EPERM)
            t.ok(t.setFlags("f", InodeFlag.noDump))
        }
    }
    table.rule("flags: only the owner may set any") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.fails(t.setFlags("f", InodeFlag.noDump), EPERM) }
    }
    table.rule("flags: setting them moves ctime") { t in
        t.file("f")
        let before = t.stat("f")
        t.pause()
        t.ok(t.setFlags("f", InodeFlag.noDump))
        t.yes(t.stat("f").ctime.isAfter(before.ctime))
    }
    table.rule("flags: no-atime keeps the access time") { t in
        t.file("f", "text")
        t.ok(t.utimens("f", (1000, 0), (2000, 0)))
        t.ok(t.setFlags("f", InodeFlag.noAccessTime))
        _ = t.text("f")
        t.same(Int(t.stat("f").atime.seconds), 1000)
    }
    table.rule("flags: statx shows immutable, append-only and nodump") { t in
        t.file("f")
        for flag in [InodeFlag.immutable, InodeFlag.append, InodeFlag.noDump] {
            t.ok(t.setFlags("f", flag))
            t.same(t.stat("f").attributes & 0x70, UInt64(flag))
            t.ok(t.setFlags("f", 0))
        }
    }
}

private let directoryChanges: [(String, @Sendable (Context) -> Int)] = [
    ("creating a file", { $0.open("d/new", O_CREAT | O_WRONLY) }),
    ("mkdir", { $0.mkdir("d/new") }),
    ("mkfifo", { $0.mkfifo("d/new") }),
    ("symlink", { $0.symlink("x", "d/new") }),
    ("link", { $0.link("other", "d/new") }),
    ("unlink", { $0.unlink("d/f") }),
    ("rmdir", { $0.rmdir("d/e") }),
    ("rename within", { $0.rename("d/f", "d/g") }),
    ("rename into", { $0.rename("other", "d/g") }),
    ("rename out", { $0.rename("d/f", "g") }),
    ("chmod", { $0.chmod("d", 0o700) }),
]

private func makeFlagged(_ t: Context, _ flag: Int32) {
    t.directory("d")
    t.directory("d/e")
    t.file("d/f", "text")
    t.file("other")
    t.ok(t.setFlags("d", flag))
}

extension Context {
    fileprivate func allocate(_ path: String, _ mode: Int32) -> Int {
        let file = open(path, O_WRONLY | O_APPEND)
        return file < 0 ? file : cc_fallocate(Int32(file), mode, 0, 8192)
    }
}
