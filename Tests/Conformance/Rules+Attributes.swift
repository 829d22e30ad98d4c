/// Extended attributes (xattr(7)) and POSIX ACLs (acl(5)).
internal import CCalls
internal import Glibc

private let (create, replace): (Int32, Int32) = (1, 2)

func addAttributeRules(to table: inout RuleTable) {
    addAttributeCalls(to: &table)
    addAttributeSizes(to: &table)
    addNamespaces(to: &table)
}

private func addAttributeCalls(to table: inout RuleTable) {
    table.rule("xattr: a value is kept, replaced and removed") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a", [1, 0, 255]))
        t.same(t.attribute("f", "user.a"), [1, 0, 255])
        t.ok(t.setxattr("f", "user.a", [9]))
        t.same(t.attribute("f", "user.a"), [9])
        t.ok(t.removexattr("f", "user.a"))
        t.fails(t.getxattr("f", "user.a"), ENODATA)
    }
    table.rule("xattr: an empty value is a value") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a", []))
        t.same(t.getxattr("f", "user.a"), 0)
        t.same(t.attributeNames("f"), ["user.a"])
    }
    table.rule("xattr XATTR_CREATE: EEXIST if it is there") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a", [1], create))
        t.fails(t.setxattr("f", "user.a", [2], create), EEXIST)
        t.same(t.attribute("f", "user.a"), [1])
    }
    table.rule("xattr XATTR_REPLACE: ENODATA if it is not there") { t in
        t.file("f")
        t.fails(t.setxattr("f", "user.a", [1], replace), ENODATA)
        t.ok(t.setxattr("f", "user.a", [1]))
        t.ok(t.setxattr("f", "user.a", [2], replace))
        t.same(t.attribute("f", "user.a"), [2])
    }
    table.rule("xattr: unknown flags are EINVAL") { t in
        t.file("f")
        t.fails(t.setxattr("f", "user.a", [1], 4), EINVAL)
    }
    table.rule("xattr: a buffer that is too small is ERANGE, one of 0 asks for the size") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a", [1, 2, 3, 4]))
        var buffer = [UInt8](repeating: 0, count: 3)
        t.fails(cc_getxattr("f", "user.a", &buffer, 3), ERANGE)
        t.same(t.getxattr("f", "user.a"), 4)
        t.fails(cc_listxattr("f", &buffer, 3), ERANGE)
        t.same(t.listxattr("f"), 7)
    }
    table.rule("xattr: removing what is not there is ENODATA") { t in
        t.file("f")
        t.fails(t.removexattr("f", "user.a"), ENODATA)
    }
    table.rule("xattr: a name without namespace is EOPNOTSUPP") { t in
        t.file("f")
        t.fails(t.setxattr("f", "plain"), EOPNOTSUPP)
        t.fails(t.setxattr("f", "unknown.a"), EOPNOTSUPP)
        t.fails(t.getxattr("f", "unknown.a"), EOPNOTSUPP)
        t.fails(t.removexattr("f", "unknown.a"), EOPNOTSUPP)
    }
    table.rule("xattr: a namespace without a name is EINVAL") { t in
        t.file("f")
        t.fails(t.setxattr("f", "user."), EINVAL)
        t.fails(t.setxattr("f", "trusted."), EINVAL)
    }
    table.rule("xattr: names of 255 bytes do, of 256 are ERANGE") { t in
        t.file("f")
        let name = "user." + String(repeating: "n", count: 250)
        t.ok(t.setxattr("f", name))
        t.same(t.attributeNames("f"), [name])
        t.fails(t.setxattr("f", name + "n"), ERANGE)
        t.fails(t.setxattr("f", ""), ERANGE)
    }
    table.rule("xattr: names differ by bytes") { t in
        t.file("f")
        for name in ["user.a", "user.A", "user.na\u{E9}", "user.nae\u{301}", "user.a b"] {
            t.ok(t.setxattr("f", name, Array(name.utf8)))
        }
        t.same(t.attributeNames("f").count, 5)
        t.same(t.attribute("f", "user.A"), Array("user.A".utf8))
    }
    table.rule("xattr: through a link it is the target's") { t in
        t.file("f")
        t.ok(t.symlink("f", "l"))
        t.ok(t.setxattr("l", "user.a"))
        t.same(t.attributeNames("f"), ["user.a"])
    }
    table.rule("xattr: all names of an inode show it") { t in
        t.file("f")
        t.ok(t.link("f", "g"))
        t.ok(t.setxattr("f", "user.a", [7]))
        t.same(t.attribute("g", "user.a"), [7])
    }
    table.rule("xattr: by descriptor") { t in
        t.file("f")
        let file = t.fd("f")
        t.ok(cc_fsetxattr(file, "user.a", "v", 1, 0))
        t.same(cc_fgetxattr(file, "user.a", nil, 0), 1)
    }
    table.rule("xattr: gone with the inode, not inherited by the next of its name") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a"))
        t.ok(t.unlink("f"))
        t.file("f")
        t.same(t.attributeNames("f"), [])
    }
    table.rule("xattr: moves with a rename") { t in
        t.file("f")
        t.ok(t.setxattr("f", "user.a", [5]))
        t.ok(t.rename("f", "g"))
        t.same(t.attribute("g", "user.a"), [5])
    }
}

