/// chmod(2), chown(2), umask(2): who may, what else changes, and what set-id bits and file
/// capabilities survive.
internal import CCalls
internal import Glibc

/// `security.capability`, version 2: cap_net_raw, permitted and effective.
let fileCapability: [UInt8] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
]

func addOwnershipRules(to table: inout RuleTable) {
    addChmodRules(to: &table)
    addChownRules(to: &table)
    addUmaskRules(to: &table)
    addSetGroupDirectoryRules(to: &table)
    addPrivilegeRules(to: &table)
    addTimeOwnerRules(to: &table)
}

private func addChmodRules(to table: inout RuleTable) {
    table.rule("chmod: sets all twelve bits") { t in
        t.file("f")
        for mode: UInt32 in [0, 0o777, 0o4755, 0o2755, 0o1755, 0o7777, 0o640] {
            t.ok(t.chmod("f", mode))
            t.same(t.mode("f"), String(mode, radix: 8))
        }
    }
    table.rule("chmod: ignores bits beyond the twelve") { t in
        t.file("f")
        t.ok(t.chmod("f", S_IFDIR | 0o600))
        t.same(UInt32(t.stat("f").mode), S_IFREG | 0o600)
    }
    table.rule("chmod: the owner may, also without any permission") { t in
        t.file("f", mode: 0, owner: .alice)
        t.by(.alice) { t.ok(t.chmod("f", 0o600)) }
    }
    table.rule("chmod: others may not, whatever the mode") { t in
        t.file("f", mode: 0o777, owner: .bob, group: User.sharedGroup)
        t.by(.alice) { t.fails(t.chmod("f", 0o777), EPERM) }
    }
    table.rule("fchmod: others may not, also with a writable descriptor") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.fails(cc_fchmod(t.fd("f", O_RDWR), 0o600), EPERM) }
    }
    table.rule("fchmod: works with a read-only descriptor, not with O_PATH") { t in
        t.file("f")
        t.ok(cc_fchmod(t.fd("f"), 0o600))
        t.same(t.mode("f"), "600")
        t.fails(cc_fchmod(t.fd("f", Flag.path), 0o600), EBADF)
    }
    table.rule("chmod: a non-member's set-group-id is dropped silently") { t in
        t.file("f", mode: 0o755, owner: .alice, group: User.bobsGroup)
        t.by(.alice) { t.ok(t.chmod("f", 0o2755)) }
        t.same(t.mode("f"), "755")
    }
    table.rule("chmod: a supplementary member's set-group-id stays") { t in
        t.file("f", mode: 0o755, owner: .alice, group: User.sharedGroup)
        t.by(.alice) { t.ok(t.chmod("f", 0o2755)) }
        t.same(t.mode("f"), "2755")
    }
    table.rule("chmod: root's set-group-id stays") { t in
        t.file("f", mode: 0o755, owner: .alice, group: User.bobsGroup)
        t.ok(t.chmod("f", 0o6755))
        t.same(t.mode("f"), "6755")
    }
    table.rule("chmod: a non-member's set-group-id on a directory is dropped too") { t in
        t.directory("d", owner: .alice, group: User.bobsGroup)
        t.by(.alice) { t.ok(t.chmod("d", 0o2755)) }
        t.same(t.mode("d"), "755")
    }
    table.rule("chmod: an ordinary user may set the sticky bit of a directory") { t in
        t.directory("d", owner: .alice)
        t.by(.alice) { t.ok(t.chmod("d", 0o1755)) }
        t.same(t.mode("d"), "1755")
    }
    table.rule("chmod: follows links and leaves theirs at 0777") { t in
        t.file("f", mode: 0o644)
        t.ok(t.symlink("f", "l"))
        t.ok(t.chmod("l", 0o600))
        t.same(t.mode("f"), "600")
        t.same(t.mode("l"), "777")
    }
}

