/// POSIX ACLs as the binary attributes `system.posix_acl_access` and `system.posix_acl_default`.
internal import CCalls
internal import Glibc

/// One entry: what it is for, its three bits, and whose it is.
private enum Entry {
    case owner(UInt16)
    case user(User, UInt16)
    case owningGroup(UInt16)
    case group(UInt32, UInt16)
    case mask(UInt16)
    case other(UInt16)

    var bytes: [UInt8] {
        let (tag, bits, id): (UInt16, UInt16, UInt32) =
            switch self {
            case .owner(let bits): (1, bits, ~0)
            case .user(let user, let bits): (2, bits, user.id)
            case .owningGroup(let bits): (4, bits, ~0)
            case .group(let group, let bits): (8, bits, group)
            case .mask(let bits): (16, bits, ~0)
            case .other(let bits): (32, bits, ~0)
            }
        return [UInt8(tag), 0, UInt8(bits), 0] + (0..<4).map { UInt8(id >> ($0 * 8) & 0xFF) }
    }
}

private let accessName = "system.posix_acl_access"
private let defaultName = "system.posix_acl_default"

private func encode(_ entries: [Entry]) -> [UInt8] {
    [2, 0, 0, 0] + entries.flatMap(\.bytes)
}

extension Context {
    fileprivate func acl(_ path: String, _ entries: Entry..., line: Int = #line) {
        ok(setxattr(path, accessName, encode(entries)), line: line)
    }
    fileprivate func defaultACL(_ path: String, _ entries: Entry..., line: Int = #line) {
        ok(setxattr(path, defaultName, encode(entries)), line: line)
    }
}

func addACLRules(to table: inout RuleTable) {
    addAccessACLs(to: &table)
    addModeInterplay(to: &table)
    addDefaultACLs(to: &table)
    addACLErrors(to: &table)
}

private func addAccessACLs(to table: inout RuleTable) {
    table.rule("ACL: a named user's entry allows her") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(6), .user(.alice, 4), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.ok(t.open("f")) }
        t.by(.alice) { t.fails(t.open("f", O_WRONLY), EACCES) }
        t.by(.bob) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("ACL: a named user's entry keeps her out though others may") { t in
        t.file("f", mode: 0o644)
        t.acl("f", .owner(6), .user(.alice, 0), .owningGroup(4), .mask(7), .other(4))
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
        t.by(.bob) { t.ok(t.open("f")) }
    }
    table.rule("ACL: a named group's entry allows its members") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(6), .owningGroup(0), .group(User.bobsGroup, 6), .mask(7), .other(0))
        t.by(.bob) { t.ok(t.open("f", O_RDWR)) }
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("ACL: of several groups one that allows is enough") { t in
        t.file("f", mode: 0o600)
        t.acl(
            "f", .owner(6), .owningGroup(0), .group(User.sharedGroup, 0),
            .group(User.bobsGroup, 4), .mask(7), .other(0))
        t.by(.bob) { t.ok(t.open("f")) }
    }
    table.rule("ACL: bits of several groups do not add up") { t in
        t.file("f", mode: 0o600)
        t.acl(
            "f", .owner(6), .owningGroup(0), .group(User.sharedGroup, 2),
            .group(User.bobsGroup, 4), .mask(7), .other(0))
        t.by(.bob) { t.fails(t.open("f", O_RDWR), EACCES) }
    }
    table.rule("ACL: a group that matches and denies comes before others") { t in
        t.file("f", mode: 0o644)
        t.acl("f", .owner(6), .owningGroup(0), .group(User.bobsGroup, 0), .mask(7), .other(4))
        t.by(.bob) { t.fails(t.open("f"), EACCES) }
        t.by(.alice) { t.ok(t.open("f")) }
    }
    table.rule("ACL: the mask limits named users and groups") { t in
        t.file("f", mode: 0o600)
        t.acl(
            "f", .owner(6), .user(.alice, 6), .owningGroup(0), .group(User.bobsGroup, 6),
            .mask(4), .other(0))
        t.by(.alice) { t.ok(t.open("f")) }
        t.by(.alice) { t.fails(t.open("f", O_RDWR), EACCES) }
        t.by(.bob) { t.fails(t.open("f", O_RDWR), EACCES) }
    }
    table.rule("ACL: the mask limits the owning group") { t in
        t.file("f", mode: 0o600, group: User.bobsGroup)
        t.acl("f", .owner(6), .user(.alice, 0), .owningGroup(6), .mask(4), .other(0))
        t.by(.bob) { t.ok(t.open("f")) }
        t.by(.bob) { t.fails(t.open("f", O_RDWR), EACCES) }
    }
    table.rule("ACL: the mask does not limit the owner and others") { t in
        t.file("f", mode: 0o600, owner: .alice)
        t.acl("f", .owner(6), .user(.alice, 0), .owningGroup(0), .mask(0), .other(6))
        t.by(.alice) { t.ok(t.open("f", O_RDWR)) }
        t.by(.bob) { t.ok(t.open("f", O_RDWR)) }
    }
    table.rule("ACL: search and creation in a directory") { t in
        t.directory("d", mode: 0o700)
        t.acl("d", .owner(7), .user(.alice, 7), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.file("d/f") }
        t.by(.bob) { t.fails(t.lookUp("d/f").result, EACCES) }
    }
    table.rule("ACL: a change is felt at once") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(6), .user(.alice, 4), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.ok(t.open("f")) }
        t.acl("f", .owner(6), .user(.alice, 0), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
        t.ok(t.removexattr("f", accessName))
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("ACL: access(2) and execve(2) follow it") { t in
        t.file("f", "#!/bin/true\n", mode: 0o700)
        t.acl("f", .owner(7), .user(.alice, 5), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.ok(t.access("f", R_OK | X_OK)) }
        t.same(t.execute("f", as: .alice), 0)
        t.same(t.execute("f", as: .bob), 128 + Int(EACCES))
    }
}

