/// What callers of `FileSystem` say and hear about inodes: plain values.

/// The kind of an inode, numbered as `d_type` in readdir(3).
public enum FileKind: UInt8, Sendable, CaseIterable {
    case fifo = 1
    case characterDevice = 2
    case directory = 4
    case blockDevice = 6
    case regular = 8
    case symbolicLink = 10
    case socket = 12

    /// The kind in the file-type bits of `st_mode`; nil if they name none.
    @inlinable public init?(mode: UInt32) { self.init(rawValue: UInt8(mode >> 12 & 0xF)) }
    /// The file-type bits of `st_mode`.
    @inlinable public var modeBits: UInt32 { UInt32(rawValue) << 12 }
}

/// Bits of `st_mode` besides the kind (inode(7)).
public enum ModeBits {
    public static let setUserID: UInt32 = 0o4000
    public static let setGroupID: UInt32 = 0o2000
    public static let sticky: UInt32 = 0o1000
    public static let groupExecute: UInt32 = 0o010
    public static let anyExecute: UInt32 = 0o111
    public static let permissions: UInt32 = 0o7777
    public static let kind: UInt32 = 0o170000
}

/// Inode flags of ioctl_iflags(2) (`FS_*_FL`). All are stored as they are but those of compression,
/// which show the property.
public enum InodeFlags {
    public static let append: UInt32 = 0x20
    public static let immutable: UInt32 = 0x10
    public static let compressed: UInt32 = 0x4
    public static let notCompressed: UInt32 = 0x400
    public static let noDump: UInt32 = 0x40
    public static let noAccessTime: UInt32 = 0x80
    public static let sync: UInt32 = 0x8
    public static let directorySync: UInt32 = 0x10000
    public static let topDirectory: UInt32 = 0x20000
    public static let projectInherit: UInt32 = 0x2000_0000
    /// All that `setFlags` accepts.
    public static let settable: UInt32 =
        append | immutable | noDump | noAccessTime | sync | directorySync | topDirectory
        | projectInherit | compression
    static let compression = compressed | notCompressed
}

/// What stat(2) and statx(2) show of an inode.
public struct Attributes: Equatable, Sendable {
    public var inode: InodeNumber
    /// Kind and permission bits, as `st_mode`.
    public var mode: UInt32
    public var linkCount: UInt32
    public var userID: UInt32
    public var groupID: UInt32
    public var device: DeviceNumber
    /// Bytes; of a directory, the number of its entries.
    public var size: UInt64
    /// Space in units of 512 bytes, as `st_blocks`.
    public var blocks512: UInt64
    public var accessTime: Timestamp
    public var modificationTime: Timestamp
    public var changeTime: Timestamp
    public var birthTime: Timestamp
    /// `FS_*_FL` bits.
    public var flags: UInt32
    public var projectID: UInt32
    /// Grows with every change of the inode.
    public var changeSequence: UInt64

    public init(
        inode: InodeNumber, mode: UInt32, linkCount: UInt32, userID: UInt32, groupID: UInt32,
        device: DeviceNumber, size: UInt64, blocks512: UInt64, accessTime: Timestamp,
        modificationTime: Timestamp, changeTime: Timestamp, birthTime: Timestamp, flags: UInt32,
        projectID: UInt32, changeSequence: UInt64
    ) {
        self.inode = inode
        self.mode = mode
        self.linkCount = linkCount
        self.userID = userID
        self.groupID = groupID
        self.device = device
        self.size = size
        self.blocks512 = blocks512
        self.accessTime = accessTime
        self.modificationTime = modificationTime
        self.changeTime = changeTime
        self.birthTime = birthTime
        self.flags = flags
        self.projectID = projectID
        self.changeSequence = changeSequence
    }

    public var kind: FileKind { FileKind(mode: mode) ?? .regular }
}

/// The number of a character or block device.
public struct DeviceNumber: Equatable, Sendable {
    public var major: UInt32
    public var minor: UInt32
    public init(major: UInt32, minor: UInt32) {
        self.major = major
        self.minor = minor
    }
    public static let none = DeviceNumber(major: 0, minor: 0)
}

/// What setattr may change; nil leaves a value as it is.
public struct AttributeChanges: Sendable {
    /// A time to set: the moment of the operation, or a given one.
    public enum Time: Sendable {
        case now
        case at(Timestamp)
    }
    /// Permission bits (`ModeBits.permissions`); the kind cannot change.
    public var mode: UInt32?
    public var userID: UInt32?
    public var groupID: UInt32?
    public var size: UInt64?
    public var accessTime: Time?
    public var modificationTime: Time?
    public var changeTime: Timestamp?
    /// chown(2) was called, be it with no other owner or group.
    public var isChown = false
    /// Who changes owner, group or size; nil for root.
    public var user: OrdinaryUser?

    public init() {}
}

/// Somebody who is not root, and so takes set-user-id and the like from what he changes.
public struct OrdinaryUser: Sendable {
    /// The process that acts, by which its groups can be found.
    public var process: Int32
    public init(process: Int32) { self.process = process }
}

/// A new inode's owner, mode and, for device nodes, number.
public struct NewInode: Sendable {
    /// Kind and permission bits before `umask`.
    public var mode: UInt32
    /// Applied to `mode`, unless the directory has a default ACL (acl(5)).
    public var umask: UInt32
    public var userID: UInt32
    public var groupID: UInt32
    public var device: DeviceNumber

    public init(
        mode: UInt32, umask: UInt32 = 0, userID: UInt32 = 0, groupID: UInt32 = 0,
        device: DeviceNumber = .none
    ) {
        self.mode = mode
        self.umask = umask
        self.userID = userID
        self.groupID = groupID
        self.device = device
    }
}

/// One name in a directory. `name` is valid only during the call that lends the entry.
public struct DirectoryEntry {
    public var name: ByteView
    public var inode: InodeNumber
    public var kind: FileKind
    /// Positive, stable for the life of the entry; a listing continues behind it.
    public var cookie: UInt64

    public init(name: ByteView, inode: InodeNumber, kind: FileKind, cookie: UInt64) {
        self.name = name
        self.inode = inode
        self.kind = kind
        self.cookie = cookie
    }
}

/// renameat2(2).
public struct RenameOptions: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let noReplace = RenameOptions(rawValue: 1)
    public static let exchange = RenameOptions(rawValue: 2)
    /// Leave a whiteout (character device 0:0) at the source, as overlayfs wants it.
    public static let whiteout = RenameOptions(rawValue: 4)
}

/// fallocate(2), numbered as its flags.
public struct AllocationMode: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let keepSize = AllocationMode(rawValue: 0x01)
    public static let punchHole = AllocationMode(rawValue: 0x02)
    public static let zeroRange = AllocationMode(rawValue: 0x10)
}

/// setxattr(2): neither means create or replace.
public enum AttributeSetMode: Sendable {
    case createOrReplace
    case createOnly
    case replaceOnly
}

/// What statfs(2) shows.
public struct VolumeStatistics: Equatable, Sendable {
    public var blockSize: UInt32 = 4096
    public var totalBlocks: UInt64
    public var freeBlocks: UInt64
    /// Free to an ordinary write: without the floors that deletes and checkpoints need.
    public var availableBlocks: UInt64
    public var inodes: UInt64
    public var freeInodes: UInt64
    public var maximumNameLength: UInt32 = 255
}
