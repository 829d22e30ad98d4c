/// read, write, seek, truncate and their limits.
internal import CCalls
internal import Glibc

func addDataRules(to table: inout RuleTable) {
    addReadWrite(to: &table)
    addTruncate(to: &table)
    addLimits(to: &table)
    addCopies(to: &table)
}

private func addReadWrite(to table: inout RuleTable) {
    table.rule("read: at and beyond the end is 0 bytes") { t in
        t.file("f", "text")
        let file = t.fd("f")
        t.same(t.pread(file, 10, 4).count, 0)
        t.same(t.pread(file, 10, 1 << 40).count, 0)
        t.same(t.pread(file, 10, 2), Array("xt".utf8))
    }
    table.rule("read: a directory is EISDIR") { t in
        t.directory("d")
        var byte: UInt8 = 0
        t.fails(cc_read(t.fd("d"), &byte, 1), EISDIR)
    }
    table.rule("read: a write-only descriptor is EBADF") { t in
        t.file("f")
        var byte: UInt8 = 0
        t.fails(cc_read(t.fd("f", O_WRONLY), &byte, 1), EBADF)
    }
    table.rule("pread, pwrite: a negative offset is EINVAL, the position stays") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        var byte: UInt8 = 0
        t.fails(cc_pread(file, &byte, 1, -1), EINVAL)
        t.fails(t.pwrite(file, "x", -1), EINVAL)
        t.ok(t.pwrite(file, "x", 100))
        t.same(cc_lseek(file, 0, SEEK_CUR), 0)
    }
    table.rule("pwrite: beyond the end leaves zeros between") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        t.ok(t.pwrite(file, "end", 10_000))
        t.same(t.stat("f").size, 10_003)
        t.yes(t.pread(file, 9996, 4).allSatisfy { $0 == 0 })
        t.same(t.pread(file, 10, 10_000), Array("end".utf8))
    }
    table.rule("write: 0 bytes beyond the end do not grow the file") { t in
        t.file("f", "text")
        t.same(t.pwrite(t.fd("f", O_RDWR), "", 100), 0)
        t.same(t.stat("f").size, 4)
    }
    table.rule("write: from a bad address is EFAULT and changes nothing") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        t.fails(cc_write(file, UnsafeRawPointer(bitPattern: 8), 4), EFAULT)
        t.same(t.text("f"), "text")
    }
    for size in [1, 511, 512, 2047, 2048, 4095, 4096, 4097, 65_536, 1 << 20, 3_000_001] {
        table.rule("write: \(size) bytes come back, through the cache and past it") { t in
            let data = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            let file = t.fd("f", O_CREAT | O_RDWR)
            t.same(cc_write(file, data, size), size)
            t.yes(t.pread(file, size + 1, 0) == data, "contents")
            t.ok(cc_fsync(file))
            t.ok(cc_advise(file, 0, 0, 4))
            t.yes(t.pread(file, size + 1, 0) == data, "contents after fadvise")
            t.same(Int(t.stat(file).size), size)
        }
    }
    table.rule("write: over a part leaves the rest") { t in
        t.file("f", String(repeating: "a", count: 20_000))
        let file = t.fd("f", O_RDWR)
        t.ok(t.pwrite(file, String(repeating: "b", count: 5000), 6001))
        let bytes = t.pread(file, 20_001, 0)
        t.same(bytes.count, 20_000)
        t.same(bytes.filter { $0 == 98 }.count, 5000)
        t.same(bytes[6000], 97)
        t.same(bytes[11_001], 97)
    }
    table.rule("writev through two descriptors is seen by both at once") { t in
        let first = t.fd("f", O_CREAT | O_RDWR)
        let second = t.fd("f", O_RDWR)
        t.ok(t.write(first, "one"))
        t.same(t.read(second), Array("one".utf8))
        t.ok(t.pwrite(second, "two", 0))
        t.same(t.pread(first, 3, 0), Array("two".utf8))
    }
    table.rule("lseek: SET, CUR, END, beyond the end, before the start") { t in
        t.file("f", "text")
        let file = t.fd("f")
        t.same(cc_lseek(file, 2, SEEK_SET), 2)
        t.same(cc_lseek(file, 1, SEEK_CUR), 3)
        t.same(cc_lseek(file, -1, SEEK_END), 3)
        t.same(cc_lseek(file, 1000, SEEK_END), 1004)
        t.fails(cc_lseek(file, -1, SEEK_SET), EINVAL)
        t.fails(cc_lseek(file, -5, SEEK_END), EINVAL)
        t.fails(cc_lseek(file, 0, 99), EINVAL)
    }
    table.rule("lseek: a seek beyond the end alone does not grow the file") { t in
        t.file("f", "text")
        t.ok(cc_lseek(t.fd("f", O_RDWR), 1000, SEEK_SET))
        t.same(t.stat("f").size, 4)
    }
    table.rule("fsync, fdatasync, syncfs: of files and directories") { t in
        t.file("f", "text")
        let file = t.fd("f")
        let directory = t.fd(".", O_DIRECTORY)
        t.ok(cc_fsync(file))
        t.ok(cc_fdatasync(file))
        t.ok(cc_syncfs(file))
        t.ok(cc_fsync(directory))
    }
}

