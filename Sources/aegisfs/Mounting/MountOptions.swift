/// `-o` of mount(8): what the words mean to the kernel, to the volume and to this program. The last
/// of two opposite words wins.
internal import FSCore
internal import FSModules
internal import Glibc

/// A tree of a volume other than its default head.
struct MountedFiles: Equatable, Sendable {
    var name: String
    /// Else a clone.
    var isSnapshot: Bool
}

struct MountOptions: Equatable, Sendable {
    var isReadOnly = false
    var isRemount = false
    var allowsNonEmpty = false
    var allowOther = geteuid() == 0
    var nosuid = false
    var nodev = false
    var noexec = false
    var sync = false
    var dirsync = false
    var writeback = false
    /// Take requests by io_uring. nil: if the kernel offers it; true logs if it does not.
    var usesRings: Bool?
    var discards = false
    var accessTime = OpenOptions.AccessTimePolicy.relative
    var commitSeconds = 5
    var cacheBytes: UInt64?
    var compression = CompressionSetting.inherited
    var deduplicates = false
    var deduplicationMemory: UInt64?
    /// Whose files are mounted; nil is the default head.
    var files: MountedFiles?
    /// Whose `.snapshots` is; nil: the mount has no such directory.
    var snapshotAccess: SnapshotBrowser.Access? = .root
    /// What mount(8) shows as the source; nil shows the image or device.
    var sourceName: String?
    /// The words as given, to hand on to the daemon.
    private(set) var words: [String] = []

    /// Accepted and without effect here: they are for mount(8), fstab(5) or the kernel's defaults.
    private static let ignored: Set<String> = [
        "defaults", "auto", "noauto", "nofail", "_netdev", "user", "users", "nouser", "owner",
        "group", "_rnetdev", "diratime", "nodiratime", "lazytime", "nolazytime", "iversion",
        "noiversion", "default_permissions", "mand", "nomand", "silent", "loud", "symfollow",
        "comment", "subtype", "norelatime",
        // What mount(8) copies from /proc/mounts for a remount.
        "user_id", "group_id", "rootmode", "fd", "max_read", "blksize",
    ]
    private static let known: [String] = [
        "ro", "rw", "remount", "nonempty", "allow_other", "noallow_other", "nosuid", "suid",
        "nodev", "dev", "noexec", "exec", "sync", "async", "dirsync", "writeback", "nowriteback",
        "io_uring", "noio_uring",
        "noatime",
        "atime", "relatime", "strictatime", "commit", "cache", "compress",
        "nocompress", "dedup", "nodedup", "fsname", "discard", "nodiscard", "snapshot", "head",
        "snapdir",
    ]

    /// - Parameter sloppy: pass over words that are not known, as `mount -s` asks.
    init(_ lists: [String], sloppy: Bool = false) throws(Failure) {
        for word in lists.flatMap({ $0.split(separator: ",") }) {
            try apply(String(word), sloppy: sloppy)
        }
    }

    private mutating func apply(_ word: String, sloppy: Bool) throws(Failure) {
        let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let value = parts.count > 1 ? String(parts[1]) : nil
        words.append(word)
        switch (name, value) {
        case ("ro", nil): isReadOnly = true
        case ("rw", nil): isReadOnly = false
        case ("remount", nil): isRemount = true
        case ("nonempty", nil): allowsNonEmpty = true
        case ("allow_other", nil): allowOther = true
        case ("noallow_other", nil): allowOther = false
        case ("nosuid", nil): nosuid = true
        case ("suid", nil): nosuid = false
        case ("nodev", nil): nodev = true
        case ("dev", nil): nodev = false
        case ("noexec", nil): noexec = true
        case ("exec", nil): noexec = false
        case ("sync", nil): sync = true
        case ("async", nil): sync = false
        case ("dirsync", nil): dirsync = true
        case ("writeback", nil): writeback = true
        case ("nowriteback", nil): writeback = false
        case ("io_uring", nil): usesRings = true
        case ("noio_uring", nil): usesRings = false
        case ("discard", nil): discards = true
        case ("nodiscard", nil): discards = false
        case ("noatime", nil): accessTime = .none
        case ("atime", nil), ("relatime", nil): accessTime = .relative
        case ("strictatime", nil): accessTime = .strict
        case ("fsname", let value?): sourceName = value
        case ("snapshot", let value?):
            files = MountedFiles(name: value, isSnapshot: true)
            isReadOnly = true
        case ("head", let value?): files = MountedFiles(name: value, isSnapshot: false)
        case ("snapdir", let value?):
            switch value {
            case "root": snapshotAccess = .root
            case "owner": snapshotAccess = .owner
            case "all": snapshotAccess = .all
            case "off": snapshotAccess = nil
            default: throw .usage("snapdir: '\(value)' is none of root, owner, all and off")
            }
        case ("commit", let value?):
            guard let seconds = Int(value), (1...3600).contains(seconds) else {
                throw .usage("commit: '\(value)' is not a number of seconds from 1 to 3600")
            }
            commitSeconds = seconds
        case ("compress", let value):
            compression = try CompressionSetting.parse(value ?? "zstd", option: "compress")
        case ("nocompress", nil): compression = .none
        case ("dedup", let value):
            deduplicates = true
            guard let value else { break }
            let bytes = try SizeParser.parse(value, option: "dedup")
            guard FileRequests.memoryRange.contains(bytes) else {
                throw .usage("dedup: '\(value)' is not from 64K to 512M")
            }
            deduplicationMemory = bytes
        case ("nodedup", nil): deduplicates = false
        case ("cache", let value?):
            let bytes = try SizeParser.parse(value, option: "cache")
            guard (4 << 20...1 << 40).contains(bytes) else {
                throw .usage("cache: '\(value)' is not from 4M to 1T")
            }
            cacheBytes = bytes
        default:
            if Self.ignored.contains(name) || name.hasPrefix("x-") || name.hasPrefix("X-")
                || sloppy
            {
                words.removeLast()
                return
            }
            throw .usage(
                "mount option '\(word)' is not known",
                hint: Suggestion.hint(for: name, among: Self.known)
                    ?? "'aegisfs mount --help' lists the options")
        }
    }

    var openOptions: OpenOptions {
        var options = OpenOptions()
        options.readOnly = isReadOnly
        options.accessTime = accessTime
        options.discards = discards
        options.compression = compression
        options.deduplicates = deduplicates
        if let deduplicationMemory { options.deduplicationMemory = Int(deduplicationMemory) }
        options.checkpointIntervalMilliseconds = commitSeconds * 1000
        if let cacheBytes { options.cacheBytes = Int(clamping: cacheBytes) }
        return options
    }
}