private func addChownRules(to table: inout RuleTable) {
    table.rule("chown: root sets any owner and group") { t in
        t.file("f")
        t.ok(t.chown("f", 4_294_967_294, 123_456))
        t.same(t.stat("f").uid, 4_294_967_294)
        t.same(t.stat("f").gid, 123_456)
    }
    table.rule("chown: -1 leaves an id as it is") { t in
        t.file("f", owner: .alice)
        t.ok(t.chown("f", ~0, 7))
        t.same(t.stat("f").uid, User.alice.id)
        t.ok(t.chown("f", 8, ~0))
        t.same(t.stat("f").gid, 7)
    }
    table.rule("chown: the owner may give to a group of hers") { t in
        t.file("f", owner: .alice)
        t.by(.alice) { t.ok(t.chown("f", ~0, User.sharedGroup)) }
        t.same(t.stat("f").gid, User.sharedGroup)
        t.by(.alice) { t.ok(t.chown("f", User.alice.id, User.alice.group)) }
        t.same(t.stat("f").gid, User.alice.group)
    }
    table.rule("chown: the owner may not give to a group she is not in") { t in
        t.file("f", owner: .alice)
        t.by(.alice) { t.fails(t.chown("f", ~0, User.bobsGroup), EPERM) }
    }
    table.rule("chown: the owner may not give the file away") { t in
        t.file("f", owner: .alice)
        t.by(.alice) { t.fails(t.chown("f", User.bob.id), EPERM) }
        t.by(.alice) { t.fails(t.chown("f", User.bob.id, User.alice.group), EPERM) }
    }
    table.rule("chown: others may not, not even to a group of theirs") { t in
        t.file("f", mode: 0o777, owner: .bob)
        t.by(.alice) { t.fails(t.chown("f", ~0, User.alice.group), EPERM) }
        t.by(.alice) { t.fails(t.chown("f", User.alice.id), EPERM) }
    }
    table.rule("chown: the owner may name herself and her file's group") { t in
        t.file("f", owner: .alice, group: User.bobsGroup)
        t.by(.alice) { t.ok(t.chown("f", User.alice.id, User.bobsGroup)) }
    }
    table.rule("lchown: changes the link, chown what it points to") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.ok(t.lchown("l", 5, 6))
        t.same(t.stat("l").uid, 5)
        t.same(t.stat("f").uid, 0)
        t.ok(t.chown("l", 7, 8))
        t.same(t.stat("l").gid, 6)
        t.same(t.stat("f").gid, 8)
    }
    table.rule("fchown: works with a read-only descriptor") { t in
        t.file("f")
        t.ok(cc_fchown(t.fd("f"), 5, 6))
        t.same(t.stat("f").uid, 5)
    }
    table.rule("chown: a refused one changes nothing") { t in
        t.file("f", mode: 0o4755, owner: .bob)
        let before = t.stat("f")
        t.pause()
        t.by(.alice) { t.fails(t.chown("f", User.alice.id, User.alice.group), EPERM) }
        t.same(t.mode("f"), "4755")
        t.same(t.stat("f").ctime.nanoseconds, before.ctime.nanoseconds)
    }
}

private func addUmaskRules(to table: inout RuleTable) {
    let makers: [(String, UInt32, (Context, UInt32) -> Int)] = [
        ("open(O_CREAT)", 0o7777, { $0.open("n", O_CREAT | O_WRONLY, mode: $1) }),
        ("mkdir", 0o1777, { $0.mkdir("n", $1) }),
        ("mkfifo", 0o7777, { $0.mkfifo("n", $1) }),
        ("mknod(S_IFREG)", 0o7777, { $0.mknod("n", S_IFREG | $1) }),
        ("mknod(S_IFSOCK)", 0o7777, { $0.mknod("n", S_IFSOCK | $1) }),
        ("mknod(S_IFCHR)", 0o7777, { $0.mknod("n", S_IFCHR | $1, device: 0x103) }),
    ]
    for (name, bits, make) in makers {
        table.rule("umask \(name): takes its bits away") { t in
            for mask: UInt32 in [0, 0o022, 0o077, 0o777] {
                _ = cc_umask(mask)
                t.ok(make(t, 0o777))
                t.same(t.mode("n"), String(0o777 & ~mask, radix: 8))
                if t.unlink("n") < 0 { t.ok(t.rmdir("n")) }
            }
        }
        table.rule("umask \(name): leaves the upper three bits") { t in
            _ = cc_umask(0)
            t.ok(make(t, 0o7755))
            t.same(t.mode("n"), String(0o7755 & bits, radix: 8))
        }
        guard name != "mknod(S_IFCHR)" else { continue }
        table.rule("owner \(name): the new inode is the effective user's and group's") { t in
            t.by(.alice) { t.ok(make(t, 0o644)) }
            t.same(t.stat("n").uid, User.alice.id)
            t.same(t.stat("n").gid, User.alice.group)
        }
    }
    table.rule("owner symlink: the new link is the effective user's and group's") { t in
        t.by(.alice) { t.ok(t.symlink("x", "n")) }
        t.same(t.stat("n").uid, User.alice.id)
        t.same(t.stat("n").gid, User.alice.group)
        t.same(t.mode("n"), "777")
    }
    table.rule("umask: does not touch O_CREAT of an existing file") { t in
        t.file("f", mode: 0o666)
        t.ok(t.open("f", O_CREAT | O_WRONLY, mode: 0o600))
        t.same(t.mode("f"), "666")
    }
    table.rule("umask: does not touch symbolic links") { t in
        _ = cc_umask(0o777)
        t.ok(t.symlink("x", "l"))
        t.same(t.mode("l"), "777")
    }
}

