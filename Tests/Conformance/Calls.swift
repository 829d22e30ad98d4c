/// System calls by their names, relative to the rule's directory: a result, or the error number
/// negated. A parameter that a rule does not speak of has a default.
internal import CCalls
internal import Glibc

/// Constants that Swift's Glibc module does not show.
enum Flag {
    static let path: Int32 = 0o10000000
    static let tmpfile: Int32 = 0o20200000
    static let direct: Int32 = 0o40000
    static let noAccessTime: Int32 = 0o1000000
    static let noFollowSymlink: Int32 = 0x100
    static let removeDirectory: Int32 = 0x200
    static let followSymlink: Int32 = 0x400
    static let effectiveAccess: Int32 = 0x200
    static let emptyPath: Int32 = 0x1000
    static let seekData: Int32 = 3
    static let seekHole: Int32 = 4
    static let keepSize: Int32 = 1
    static let punchHole: Int32 = 3
    static let collapseRange: Int32 = 8
    static let zeroRange: Int32 = 16
    static let get: UInt = 0x8008_6601
    static let set: UInt = 0x4008_6602
    static let renameNoReplace: UInt32 = 1
    static let renameExchange: UInt32 = 2
    static let renameWhiteout: UInt32 = 4
    static let timeNow = (1 << 30) - 1
    static let timeOmit = (1 << 30) - 2
}

extension Context {
    // MARK: Names

    func open(_ path: String, _ flags: Int32 = O_RDONLY, mode: UInt32 = 0o644) -> Int {
        cc_open(HERE, path, flags, mode)
    }
    /// An open that must succeed.
    func fd(
        _ path: String, _ flags: Int32 = O_RDONLY, mode: UInt32 = 0o644, line: Int = #line
    ) -> Int32 { Int32(ok(open(path, flags, mode: mode), line: line)) }
    @discardableResult func close(_ fd: Int32) -> Int { cc_close(fd) }
    func mkdir(_ path: String, _ mode: UInt32 = 0o755) -> Int { cc_mkdir(HERE, path, mode) }
    func mknod(_ path: String, _ mode: UInt32, device: UInt32 = 0) -> Int {
        cc_mknod(HERE, path, mode, device)
    }
    func mkfifo(_ path: String, _ mode: UInt32 = 0o644) -> Int { mknod(path, S_IFIFO | mode) }
    func link(_ path: String, _ name: String, flags: Int32 = 0) -> Int {
        cc_link(HERE, path, HERE, name, flags)
    }
    func symlink(_ target: String, _ path: String) -> Int { cc_symlink(target, HERE, path) }
    func rename(_ path: String, _ name: String, _ flags: UInt32 = 0) -> Int {
        cc_rename(HERE, path, HERE, name, flags)
    }
    func unlink(_ path: String) -> Int { cc_unlink(HERE, path, 0) }
    func rmdir(_ path: String) -> Int { cc_unlink(HERE, path, Flag.removeDirectory) }
    func truncate(_ path: String, _ size: Int = 0) -> Int { cc_truncate(path, size) }
    func chmod(_ path: String, _ mode: UInt32) -> Int { cc_chmod(HERE, path, mode) }
    func chown(_ path: String, _ user: UInt32 = ~0, _ group: UInt32 = ~0) -> Int {
        cc_chown(HERE, path, user, group, 0)
    }
    func lchown(_ path: String, _ user: UInt32 = ~0, _ group: UInt32 = ~0) -> Int {
        cc_chown(HERE, path, user, group, Flag.noFollowSymlink)
    }
    func utimens(
        _ path: String, _ atime: (Int, Int), _ mtime: (Int, Int), flags: Int32 = 0
    ) -> Int {
        let times = [
            cc_timespec(seconds: Int64(atime.0), nanoseconds: Int64(atime.1)),
            cc_timespec(seconds: Int64(mtime.0), nanoseconds: Int64(mtime.1)),
        ]
        return cc_utimens(HERE, path, times, flags)
    }
    /// Both times to the present, as a null pointer says it.
    func touch(_ path: String) -> Int { cc_utimens(HERE, path, nil, 0) }
    func readlink(_ path: String, size: Int = 4096) -> Int {
        var target = [CChar](repeating: 0, count: size)
        return cc_readlink(HERE, path, &target, size)
    }
    func target(_ path: String) -> String {
        var target = [UInt8](repeating: 0, count: 4096)
        let count = target.withUnsafeMutableBytes {
            cc_readlink(HERE, path, $0.baseAddress?.assumingMemoryBound(to: CChar.self), 4096)
        }
        return String(decoding: target.prefix(max(count, 0)), as: UTF8.self)
    }
    func access(_ path: String, _ mode: Int32, flags: Int32 = 0) -> Int {
        cc_access(HERE, path, mode, flags)
    }
    func chdir(_ path: String) -> Int { cc_chdir(path) }

    // MARK: Attributes

    func lookUp(_ path: String, follow: Bool = false) -> (result: Int, stat: cc_stat) {
        var stat = cc_stat()
        let result = cc_statx(HERE, path, follow ? 0 : Flag.noFollowSymlink, &stat)
        return (result, stat)
    }
    func stat(_ path: String, follow: Bool = false, line: Int = #line) -> cc_stat {
        let (result, stat) = lookUp(path, follow: follow)
        ok(result, line: line)
        return stat
    }
    func stat(_ fd: Int32, line: Int = #line) -> cc_stat {
        var stat = cc_stat()
        ok(cc_statx(fd, "", Flag.emptyPath, &stat), line: line)
        return stat
    }
    func mode(_ path: String, line: Int = #line) -> String {
        String(stat(path, line: line).mode & 0o7777, radix: 8)
    }
    func exists(_ path: String) -> Bool { lookUp(path).result >= 0 }
    func statfs(_ path: String = ".") -> cc_statfs {
        var result = cc_statfs()
        ok(cc_statfs(path, &result))
        return result
    }

