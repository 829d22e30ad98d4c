/// FIFOs, sockets and device nodes: the kernel runs them, the filesystem keeps their inodes.
internal import CCalls
internal import Glibc

func addSpecialFileRules(to table: inout RuleTable) {
    addPipes(to: &table)
    addSockets(to: &table)
    addDevices(to: &table)
}

private func addPipes(to table: inout RuleTable) {
    table.rule("FIFO: what is written at one end is read at the other") { t in
        t.ok(t.mkfifo("p"))
        let reader = t.fd("p", O_RDONLY | O_NONBLOCK)
        let writer = t.fd("p", O_WRONLY)
        t.ok(t.write(writer, "text"))
        t.same(t.read(reader), Array("text".utf8))
    }
    table.rule("FIFO: O_WRONLY|O_NONBLOCK without a reader is ENXIO") { t in
        t.ok(t.mkfifo("p"))
        t.fails(t.open("p", O_WRONLY | O_NONBLOCK), ENXIO)
    }
    table.rule("FIFO: an empty one is EAGAIN, without a writer the end") { t in
        t.ok(t.mkfifo("p"))
        let reader = t.fd("p", O_RDONLY | O_NONBLOCK)
        t.same(t.read(reader).count, 0)
        let writer = t.fd("p", O_WRONLY)
        var byte: UInt8 = 0
        t.fails(cc_read(reader, &byte, 1), EAGAIN)
        t.close(reader)
        t.fails(t.write(writer, "x"), EPIPE)
    }
    table.rule("FIFO: another name is the same pipe, also after rename and unlink") { t in
        t.ok(t.mkfifo("p"))
        t.ok(t.link("p", "q"))
        let reader = t.fd("p", O_RDONLY | O_NONBLOCK)
        let writer = t.fd("q", O_WRONLY)
        t.ok(t.rename("p", "r"))
        t.ok(t.unlink("q"))
        t.ok(t.write(writer, "x"))
        t.same(t.read(reader).count, 1)
    }
    table.rule("FIFO: needs the permission of the access") { t in
        t.ok(t.mkfifo("p", 0o644))
        t.by(.alice) {
            t.ok(t.open("p", O_RDONLY | O_NONBLOCK))
            t.fails(t.open("p", O_RDWR | O_NONBLOCK), EACCES)
        }
    }
    table.rule("FIFO: cannot be seeked, mapped or made longer") { t in
        t.ok(t.mkfifo("p"))
        let pipe = t.fd("p", O_RDWR | O_NONBLOCK)
        t.fails(cc_lseek(pipe, 0, SEEK_SET), ESPIPE)
        t.fails(cc_map(4096, 1, 1, pipe, 0), ENODEV)
        t.fails(cc_ftruncate(pipe, 10), EINVAL)
        t.fails(cc_fsync(pipe), EINVAL)
    }
    table.rule("FIFO: fchmod and fchown by its descriptor") { t in
        t.ok(t.mkfifo("p"))
        let pipe = t.fd("p", O_RDWR | O_NONBLOCK)
        t.ok(cc_fchmod(pipe, 0o600))
        t.ok(cc_fchown(pipe, 5, 6))
        t.same(t.mode("p"), "600")
        t.same(t.stat("p").uid, 5)
    }
    table.rule("FIFO: data moves no size") { t in
        t.ok(t.mkfifo("p"))
        let pipe = t.fd("p", O_RDWR | O_NONBLOCK)
        t.ok(t.write(pipe, "text"))
        t.same(t.stat("p").size, 0)
    }
}

/// `struct sockaddr_un` for a path.
private func address(_ path: String) -> [UInt8] { [1, 0] + Array(path.utf8) + [0] }