private func addSetGroupDirectoryRules(to table: inout RuleTable) {
    let makers: [(String, (Context, UInt32) -> Int)] = [
        ("open(O_CREAT)", { $0.open("d/n", O_CREAT | O_WRONLY, mode: $1) }),
        ("mkdir", { $0.mkdir("d/n", $1) }),
        ("mkfifo", { $0.mkfifo("d/n", $1) }),
        ("mknod(S_IFREG)", { $0.mknod("d/n", S_IFREG | $1) }),
        ("symlink", { context, _ in context.symlink("x", "d/n") }),
    ]
    for (name, make) in makers {
        table.rule("set-group-id directory \(name): the group is inherited") { t in
            t.directory("d", mode: 0o2777, owner: .bob, group: User.bobsGroup)
            t.by(.alice) { t.ok(make(t, 0o755)) }
            t.same(t.stat("d/n").gid, User.bobsGroup)
            t.same(t.stat("d/n").uid, User.alice.id)
            if name != "symlink" { t.same(t.mode("d/n"), name == "mkdir" ? "2755" : "755") }
        }
    }
    for name in ["open(O_CREAT)", "mknod(S_IFREG)", "mkfifo"] {
        table.rule("set-group-id directory \(name): a non-member gets no set-group-id") { t in
            _ = cc_umask(0)
            t.directory("d", mode: 0o2777, owner: .bob, group: User.bobsGroup)
            t.by(.alice) { t.ok(makers.first { $0.0 == name }?.1(t, 0o2775) ?? -1) }
            t.same(t.mode("d/n"), "775")
        }
        table.rule("set-group-id directory \(name): a member keeps set-group-id") { t in
            _ = cc_umask(0)
            t.directory("d", mode: 0o2777, owner: .bob, group: User.sharedGroup)
            t.by(.alice) { t.ok(makers.first { $0.0 == name }?.1(t, 0o2775) ?? -1) }
            t.same(t.mode("d/n"), "2775")
        }
    }
    table.rule("set-group-id directory: O_TMPFILE inherits the group") { t in
        t.directory("d", mode: 0o2777, owner: .bob, group: User.bobsGroup)
        t.by(.alice) { t.same(t.stat(t.fd("d", Flag.tmpfile | O_RDWR)).gid, User.bobsGroup) }
    }
    table.rule("set-group-id directory: a rename into it leaves the group") { t in
        t.directory("d", mode: 0o2777, group: User.bobsGroup)
        t.file("f", owner: .alice)
        t.ok(t.rename("f", "d/f"))
        t.same(t.stat("d/f").gid, User.alice.group)
    }
}