private func addModeInterplay(to table: inout RuleTable) {
    table.rule("ACL: the mask is the group class of the mode") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(1), .mask(5), .other(2))
        t.same(t.mode("f"), "752")
    }
    table.rule("ACL: without mask the owning group is the group class") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .owningGroup(5), .other(1))
        t.same(t.mode("f"), "751")
    }
    table.rule("ACL: one that says no more than the mode is not kept") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .owningGroup(5), .other(1))
        t.fails(t.getxattr("f", accessName), ENODATA)
        t.same(t.attributeNames("f"), [])
    }
    table.rule("ACL: chmod sets owner, mask and other") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(1), .mask(5), .other(2))
        t.ok(t.chmod("f", 0o640))
        t.same(
            t.attribute("f", accessName),
            encode([.owner(6), .user(.alice, 7), .owningGroup(1), .mask(4), .other(0)]))
    }
    table.rule("ACL: chmod of the group class takes a named user's permission") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(0), .mask(7), .other(0))
        t.ok(t.chmod("f", 0o700))
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
        t.ok(t.chmod("f", 0o740))
        t.by(.alice) { t.ok(t.open("f")) }
    }
    table.rule("ACL: removing it leaves the mode") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(1), .mask(5), .other(2))
        t.ok(t.removexattr("f", accessName))
        t.same(t.mode("f"), "752")
        t.fails(t.getxattr("f", accessName), ENODATA)
    }
    table.rule("ACL: set-user-id and sticky bits stay") { t in
        t.file("f", mode: 0o5755)
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(5), .mask(5), .other(5))
        t.same(t.mode("f"), "5755")
    }
    table.rule("ACL: a non-member's set-group-id goes when it is set") { t in
        t.file("f", mode: 0o755, owner: .alice, group: User.bobsGroup)
        t.ok(t.chmod("f", 0o2755))
        t.by(.alice) {
            t.acl("f", .owner(7), .user(.bob, 7), .owningGroup(5), .mask(5), .other(5))
        }
        t.same(t.mode("f"), "755")
    }
    table.rule("ACL: a member's and root's set-group-id stays when it is set") { t in
        t.file("f", mode: 0o755, owner: .alice, group: User.bobsGroup)
        t.ok(t.chmod("f", 0o2755))
        t.acl("f", .owner(7), .user(.bob, 7), .owningGroup(5), .mask(5), .other(5))
        t.same(t.mode("f"), "2755")
    }
    table.rule("ACL: setting it moves ctime and not mtime") { t in
        t.file("f", mode: 0o600)
        let before = t.stat("f")
        t.pause()
        t.acl("f", .owner(7), .user(.alice, 7), .owningGroup(1), .mask(5), .other(2))
        t.yes(t.stat("f").ctime.isAfter(before.ctime))
        t.yes(!t.stat("f").mtime.isAfter(before.mtime))
    }
    table.rule("ACL: moves with a rename, is shared by links") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(6), .user(.alice, 4), .owningGroup(0), .mask(4), .other(0))
        t.ok(t.link("f", "g"))
        t.ok(t.rename("f", "h"))
        t.same(t.attribute("g", accessName), t.attribute("h", accessName))
        t.by(.alice) { t.ok(t.open("h")) }
    }
    table.rule("ACL: chown leaves it") { t in
        t.file("f", mode: 0o600)
        t.acl("f", .owner(6), .user(.alice, 4), .owningGroup(0), .mask(4), .other(0))
        t.ok(t.chown("f", 5, 6))
        t.by(.alice) { t.ok(t.open("f")) }
    }
}

