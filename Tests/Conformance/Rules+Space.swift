/// Holes, fallocate(2), SEEK_DATA and SEEK_HOLE, statfs(2); and mappings.
internal import CCalls
internal import Glibc

private let mib = 1 << 20

func addSpaceRules(to table: inout RuleTable) {
    addHoles(to: &table)
    addAllocation(to: &table)
    addStatistics(to: &table)
}

private func addHoles(to table: inout RuleTable) {
    /// Data in the second and fourth MiB of five.
    func make(_ t: Context) -> Int32 {
        let file = t.fd("f", O_CREAT | O_RDWR)
        let block = String(repeating: "x", count: mib)
        t.ok(t.pwrite(file, block, mib))
        t.ok(t.pwrite(file, block, 3 * mib))
        t.ok(cc_ftruncate(file, 5 * mib))
        t.ok(cc_fsync(file))
        return file
    }
    table.rule("holes: take no space and read as zeros") { t in
        let file = make(t)
        t.yes(t.stat(file).blocks <= 2 * 2048 + 64, "blocks")
        t.yes(t.pread(file, mib, 0).allSatisfy { $0 == 0 })
        t.yes(t.pread(file, mib, 2 * mib).allSatisfy { $0 == 0 })
    }
    // tar(1) takes a file without blocks for one hole, and reads no further.
    for size in [1, 100, 513, 2000, 3000, 5000] {
        table.rule("st_blocks: a file of \(size) bytes has some, at once and later") { t in
            t.file("f", String(repeating: "x", count: size))
            t.yes(t.stat("f").blocks > 0, "blocks at once")
            t.ok(cc_fsync(t.fd("f")))
            t.yes(t.stat("f").blocks > 0, "blocks later")
        }
    }
    let seeks: [(Int, Int, Int)] = [
        (0, 1, 0), (1, 1, 2), (2, 3, 2), (3, 3, 4),
    ]
    for (from, data, hole) in seeks {
        table.rule("SEEK_DATA, SEEK_HOLE: from \(from) MiB") { t in
            let file = make(t)
            t.same(cc_lseek(file, from * mib, Flag.seekData), max(data, from) * mib)
            t.same(cc_lseek(file, from * mib, Flag.seekHole), hole * mib)
        }
    }
    table.rule("SEEK_DATA: from inside data is the very place") { t in
        let file = make(t)
        t.same(cc_lseek(file, mib + 777, Flag.seekData), mib + 777)
        t.same(cc_lseek(file, 777, Flag.seekHole), 777)
    }
    table.rule("SEEK_DATA: in the last hole is ENXIO, SEEK_HOLE the place") { t in
        let file = make(t)
        t.fails(cc_lseek(file, 4 * mib, Flag.seekData), ENXIO)
        t.same(cc_lseek(file, 4 * mib, Flag.seekHole), 4 * mib)
    }
    table.rule("SEEK_DATA, SEEK_HOLE: at the end and beyond are ENXIO") { t in
        let file = make(t)
        for offset in [5 * mib, 6 * mib] {
            t.fails(cc_lseek(file, offset, Flag.seekData), ENXIO)
            t.fails(cc_lseek(file, offset, Flag.seekHole), ENXIO)
        }
    }
    table.rule("SEEK_HOLE: the end of a full file is a hole") { t in
        t.file("f", "text")
        t.same(cc_lseek(t.fd("f"), 0, Flag.seekHole), 4)
        t.same(cc_lseek(t.fd("f"), 0, Flag.seekData), 0)
    }
    table.rule("SEEK_DATA: an empty file is ENXIO") { t in
        t.file("f")
        t.fails(cc_lseek(t.fd("f"), 0, Flag.seekData), ENXIO)
        t.fails(cc_lseek(t.fd("f"), 0, Flag.seekHole), ENXIO)
    }
    table.rule("SEEK_DATA: a negative offset is ENXIO") { t in
        t.file("f", "text")
        t.fails(cc_lseek(t.fd("f"), -1, Flag.seekData), ENXIO)
    }
    table.rule("SEEK_DATA: moves the position") { t in
        let file = make(t)
        t.ok(cc_lseek(file, 0, Flag.seekData))
        t.same(cc_lseek(file, 0, SEEK_CUR), mib)
    }
    table.rule("SEEK_DATA: a punched range is a hole") { t in
        let file = make(t)
        t.ok(cc_fallocate(file, Flag.punchHole, mib, mib))
        t.same(cc_lseek(file, 0, Flag.seekData), 3 * mib)
    }
}

