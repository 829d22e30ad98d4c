/// Which times every call moves, and which it leaves (POSIX, XBD 4.9).
internal import CCalls
internal import Glibc

extension cc_time {
    func isAfter(_ other: cc_time) -> Bool {
        (seconds, nanoseconds) > (other.seconds, other.nanoseconds)
    }
}

/// A call, and the times it has to move: of the inode `f`, and of the directory `d` that it is in.
private struct TimeCase {
    var name: String
    var inode: String
    var parent: String
    /// Where the inode is afterwards; nil if it has no name any more.
    var after: String? = "d/f"
    var isDirectory = false
    var run: @Sendable (Context) -> Void
}

private let timeCases: [TimeCase] = [
    TimeCase(name: "write", inode: "mc", parent: "") {
        $0.ok($0.write($0.fd("d/f", O_WRONLY), "x"))
    },
    TimeCase(name: "write of nothing", inode: "", parent: "") {
        $0.ok($0.write($0.fd("d/f", O_WRONLY), ""))
    },
    TimeCase(name: "pwrite beyond the end", inode: "mc", parent: "") {
        $0.ok($0.pwrite($0.fd("d/f", O_WRONLY), "x", 100_000))
    },
    TimeCase(name: "read", inode: "a", parent: "") { _ = $0.text("d/f") },
    TimeCase(name: "open and close", inode: "", parent: "") { $0.close($0.fd("d/f", O_RDWR)) },
    TimeCase(name: "open(O_CREAT) of a file that is there", inode: "", parent: "") {
        $0.close($0.fd("d/f", O_RDWR | O_CREAT))
    },
    TimeCase(name: "open(O_TRUNC)", inode: "mc", parent: "") {
        $0.close($0.fd("d/f", O_WRONLY | O_TRUNC))
    },
    TimeCase(name: "truncate shorter", inode: "mc", parent: "") { $0.ok($0.truncate("d/f", 1)) },
    TimeCase(name: "truncate longer", inode: "mc", parent: "") {
        $0.ok($0.truncate("d/f", 100))
    },
    TimeCase(name: "ftruncate to the same size", inode: "mc", parent: "") {
        $0.ok(cc_ftruncate($0.fd("d/f", O_WRONLY), 4))
    },
    TimeCase(name: "fallocate that grows", inode: "mc", parent: "") {
        $0.ok(cc_fallocate($0.fd("d/f", O_WRONLY), 0, 0, 8192))
    },
    TimeCase(name: "fallocate of a hole", inode: "mc", parent: "") {
        $0.ok(cc_fallocate($0.fd("d/f", O_WRONLY), Flag.punchHole, 0, 4))
    },
    TimeCase(name: "copy_file_range into", inode: "mc", parent: "") {
        $0.ok(cc_copy($0.fd("other"), nil, $0.fd("d/f", O_WRONLY), nil, 4))
    },
    TimeCase(name: "chmod", inode: "c", parent: "") { $0.ok($0.chmod("d/f", 0o600)) },
    TimeCase(name: "chmod to the same mode", inode: "c", parent: "") {
        $0.ok($0.chmod("d/f", 0o644))
    },
    TimeCase(name: "chown", inode: "c", parent: "") { $0.ok($0.chown("d/f", 5, 6)) },
    TimeCase(name: "chown to the same owner", inode: "c", parent: "") {
        $0.ok($0.chown("d/f", 0, 0))
    },
    TimeCase(name: "utimensat NOW", inode: "amc", parent: "") { $0.ok($0.touch("d/f")) },
    TimeCase(name: "utimensat NOW, OMIT", inode: "ac", parent: "") {
        $0.ok($0.utimens("d/f", (0, Flag.timeNow), (0, Flag.timeOmit)))
    },
    TimeCase(name: "utimensat OMIT, NOW", inode: "mc", parent: "") {
        $0.ok($0.utimens("d/f", (0, Flag.timeOmit), (0, Flag.timeNow)))
    },
    TimeCase(name: "setxattr", inode: "c", parent: "") { $0.ok($0.setxattr("d/f", "user.x")) },
    TimeCase(name: "removexattr", inode: "c", parent: "") {
        $0.ok($0.removexattr("d/f", "user.there"))
    },
    TimeCase(name: "getxattr, listxattr", inode: "", parent: "") {
        _ = $0.attribute("d/f", "user.there")
        _ = $0.attributeNames("d/f")
    },
    TimeCase(name: "stat, access", inode: "", parent: "") {
        _ = $0.stat("d/f")
        $0.ok($0.access("d/f", R_OK))
    },
    TimeCase(name: "fsync", inode: "", parent: "") { $0.ok(cc_fsync($0.fd("d/f"))) },
    TimeCase(name: "flock", inode: "", parent: "") { $0.ok(cc_flock($0.fd("d/f"), 2)) },
    TimeCase(name: "link", inode: "c", parent: "mc") { $0.ok($0.link("d/f", "d/g")) },
    TimeCase(name: "link elsewhere", inode: "c", parent: "") { $0.ok($0.link("d/f", "g")) },
    TimeCase(name: "unlink of another name", inode: "c", parent: "mc") {
        $0.ok($0.unlink("d/linked"))
    },
    TimeCase(name: "rename within the directory", inode: "c", parent: "mc", after: "d/g") {
        $0.ok($0.rename("d/f", "d/g"))
    },
    TimeCase(name: "rename out of the directory", inode: "c", parent: "mc", after: "g") {
        $0.ok($0.rename("d/f", "g"))
    },
    TimeCase(name: "unlink", inode: "c", parent: "mc", after: nil) { $0.ok($0.unlink("d/f")) },
    TimeCase(name: "replaced by rename", inode: "c", parent: "mc", after: nil) {
        $0.ok($0.rename("other", "d/f"))
    },
    TimeCase(name: "create beside", inode: "", parent: "mc") { $0.file("d/new") },
    TimeCase(name: "mkdir beside", inode: "", parent: "mc") { $0.directory("d/new") },
    TimeCase(name: "mkfifo beside", inode: "", parent: "mc") { $0.ok($0.mkfifo("d/new")) },
    TimeCase(name: "symlink beside", inode: "", parent: "mc") { $0.ok($0.symlink("x", "d/n")) },
    TimeCase(name: "failed create beside", inode: "", parent: "") {
        $0.fails($0.mkdir("d/f"), EEXIST)
    },
    TimeCase(name: "failed unlink", inode: "", parent: "") { context in
        context.by(.alice) { context.fails(context.unlink("d/f"), EACCES) }
    },
    TimeCase(name: "failed chmod", inode: "", parent: "") { context in
        context.by(.alice) { context.fails(context.chmod("d/f", 0), EPERM) }
    },
    TimeCase(name: "failed truncate", inode: "", parent: "") { context in
        context.by(.alice) { context.fails(context.truncate("d/f"), EACCES) }
    },
    TimeCase(name: "failed setxattr", inode: "", parent: "") {
        $0.fails($0.setxattr("d/f", "user.there", [1], 1), EEXIST)
    },
    TimeCase(name: "failed rename", inode: "", parent: "") {
        $0.fails($0.rename("d/f", "other/x"), ENOTDIR)
    },
    TimeCase(name: "mkdir in a directory", inode: "mc", parent: "", isDirectory: true) {
        $0.directory("d/f/new")
    },
    TimeCase(name: "chmod of a directory", inode: "c", parent: "", isDirectory: true) {
        $0.ok($0.chmod("d/f", 0o700))
    },
    TimeCase(name: "listing of a directory", inode: "a", parent: "", isDirectory: true) {
        _ = $0.names("d/f")
    },
    TimeCase(name: "rmdir", inode: "c", parent: "mc", after: nil, isDirectory: true) {
        $0.ok($0.rmdir("d/f"))
    },
    TimeCase(
        name: "rename of a directory", inode: "c", parent: "mc", after: "g", isDirectory: true
    ) { $0.ok($0.rename("d/f", "g")) },
]

