/// Who may do what: the classes of the mode, directories, sticky directories.
internal import CCalls
internal import Glibc

/// A way to be an owner, group member or neither of a file that belongs to alice and her group.
private struct Relation {
    var name: String
    var user: User
    var owner: User
    var group: UInt32
    var shift: UInt32

    static let all = [
        Relation(name: "owner", user: .alice, owner: .alice, group: 20001, shift: 6),
        Relation(name: "group", user: .alice, owner: .bob, group: 20001, shift: 3),
        Relation(
            name: "supplementary group", user: .alice, owner: .bob, group: User.sharedGroup,
            shift: 3),
        Relation(name: "other", user: .alice, owner: .bob, group: User.bobsGroup, shift: 0),
    ]
}

/// An access that one permission bit allows, on a file or on a directory with a file `f`.
private struct Access {
    var name: String
    var bit: UInt32
    var onDirectory: Bool
    /// The other bits that must be there too.
    var with: UInt32 = 0
    var run: @Sendable (Context, String) -> Int
}

private let accesses: [Access] = [
    Access(name: "open(O_RDONLY) of a file", bit: 4, onDirectory: false) { $0.open($1) },
    Access(name: "open(O_WRONLY) of a file", bit: 2, onDirectory: false) {
        $0.open($1, O_WRONLY)
    },
    Access(name: "open(O_WRONLY|O_APPEND) of a file", bit: 2, onDirectory: false) {
        $0.open($1, O_WRONLY | O_APPEND)
    },
    Access(name: "open(O_CREAT|O_WRONLY) of a file", bit: 2, onDirectory: false) {
        $0.open($1, O_CREAT | O_WRONLY)
    },
    Access(name: "open(O_RDONLY|O_TRUNC) of a file", bit: 2, onDirectory: false, with: 4) {
        $0.open($1, O_RDONLY | O_TRUNC)
    },
    Access(name: "truncate of a file", bit: 2, onDirectory: false) { $0.truncate($1) },
    Access(name: "touch of a file", bit: 2, onDirectory: false) { $0.touch($1) },
    Access(name: "setxattr of a file", bit: 2, onDirectory: false) { $0.setxattr($1, "user.x") },
    Access(name: "getxattr of a file", bit: 4, onDirectory: false) {
        let result = $0.getxattr($1, "user.none")
        return result == -Int(ENODATA) ? 0 : result
    },
    Access(name: "access(R_OK) of a file", bit: 4, onDirectory: false) { $0.access($1, R_OK) },
    Access(name: "access(W_OK) of a file", bit: 2, onDirectory: false) { $0.access($1, W_OK) },
    Access(name: "access(X_OK) of a file", bit: 1, onDirectory: false) { $0.access($1, X_OK) },
    Access(name: "listing a directory", bit: 4, onDirectory: true) { $0.open($1, O_DIRECTORY) },
    Access(name: "stat below a directory", bit: 1, onDirectory: true) {
        $0.lookUp($1 + "/f").result
    },
    Access(name: "chdir to a directory", bit: 1, onDirectory: true) {
        let result = $0.chdir($1)
        if result >= 0 { $0.ok($0.chdir("..")) }
        return result
    },
    Access(name: "creating in a directory", bit: 2, onDirectory: true, with: 1) {
        $0.open($1 + "/new", O_CREAT | O_WRONLY)
    },
    Access(name: "creating needs search too", bit: 1, onDirectory: true, with: 2) {
        $0.open($1 + "/new", O_CREAT | O_WRONLY)
    },
    Access(name: "unlink in a directory", bit: 2, onDirectory: true, with: 1) {
        $0.unlink($1 + "/f")
    },
    Access(name: "rename in a directory", bit: 2, onDirectory: true, with: 1) {
        $0.rename($1 + "/f", $1 + "/g")
    },
    Access(name: "O_TMPFILE in a directory", bit: 2, onDirectory: true, with: 1) {
        $0.open($1, Flag.tmpfile | O_RDWR)
    },
]

func addPermissionRules(to table: inout RuleTable) {
    for relation in Relation.all {
        for access in accesses {
            addPair(access, relation, to: &table)
        }
    }
    addClassRules(to: &table)
    addAccessRules(to: &table)
    addStickyRules(to: &table)
}