    /// The same when nothing that was removed before gives its space back any more.
    func settledStatfs() -> cc_statfs {
        var last = statfs()
        for _ in 0..<100 {
            usleep(30_000)
            let next = statfs()
            if next.bfree == last.bfree, next.ffree == last.ffree { break }
            last = next
        }
        return last
    }

    func setxattr(
        _ path: String, _ name: String, _ value: [UInt8] = [1, 2, 3], _ flags: Int32 = 0
    ) -> Int { cc_setxattr(path, name, value, value.count, flags) }
    func getxattr(_ path: String, _ name: String) -> Int { cc_getxattr(path, name, nil, 0) }
    /// The attribute's bytes; nil if there is none.
    func attribute(_ path: String, _ name: String) -> [UInt8]? {
        var value = [UInt8](repeating: 0, count: 65536)
        let count = cc_getxattr(path, name, &value, value.count)
        return count < 0 ? nil : Array(value.prefix(count))
    }
    func removexattr(_ path: String, _ name: String) -> Int { cc_removexattr(path, name) }
    func listxattr(_ path: String) -> Int { cc_listxattr(path, nil, 0) }
    func attributeNames(_ path: String) -> [String] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = ok(cc_listxattr(path, &bytes, bytes.count))
        return bytes.prefix(max(count, 0)).split(separator: 0)
            .map { String(decoding: $0, as: UTF8.self) }.sorted()
    }

    // MARK: Data

    @discardableResult
    func write(_ fd: Int32, _ text: String) -> Int { cc_write(fd, text, text.utf8.count) }
    func pwrite(_ fd: Int32, _ text: String, _ offset: Int) -> Int {
        cc_pwrite(fd, text, text.utf8.count, offset)
    }
    func read(_ fd: Int32, _ count: Int = 4096) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let filled = ok(cc_read(fd, &bytes, count))
        return Array(bytes.prefix(max(0, filled)))
    }
    func pread(_ fd: Int32, _ count: Int, _ offset: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let filled = ok(cc_pread(fd, &bytes, count, offset))
        return Array(bytes.prefix(max(0, filled)))
    }
    func text(_ path: String, line: Int = #line) -> String {
        let file = fd(path, line: line)
        defer { close(file) }
        return String(decoding: read(file, 65536), as: UTF8.self)
    }

    /// A new file with contents and, whatever the umask, this mode and owner.
    func file(
        _ path: String, _ text: String = "", mode: UInt32 = 0o644, owner: User? = nil,
        group: UInt32? = nil, line: Int = #line
    ) {
        let file = fd(path, O_CREAT | O_EXCL | O_WRONLY, mode: mode, line: line)
        if !text.isEmpty { ok(write(file, text), line: line) }
        close(file)
        own(path, mode, owner, group, line)
    }
    func directory(
        _ path: String, mode: UInt32 = 0o755, owner: User? = nil, group: UInt32? = nil,
        line: Int = #line
    ) {
        ok(mkdir(path, mode), line: line)
        own(path, mode, owner, group, line)
    }
    private func own(
        _ path: String, _ mode: UInt32, _ owner: User?, _ group: UInt32?, _ line: Int
    ) {
        if owner != nil || group != nil {
            ok(chown(path, owner?.id ?? 0, group ?? owner?.group ?? 0), line: line)
        }
        ok(chmod(path, mode), line: line)
    }
    func names(_ path: String) -> [String] {
        let file = fd(path, O_RDONLY | O_DIRECTORY)
        defer { close(file) }
        return DirectoryListing.read(file).map(\.name).filter { $0 != "." && $0 != ".." }.sorted()
    }
}

/// getdents64(2), decoded.
enum DirectoryListing {
    struct Entry {
        var inode: UInt64
        var cookie: Int64
        var kind: UInt8
        var name: String
        /// The name as the kernel gave it, with its NUL.
        var bytes: [CChar]
    }

    static func read(_ fd: Int32) -> [Entry] {
        var all: [Entry] = []
        while true {
            let part = some(fd, 32768).entries
            if part.isEmpty { return all }
            all += part
        }
    }

    /// One call with a buffer of this size.
    static func some(_ fd: Int32, _ size: Int) -> (result: Int, entries: [Entry]) {
        var bytes = [UInt8](repeating: 0, count: size)
        let count = cc_getdents(fd, &bytes, size)
        var entries: [Entry] = []
        var offset = 0
        bytes.withUnsafeBytes { raw in
            while offset < count {
                let length = Int(raw.loadUnaligned(fromByteOffset: offset + 16, as: UInt16.self))
                let name = raw[(offset + 19)..<(offset + length)].prefix { $0 != 0 }
                entries.append(
                    Entry(
                        inode: raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self),
                        cookie: raw.loadUnaligned(fromByteOffset: offset + 8, as: Int64.self),
                        kind: raw[offset + 18], name: String(decoding: name, as: UTF8.self),
                        bytes: name.map { CChar(bitPattern: $0) } + [0]))
                offset += length
            }
        }
        return (count, entries)
    }
}