func addTimeRules(to table: inout RuleTable) {
    for one in timeCases {
        let what = one.inode.isEmpty ? "none" : one.inode
        let parent = one.parent.isEmpty ? "none" : one.parent
        table.rule("times \(one.name): moves \(what) of the inode, \(parent) of the parent") { t in
            run(one, t)
        }
    }
    addCreationTimes(to: &table)
    addTimeValues(to: &table)
}

private func run(_ one: TimeCase, _ t: Context) {
    t.directory("d")
    t.file("other", "data")
    if one.isDirectory {
        t.directory("d/f")
    } else {
        t.file("d/f", "text")
        t.ok(t.setxattr("d/f", "user.there"))
        t.ok(t.link("d/f", "d/linked"))
    }
    // So old that relatime moves it.
    t.ok(t.utimens("d/f", (1000, 1), (2000, 2)))
    let open = t.fd("d/f", Flag.path)
    t.pause()
    let (before, parent) = (t.stat("d/f"), t.stat("d"))
    t.pause()
    one.run(t)
    let after = one.after.map { t.stat($0) } ?? t.stat(open)
    check(t, "inode", before, after, one.inode)
    check(t, "parent", parent, t.stat("d"), one.parent)
}

private func check(
    _ t: Context, _ who: String, _ before: cc_stat, _ after: cc_stat, _ expected: String
) {
    var moved = ""
    if after.atime.isAfter(before.atime) { moved += "a" }
    if after.mtime.isAfter(before.mtime) { moved += "m" }
    if after.ctime.isAfter(before.ctime) { moved += "c" }
    if after.btime.isAfter(before.btime) { moved += "b" }
    t.same(who + " " + moved, who + " " + expected)
}

