/// Values as the kernel writes them, and as FSCore does: node ids, device numbers, `struct stat`,
/// setattr's choice, inode flags. Pure functions.
internal import CFuse3
package import FSCore
internal import Glibc

/// Parts of a node id (`FuseTags`).
package enum FuseNodeID {
    package static let root: UInt64 = 1
    static let tagShift: UInt64 = 48

    @inline(__always)
    static func inode(_ nodeID: UInt64) -> InodeNumber {
        InodeNumber(nodeID & (InodeNumber.limit - 1))
    }
}

package enum FuseAttributes {
    /// `st_blksize`: what a reader does best to ask for at a time.
    package static let blockSize: UInt32 = 4096

    /// How long the kernel may keep names and attributes. It is the only one to change them, and
    /// it knows what it changed.
    package static let validSeconds: UInt64 = 86400

    /// The protocol's 32-bit device number (`new_encode_dev`): minor 8 bits, major 12, minor 12.
    package static func encode(_ device: DeviceNumber) -> UInt32 {
        device.minor & 0xFF | (device.major & 0xFFF) << 8 | (device.minor & 0xFFF00) << 12
    }

    package static func device(_ encoded: UInt32) -> DeviceNumber {
        DeviceNumber(
            major: encoded >> 8 & 0xFFF, minor: encoded & 0xFF | encoded >> 12 & 0xFFF00)
    }

    static func stat(_ attributes: Attributes) -> stat {
        var result = Glibc.stat()
        result.st_ino = ino_t(attributes.inode.rawValue)
        result.st_mode = attributes.mode
        result.st_nlink = nlink_t(attributes.linkCount)
        result.st_uid = attributes.userID
        result.st_gid = attributes.groupID
        result.st_rdev = dev_t(encode(attributes.device))
        result.st_size = off_t(truncatingIfNeeded: attributes.size)
        result.st_blksize = blksize_t(blockSize)
        result.st_blocks = blkcnt_t(truncatingIfNeeded: attributes.blocks512)
        result.st_atim = timespec(attributes.accessTime)
        result.st_mtim = timespec(attributes.modificationTime)
        result.st_ctim = timespec(attributes.changeTime)
        return result
    }

    /// What SETATTR asks for. `valid` has the protocol's `FATTR_*` bits; libfuse passes on the
    /// one called `FATTR_KILL_SUIDGID` as `FUSE_SET_ATTR_KILL_SUID`.
    static func changes(_ stat: stat, valid: Int32) -> AttributeChanges {
        var changes = AttributeChanges()
        if valid & FUSE_SET_ATTR_MODE != 0 { changes.mode = stat.st_mode & ModeBits.permissions }
        // With neither an owner nor a group a chown arrives as a change of nothing.
        let everything =
            FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW
            | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME
        changes.isChown =
            valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) != 0 || valid & everything == 0
        if valid & FUSE_SET_ATTR_UID != 0 { changes.userID = stat.st_uid }
        if valid & FUSE_SET_ATTR_GID != 0 { changes.groupID = stat.st_gid }
        if valid & FUSE_SET_ATTR_SIZE != 0 {
            changes.size = UInt64(bitPattern: Int64(stat.st_size))
        }
        if valid & FUSE_SET_ATTR_ATIME_NOW != 0 {
            changes.accessTime = .now
        } else if valid & FUSE_SET_ATTR_ATIME != 0 {
            changes.accessTime = .at(Timestamp(stat.st_atim))
        }
        if valid & FUSE_SET_ATTR_MTIME_NOW != 0 {
            changes.modificationTime = .now
        } else if valid & FUSE_SET_ATTR_MTIME != 0 {
            changes.modificationTime = .at(Timestamp(stat.st_mtim))
        }
        if valid & FUSE_SET_ATTR_CTIME != 0 { changes.changeTime = Timestamp(stat.st_ctim) }
        return changes
    }

    /// Whether who sets the size may not leave set-user-id as it is (`FATTR_KILL_SUIDGID`).
    static func dropsPrivileges(_ valid: Int32) -> Bool { valid & FUSE_SET_ATTR_KILL_SUID != 0 }
}

extension timespec {
    fileprivate init(_ time: Timestamp) {
        self.init(tv_sec: time_t(time.seconds), tv_nsec: Int(time.nanoseconds))
    }
}

extension Timestamp {
    fileprivate init(_ time: timespec) {
        self.init(
            seconds: Int64(time.tv_sec),
            nanoseconds: UInt32(clamping: min(max(time.tv_nsec, 0), 999_999_999)))
    }
}

/// The flags of FS_IOC_FSGETXATTR (`FS_XFLAG_*`) and those of FS_IOC_GETFLAGS (`FS_*_FL`).
package enum FuseInodeFlags {
    private static let pairs: [(extended: UInt32, plain: UInt32)] = [
        (0x008, InodeFlags.immutable), (0x010, InodeFlags.append), (0x020, InodeFlags.sync),
        (0x040, InodeFlags.noAccessTime), (0x080, InodeFlags.noDump),
        (0x200, InodeFlags.projectInherit),
    ]

    package static func extended(_ flags: UInt32) -> UInt32 {
        pairs.reduce(0) { flags & $1.plain != 0 ? $0 | $1.extended : $0 }
    }

    /// `flags` with those replaced that have an extended form.
    package static func replacing(
        _ flags: UInt32, with extended: UInt32
    ) throws(FSError) -> UInt32 {
        var result = flags
        var unknown = extended
        for pair in pairs {
            result = extended & pair.extended != 0 ? result | pair.plain : result & ~pair.plain
            unknown &= ~pair.extended
        }
        guard unknown == 0 else { throw .notSupported }
        return result
    }
}
