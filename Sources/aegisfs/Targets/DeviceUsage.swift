/// Who uses an image or a block device, apart from a lock on it: what must keep `format` and
/// `mount` from touching it.
internal import Glibc

struct DeviceUse: Sendable {
    enum Kind: Sendable {
        case mounted, swap, holder
        /// A loop device is attached, but as far as one can see idle.
        case attachedLoop
    }
    let kind: Kind
    /// Goes after the name of the target: "is mounted on /mnt".
    let description: String
    /// How to end the use; nil if that depends.
    var cure: String?
}

enum DeviceUsage {
    static func uses(of path: String) -> [DeviceUse] {
        guard let identity = DeviceIdentity(path: path) else { return [] }
        var uses: [DeviceUse] = []
        for alias in identity.aliases {
            uses += mounts(of: alias) + swaps(of: alias)
            if let number = alias.blockNumber { uses += holders("/sys/dev/block/\(number)") }
        }
        for loop in LoopDevice.all() where loop.backing == identity {
            uses.append(
                DeviceUse(kind: .attachedLoop, description: "is attached to \(loop.path)"))
        }
        return uses
    }

    /// Mounts of kernel filesystems. Our own daemons hold a lock instead.
    private static func mounts(of identity: DeviceIdentity) -> [DeviceUse] {
        let number = identity.blockNumber
        return (MountTable.current()?.entries ?? []).filter { entry in
            guard !entry.isAegisFS else { return false }
            // Some filesystems, as btrfs, show a number of their own: compare the source, too.
            return entry.device == number
                || entry.source.hasPrefix("/") && DeviceIdentity(path: entry.source) == identity
        }.map {
            DeviceUse(
                kind: .mounted, description: "is mounted on \($0.mountpoint) (\($0.type))",
                cure: "'umount \($0.mountpoint)' frees it")
        }
    }

    private static func swaps(of identity: DeviceIdentity) -> [DeviceUse] {
        (fileText("/proc/swaps") ?? "").split(separator: "\n").dropFirst().compactMap { line in
            guard let name = line.split(whereSeparator: \.isWhitespace).first,
                DeviceIdentity(path: String(name)) == identity
            else { return nil }
            return DeviceUse(
                kind: .swap, description: "is used as swap", cure: "'swapoff \(name)' frees it")
        }
    }

    /// Devices built upon this one, and whatever uses its partitions.
    private static func holders(_ directory: String) -> [DeviceUse] {
        var uses = directoryNames("\(directory)/holders").map { name in
            let title = fileText("/sys/block/\(name)/dm/name")?.split(separator: "\n").first
            return DeviceUse(
                kind: .holder,
                description: "is part of \(title.map { "/dev/mapper/\($0)" } ?? "/dev/\(name)")",
                cure: "close that device, or take this one out of it")
        }
        for name in directoryNames(directory)
        where fileStatus("\(directory)/\(name)/partition") != nil {
            guard let identity = DeviceIdentity(path: "/dev/\(name)") else { continue }
            let parts = mounts(of: identity) + swaps(of: identity) + holders("\(directory)/\(name)")
            uses += parts.map {
                DeviceUse(
                    kind: $0.kind,
                    description: "has a partition, /dev/\(name), which \($0.description)",
                    cure: $0.cure)
            }
        }
        return uses
    }
}