private func addCreationTimes(to table: inout RuleTable) {
    for kind in allKinds {
        table.rule("times of a new \(kind.name): all four are the present") { t in
            let begin = t.stat(".")
            t.pause()
            kind.make(t, "n")
            let (new, directory) = (t.stat("n"), t.stat("."))
            t.yes(new.btime.isAfter(begin.mtime) && new.atime.isAfter(begin.mtime))
            t.yes(new.mtime.isAfter(begin.mtime) && new.ctime.isAfter(begin.mtime))
            t.yes(directory.mtime.isAfter(begin.mtime))
        }
    }
    table.rule("times: the birth time never moves") { t in
        t.file("f")
        let born = t.stat("f").btime
        t.yes(born.seconds > 1_500_000_000, "birth time")
        t.pause()
        t.ok(t.write(t.fd("f", O_WRONLY), "x"))
        t.ok(t.chmod("f", 0o600))
        t.ok(t.utimens("f", (1, 0), (1, 0)))
        t.ok(t.rename("f", "g"))
        t.same(t.stat("g").btime.nanoseconds, born.nanoseconds)
        t.same(t.stat("g").btime.seconds, born.seconds)
    }
    table.rule("times: statx says that it knows the birth time") { t in
        t.file("f")
        t.same(t.stat("f").mask & 0xFFF, 0xFFF)
    }
    table.rule("times: fstat of the open file sees a write's time at once") { t in
        t.file("f", "x")
        let file = t.fd("f", O_RDWR)
        let before = t.stat(file)
        t.pause()
        t.ok(t.write(file, "y"))
        t.yes(t.stat(file).mtime.isAfter(before.mtime))
        t.same(t.stat(file).mtime.nanoseconds, t.stat("f").mtime.nanoseconds)
    }
    table.rule("times: another name's stat sees them too") { t in
        t.file("f", "x")
        t.ok(t.link("f", "g"))
        let before = t.stat("g")
        t.pause()
        t.ok(t.write(t.fd("f", O_RDWR), "y"))
        t.yes(t.stat("g").mtime.isAfter(before.mtime))
    }
}

private func addTimeValues(to table: inout RuleTable) {
    let seconds = [
        -2_147_483_647, -1, 0, 1, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_534,
    ]
    for second in seconds {
        table.rule("utimensat: \(second) seconds and nanoseconds are kept") { t in
            t.file("f")
            t.ok(t.utimens("f", (second, 123_456_789), (second, 999_999_999)))
            let stat = t.stat("f")
            t.same(Int(stat.atime.seconds), second)
            t.same(stat.atime.nanoseconds, 123_456_789)
            t.same(Int(stat.mtime.seconds), second)
            t.same(stat.mtime.nanoseconds, 999_999_999)
        }
    }
    for kind in allKinds {
        table.rule("utimensat: sets the times of a \(kind.name) itself") { t in
            kind.make(t, "n")
            t.ok(t.utimens("n", (11, 1), (22, 2), flags: Flag.noFollowSymlink))
            t.same(Int(t.stat("n").atime.seconds), 11)
            t.same(Int(t.stat("n").mtime.seconds), 22)
        }
    }
    table.rule("utimensat: through a link sets the target's") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.ok(t.utimens("l", (11, 0), (22, 0)))
        t.same(Int(t.stat("f").mtime.seconds), 22)
        t.yes(t.stat("l").mtime.seconds > 22)
    }
    table.rule("utimensat: a time stays until the next write") { t in
        t.file("f", "x")
        let file = t.fd("f", O_RDWR)
        t.ok(t.write(file, "y"))
        t.ok(t.utimens("f", (11, 0), (22, 0)))
        t.close(file)
        t.same(Int(t.stat("f").mtime.seconds), 22)
    }
    table.rule("utimensat: OMIT leaves a time to the nanosecond") { t in
        t.file("f")
        t.ok(t.utimens("f", (11, 111), (22, 222)))
        t.ok(t.utimens("f", (0, Flag.timeOmit), (33, 333)))
        t.same(t.stat("f").atime.nanoseconds, 111)
        t.ok(t.utimens("f", (44, 444), (0, Flag.timeOmit)))
        t.same(t.stat("f").mtime.nanoseconds, 333)
    }
    table.rule("futimens: by descriptor, also of an unlinked file") { t in
        t.file("f")
        let file = t.fd("f")
        t.ok(t.unlink("f"))
        let times = [
            cc_timespec(seconds: 5, nanoseconds: 6), cc_timespec(seconds: 7, nanoseconds: 8),
        ]
        t.ok(cc_utimens(file, nil, times, 0))
        t.same(Int(t.stat(file).mtime.seconds), 7)
    }
}
