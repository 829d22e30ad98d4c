/// Daemons seen from outside: the records whose lock is held.
internal import Glibc

struct LiveMount: Sendable {
    private(set) var record: MountRecord
    private let file: Descriptor
    private static let recordLimit = 64 << 10

    /// Every daemon that runs and that this user may see.
    static func all() -> [LiveMount] {
        ControlDirectory.searched.flatMap { directory in
            directoryNames(directory).filter { $0.hasSuffix(".json") }.compactMap { name in
                LiveMount(path: "\(directory)/\(name)", isOwn: directory == ControlDirectory.own)
            }
        }
    }

    /// The daemon that works on a device or image, under whatever name.
    static func of(_ identity: DeviceIdentity) -> LiveMount? {
        let aliases = identity.aliases
        return all().first { aliases.contains($0.record.identity) }
    }

    /// The daemon whose image had this name when it was mounted.
    static func of(formerPath path: String) -> LiveMount? {
        guard let resolved = Paths.resolve(path) else { return nil }
        return all().first { Paths.areEqual($0.record.device, resolved) }
    }

    /// The daemon behind a mount.
    static func of(_ mount: MountTable.Entry) -> LiveMount? {
        all().first { $0.record.mountDevice == mount.device }
    }

    private init?(path: String, isOwn: Bool) {
        // Other users own the directories that root looks into: no links, nothing that blocks.
        guard let file = Descriptor.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) else {
            return nil
        }
        if file.tryLock(.shared) {
            if isOwn { Self.removeLeftover(path, file) }
            return nil
        }
        guard let record = Self.read(file) else { return nil }
        self.file = file
        self.record = record
    }

    /// A daemon was killed: nobody holds the lock, the files are still there.
    private static func removeLeftover(_ path: String, _ file: Descriptor) {
        guard file.tryLock(.exclusive), let record = read(file) else { return }
        // It may have ended by itself since the file was opened, and the name be another daemon's.
        guard let named = fileStatus(path, followLinks: false), let opened = file.status,
            named.st_ino == opened.st_ino, named.st_dev == opened.st_dev
        else { return }
        unlink(path)
        unlink(record.socket)
    }

    private static func read(_ file: Descriptor) -> MountRecord? {
        // The daemon may be writing just now.
        for _ in 0..<20 {
            var buffer = [UInt8](repeating: 0, count: recordLimit)
            let count = pread(file.raw, &buffer, buffer.count, 0)
            if count > 0,
                let record = JSONOutput.decode(MountRecord.self, from: Array(buffer[..<count]))
            {
                return record
            }
            sleep(milliseconds: 5)
        }
        return nil
    }

    /// The record as it is now.
    var latest: MountRecord { Self.read(file) ?? record }

    var hasEnded: Bool {
        guard file.tryLock(.shared) else { return false }
        flock(file.raw, LOCK_UN)
        return true
    }

    /// The daemon's mount as the daemon sees it; nil if it has none (any more).
    var mount: MountTable.Entry? {
        let table = MountTable.current(process: "\(record.pid)") ?? MountTable.current()
        return table?.entries.last { $0.isAegisFS && $0.device == record.mountDevice }
    }

    /// Whether it was unmounted and only writes back what it has.
    var isFinishing: Bool {
        switch latest.state {
        case .starting: false
        case .mounted: mount == nil
        case .finishing, .closed: true
        }
    }

    var description: String {
        let process = ProcessInfo(id: record.pid)
        return switch latest.state {
        case .starting: "\(process.description) is mounting it on \(record.mountpoint)"
        case .mounted where mount != nil:
            "\(process.description) has it mounted on \(record.mountpoint)"
        case .mounted, .finishing, .closed: "\(process.description) is finishing an unmount"
        }
    }
}