/// What takes set-user-id, set-group-id and the file capability away.
private func addPrivilegeRules(to table: inout RuleTable) {
    let actions: [(String, (Context) -> Int)] = [
        ("write", { $0.write($0.fd("f", O_WRONLY), "x") }),
        ("write(O_DIRECT)", { $0.writeDirect("f") }),
        ("pwrite", { $0.pwrite($0.fd("f", O_WRONLY), "x", 100) }),
        ("truncate", { $0.truncate("f", 2) }),
        ("truncate to the same size", { $0.truncate("f", 4) }),
        ("ftruncate", { cc_ftruncate($0.fd("f", O_WRONLY), 2) }),
        ("open(O_TRUNC)", { $0.open("f", O_WRONLY | O_TRUNC) }),
        ("fallocate", { cc_fallocate($0.fd("f", O_WRONLY), 0, 0, 8192) }),
        (
            "copy_file_range",
            { cc_copy($0.fd("other"), nil, $0.fd("f", O_WRONLY), nil, 4) }
        ),
        ("splice", { $0.spliceInto("f") }),
        ("sendfile", { cc_sendfile($0.fd("f", O_WRONLY), $0.fd("other"), nil, 4) }),
    ]
    func make(_ t: Context, _ mode: UInt32) {
        t.file("f", "text", mode: 0o666, owner: .alice, group: User.bobsGroup)
        t.file("other", "text")
        t.ok(t.chmod("f", mode))
    }
    for (name, run) in actions {
        table.rule("privileges \(name): an ordinary user's takes set-user-id away") { t in
            make(t, 0o4777)
            t.by(.alice) { t.ok(run(t)) }
            t.same(t.mode("f"), "777")
        }
        table.rule("privileges \(name): an ordinary user's takes set-group-id away") { t in
            make(t, 0o2777)
            t.by(.alice) { t.ok(run(t)) }
            t.same(t.mode("f"), "777")
        }
        table.rule("privileges \(name): the file capability goes") { t in
            make(t, 0o777)
            t.ok(t.setxattr("f", "security.capability", fileCapability))
            t.by(.alice) { t.ok(run(t)) }
            t.same(t.attribute("f", "security.capability"), nil)
        }
        table.rule("privileges \(name): root's keeps set-user-id and set-group-id") { t in
            make(t, 0o6777)
            t.ok(run(t))
            t.same(t.mode("f"), "6777")
        }
        table.rule("privileges \(name): root's takes the file capability away too") { t in
            make(t, 0o777)
            t.ok(t.setxattr("f", "security.capability", fileCapability))
            t.ok(run(t))
            t.same(t.attribute("f", "security.capability"), nil)
        }
    }
    table.rule("privileges write: a failed one leaves set-user-id") { t in
        make(t, 0o4777)
        t.by(.alice) { t.fails(t.write(t.fd("f"), "x"), EBADF) }
        t.same(t.mode("f"), "4777")
    }
    table.rule("privileges write: set-group-id without group-execute stays for a member") { t in
        t.file("f", mode: 0o666, owner: .alice)
        t.ok(t.chmod("f", 0o2666))
        t.by(.alice) { t.ok(t.write(t.fd("f", O_WRONLY), "x")) }
        t.same(t.mode("f"), "2666")
    }
    let owners: [(String, (Context) -> Int)] = [
        ("chown to oneself", { $0.chown("f", User.alice.id, ~0) }),
        ("chown of the group", { $0.chown("f", ~0, User.sharedGroup) }),
        ("fchown", { cc_fchown($0.fd("f"), ~0, User.sharedGroup) }),
    ]
    for (name, run) in owners {
        table.rule("privileges \(name): set-user-id and set-group-id go") { t in
            make(t, 0o6777)
            t.by(.alice) { t.ok(run(t)) }
            t.same(t.mode("f"), "777")
        }
        table.rule("privileges \(name): they go for root too") { t in
            make(t, 0o6777)
            t.ok(run(t))
            t.same(t.mode("f"), "777")
        }
        table.rule("privileges \(name): the file capability goes") { t in
            make(t, 0o777)
            t.ok(t.setxattr("f", "security.capability", fileCapability))
            t.ok(run(t))
            t.same(t.attribute("f", "security.capability"), nil)
        }
    }
    table.rule("privileges chown: set-group-id without group-execute stays for root") { t in
        t.file("f")
        t.ok(t.chmod("f", 0o6644))
        t.ok(t.chown("f", 5, 6))
        t.same(t.mode("f"), "2644")
    }
    for (group, left) in [(User.bobsGroup, "644"), (User.sharedGroup, "2644")] {
        table.rule("privileges chown: the group before it tells who keeps set-group-id \(left)") {
            t in
            t.file("f", owner: .alice, group: group)
            t.ok(t.chmod("f", 0o6644))
            t.by(.alice) { t.ok(t.chown("f", ~0, User.sharedGroup)) }
            t.same(t.mode("f"), left)
        }
    }
    table.rule("privileges chown: a directory keeps set-group-id") { t in
        t.directory("d")
        t.ok(t.chmod("d", 0o6755))
        t.ok(t.chown("d", 5, 6))
        t.same(t.mode("d"), "6755")
    }
    table.rule("privileges chmod: the file capability stays") { t in
        make(t, 0o755)
        t.ok(t.setxattr("f", "security.capability", fileCapability))
        t.ok(t.chmod("f", 0o700))
        t.same(t.attribute("f", "security.capability"), fileCapability)
    }
    table.rule("privileges utimensat: set-user-id and the capability stay") { t in
        make(t, 0o4755)
        t.ok(t.setxattr("f", "security.capability", fileCapability))
        t.by(.alice) { t.ok(t.touch("f")) }
        t.same(t.mode("f"), "4755")
        t.same(t.attribute("f", "security.capability"), fileCapability)
    }
    table.rule("privileges rename and link: set-user-id and the capability stay") { t in
        make(t, 0o4755)
        t.ok(t.setxattr("f", "security.capability", fileCapability))
        t.ok(t.link("f", "g"))
        t.ok(t.rename("g", "h"))
        t.same(t.mode("h"), "4755")
        t.same(t.attribute("h", "security.capability"), fileCapability)
    }
}

