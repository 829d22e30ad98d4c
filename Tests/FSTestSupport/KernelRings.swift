/// The kernel's switch for FUSE requests by io_uring. It is off by default and counts for the whole
/// machine, so it is on only while a test mounts, and then again what it was.
internal import Glibc

public enum KernelRings {
    private static let parameter = "/sys/module/fuse/parameters/enable_uring"

    /// Why requests cannot come by io_uring here; nil if they can.
    public static let obstacle: String? =
        TestMachine.mountObstacle
        ?? (access(parameter, W_OK) == 0 ? nil : "no switch \(parameter) (Linux 6.14)")

    /// Runs `body` while the kernel offers io_uring to whoever mounts. Other processes that do the same
    /// wait.
    static func whileOffered(_ body: () throws -> Void) throws {
        let descriptor = open(parameter, O_RDWR)
        guard descriptor >= 0 else { throw ProcessFailure("\(parameter): \(errno)") }
        defer { close(descriptor) }
        flock(descriptor, LOCK_EX)
        var before: [UInt8] = [0, 0]
        guard pread(descriptor, &before, 2, 0) > 0, pwrite(descriptor, "Y", 1, 0) == 1 else {
            throw ProcessFailure("\(parameter): \(errno)")
        }
        defer { pwrite(descriptor, before, 1, 0) }
        try body()
    }
}