private func addTruncate(to table: inout RuleTable) {
    for (from, to) in [(4, 0), (4, 2), (10_000, 5000), (10_000, 4096), (1 << 20, 1), (5000, 4999)] {
        table.rule("truncate: from \(from) to \(to) and back shows zeros") { t in
            t.file("f", String(repeating: "a", count: from))
            t.ok(t.truncate("f", to))
            t.same(Int(t.stat("f").size), to)
            t.ok(t.truncate("f", from))
            let bytes = t.pread(t.fd("f"), from + 1, 0)
            t.same(bytes.count, from)
            t.same(bytes.filter { $0 == 97 }.count, to)
            t.yes(bytes.dropFirst(to).allSatisfy { $0 == 0 })
        }
    }
    table.rule("truncate: then a write further on leaves zeros between") { t in
        t.file("f", String(repeating: "a", count: 8000))
        t.ok(t.truncate("f", 100))
        t.ok(t.pwrite(t.fd("f", O_WRONLY), "b", 7999))
        t.yes(t.pread(t.fd("f"), 7899, 100).allSatisfy { $0 == 0 })
    }
    table.rule("truncate: longer takes no space") { t in
        t.file("f")
        t.ok(t.truncate("f", 1 << 40))
        t.same(t.stat("f").size, 1 << 40)
        t.yes(t.stat("f").blocks < 64)
        t.same(t.pread(t.fd("f"), 1, (1 << 40) - 1), [0])
    }
    table.rule("truncate: shorter gives space back") { t in
        t.file("f", String(repeating: "a", count: 1 << 20))
        t.ok(cc_fsync(t.fd("f")))
        let before = t.stat("f").blocks
        t.ok(t.truncate("f", 4096))
        t.yes(t.stat("f").blocks < before / 2)
    }
    table.rule("truncate: a negative length is EINVAL") { t in
        t.file("f")
        t.fails(t.truncate("f", -1), EINVAL)
        t.fails(cc_ftruncate(t.fd("f", O_WRONLY), -1), EINVAL)
    }
    table.rule("truncate: of a directory is EISDIR, of a FIFO EINVAL") { t in
        t.directory("d")
        t.ok(t.mkfifo("p"))
        t.fails(t.truncate("d"), EISDIR)
        t.fails(t.truncate("p"), EINVAL)
    }
    table.rule("truncate: of a running program is ETXTBSY") { t in
        t.ok(t.copy("/bin/sleep", "program"))
        t.ok(t.chmod("program", 0o755))
        let arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("20"), nil]
        defer { for argument in arguments { free(argument) } }
        var ends: [Int32] = [0, 0]
        t.ok(cc_pipe(&ends))
        t.ok(cc_fcntl(ends[1], F_SETFD, Int(FD_CLOEXEC)))
        let child = cc_fork()
        if child == 0 {
            _ = cc_execve("program", arguments, [nil])
            _exit(1)
        }
        // The end of the pipe says that the program runs.
        t.close(ends[1])
        t.same(t.read(ends[0]).count, 0)
        t.fails(t.truncate("program"), ETXTBSY)
        t.fails(t.open("program", O_WRONLY), ETXTBSY)
        t.ok(t.open("program"))
        kill(Int32(child), SIGKILL)
        var status: Int32 = 0
        t.ok(cc_wait(Int32(child), &status))
        t.ok(t.truncate("program"))
    }
}

