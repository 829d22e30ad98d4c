/// The table of libfuse's callbacks. Each decodes its arguments, calls `FileSystem` and replies;
/// none decides anything.
///
/// What is not in the table is meant to be missing:
///
/// - `flush`: libfuse answers ENOSYS, and the kernel stops sending it. A write is an operation
///   when it arrives; there is nothing to flush at close.
/// - `release`, `releasedir`: libfuse answers success. There is no state per open file.
/// - `access`: the mount has `default_permissions`.
/// - `getlk`, `setlk`, `flock`: the kernel keeps locks itself.
internal import CFuse3
internal import FSCore
internal import Glibc

enum FuseOperations {
    /// The largest READ and WRITE, which libfuse 3.14 cannot raise.
    static let maximumWrite = 1 << 20

    static func table() -> fuse_lowlevel_ops {
        var table = fuse_lowlevel_ops()
        table.`init` = { userdata, connection in
            guard let userdata, let connection else { return }
            Unmanaged<FuseChannel>.fromOpaque(userdata)._withUnsafeGuaranteedRef {
                FuseOperations.negotiate(&connection.pointee, writeback: $0.writeback)
            }
        }
        addNames(to: &table)
        addAttributes(to: &table)
        addFiles(to: &table)
        addDirectories(to: &table)
        addExtendedAttributes(to: &table)
        return table
    }

    /// Chooses among what the kernel offers.
    private static func negotiate(_ connection: inout fuse_conn_info, writeback: Bool) {
        var wanted =
            FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS
            | FUSE_CAP_IOCTL_DIR | FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL
            | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPORT_SUPPORT
            // "ls" alone must not load every inode; the kernel asks for attributes at the start of
            // a listing, and goes on with it when somebody looks at the entries.
            | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO
            // Cached data is dropped when told, and not because a time has changed: only the
            // kernel changes a file. This takes the place of FUSE_CAP_AUTO_INVAL_DATA, which
            // would empty a file's cache at the first stat after a write.
            | FUSE_CAP_EXPLICIT_INVAL_DATA
        if writeback { wanted |= FUSE_CAP_WRITEBACK_CACHE }
        // Everything else stays off, above all FUSE_CAP_ATOMIC_O_TRUNC, a default of libfuse:
        // the kernel would leave truncation to an open that it never sends.
        connection.want = UInt32(wanted) & connection.capable
        connection.max_write = UInt32(maximumWrite)
        connection.max_background = 64
        connection.congestion_threshold = 48
    }
}