private func addAllocation(to table: inout RuleTable) {
    table.rule("fallocate: grows the file with zeros and takes space") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(cc_fallocate(file, 0, 0, mib))
        t.same(Int(t.stat(file).size), mib)
        t.yes(t.pread(file, mib, 0).allSatisfy { $0 == 0 })
    }
    table.rule("fallocate: st_blocks counts the space") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(cc_fallocate(file, 0, 0, mib))
        t.yes(t.stat(file).blocks >= 2048, "blocks \(t.stat(file).blocks)")
    }
    table.rule("fallocate: leaves what is written") { t in
        t.file("f", "text")
        t.ok(cc_fallocate(t.fd("f", O_RDWR), 0, 0, 8192))
        t.same(t.pread(t.fd("f"), 5, 0), Array("text".utf8) + [0])
    }
    table.rule("fallocate KEEP_SIZE: leaves the size") { t in
        t.file("f", "text")
        t.ok(cc_fallocate(t.fd("f", O_RDWR), Flag.keepSize, 0, mib))
        t.same(t.stat("f").size, 4)
    }
    table.rule("fallocate KEEP_SIZE: a write there takes no further space") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(cc_fallocate(file, Flag.keepSize, 0, 4 * mib))
        let free = t.settledStatfs().bavail
        t.ok(t.pwrite(file, String(repeating: "x", count: 4 * mib), 0))
        t.ok(cc_fsync(file))
        t.yes(t.statfs().bavail + 256 >= free, "space")
    }
    table.rule("fallocate PUNCH_HOLE: zeros inside, the rest and the size stay") { t in
        t.file("f", String(repeating: "x", count: 3 * mib))
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fallocate(file, Flag.punchHole, mib + 100, mib))
        let bytes = t.pread(file, 3 * mib, 0)
        t.same(bytes.filter { $0 == 0 }.count, mib)
        t.same(bytes[mib + 99], 120)
        t.same(bytes[2 * mib + 100], 120)
        t.same(bytes.count, 3 * mib)
    }
    table.rule("fallocate PUNCH_HOLE: gives space back") { t in
        t.file("f", String(repeating: "x", count: 3 * mib))
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fsync(file))
        let before = t.stat(file).blocks
        t.ok(cc_fallocate(file, Flag.punchHole, 0, 2 * mib))
        t.yes(t.stat(file).blocks < before / 2)
    }
    table.rule("fallocate PUNCH_HOLE: beyond the end is nothing") { t in
        t.file("f", "text")
        t.ok(cc_fallocate(t.fd("f", O_RDWR), Flag.punchHole, mib, mib))
        t.same(t.text("f"), "text")
    }
    table.rule("fallocate PUNCH_HOLE without KEEP_SIZE is EOPNOTSUPP") { t in
        t.file("f", "text")
        t.fails(cc_fallocate(t.fd("f", O_RDWR), 2, 0, 4), EOPNOTSUPP)
    }
    table.rule("fallocate ZERO_RANGE: zeros, growing the file unless KEEP_SIZE") { t in
        t.file("f", String(repeating: "x", count: 10_000))
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fallocate(file, Flag.zeroRange, 5000, 10_000))
        t.same(t.stat(file).size, 15_000)
        t.same(t.pread(file, 15_000, 0).filter { $0 == 120 }.count, 5000)
        t.ok(cc_fallocate(file, Flag.zeroRange | Flag.keepSize, 14_000, 10_000))
        t.same(t.stat(file).size, 15_000)
    }
    table.rule("fallocate: nothing and negative are EINVAL") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        t.fails(cc_fallocate(file, 0, 0, 0), EINVAL)
        t.fails(cc_fallocate(file, 0, -1, 1), EINVAL)
        t.fails(cc_fallocate(file, 0, 0, -1), EINVAL)
    }
    table.rule("fallocate: a read-only descriptor is EBADF") { t in
        t.file("f", "text")
        t.fails(cc_fallocate(t.fd("f"), 0, 0, 10), EBADF)
    }
    table.rule("fallocate: a directory cannot be opened for it, a FIFO is ESPIPE") { t in
        t.ok(t.mkfifo("p"))
        t.fails(cc_fallocate(t.fd("p", O_RDWR | O_NONBLOCK), 0, 0, 10), ESPIPE)
    }
    table.rule("fallocate: beyond the largest offset is EFBIG") { t in
        t.file("f", "text")
        t.fails(cc_fallocate(t.fd("f", O_RDWR), 0, Int.max - 10, 100), EFBIG)
    }
    table.rule("fallocate: more than the volume has is ENOSPC and changes nothing") { t in
        t.file("f", "text")
        let size = t.statfs().bsize * Int(t.statfs().blocks)
        t.fails(cc_fallocate(t.fd("f", O_RDWR), 0, 0, size * 2), ENOSPC)
    }
    table.rule("fallocate COLLAPSE_RANGE: takes whole blocks out") { t in
        t.file("f", String(repeating: "a", count: 4096) + String(repeating: "b", count: 4096))
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fsync(file))
        t.ok(cc_fallocate(file, Flag.collapseRange, 0, 4096))
        t.same(t.text("f"), String(repeating: "b", count: 4096))
    }
}