private func addAttributeSizes(to table: inout RuleTable) {
    for size in [1, 100, 1000, 3000] {
        table.rule("xattr: a value of \(size) bytes") { t in
            t.file("f")
            let value = (0..<size).map { UInt8(truncatingIfNeeded: $0 * 7) }
            t.ok(t.setxattr("f", "user.a", value))
            t.yes(t.attribute("f", "user.a") == value, "value")
        }
    }
    table.rule("xattr: a value of 64 KiB") { t in
        t.file("f")
        let value = (0..<65_536).map { UInt8(truncatingIfNeeded: $0 * 7) }
        t.ok(t.setxattr("f", "user.a", value))
        t.yes(t.attribute("f", "user.a") == value, "value")
        t.ok(t.setxattr("f", "user.a", [1]))
        t.same(t.attribute("f", "user.a"), [1])
    }
    table.rule("xattr: a value beyond 64 KiB is E2BIG") { t in
        t.file("f")
        t.fails(t.setxattr("f", "user.a", [UInt8](repeating: 0, count: 65_537)), E2BIG)
        t.same(t.attributeNames("f"), [])
    }
    table.rule("xattr: a thousand attributes") { t in
        t.file("f")
        for number in 0..<1000 {
            t.ok(t.setxattr("f", "user.\(number)", Array("\(number)".utf8)))
        }
        t.same(t.attributeNames("f").count, 1000)
        t.same(t.attribute("f", "user.777"), Array("777".utf8))
        for number in 0..<1000 { t.ok(t.removexattr("f", "user.\(number)")) }
        t.same(t.attributeNames("f").count, 0)
    }
}

private func addNamespaces(to table: inout RuleTable) {
    table.rule("xattr user: needs read permission to read, write permission to change") { t in
        t.file("f", mode: 0o604, owner: .bob)
        t.ok(t.setxattr("f", "user.a"))
        t.by(.alice) { t.ok(t.getxattr("f", "user.a")) }
        t.by(.alice) { t.fails(t.setxattr("f", "user.a"), EACCES) }
        t.by(.alice) { t.fails(t.removexattr("f", "user.a"), EACCES) }
        t.ok(t.chmod("f", 0o602))
        t.by(.alice) { t.fails(t.getxattr("f", "user.a"), EACCES) }
        t.by(.alice) { t.ok(t.setxattr("f", "user.a")) }
    }
    table.rule("xattr: listing needs no permission on the file") { t in
        t.file("f", mode: 0, owner: .bob)
        t.ok(t.setxattr("f", "user.a"))
        t.by(.alice) { t.same(t.attributeNames("f"), ["user.a"]) }
    }
    for kind in allKinds where kind.name != "file" && kind.name != "directory" {
        table.rule("xattr user: not for a \(kind.name): EPERM, reading ENODATA") { t in
            kind.make(t, "n")
            t.fails(cc_lsetxattr("n", "user.a", "v", 1, 0), EPERM)
            t.fails(cc_lgetxattr("n", "user.a", nil, 0), ENODATA)
        }
        table.rule("xattr trusted, security: also for a \(kind.name)") { t in
            kind.make(t, "n")
            t.ok(cc_lsetxattr("n", "trusted.a", "v", 1, 0))
            t.ok(cc_lsetxattr("n", "security.a", "v", 1, 0))
            t.same(cc_lgetxattr("n", "trusted.a", nil, 0), 1)
        }
    }
    table.rule("xattr user: for a directory, as for a file") { t in
        t.directory("d")
        t.ok(t.setxattr("d", "user.a", [3]))
        t.same(t.attribute("d", "user.a"), [3])
    }
    table.rule("xattr user: a sticky directory's only for its owner") { t in
        t.directory("d", mode: 0o1777, owner: .bob)
        t.by(.alice) { t.fails(t.setxattr("d", "user.a"), EPERM) }
        t.by(.bob) { t.ok(t.setxattr("d", "user.a")) }
    }
    table.rule("xattr trusted: for root only, hidden from others") { t in
        t.file("f", mode: 0o666, owner: .alice)
        t.ok(t.setxattr("f", "trusted.a"))
        t.ok(t.setxattr("f", "user.b"))
        t.by(.alice) {
            t.fails(t.setxattr("f", "trusted.a"), EPERM)
            t.fails(t.removexattr("f", "trusted.a"), EPERM)
            t.fails(t.getxattr("f", "trusted.a"), ENODATA)
            t.same(t.attributeNames("f"), ["user.b"])
        }
        t.same(t.attributeNames("f"), ["trusted.a", "user.b"])
    }
    table.rule("xattr security: read by all, changed by root only") { t in
        t.file("f", mode: 0o666, owner: .alice)
        t.ok(t.setxattr("f", "security.a"))
        t.by(.alice) {
            t.ok(t.getxattr("f", "security.a"))
            t.fails(t.setxattr("f", "security.a"), EPERM)
            t.fails(t.removexattr("f", "security.a"), EPERM)
        }
    }
    table.rule("file capability: an ill-formed one is EINVAL") { t in
        t.file("f")
        t.fails(t.setxattr("f", "security.capability", [1, 2, 3]), EINVAL)
    }
    table.rule("file capability: the owner may not set or remove it") { t in
        t.file("f", mode: 0o777, owner: .alice)
        t.by(.alice) { t.fails(t.setxattr("f", "security.capability", fileCapability), EPERM) }
        t.ok(t.setxattr("f", "security.capability", fileCapability))
        t.by(.alice) { t.fails(t.removexattr("f", "security.capability"), EPERM) }
    }
    table.rule("file capability: is listed and read") { t in
        t.file("f")
        t.ok(t.setxattr("f", "security.capability", fileCapability))
        t.same(t.attributeNames("f"), ["security.capability"])
        t.same(t.attribute("f", "security.capability"), fileCapability)
    }
}