private func addLimits(to table: inout RuleTable) {
    table.rule("limits: an offset of 1 TiB holds data") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.same(t.pwrite(file, "far", 1 << 40), 3)
        t.same(t.pread(file, 10, 1 << 40), Array("far".utf8))
        t.same(t.stat(file).size, 1 << 40 + 3)
    }
    table.rule("limits: an offset that overflows is EINVAL or EFBIG") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        let result = t.pwrite(file, "xx", Int.max - 1)
        t.yes(result == -Int(EFBIG) || result == -Int(EINVAL), "result \(result)")
        t.same(t.stat(file).size, 0)
    }
    table.rule("limits: a truncate beyond the largest size is EFBIG or EINVAL") { t in
        t.file("f")
        let result = t.truncate("f", Int.max)
        t.yes(result == -Int(EFBIG) || result == -Int(EINVAL), "result \(result)")
        t.same(t.stat("f").size, 0)
    }
    func limited(_ t: Context, _ size: UInt64, _ body: () -> Void) {
        t.ok(cc_limit(1, [size, UInt64.max]))
        body()
        t.ok(cc_limit(1, [UInt64.max, UInt64.max]))
    }
    table.rule("RLIMIT_FSIZE: a write up to the limit is cut, the next one EFBIG") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        limited(t, 5000) {
            t.same(t.write(file, String(repeating: "x", count: 8000)), 5000)
            t.fails(t.write(file, "x"), EFBIG)
        }
        t.same(t.stat(file).size, 5000)
    }
    table.rule("RLIMIT_FSIZE: truncate beyond it is EFBIG") { t in
        t.file("f")
        limited(t, 5000) {
            t.ok(t.truncate("f", 5000))
            t.fails(t.truncate("f", 5001), EFBIG)
        }
        t.same(t.stat("f").size, 5000)
    }
    table.rule("RLIMIT_FSIZE: fallocate beyond it is EFBIG") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        limited(t, 5000) { t.fails(cc_fallocate(file, 0, 0, 8192), EFBIG) }
        t.same(t.stat(file).size, 0)
    }
    table.rule("RLIMIT_FSIZE: overwriting below it goes on") { t in
        t.file("f", String(repeating: "x", count: 10_000))
        let file = t.fd("f", O_RDWR)
        limited(t, 5000) { t.same(t.pwrite(file, "yy", 4000), 2) }
    }
}