private func addStatistics(to table: inout RuleTable) {
    table.rule("statfs: block sizes, counts and the longest name") { t in
        let stat = t.statfs()
        t.yes(stat.bsize >= 512 && stat.frsize >= 512)
        t.yes(stat.blocks > 0 && stat.bfree <= stat.blocks && stat.bavail <= stat.bfree)
        t.yes(stat.files > 0 && stat.ffree <= stat.files)
        t.same(stat.namelen, 255)
    }
    table.rule("statfs: free space falls with data") { t in
        let before = t.settledStatfs()
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(t.write(file, String(repeating: "x", count: 4 * mib)))
        t.ok(cc_fsync(file))
        let after = t.statfs()
        t.yes((Int(before.bfree) - Int(after.bfree)) * after.bsize >= 4 * mib)
        t.same(after.blocks, before.blocks)
    }
    table.rule("statfs: free inodes fall with files") { t in
        let before = t.settledStatfs()
        for number in 0..<100 { t.file("\(number)") }
        let after = t.statfs()
        t.yes(after.files - after.ffree >= before.files - before.ffree + 100)
    }
    table.rule("statfs: the same from every place of the volume") { t in
        t.directory("d")
        t.same(t.statfs("d").blocks, t.statfs(".").blocks)
        t.same(t.statfs("d").fsid.0, t.statfs(".").fsid.0)
    }
    table.rule("stat: one device number, many inode numbers") { t in
        t.file("f")
        t.directory("d")
        t.same(t.stat("f").dev_minor, t.stat("d").dev_minor)
        t.yes(t.stat("f").ino != t.stat("d").ino)
    }
    table.rule("stat: st_size of a FIFO is 0, st_blksize is a power of two") { t in
        t.ok(t.mkfifo("p"))
        t.same(t.stat("p").size, 0)
        let size = t.stat("p").blksize
        t.yes(size >= 512 && size & (size - 1) == 0)
    }
}