private func addSockets(to table: inout RuleTable) {
    table.rule("socket: bind makes it, connect reaches it") { t in
        let server = Int32(t.ok(cc_socket()))
        let name = address("s")
        t.ok(cc_bind(server, name, Int32(name.count)))
        t.same(UInt32(t.stat("s").mode) & S_IFMT, S_IFSOCK)
        t.ok(cc_listen(server))
        t.ok(cc_connect(Int32(t.ok(cc_socket())), name, Int32(name.count)))
    }
    table.rule("socket: bind to a taken name is EADDRINUSE") { t in
        t.file("s")
        let name = address("s")
        t.fails(cc_bind(Int32(t.ok(cc_socket())), name, Int32(name.count)), EADDRINUSE)
    }
    table.rule("socket: the umask and the user apply to bind") { t in
        let name = address("s")
        t.by(.alice) {
            t.ok(cc_bind(Int32(t.ok(cc_socket())), name, Int32(name.count)))
        }
        t.same(t.mode("s"), "755")
        t.same(t.stat("s").uid, User.alice.id)
    }
    table.rule("socket: connect needs write permission") { t in
        let server = Int32(t.ok(cc_socket()))
        let name = address("s")
        t.ok(cc_bind(server, name, Int32(name.count)))
        t.ok(cc_listen(server))
        t.ok(t.chmod("s", 0o755))
        t.by(.alice) {
            t.fails(cc_connect(Int32(cc_socket()), name, Int32(name.count)), EACCES)
        }
        t.ok(t.chmod("s", 0o722))
        t.by(.alice) { t.ok(cc_connect(Int32(cc_socket()), name, Int32(name.count))) }
    }
    table.rule("socket: is reached under a new name, not under the old one") { t in
        let server = Int32(t.ok(cc_socket()))
        let (old, new) = (address("s"), address("t"))
        t.ok(cc_bind(server, old, Int32(old.count)))
        t.ok(cc_listen(server))
        t.ok(t.rename("s", "t"))
        t.ok(cc_connect(Int32(cc_socket()), new, Int32(new.count)))
        t.fails(cc_connect(Int32(cc_socket()), old, Int32(old.count)), ENOENT)
    }
    table.rule("socket: nobody behind it is ECONNREFUSED") { t in
        t.ok(t.mknod("s", S_IFSOCK | 0o777))
        let name = address("s")
        t.fails(cc_connect(Int32(cc_socket()), name, Int32(name.count)), ECONNREFUSED)
    }
}

private func addDevices(to table: inout RuleTable) {
    for (major, minor) in [(1, 3), (0, 255), (8, 300), (4095, 0xFFFFF), (250, 0x12345)] {
        table.rule("device: number \(major):\(minor) is kept") { t in
            let number = UInt32(minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12)
            t.ok(t.mknod("c", S_IFCHR | 0o600, device: number))
            t.ok(t.mknod("b", S_IFBLK | 0o600, device: number))
            for name in ["c", "b"] {
                t.same(Int(t.stat(name).rdev_major), major)
                t.same(Int(t.stat(name).rdev_minor), minor)
            }
            t.same(UInt32(t.stat("b").mode) & S_IFMT, S_IFBLK)
        }
    }
    table.rule("device: an ordinary user may not make one") { t in
        t.by(.alice) {
            t.fails(t.mknod("c", S_IFCHR | 0o600, device: 0x103), EPERM)
            t.fails(t.mknod("b", S_IFBLK | 0o600, device: 0x103), EPERM)
        }
    }
    table.rule("device: a null device works") { t in
        t.ok(t.mknod("null", S_IFCHR | 0o666, device: 0x103))
        t.ok(t.chmod("null", 0o666))
        t.by(.alice) {
            let null = t.fd("null", O_RDWR)
            t.same(t.write(null, "text"), 4)
            t.same(t.read(null).count, 0)
        }
    }
    table.rule("device: needs the permission of the access") { t in
        t.ok(t.mknod("null", S_IFCHR | 0o600, device: 0x103))
        t.by(.alice) { t.fails(t.open("null"), EACCES) }
    }
    table.rule("mknod: a directory is EPERM, an unknown kind EINVAL") { t in
        t.fails(t.mknod("d", S_IFDIR | 0o755), EPERM)
        t.fails(t.mknod("l", S_IFLNK | 0o755), EINVAL)
        t.fails(t.mknod("x", 0o150000 | 0o755), EINVAL)
    }
    table.rule("mknod: without a kind it is a file") { t in
        t.ok(t.mknod("f", 0o644))
        t.same(UInt32(t.stat("f").mode), S_IFREG | 0o644)
    }
    table.rule("mknod: has no contents and one link") { t in
        for kind in [S_IFIFO, S_IFSOCK, S_IFCHR] {
            t.ok(t.mknod("n", kind | 0o644, device: 0x103))
            t.same(t.stat("n").size, 0)
            t.same(t.stat("n").nlink, 1)
            t.same(t.stat("n").blocks, 0)
            t.ok(t.unlink("n"))
        }
    }
}
