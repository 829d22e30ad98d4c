/// Limits that the kernel sets on every FUSE mount because it does not trust its server, and that
/// make it slow: 128 KiB of readahead, and one percent of the dirty memory, strictly.
///
/// Only root may lift them. INIT may lower the readahead but not raise it, so this comes after.
internal import FSCore
internal import Glibc

enum BackingDeviceLimits {
    private static let values = [
        // The largest READ. A fault in a mapped file reads as much around it, hence no more.
        (name: "read_ahead_kb", value: "1024"),
        (name: "max_ratio", value: "100"),
        (name: "strict_limit", value: "0"),
    ]

    /// Failures are ignored: the mount then works more slowly.
    static func raise(_ device: DeviceNumber) {
        for (name, value) in values {
            let path = "/sys/class/bdi/\(device.major):\(device.minor)/\(name)"
            let descriptor = open(path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            _ = write(descriptor, value, value.utf8.count)
            close(descriptor)
        }
    }
}
