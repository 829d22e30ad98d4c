/// Callbacks about what stat, statfs and lsattr show.
internal import CFuse3
internal import FSCore
internal import Glibc

/// Requests of ioctl_iflags(2) and ioctl_xfs_fsgetxattr(2), whose numbers hold the direction and
/// size of their argument.
private enum InodeIoctl {
    /// FS_IOC_GETFLAGS, FS_IOC_SETFLAGS: an int, although the number says long.
    static let getFlags: UInt32 = 0x8008_6601
    static let setFlags: UInt32 = 0x4008_6602
    /// FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR: `struct fsxattr` with flags, extent size, extents,
    /// project id.
    static let getExtended: UInt32 = 0x801C_581F
    static let setExtended: UInt32 = 0x401C_5820
    /// FS_IOC_SHUTDOWN. Its argument is said to be an output, so it does not arrive here.
    static let shutDown: UInt32 = 0x8004_587D

    static let extendedLength = 28
    static let extendedProjectOffset = 12
}

/// FITRIM of ioctl_fitrim(2): `struct fstrim_range` with start, length and smallest run, in bytes; the
/// whole volume is trimmed, whatever the range.
private enum TrimIoctl {
    static let trim: UInt32 = 0xC018_5879
    static let length = 24
    static let lengthOffset = 8
    static let minimumOffset = 16
}

extension FuseOperations {
    static func addAttributes(to table: inout fuse_lowlevel_ops) {
        table.getattr = { handle, nodeID, _ in
            let request = FuseRequest(handle)
            guard request.isInHead(nodeID) else {
                return request.replySnapshotAttributes(nodeID)
            }
            request.serve("getattr", nodeID) { (fileSystem, inode) throws(FSError) in
                request.reply(attributes: try fileSystem.attributes(of: inode))
            }
        }
        table.setattr = { handle, nodeID, stat, valid, _ in
            let request = FuseRequest(handle)
            var changes = FuseAttributes.changes(stat.unsafelyUnwrapped.pointee, valid: valid)
            if changes.isChown {
                changes.user = request.ordinaryUser
            } else if FuseAttributes.dropsPrivileges(valid) {
                changes.user = request.caller
            }
            request.serve("setattr", nodeID) { (fileSystem, inode) throws(FSError) in
                request.reply(attributes: try fileSystem.setAttributes(of: inode, changes))
            }
        }
        table.readlink = { handle, nodeID in
            let request = FuseRequest(handle)
            request.serve("readlink", nodeID) { (fileSystem, inode) throws(FSError) in
                request.reply(linkTarget: try fileSystem.symbolicLinkTarget(of: inode))
            }
        }
        table.statfs = { handle, _ in
            let request = FuseRequest(handle)
            request.withFileSystem { request.reply(statistics: $0.statistics()) }
        }
        table.ioctl = { handle, nodeID, command, _, _, _, input, inputCount, outputCount in
            let request = FuseRequest(handle)
            let output = request.memory(outputCount)
            request.serve("ioctl", nodeID) { (fileSystem, inode) throws(FSError) in
                switch command {
                case InodeIoctl.getFlags where outputCount >= 4:
                    output.zeroAll()
                    output.store(try fileSystem.attributes(of: inode).flags, at: 0)
                    request.reply(ioctl: output.view)
                case InodeIoctl.setFlags where inputCount >= 4:
                    let input = ByteView(base: input.unsafelyUnwrapped, count: inputCount)
                    try fileSystem.setFlags(of: inode, input.u32(0), projectID: nil)
                    request.forgetAttributes(of: nodeID)
                    request.reply(ioctl: output.view.slice(0, 0))
                case InodeIoctl.getExtended where outputCount >= InodeIoctl.extendedLength:
                    let attributes = try fileSystem.attributes(of: inode)
                    output.zeroAll()
                    output.store(FuseInodeFlags.extended(attributes.flags), at: 0)
                    output.store(attributes.projectID, at: InodeIoctl.extendedProjectOffset)
                    request.reply(ioctl: output.view)
                case InodeIoctl.setExtended where inputCount >= InodeIoctl.extendedLength:
                    let input = ByteView(base: input.unsafelyUnwrapped, count: inputCount)
                    let flags = try FuseInodeFlags.replacing(
                        try fileSystem.attributes(of: inode).flags, with: input.u32(0))
                    try fileSystem.setFlags(
                        of: inode, flags, projectID: input.u32(InodeIoctl.extendedProjectOffset))
                    request.forgetAttributes(of: nodeID)
                    request.reply(ioctl: output.view.slice(0, 0))
                case InodeIoctl.shutDown:
                    guard !request.isOrdinaryUser else { throw .notPermitted }
                    try fileSystem.shutDown()
                    request.reply(ioctl: output.view.slice(0, 0))
                case TrimIoctl.trim
                where inputCount >= TrimIoctl.length && outputCount >= TrimIoctl.length:
                    guard !request.isOrdinaryUser else { throw .notPermitted }
                    let input = ByteView(base: input.unsafelyUnwrapped, count: inputCount)
                    let trimmed = try fileSystem.trim(
                        minimum: input.u64(TrimIoctl.minimumOffset))
                    output.zeroAll()
                    output.store(trimmed, at: TrimIoctl.lengthOffset)
                    request.reply(ioctl: output.view)
                default:
                    request.fail(ENOTTY)
                }
            }
        }
    }
}