/// The bit alone is enough; all bits but it, in every class, are not.
private func addPair(_ access: Access, _ relation: Relation, to table: inout RuleTable) {
    func make(_ t: Context, _ mode: UInt32) {
        if access.onDirectory {
            t.directory("it", mode: 0o777)
            t.file("it/f", owner: .bob)
        } else {
            t.file("it", "text")
        }
        t.ok(t.chown("it", relation.owner.id, relation.group))
        t.ok(t.chmod("it", mode))
    }
    table.rule("permission \(access.name): the bit of \(relation.name) allows it") { t in
        make(t, (access.bit | access.with) << relation.shift)
        t.by(relation.user) { t.ok(access.run(t, "it")) }
    }
    table.rule("permission \(access.name): without the bit of \(relation.name) EACCES") { t in
        make(t, 0o777 & ~(access.bit << relation.shift))
        // The owner may always touch.
        if access.name.hasPrefix("touch"), relation.shift == 6 {
            t.by(relation.user) { t.ok(access.run(t, "it")) }
        } else {
            t.by(relation.user) { t.fails(access.run(t, "it"), EACCES) }
        }
    }
    guard relation.shift == 6 else { return }
    table.rule("permission \(access.name): root needs no bit") { t in
        make(t, 0)
        if access.name == "access(X_OK) of a file" {
            t.fails(access.run(t, "it"), EACCES)
        } else {
            t.ok(access.run(t, "it"))
        }
    }
}