/// utimensat(2): who may set times to the present, and who to any other.
private func addTimeOwnerRules(to table: inout RuleTable) {
    table.rule("utimensat: given times need the owner, write permission does not do") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.fails(t.utimens("f", (1, 0), (2, 0)), EPERM) }
        t.by(.bob) { t.ok(t.utimens("f", (1, 0), (2, 0))) }
    }
    table.rule("utimensat: two times of NOW are like a null pointer") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.ok(t.utimens("f", (0, Flag.timeNow), (0, Flag.timeNow))) }
    }
    table.rule("utimensat: one time of NOW and one OMIT need the owner") { t in
        t.file("f", mode: 0o666, owner: .bob)
        t.by(.alice) { t.fails(t.utimens("f", (0, Flag.timeNow), (0, Flag.timeOmit)), EPERM) }
    }
    table.rule("utimensat: two times of OMIT need nothing and change nothing") { t in
        t.file("f", mode: 0, owner: .bob)
        let before = t.stat("f")
        t.pause()
        t.by(.alice) { t.ok(t.utimens("f", (0, Flag.timeOmit), (0, Flag.timeOmit))) }
        t.same(t.stat("f").ctime.nanoseconds, before.ctime.nanoseconds)
    }
    table.rule("utimensat: nanoseconds beyond a second are EINVAL") { t in
        t.file("f")
        t.fails(t.utimens("f", (1, 1_000_000_000), (1, 0)), EINVAL)
        t.fails(t.utimens("f", (1, 0), (1, -1)), EINVAL)
    }
}

extension Context {
    /// A whole block past the page cache.
    func writeDirect(_ path: String) -> Int {
        let file = fd(path, O_WRONLY | Flag.direct)
        guard let block = UnsafeMutableRawPointer(bitPattern: ok(cc_map(4096, 3, 0x22, -1, 0)))
        else { return -Int(ENOMEM) }
        defer { _ = cc_unmap(Int(bitPattern: block), 4096) }
        memset(block, 120, 4096)
        return cc_pwrite(file, block, 4096, 0)
    }
    func spliceInto(_ path: String) -> Int {
        var ends: [Int32] = [0, 0]
        ok(cc_pipe(&ends))
        ok(write(ends[1], "data"))
        return cc_splice(ends[0], nil, fd(path, O_WRONLY), nil, 4)
    }
}
