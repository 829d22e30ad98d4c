/// Which device or image a path means, whatever the path is: two paths are the same volume if their
/// identities meet.
///
/// A loop device and its backing file are the same bytes, so each counts as an alias of the other.
internal import CBlkid
internal import Glibc

enum DeviceIdentity: Hashable, Codable, Sendable {
    case file(device: UInt64, inode: UInt64)
    case block(device: UInt64)

    init?(_ status: stat) {
        switch status.kind {
        case S_IFREG: self = .file(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        case S_IFBLK: self = .block(device: UInt64(status.st_rdev))
        default: return nil
        }
    }

    /// nil if the path is neither a regular file nor a block device.
    init?(path: String) {
        guard let status = fileStatus(path), let identity = DeviceIdentity(status) else {
            return nil
        }
        self = identity
    }

    /// `8:1`, as /proc and /sys write a block device.
    var blockNumber: String? {
        guard case .block(let device) = self else { return nil }
        return Self.number(device)
    }

    /// `major:minor` of a device number.
    static func number(_ device: UInt64) -> String {
        "\(gnu_dev_major(dev_t(device))):\(gnu_dev_minor(dev_t(device)))"
    }

    /// The identity itself, the file behind it if it is a loop device, and all loop devices of the
    /// same file.
    var aliases: Set<DeviceIdentity> {
        let loops = LoopDevice.all()
        let file = loops.first { $0.identity == self }?.backing ?? self
        return Set(loops.filter { $0.backing == file }.map(\.identity)).union([self, file])
    }
}

/// A loop device in use.
struct LoopDevice: Sendable {
    /// `/dev/loop0`
    let path: String
    let identity: DeviceIdentity
    /// nil if the backing file has no name any more.
    let backing: DeviceIdentity?
    let backingPath: String

    static func all() -> [LoopDevice] {
        directoryNames("/sys/block").filter { $0.hasPrefix("loop") }.compactMap { name in
            guard let text = fileText("/sys/block/\(name)/loop/backing_file"),
                let identity = DeviceIdentity(path: "/dev/\(name)")
            else { return nil }
            let backingPath = String(decoding: text.utf8.dropLast(), as: UTF8.self)
            return LoopDevice(
                path: "/dev/\(name)", identity: identity,
                backing: DeviceIdentity(path: backingPath), backingPath: backingPath)
        }
    }
}