private func addClassRules(to table: inout RuleTable) {
    table.rule("permission: an owner in the group has the owner's bits only") { t in
        t.file("f", mode: 0o077, owner: .alice)
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("permission: a group member has the group's bits only") { t in
        t.file("f", mode: 0o707, owner: .bob, group: User.sharedGroup)
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("permission: an open descriptor keeps its access after chmod") { t in
        t.file("f", "text", mode: 0o644)
        let file = t.by(.alice) { t.fd("f") }
        t.ok(t.chmod("f", 0))
        t.by(.alice) { t.same(t.read(file).count, 4) }
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("permission: chmod is felt at once") { t in
        t.file("f", mode: 0)
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
        t.ok(t.chmod("f", 0o604))
        t.by(.alice) { t.ok(t.open("f")) }
        t.ok(t.chmod("f", 0o600))
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
    }
    table.rule("permission: chown is felt at once") { t in
        t.file("f", mode: 0o600)
        t.by(.alice) { t.fails(t.open("f"), EACCES) }
        t.ok(t.chown("f", User.alice.id))
        t.by(.alice) { t.ok(t.open("f")) }
    }
    table.rule("permission: the creator may write what it made without write bits") { t in
        t.by(.alice) {
            let file = t.fd("f", O_CREAT | O_WRONLY, mode: 0o400)
            t.same(t.write(file, "text"), 4)
            t.fails(t.open("f", O_WRONLY), EACCES)
        }
    }
    table.rule("permission: stat needs none on the file itself") { t in
        t.file("f", mode: 0)
        t.by(.alice) { t.ok(t.lookUp("f").result) }
    }
    table.rule("permission: readlink needs none on the link") { t in
        t.ok(t.symlink("x", "l"))
        t.by(.alice) { t.same(t.target("l"), "x") }
    }
    table.rule("permission: execve needs the execute bit of the class") { t in
        t.file("f", "#!/bin/true\n", mode: 0o644)
        t.same(t.execute("f", as: .alice), 128 + Int(EACCES))
        t.ok(t.chmod("f", 0o754))
        t.same(t.execute("f", as: .alice), 128 + Int(EACCES))
        t.ok(t.chmod("f", 0o755))
        t.same(t.execute("f", as: .alice), 0)
    }
    table.rule("permission: execve by root needs one execute bit of any class") { t in
        t.file("f", "#!/bin/true\n", mode: 0o644)
        t.same(t.execute("f"), 128 + Int(EACCES))
        t.ok(t.chmod("f", 0o645))
        t.same(t.execute("f"), 0)
    }
    table.rule("permission: execve of a directory is EACCES") { t in
        t.directory("d", mode: 0o777)
        t.same(t.execute("d"), 128 + Int(EACCES))
    }
    table.rule("permission: execve of a file that is written is ETXTBSY") { t in
        t.file("f", "#!/bin/true\n", mode: 0o755)
        let file = t.fd("f", O_WRONLY)
        t.same(t.execute("f"), 128 + Int(ETXTBSY))
        t.close(file)
        t.same(t.execute("f"), 0)
    }
}

private func addAccessRules(to table: inout RuleTable) {
    table.rule("access: asks for the real user") { t in
        t.file("f", mode: 0o600, owner: .alice)
        t.withReal(User.alice.id, effective: 0) { t.ok(t.access("f", R_OK)) }
        t.withReal(User.bob.id, effective: 0) { t.fails(t.access("f", R_OK), EACCES) }
    }
    table.rule("access: AT_EACCESS asks for the effective user") { t in
        t.file("f", mode: 0o600, owner: .alice)
        t.withReal(0, effective: User.alice.id) {
            t.ok(t.access("f", R_OK, flags: Flag.effectiveAccess))
        }
        t.withReal(User.alice.id, effective: User.bob.id) {
            t.fails(t.access("f", R_OK, flags: Flag.effectiveAccess), EACCES)
            t.ok(t.access("f", R_OK))
        }
    }
    table.rule("access: root has X_OK on a directory without bits") { t in
        t.directory("d", mode: 0)
        t.ok(t.access("d", R_OK | W_OK | X_OK))
    }
    table.rule("access: AT_SYMLINK_NOFOLLOW asks for the link") { t in
        t.ok(t.symlink("nowhere", "l"))
        t.fails(t.access("l", F_OK), ENOENT)
        t.ok(t.access("l", F_OK, flags: Flag.noFollowSymlink))
    }
    table.rule("access: an unknown mode is EINVAL") { t in
        t.file("f")
        t.fails(t.access("f", 8), EINVAL)
    }
    table.rule("access: all of several bits are needed") { t in
        t.file("f", mode: 0o604)
        t.by(.alice) { t.ok(t.access("f", R_OK)) }
        t.by(.alice) { t.fails(t.access("f", R_OK | W_OK), EACCES) }
    }
}

private func addStickyRules(to table: inout RuleTable) {
    /// Whose the directory and what is in it are; whether alice may take it away.
    let cases: [(directory: User?, entry: User?, isAllowed: Bool)] = [
        (nil, .alice, true), (.alice, nil, true), (.alice, .bob, true), (nil, .bob, false),
        (.bob, nil, false),
    ]
    let actions: [(String, Bool, (Context) -> Int)] = [
        ("unlink", false, { $0.unlink("d/e") }),
        ("rmdir", true, { $0.rmdir("d/e") }),
        ("rename within", false, { $0.rename("d/e", "d/g") }),
        ("rename out", false, { $0.rename("d/e", "out/e") }),
        ("rename over", false, { $0.rename("out/mine", "d/e") }),
        ("rename of a directory", true, { $0.rename("d/e", "d/g") }),
        ("exchange", false, { $0.rename("out/mine", "d/e", Flag.renameExchange) }),
    ]
    func name(_ user: User?) -> String {
        user.map { $0.id == User.alice.id ? "oneself" : "another" } ?? "root"
    }
    for (action, isDirectory, run) in actions {
        for one in cases {
            table.rule(
                "sticky \(action): a directory of \(name(one.directory)), an entry of "
                    + name(one.entry)
            ) { t in
                t.directory("out", mode: 0o777)
                t.file("out/mine", owner: .alice)
                t.directory("d", mode: 0o1777, owner: one.directory)
                if isDirectory {
                    t.directory("d/e", owner: one.entry)
                } else {
                    t.file("d/e", owner: one.entry)
                }
                t.by(.alice) { t.gives(run(t), one.isAllowed ? nil : EPERM) }
            }
        }
    }
    table.rule("sticky: root may take everything away") { t in
        t.directory("d", mode: 0o1777, owner: .alice)
        t.file("d/f", owner: .bob)
        t.ok(t.unlink("d/f"))
    }
    table.rule("sticky: without the bit, write permission is enough") { t in
        t.directory("d", mode: 0o777)
        t.file("d/f", owner: .bob)
        t.by(.alice) { t.ok(t.unlink("d/f")) }
    }
    table.rule("sticky: anybody may create") { t in
        t.directory("d", mode: 0o1777)
        t.by(.alice) { t.ok(t.open("d/f", O_CREAT | O_WRONLY)) }
    }
}
