/// What /proc tells about other processes: who holds a lock, and who uses a mount.
///
/// Everything here races with those processes, and an unprivileged caller sees only its own; the
/// answers are for messages, never for a decision about data.
internal import CBlkid
internal import Glibc

struct ProcessInfo: Equatable, Sendable {
    let id: Int32
    /// The command line, shortened.
    let command: String

    init(id: Int32) {
        self.id = id
        let words = (fileContents("/proc/\(id)/cmdline") ?? []).split(separator: 0)
        let line = words.map { String(decoding: $0, as: UTF8.self) }.joined(separator: " ")
        let name = fileText("/proc/\(id)/comm")?.split(separator: "\n").first.map(String.init)
        let text = line.isEmpty ? name ?? "?" : line
        command = text.count > 60 ? text.prefix(57) + "..." : text
    }

    var description: String { "pid \(id) (\(command))" }

    /// Whether a signal has stopped it (proc_pid_stat(5)).
    static func isStopped(_ id: Int32) -> Bool {
        // The command's name, in parentheses, may have anything in it.
        let state = fileText("/proc/\(id)/stat")?.split(separator: ")").last?.dropFirst().first
        return state == "T" || state == "t"
    }
}

enum ProcessTable {
    static func processIDs() -> [Int32] { directoryNames("/proc").compactMap { Int32($0) } }

    /// The processes that hold flock(2) locks on an image or device node.
    static func lockHolders(of path: String) -> [ProcessInfo] {
        guard let status = fileStatus(path) else { return [] }
        // `1: FLOCK ADVISORY WRITE 812 fe:00:131 0 EOF`: numbers of the device in hexadecimal.
        let inode = "\(status.st_ino)"
        let major = UInt64(gnu_dev_major(status.st_dev))
        let minor = UInt64(gnu_dev_minor(status.st_dev))
        var holders: [Int32] = []
        for line in (fileText("/proc/locks") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count >= 6, fields[1] == "FLOCK", let id = Int32(fields[4]), id > 0 else {
                continue
            }
            let place = fields[5].split(separator: ":")
            if place.count == 3, UInt64(place[0], radix: 16) == major,
                UInt64(place[1], radix: 16) == minor, place[2] == inode
            {
                holders.append(id)
            }
        }
        // Some filesystems show another device number in /proc/locks than in stat(2).
        return holders.isEmpty ? openers(of: path) : holders.map(ProcessInfo.init(id:))
    }

    /// The other processes that have a file or device open.
    static func openers(of path: String) -> [ProcessInfo] {
        guard let wanted = DeviceIdentity(path: path) else { return [] }
        return processIDs().filter { id in
            id != getpid()
                && directoryNames("/proc/\(id)/fd").contains { descriptor in
                    DeviceIdentity(path: "/proc/\(id)/fd/\(descriptor)") == wanted
                }
        }.map(ProcessInfo.init(id:))
    }

    /// The processes that keep a mount busy.
    ///
    /// No file on the mount is touched, since its daemon may hang: working and root directories are
    /// compared by their names, open files by the mount's id, mappings by the device number.
    static func users(of mount: MountTable.Entry) -> [ProcessInfo] {
        processIDs().filter { uses($0, mount) }.map(ProcessInfo.init(id:))
    }

    private static func uses(_ id: Int32, _ mount: MountTable.Entry) -> Bool {
        let directory = "/proc/\(id)"
        for link in ["cwd", "root"] {
            if let target = linkTarget("\(directory)/\(link)"),
                Paths.isInside(target, mount.mountpoint)
            {
                return true
            }
        }
        for descriptor in directoryNames("\(directory)/fdinfo") {
            let lines = (fileText("\(directory)/fdinfo/\(descriptor)") ?? "").split(separator: "\n")
            if let line = lines.first(where: { $0.hasPrefix("mnt_id:") }),
                line.split(whereSeparator: \.isWhitespace).last.flatMap({ Int($0) }) == mount.id
            {
                return true
            }
        }
        return mappedDevices("\(directory)/maps").contains(mount.device)
    }

    /// The `major:minor` of every mapped file.
    private static func mappedDevices(_ path: String) -> Set<String> {
        var devices: Set<String> = []
        for line in (fileText(path) ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 4)
            guard fields.count >= 4 else { continue }
            let numbers = fields[3].split(separator: ":").compactMap { UInt64($0, radix: 16) }
            if numbers.count == 2 { devices.insert("\(numbers[0]):\(numbers[1])") }
        }
        return devices
    }
}
