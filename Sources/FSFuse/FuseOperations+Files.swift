/// Callbacks about the content of files.
internal import CFuse3
internal import FSCore
internal import Glibc

extension FuseOperations {
    static func addFiles(to table: inout fuse_lowlevel_ops) {
        // With ENOSYS the kernel takes every open for granted and sends neither OPEN nor RELEASE
        // again.
        table.open = { handle, _, file in FuseRequest(handle).open(file) }
        table.read = { handle, nodeID, count, offset, file in
            let request = FuseRequest(handle)
            let flags = file.unsafelyUnwrapped.pointee.flags
            request.serve("read", nodeID) { (fileSystem, inode) throws(FSError) in
                let memory = request.memory(count)
                let filled = try fileSystem.read(
                    inode, at: UInt64(position: offset), into: memory,
                    keepsAccessTime: flags & Int32(AEGIS_O_NOATIME) != 0)
                request.reply(bytes: memory.view.slice(0, filled))
            }
        }
        table.write = { handle, nodeID, bytes, count, offset, _ in
            let request = FuseRequest(handle)
            guard request.isInHead(nodeID) else { return request.refuseWrite(nodeID) }
            let source = ByteView(base: bytes.unsafelyUnwrapped, count: count)
            request.serve("write", nodeID) { (fileSystem, inode) throws(FSError) in
                let written = try fileSystem.write(
                    inode, at: UInt64(position: offset), source,
                    by: request.notes.dropPrivileges ? request.caller : nil)
                request.reply(written: written)
            }
        }
        table.fsync = { handle, nodeID, _, _ in
            let request = FuseRequest(handle)
            request.serve("fsync", nodeID, latched: EIO) { (fileSystem, inode) throws(FSError) in
                try fileSystem.synchronize(inode)
                request.succeed()
            }
        }
        table.fallocate = { handle, nodeID, mode, offset, count, _ in
            let request = FuseRequest(handle)
            let mode = AllocationMode(rawValue: UInt32(bitPattern: mode))
            guard AllocationMode([.keepSize, .punchHole, .zeroRange]).isSuperset(of: mode) else {
                return request.fail(EOPNOTSUPP)
            }
            request.serve("fallocate", nodeID) { (fileSystem, inode) throws(FSError) in
                try fileSystem.allocate(
                    inode, at: UInt64(position: offset), count: UInt64(position: count), mode,
                    by: request.ordinaryUser)
                request.succeed()
            }
        }
        table.lseek = { handle, nodeID, offset, whence, _ in
            let request = FuseRequest(handle)
            request.serve("lseek", nodeID) { (fileSystem, inode) throws(FSError) in
                switch whence {
                case Int32(AEGIS_SEEK_DATA):
                    request.reply(
                        offset: try fileSystem.nextData(inode, from: UInt64(position: offset)))
                case Int32(AEGIS_SEEK_HOLE):
                    request.reply(
                        offset: try fileSystem.nextHole(inode, from: UInt64(position: offset)))
                default:
                    request.fail(EINVAL)
                }
            }
        }
        table.copy_file_range = {
            handle, source, sourceOffset, _, target, targetOffset, _, count, flags in
            let request = FuseRequest(handle)
            guard flags == 0 else { return request.fail(EINVAL) }
            request.serve("copy_file_range", source) { (fileSystem, inode) throws(FSError) in
                let copied = try fileSystem.copyRange(
                    from: inode, at: UInt64(position: sourceOffset),
                    to: try request.inode(target, with: source),
                    at: UInt64(position: targetOffset),
                    count: min(UInt64(count), FuseOperations.maximumCopy),
                    by: request.ordinaryUser)
                request.reply(written: Int(copied))
            }
        }
    }

    /// The largest copy whose length fits the reply of COPY_FILE_RANGE, in whole pages.
    private static let maximumCopy = UInt64(UInt32.max) & ~4095
}

extension UInt64 {
    /// An offset or length of the protocol, which is unsigned there and signed in libfuse.
    @inline(__always)
    fileprivate init(position: off_t) { self.init(bitPattern: Int64(position)) }
}
