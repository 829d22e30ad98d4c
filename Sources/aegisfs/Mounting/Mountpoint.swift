/// The directory of a mount, looked at before anything is opened, so that a mistake costs nothing.
internal import Glibc

enum Mountpoint {
    /// Its absolute path, if a volume may be mounted there.
    static func check(_ path: String, allowsNonEmpty: Bool) throws(Failure) -> String {
        guard fileStatus("/dev/fuse") != nil else {
            throw Failure(
                .failed, .noFuseDevice, "/dev/fuse does not exist: the kernel has no FUSE",
                hint: "'modprobe fuse' loads it; a container must be given the device")
        }
        guard let status = fileStatus(path) else {
            if errno == ENOTCONN {
                throw Failure(
                    .busy, .mountpointInUse, "a mount whose daemon has died lies on \(path)",
                    hint: "'aegisfs umount \(path)' clears it away")
            }
            guard errno == ENOENT || errno == ENOTDIR else { throw .system(path, errno) }
            throw Failure(
                .notFound, .mountpointMissing, "the mountpoint \(path) does not exist",
                hint: "'mkdir \(path)' makes it")
        }
        guard status.isDirectory else {
            throw Failure(
                .failed, .mountpointNotDirectory, "the mountpoint \(path) is not a directory")
        }
        guard let resolved = Paths.resolve(path) else { throw .system(path, errno) }
        if let mount = MountTable.current()?.entry(at: resolved) {
            throw Failure(
                .busy, .mountpointInUse,
                "\(path) is a mountpoint already: \(mount.source) (\(mount.type))",
                hint: mount.isAegisFS
                    ? "'aegisfs umount \(path)' frees it" : "choose another directory")
        }
        if !allowsNonEmpty, !directoryNames(resolved).filter({ $0 != "." && $0 != ".." }).isEmpty {
            throw Failure(
                .failed, .mountpointNotEmpty,
                "\(path) is not empty: a mount would hide what is in it",
                hint: "choose an empty directory, or use -o nonempty")
        }
        return resolved
    }
}