private func addDefaultACLs(to table: inout RuleTable) {
    func make(_ t: Context) {
        t.directory("d", mode: 0o777)
        t.defaultACL("d", .owner(7), .user(.alice, 6), .owningGroup(5), .mask(7), .other(0))
    }
    table.rule("default ACL: does not change access to its directory") { t in
        make(t)
        t.same(t.mode("d"), "777")
        t.same(t.attribute("d", accessName), nil)
    }
    table.rule("default ACL: a new file gets it, cut by the mode asked for") { t in
        make(t)
        t.ok(t.open("d/f", O_CREAT | O_WRONLY, mode: 0o640))
        t.same(t.mode("d/f"), "640")
        t.same(
            t.attribute("d/f", accessName),
            encode([.owner(6), .user(.alice, 6), .owningGroup(5), .mask(4), .other(0)]))
        t.same(t.attribute("d/f", defaultName), nil)
    }
    table.rule("default ACL: the umask does not apply") { t in
        make(t)
        _ = cc_umask(0o077)
        t.ok(t.open("d/f", O_CREAT | O_WRONLY, mode: 0o666))
        t.same(t.mode("d/f"), "660")
        t.by(.alice) { t.ok(t.open("d/f", O_RDWR)) }
    }
    table.rule("default ACL: a new directory gets it twice") { t in
        make(t)
        _ = cc_umask(0o077)
        t.ok(t.mkdir("d/e", 0o777))
        t.same(t.mode("d/e"), "770")
        t.same(t.attribute("d/e", defaultName), t.attribute("d", defaultName))
        t.same(t.attribute("d/e", accessName), t.attribute("d", defaultName))
    }
    for (name, make2) in [
        ("mkfifo", { (t: Context) in t.mkfifo("d/n", 0o666) }),
        ("mknod(S_IFREG)", { (t: Context) in t.mknod("d/n", S_IFREG | 0o666) }),
        ("mknod(S_IFSOCK)", { (t: Context) in t.mknod("d/n", S_IFSOCK | 0o666) }),
    ] {
        table.rule("default ACL: \(name) gets it too") { t in
            make(t)
            t.ok(make2(t))
            t.same(t.mode("d/n"), "660")
            t.yes(t.attribute("d/n", accessName) != nil)
        }
    }
    table.rule("default ACL: O_TMPFILE gets it too") { t in
        make(t)
        let file = t.fd("d", Flag.tmpfile | O_RDWR, mode: 0o666)
        t.same(String(t.stat(file).mode & 0o777, radix: 8), "660")
        t.yes(cc_fgetxattr(file, accessName, nil, 0) > 0)
    }
    table.rule("default ACL: a symbolic link does not get it") { t in
        make(t)
        t.ok(t.symlink("x", "d/l"))
        t.same(t.mode("d/l"), "777")
    }
    table.rule("default ACL: a minimal one gives only a mode") { t in
        t.directory("d")
        t.defaultACL("d", .owner(7), .owningGroup(4), .other(1))
        t.ok(t.open("d/f", O_CREAT | O_WRONLY, mode: 0o777))
        t.same(t.mode("d/f"), "741")
        t.same(t.attribute("d/f", accessName), nil)
    }
    table.rule("default ACL: removed, the umask applies again") { t in
        make(t)
        t.ok(t.removexattr("d", defaultName))
        t.ok(t.open("d/f", O_CREAT | O_WRONLY, mode: 0o666))
        t.same(t.mode("d/f"), "644")
        t.same(t.attribute("d/f", accessName), nil)
    }
    table.rule("default ACL: for a file is EACCES") { t in
        t.file("f")
        t.fails(
            t.setxattr("f", defaultName, encode([.owner(7), .owningGroup(4), .other(1)])),
            EACCES)
    }
    table.rule("default ACL: chmod leaves it") { t in
        make(t)
        let before = t.attribute("d", defaultName)
        t.ok(t.chmod("d", 0o700))
        t.same(t.attribute("d", defaultName), before)
    }
    table.rule("default ACL: with set-group-id both are inherited") { t in
        make(t)
        t.ok(t.chown("d", 0, User.bobsGroup))
        t.ok(t.chmod("d", 0o2777))
        t.ok(t.mkdir("d/e", 0o777))
        t.same(t.mode("d/e"), "2770")
        t.same(t.stat("d/e").gid, User.bobsGroup)
    }
    table.rule("default ACL: a rename into the directory gives nothing") { t in
        make(t)
        t.file("f", mode: 0o644)
        t.ok(t.rename("f", "d/f"))
        t.same(t.mode("d/f"), "644")
        t.same(t.attribute("d/f", accessName), nil)
    }
}

