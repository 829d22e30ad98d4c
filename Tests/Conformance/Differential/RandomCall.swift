/// One system call of a random sequence, with everything that it is called with.
///
/// - Invariant: a call depends on the seed and its number only, never on what earlier calls gave, so
///   every process of a run makes the same sequence for itself.
/// - Invariant: no path leads out of the directory of the run: `..` follows a name only, and links
///   point to names only.
internal import CCalls
internal import FSTestSupport
internal import Glibc

struct RandomCall {
    enum Kind: CaseIterable {
        case open, openDirectory, close, read, pread, write, pwrite, seek, truncate, ftruncate
        case fallocate, copyRange, sendfile, mapWrite, mapRead, mkdir, rmdir, mknod, link, symlink
        case readlink, unlink, rename, chmod, fchmod, chown, fchown, utimens, futimens, access, list
        case setAttribute, getAttribute, listAttributes, removeAttribute, setACL, stat, fstat
        case synchronize, lock, umask, unnamed, linkDescriptor, handle
    }

    var worker: Int
    var kind: Kind
    /// The open directory that paths start from.
    var base: Int
    var path: String
    var other: String
    /// Places in the worker's table of descriptors.
    var slot: Int
    var otherSlot: Int
    var flags: Int32
    var mode: UInt32
    var offset: Int
    var otherOffset: Int
    var count: Int
    var fill: UInt8
    var user: UInt32
    var group: UInt32
    var times: [cc_timespec]

    static let slots = 6
    static let bases = 4

    var description: String {
        "\(kind) worker \(worker) base \(base) '\(Self.shown(path))' '\(Self.shown(other))' "
            + "slots \(slot),\(otherSlot) flags 0x\(String(flags, radix: 16)) "
            + "mode 0o\(String(mode, radix: 8)) offsets \(offset),\(otherOffset) count \(count) "
            + "ids \(Int32(bitPattern: user)):\(Int32(bitPattern: group)) "
            + "times \(times.map { "\($0.seconds).\($0.nanoseconds)" })"
    }

    private static func shown(_ path: String) -> String {
        path.utf8.count > 80 ? "\(path.prefix(20))... (\(path.utf8.count))" : path
    }
}

/// Draws calls. What is likely keeps the tree small and busy: few names, short paths, small files.
struct RandomCalls {
    private var random: SeededRandom
    private let workers: Int

    init(seed: UInt64, workers: Int) {
        random = SeededRandom(seed: seed)
        self.workers = workers
    }

    private static let weights: [(weight: Int, value: RandomCall.Kind)] = [
        (14, .open), (4, .openDirectory), (6, .close), (4, .read), (5, .pread), (7, .write),
        (7, .pwrite), (3, .seek), (3, .truncate), (4, .ftruncate), (5, .fallocate), (3, .copyRange),
        (1, .sendfile), (3, .mapWrite), (2, .mapRead), (8, .mkdir), (4, .rmdir), (3, .mknod),
        (6, .link), (5, .symlink), (2, .readlink), (7, .unlink), (10, .rename), (6, .chmod),
        (2, .fchmod), (5, .chown), (2, .fchown), (4, .utimens), (2, .futimens), (3, .access),
        (4, .list), (5, .setAttribute), (3, .getAttribute), (2, .listAttributes),
        (3, .removeAttribute), (4, .setACL), (6, .stat), (4, .fstat), (1, .synchronize), (1, .lock),
        (1, .umask), (1, .unnamed), (1, .linkDescriptor), (1, .handle),
    ]

    mutating func next() -> RandomCall {
        let kind = random.weighted(Self.weights)
        let worker = random.below(workers)
        // Behind FUSE a stranger's chown to nobody and no group is not refused.
        let group: UInt32 = random.pick([
            0, User.alice.group, User.bob.group, User.sharedGroup, worker == 0 ? .max : 0,
        ])
        return RandomCall(
            worker: worker, kind: kind,
            base: random.chance(2, in: 3) ? 0 : random.below(RandomCall.bases), path: path(),
            other: kind == .setAttribute || kind == .getAttribute || kind == .removeAttribute
                ? attributeName() : path(),
            slot: random.below(RandomCall.slots), otherSlot: random.below(RandomCall.slots),
            flags: flags(kind), mode: mode(kind), offset: offset(), otherOffset: offset(),
            count: random.pick([0, 1, 10, 511, 700, 4096, 4096, 5000, 8192, 20_000, 70_000]),
            fill: UInt8(truncatingIfNeeded: random.next()),
            user: random.pick([0, User.alice.id, User.bob.id, .max]),
            group: group,
            times: [time(), time()])
    }