func addMappingRules(to table: inout RuleTable) {
    func map(_ t: Context, _ file: Int32, _ flags: Int32, access: Int32 = 3, size: Int = 4096)
        -> UnsafeMutablePointer<UInt8>
    {
        let address = t.ok(cc_map(size, access, flags, file, 0))
        return UnsafeMutablePointer(bitPattern: address) ?? .allocate(capacity: size)
    }
    let (shared, closed): (Int32, Int32) = (1, 2)
    table.rule("mmap shared: read and write see it, and it sees them") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDWR)
        let bytes = map(t, file, shared)
        bytes[0] = 98
        t.same(t.pread(file, 1, 0), [98])
        t.ok(t.pwrite(file, "c", 1))
        t.same(bytes[1], 99)
    }
    table.rule("mmap shared: two mappings are one memory") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let first = map(t, t.fd("f", O_RDWR), shared)
        let second = map(t, t.fd("f", O_RDWR), shared)
        first[10] = 98
        t.same(second[10], 98)
    }
    table.rule("mmap shared: survives msync, fadvise and a new open") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDWR)
        let bytes = map(t, file, shared)
        bytes[0] = 98
        t.ok(cc_msync(Int(bitPattern: bytes), 4096, MS_SYNC))
        t.ok(cc_unmap(Int(bitPattern: bytes), 4096))
        t.close(file)
        let again = t.fd("f")
        t.ok(cc_advise(again, 0, 0, 4))
        t.same(t.pread(again, 2, 0), [98, 97])
    }
    table.rule("mmap private: its writes stay its own") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDWR)
        let bytes = map(t, file, closed)
        bytes[0] = 98
        t.same(t.pread(file, 1, 0), [97])
    }
    table.rule("mmap private: of a read-only descriptor, also to write") { t in
        t.file("f", "text")
        let bytes = map(t, t.fd("f"), closed)
        bytes[0] = 98
        t.same(bytes[0], 98)
    }
    table.rule("mmap shared: to write needs a descriptor for writing") { t in
        t.file("f", "text")
        t.fails(cc_map(4096, 3, shared, t.fd("f"), 0), EACCES)
        t.fails(cc_map(4096, 1, shared, t.fd("f", O_WRONLY), 0), EACCES)
    }
    table.rule("mmap: bytes behind the end read as zeros and are not written") { t in
        t.file("f", "text")
        let file = t.fd("f", O_RDWR)
        let bytes = map(t, file, shared)
        t.same(bytes[100], 0)
        bytes[100] = 98
        t.ok(cc_msync(Int(bitPattern: bytes), 4096, MS_SYNC))
        t.same(t.stat(file).size, 4)
        t.ok(cc_unmap(Int(bitPattern: bytes), 4096))
        t.ok(cc_ftruncate(file, 200))
        t.same(t.pread(file, 1, 100), [0])
    }
    table.rule("mmap: a truncate shows zeros in the rest of the last page") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDWR)
        let bytes = map(t, file, shared)
        t.same(bytes[4000], 97)
        t.ok(cc_ftruncate(file, 100))
        t.same(bytes[99], 97)
        t.same(bytes[100], 0)
    }
    table.rule("mmap shared: a write moves mtime and ctime by msync") { t in
        t.file("f", String(repeating: "a", count: 4096))
        let file = t.fd("f", O_RDWR)
        t.ok(cc_fsync(file))
        let before = t.stat(file)
        t.pause()
        let bytes = map(t, file, shared)
        bytes[0] = 98
        t.ok(cc_msync(Int(bitPattern: bytes), 4096, MS_SYNC))
        t.yes(t.stat(file).mtime.isAfter(before.mtime))
        t.yes(t.stat(file).ctime.isAfter(before.ctime))
    }
    table.rule("mmap: a hole can be written") { t in
        let file = t.fd("f", O_CREAT | O_RDWR)
        t.ok(cc_ftruncate(file, mib))
        let bytes = map(t, file, shared, size: mib)
        bytes[500_000] = 98
        t.ok(cc_msync(Int(bitPattern: bytes), mib, MS_SYNC))
        t.same(t.pread(file, 1, 500_000), [98])
    }
    table.rule("mmap: of a directory is ENODEV") { t in
        t.directory("d")
        t.fails(cc_map(4096, 1, shared, t.fd("d"), 0), ENODEV)
    }
    table.rule("mmap: to execute on this mount is allowed") { t in
        t.file("f", "text")
        t.ok(cc_map(4096, 5, closed, t.fd("f"), 0))
    }
}
