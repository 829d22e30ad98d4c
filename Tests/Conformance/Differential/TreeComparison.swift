/// Two directories, compared as far as two filesystems can be equal.
///
/// Times are compared when a call has set them: those are far from the present. For the others it
/// counts whether they have moved since the comparison before.
internal import CCalls
internal import FSTestSupport
internal import Glibc

/// The part of stat(2) that does not depend on the filesystem.
struct ComparedAttributes: Equatable, CustomStringConvertible {
    var mode: UInt16
    var linkCount: UInt32
    var user: UInt32
    var group: UInt32
    /// Zero of a directory.
    var size: UInt64
    var device: UInt32
    /// Set times; `now` for one that a call has moved.
    var times: [String]

    init(_ stat: cc_stat) {
        mode = stat.mode
        linkCount = stat.nlink
        user = stat.uid
        group = stat.gid
        let kind = UInt32(stat.mode) & S_IFMT
        size = kind == S_IFDIR ? 0 : stat.size
        device = kind == S_IFCHR || kind == S_IFBLK ? stat.rdev_major << 8 | stat.rdev_minor : 0
        times = [stat.atime, stat.mtime].map { Self.shown($0) }
    }

    private static func shown(_ time: cc_time) -> String {
        let now = Int64(Glibc.time(nil))
        return abs(time.seconds - now) < 100_000 ? "now" : "\(time.seconds).\(time.nanoseconds)"
    }

    var description: String {
        "mode \(String(mode, radix: 8)) links \(linkCount) owner \(user):\(group) size \(size) "
            + "device \(device) times \(times)"
    }
}

/// What was found at one path.
struct TreeEntry: Equatable {
    var path: String
    var attributes: ComparedAttributes
    /// Which path of the walk was the first with this inode.
    var firstPath: String
    var contents: UInt64
    var extendedAttributes: [String]
    /// Whether ctime and mtime moved since the last look; nil when there was none.
    var moved: [Bool]?

    /// All of it, each in words.
    var facts: [String] {
        [
            path, attributes.description, "same as \(firstPath)", "contents \(contents)",
            "attributes \(extendedAttributes)",
            moved.map { "ctime \($0[0] ? "moved" : "stayed"), mtime \($0[1] ? "moved" : "stayed")" }
                ?? "new",
        ]
    }
}

final class TreeWalk {
    private struct Identity: Hashable {
        var inode: UInt64
        var birth: [Int64]
    }

    private var lastTimes: [Identity: [cc_time]] = [:]

    /// Every path below `root`, in order, as root sees it.
    func entries(of root: Int32) -> [TreeEntry] {
        var found: [TreeEntry] = []
        var firstPaths: [UInt64: String] = [:]
        var times: [Identity: [cc_time]] = [:]
        var directories = [""]
        while let directory = directories.popLast() {
            let opened = open(root, directory.isEmpty ? "." : directory, O_RDONLY | O_DIRECTORY)
            guard opened >= 0 else { continue }
            let names = DirectoryListing.read(opened).map(\.name).filter { $0 != "." && $0 != ".." }
            for name in names.sorted() {
                let path = directory.isEmpty ? name : directory + "/" + name
                var stat = cc_stat()
                guard cc_statx(opened, name, Flag.noFollowSymlink, &stat) >= 0 else { continue }
                let identity = Identity(
                    inode: stat.ino, birth: [stat.btime.seconds, Int64(stat.btime.nanoseconds)])
                let last = lastTimes[identity]
                let current = [stat.ctime, stat.mtime]
                times[identity] = current
                let first = firstPaths[stat.ino, default: path]
                firstPaths[stat.ino] = first
                found.append(
                    TreeEntry(
                        path: path, attributes: ComparedAttributes(stat), firstPath: first,
                        contents: contents(opened, name, UInt32(stat.mode) & S_IFMT),
                        extendedAttributes: attributes(opened, name, UInt32(stat.mode) & S_IFMT),
                        moved: last.map { zip($0, current).map { !Self.isSame($0, $1) } }))
                if UInt32(stat.mode) & S_IFMT == S_IFDIR { directories.append(path) }
            }
            _ = cc_close(opened)
        }
        lastTimes = times
        return found
    }

    private static func isSame(_ a: cc_time, _ b: cc_time) -> Bool {
        a.seconds == b.seconds && a.nanoseconds == b.nanoseconds
    }

    private func open(_ base: Int32, _ path: String, _ flags: Int32) -> Int32 {
        Int32(cc_open(base, path, flags | O_NOFOLLOW | O_NONBLOCK, 0))
    }

    private func contents(_ base: Int32, _ name: String, _ kind: UInt32) -> UInt64 {
        var hash = StableHash()
        if kind == S_IFLNK {
            var target = [UInt8](repeating: 0, count: 4096)
            let count = target.withUnsafeMutableBytes {
                cc_readlink(base, name, $0.baseAddress?.assumingMemoryBound(to: CChar.self), 4096)
            }
            hash.combine(Array(target.prefix(max(count, 0))))
        }
        guard kind == S_IFREG else { return hash.value }
        let file = open(base, name, O_RDONLY)
        defer { _ = cc_close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = cc_read(file, &bytes, bytes.count)
            guard count > 0 else {
                hash.combine(UInt64(bitPattern: Int64(count)))
                return hash.value
            }
            hash.combine(Array(bytes.prefix(count)))
        }
    }

    private func attributes(_ base: Int32, _ name: String, _ kind: UInt32) -> [String] {
        // By path: a link has attributes of its own, and a FIFO is not opened for it.
        guard cc_fchdir(base) >= 0, kind != S_IFLNK else { return [] }
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = cc_listxattr(name, &bytes, bytes.count)
        return AttributeNames.sorted(bytes.prefix(max(count, 0))).map { attribute in
            var value = [UInt8](repeating: 0, count: 70_000)
            let length = cc_getxattr(name, attribute, &value, value.count)
            let shown = value.prefix(min(max(length, 0), 100)).map { String($0, radix: 16) }
            let hash = StableHash(Array(value.prefix(max(length, 0))))
            return "\(attribute) = \(shown.joined(separator: " ")) (\(length), \(hash))"
        }
    }
}