private func addACLErrors(to table: inout RuleTable) {
    let broken: [(String, [UInt8])] = [
        ("without the others", encode([.owner(6), .owningGroup(0)])),
        ("without the owner", encode([.owningGroup(0), .other(0)])),
        (
            "a named user without mask",
            encode([.owner(6), .user(.alice, 4), .owningGroup(0), .other(0)])
        ),
        ("the owner twice", encode([.owner(6), .owner(6), .owningGroup(0), .other(0)])),
        ("entries in disorder", encode([.other(0), .owningGroup(0), .owner(6)])),
        ("bits beyond three", encode([.owner(15), .owningGroup(0), .other(0)])),
        ("a cut entry", Array(encode([.owner(6), .owningGroup(0), .other(0)]).dropLast(3))),
    ]
    for (name, value) in broken {
        table.rule("ACL: \(name) is EINVAL") { t in
            t.file("f")
            t.fails(t.setxattr("f", accessName, value), EINVAL)
            t.same(t.mode("f"), "644")
        }
    }
    table.rule("ACL: another version is EOPNOTSUPP") { t in
        t.file("f")
        t.fails(
            t.setxattr(
                "f", accessName,
                [3, 0, 0, 0] + encode([.owner(6), .owningGroup(0), .other(0)]).dropFirst(4)),
            EOPNOTSUPP)
    }
    table.rule("ACL: only the owner may set or remove it") { t in
        t.file("f", mode: 0o666, owner: .bob)
        let value = encode([.owner(6), .user(.alice, 6), .owningGroup(0), .mask(7), .other(0)])
        t.by(.alice) { t.fails(t.setxattr("f", accessName, value), EPERM) }
        t.by(.bob) { t.ok(t.setxattr("f", accessName, value)) }
        t.by(.alice) { t.fails(t.removexattr("f", accessName), EPERM) }
        t.by(.bob) { t.ok(t.removexattr("f", accessName)) }
    }
    table.rule("ACL: can be read by everybody") { t in
        t.file("f", mode: 0, owner: .bob)
        t.acl("f", .owner(0), .user(.bob, 6), .owningGroup(0), .mask(7), .other(0))
        t.by(.alice) { t.ok(t.getxattr("f", accessName)) }
    }
    table.rule("ACL: a hundred entries") { t in
        t.file("f", mode: 0o600)
        let users = (0..<100).map {
            Entry.user(User(id: 50_000 + $0, group: 1, groups: []), 4)
        }
        let value = encode([.owner(6)] + users + [.owningGroup(0), .mask(7), .other(0)])
        t.ok(t.setxattr("f", accessName, value))
        t.same(t.attribute("f", accessName), value)
    }
    table.rule("ACL: for a symbolic link is EOPNOTSUPP") { t in
        t.ok(t.symlink("x", "l"))
        let value = encode([.owner(6), .user(.alice, 6), .owningGroup(0), .mask(7), .other(0)])
        t.fails(cc_lsetxattr("l", accessName, value, value.count, 0), EOPNOTSUPP)
    }
}
