/// Who uses the files of a mount, by whatever path, bind mount or namespace they came to them.
///
/// All questions are answered by the kernel alone: no server is asked, neither ours nor another that may
/// hang. An ordinary user sees only own processes, and nobody sees a descriptor that is on its way
/// through a socket.
internal import CLinux
internal import FSCore
internal import Glibc

struct MountUser: Sendable {
    /// "pid 812 (vi notes)", or what else it is.
    let who: String
    let path: String
    var description: String { "\(who): \(path)" }
}

enum MountUsers {
    /// - Parameter device: `major:minor` of the mount.
    /// - Parameter isMeant: whether an inode counts, by its number.
    static func all(
        of device: String, at mountpoint: String, isMeant: (UInt64) -> Bool
    ) -> [MountUser] {
        let processes = ProcessTable.processIDs().filter { $0 != getpid() }.compactMap { id in
            path(usedBy: id, device, isMeant).map {
                MountUser(who: ProcessInfo(id: id).description, path: $0)
            }
        }
        return processes + loopDevices(device, isMeant) + mounts(below: mountpoint)
    }

    /// One of the paths that a process uses.
    private static func path(
        usedBy id: Int32, _ device: String, _ isMeant: (UInt64) -> Bool
    ) -> String? {
        let directory = "/proc/\(id)"
        let links =
            ["cwd", "root"].map { "\(directory)/\($0)" }
            + directoryNames("\(directory)/fd").map { "\(directory)/fd/\($0)" }
        for link in links {
            if let (found, inode) = place(link), found == device, isMeant(inode) {
                return linkTarget(link) ?? link
            }
        }
        // `7f0c-7f0d r--s 00000000 00:2f 1234    /mnt/file`: the device in hexadecimal.
        for line in (fileText("\(directory)/maps") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard fields.count >= 5, let inode = UInt64(fields[4]), isMeant(inode) else { continue }
            let numbers = fields[3].split(separator: ":").compactMap { UInt64($0, radix: 16) }
            if numbers.count == 2, "\(numbers[0]):\(numbers[1])" == device {
                return fields.count > 5 ? String(fields[5]) : "a mapped file"
            }
        }
        return nil
    }

    private static func place(_ path: String) -> (device: String, inode: UInt64)? {
        var result = statx()
        guard statx(AT_FDCWD, path, cachedStatusFlag, 0, &result) == 0 else { return nil }
        return ("\(result.stx_dev_major):\(result.stx_dev_minor)", result.stx_ino)
    }

    /// The kernel itself has their files open.
    private static func loopDevices(
        _ device: String, _ isMeant: (UInt64) -> Bool
    ) -> [MountUser] {
        LoopDevice.all().compactMap { loop in
            guard let (found, inode) = place(loop.backingPath), found == device, isMeant(inode)
            else { return nil }
            return MountUser(who: loop.path, path: loop.backingPath)
        }
    }

    /// Mounts upon its directories, and overlays that have one as a layer.
    private static func mounts(below mountpoint: String) -> [MountUser] {
        func isBelow(_ path: String) -> Bool {
            Paths.isInside(path, mountpoint) && !Paths.areEqual(path, mountpoint)
        }
        return (MountTable.current()?.entries ?? []).compactMap { entry in
            if isBelow(entry.mountpoint) {
                return MountUser(who: "a mount (\(entry.type))", path: entry.mountpoint)
            }
            guard entry.type == "overlay" else { return nil }
            let layers = entry.superOptions.flatMap { option in
                option.drop { $0 != "=" }.dropFirst().split(separator: ":").map(String.init)
            }
            guard let layer = layers.first(where: { Paths.isInside($0, mountpoint) }) else {
                return nil
            }
            return MountUser(who: "an overlay on \(entry.mountpoint)", path: layer)
        }
    }
}
