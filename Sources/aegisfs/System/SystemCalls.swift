/// Thin wrappers of system calls: C buffers in, Swift values out, EINTR retried.
internal import Glibc

/// strerror(3), which is thread-safe in glibc for known numbers.
func systemMessage(_ error: Int32) -> String { String(cString: strerror(error)) }

/// Closes its descriptor when it goes.
final class Descriptor: Sendable {
    let raw: Int32
    init(_ raw: Int32) { self.raw = raw }
    deinit { Glibc.close(raw) }

    /// Opens close-on-exec; nil leaves the reason in `errno`.
    static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) -> Descriptor? {
        while true {
            let raw = Glibc.open(path, flags | O_CLOEXEC, mode)
            if raw >= 0 { return Descriptor(raw) }
            if errno != EINTR { return nil }
        }
    }

    /// A pipe whose ends are close-on-exec.
    static func pipe() -> (read: Descriptor, write: Descriptor)? {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { return nil }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    /// Writes everything; false if that was not possible.
    func write(_ bytes: [UInt8]) -> Bool {
        var position = 0
        while position < bytes.count {
            let written = bytes.withUnsafeBytes {
                Glibc.write(raw, $0.baseAddress! + position, bytes.count - position)
            }
            if written >= 0 {
                position += written
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Reads to the end, or `limit` bytes; nil on an error.
    func readAll(limit: Int = .max) -> [UInt8]? {
        var result: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while result.count < limit {
            let count = Glibc.read(raw, &chunk, min(chunk.count, limit - result.count))
            if count == 0 { break }
            if count > 0 {
                result += chunk[..<count]
            } else if errno != EINTR {
                return nil
            }
        }
        return result
    }

    /// fstat(2); nil leaves the reason in `errno`.
    var status: stat? {
        var result = stat()
        return fstat(raw, &result) == 0 ? result : nil
    }
    /// What a name in this directory is, without following it; nil if there is none.
    func status(of name: String) -> stat? {
        var result = stat()
        return fstatat(raw, name, &result, Int32(AT_SYMLINK_NOFOLLOW)) == 0 ? result : nil
    }

    /// Takes a whole-file lock without waiting; false if somebody else holds it.
    func tryLock(_ kind: LockKind) -> Bool {
        flock(raw, (kind == .shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0
    }
    enum LockKind: Sendable { case shared, exclusive }
}

/// What stat(2) says; nil leaves the reason in `errno`.
func fileStatus(_ path: String, followLinks: Bool = true) -> stat? {
    var result = stat()
    let outcome = followLinks ? stat(path, &result) : lstat(path, &result)
    return outcome == 0 ? result : nil
}

extension stat {
    var kind: mode_t { st_mode & S_IFMT }
    var isRegular: Bool { kind == S_IFREG }
    var isDirectory: Bool { kind == S_IFDIR }
    var isBlockDevice: Bool { kind == S_IFBLK }
}

/// The whole of a small file such as those in /proc and /sys; nil if it cannot be read.
func fileContents(_ path: String) -> [UInt8]? {
    // A limit, so that a path that is no small file cannot eat the memory.
    Descriptor.open(path, O_RDONLY)?.readAll(limit: 64 << 20)
}

func fileText(_ path: String) -> String? {
    fileContents(path).map { String(decoding: $0, as: UTF8.self) }
}

/// The names in a directory without `.` and `..`; empty if it cannot be read.
func directoryNames(_ path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// The target of a symbolic link; nil if it is none.
func linkTarget(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = buffer.withUnsafeMutableBytes {
        readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
    }
    return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
}

/// Sleeps, whatever signals arrive.
func sleep(milliseconds: Int) {
    var left = timespec(
        tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
    while true {
        var rest = timespec()
        if nanosleep(&left, &rest) == 0 || errno != EINTR { return }
        left = rest
    }
}