private func addCopies(to table: inout RuleTable) {
    table.rule("copy_file_range: copies, moves both positions, 0 at the end") { t in
        t.file("a", "abcdef")
        let (from, to) = (t.fd("a"), t.fd("b", O_CREAT | O_RDWR))
        t.same(cc_copy(from, nil, to, nil, 4), 4)
        t.same(cc_copy(from, nil, to, nil, 100), 2)
        t.same(cc_copy(from, nil, to, nil, 100), 0)
        t.same(t.text("b"), "abcdef")
    }
    table.rule("copy_file_range: with offsets, leaving the positions") { t in
        t.file("a", "abcdef")
        let (from, to) = (t.fd("a"), t.fd("b", O_CREAT | O_RDWR))
        var (at, place) = (2, 5000)
        t.same(cc_copy(from, &at, to, &place, 3), 3)
        t.same([at, place], [5, 5003])
        t.same(cc_lseek(from, 0, SEEK_CUR), 0)
        t.same(t.pread(to, 10, 5000), Array("cde".utf8))
    }
    table.rule("copy_file_range: overlapping ranges of one file are EINVAL") { t in
        t.file("a", String(repeating: "x", count: 100))
        let file = t.fd("a", O_RDWR)
        var (at, place) = (0, 10)
        t.fails(cc_copy(file, &at, file, &place, 50), EINVAL)
    }
    table.rule("copy_file_range: within one file") { t in
        t.file("a", "abc")
        let file = t.fd("a", O_RDWR)
        var (at, place) = (0, 3)
        t.same(cc_copy(file, &at, file, &place, 3), 3)
        t.same(t.text("a"), "abcabc")
    }
    table.rule("copy_file_range: to a read-only or appending descriptor is EBADF") { t in
        t.file("a", "abc")
        t.file("b")
        t.fails(cc_copy(t.fd("a"), nil, t.fd("b"), nil, 3), EBADF)
        t.fails(cc_copy(t.fd("a"), nil, t.fd("b", O_WRONLY | O_APPEND), nil, 3), EBADF)
    }
    table.rule("copy_file_range: from a directory is EISDIR, a FIFO EINVAL") { t in
        t.directory("d")
        t.ok(t.mkfifo("p"))
        let to = t.fd("b", O_CREAT | O_RDWR)
        t.fails(cc_copy(t.fd("d"), nil, to, nil, 3), EISDIR)
        t.fails(cc_copy(t.fd("p", O_RDWR | O_NONBLOCK), nil, to, nil, 3), EINVAL)
    }
    table.rule("copy_file_range: sees what was just written, and is seen at once") { t in
        t.file("a", String(repeating: "a", count: 100_000))
        t.file("b", String(repeating: "b", count: 100_000))
        let (from, to) = (t.fd("a", O_RDWR), t.fd("b", O_RDWR))
        t.same(t.pread(to, 100_000, 0).first, 98)
        t.ok(t.pwrite(from, "A", 0))
        var (at, place) = (0, 0)
        t.same(cc_copy(from, &at, to, &place, 100_000), 100_000)
        t.yes(t.pread(to, 100_000, 0) == t.pread(from, 100_000, 0), "contents")
    }
    table.rule("sendfile: from one file to another") { t in
        t.file("a", "abcdef")
        let to = t.fd("b", O_CREAT | O_RDWR)
        var at = 1
        t.same(cc_sendfile(to, t.fd("a"), &at, 4), 4)
        t.same(t.text("b"), "bcde")
        t.same(at, 5)
    }
    table.rule("splice: to a pipe and from it") { t in
        t.file("a", String(repeating: "s", count: 10_000))
        var ends: [Int32] = [0, 0]
        t.ok(cc_pipe(&ends))
        t.same(cc_splice(t.fd("a"), nil, ends[1], nil, 10_000), 10_000)
        t.same(cc_splice(ends[0], nil, t.fd("b", O_CREAT | O_WRONLY), nil, 10_000), 10_000)
        t.same(t.stat("b").size, 10_000)
        t.same(t.text("b"), String(repeating: "s", count: 10_000))
    }
}

extension Context {
    /// A file's bytes under a new name.
    func copy(_ path: String, _ name: String) -> Int {
        let (from, to) = (fd(path), fd(name, O_CREAT | O_WRONLY))
        defer {
            close(from)
            close(to)
        }
        while true {
            let count = cc_sendfile(to, from, nil, 1 << 20)
            if count <= 0 { return count }
        }
    }
}