    private static let names = ["a", "b", "c", "d", "e"]

    private mutating func name() -> String {
        switch random.below(60) {
        case 0: String(repeating: "n", count: 255)
        case 1: String(repeating: "n", count: 256)
        case 2: "."
        default: random.pick(Self.names)
        }
    }

    private mutating func path() -> String {
        switch random.below(200) {
        case 0: return ""
        case 1: return random.pick(Self.names) + "/.."
        case 2: return random.pick(Self.names) + "/../" + random.pick(Self.names)
        case 3: return String(repeating: "a/", count: 2100)
        case 4...8: return name() + "/"
        default:
            let depth = random.pick([1, 1, 1, 2, 2, 3])
            return (0..<depth).map { _ in name() }.joined(separator: "/")
        }
    }

    private mutating func attributeName() -> String {
        random.pick([
            "user.a", "user.b", "user.c", "user." + String(repeating: "l", count: 250), "user.",
            "trusted.a", "security.a", "security.capability", "nothing.a", "system.a",
            "system.posix_acl_access", "system.posix_acl_default",
        ])
    }

    private mutating func flags(_ kind: RandomCall.Kind) -> Int32 {
        switch kind {
        case .open:
            var flags = random.pick([O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR])
            if random.chance(3, in: 5) { flags |= O_CREAT }
            for (chance, flag) in [
                (5, O_EXCL), (5, O_TRUNC), (5, O_APPEND), (20, O_NOFOLLOW), (30, O_DIRECTORY),
                (20, O_SYNC), (30, Flag.noAccessTime), (40, Flag.path),
            ] where random.chance(1, in: chance) { flags |= flag }
            // The kernel's own answer to this pair changed from version to version.
            if flags & O_CREAT != 0 { flags &= ~O_DIRECTORY }
            return flags | O_NONBLOCK
        case .fallocate:
            return random.pick([0, 0, 1, 1, 3, 3, 2, 16, 17])
        // Without RENAME_WHITEOUT: what a whiteout inherits differs among filesystems.
        case .rename: return random.pick([0, 0, 0, 0, 1, 2, 2, 3])
        case .link: return random.pick([0, 0, Flag.followSymlink])
        case .stat, .chown, .utimens: return random.pick([0, Flag.noFollowSymlink])
        case .seek: return random.pick([0, 0, 1, 2, 3, 4, 9])
        case .setAttribute: return random.pick([0, 0, 0, 1, 2])
        case .access: return random.pick([0, 1, 2, 4, 6, 7])
        case .lock: return random.pick([1, 2, 8]) | 4
        default: return 0
        }
    }

    private mutating func mode(_ kind: RandomCall.Kind) -> UInt32 {
        let permissions = random.pick([
            0o644, 0o666, 0o600, 0o755, 0o777, 0o700, 0o000, 0o444, 0o4755, 0o2755, 0o6777, 0o1777,
            0o2775, 0o2644, 0o070, 0o007,
        ])
        guard kind == .mknod else { return UInt32(permissions) }
        return UInt32(permissions)
            | random.pick([S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, 0, S_IFDIR])
    }

    private mutating func offset() -> Int {
        switch random.below(20) {
        case 0: -1
        case 1: random.below(2 << 20)
        case 2...8: random.below(24) << 12
        default: random.below(40_000)
        }
    }

    /// Far from the present, or one of the two special values: so a time that a call moved is told
    /// from one that was set.
    private mutating func time() -> cc_timespec {
        let nanoseconds = random.pick([
            0, 1, 999_999_999, Flag.timeNow, Flag.timeOmit, 123_456_789, 1_000_000_000,
        ])
        return cc_timespec(
            seconds: Int64(
                random.pick([0, 1, -1, 1_000_000, 900_000_000, -2_000_000_000, 5_000_000_000])),
            nanoseconds: Int64(nanoseconds))
    }
}
