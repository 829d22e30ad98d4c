/// The one error type of the core, and what each group of cases promises about the disk.
///
/// - Invariant: a case of the first group ("answers") means that the operation changed nothing.
/// - Invariant: after a case of the second group ("medium") the volume either is unchanged or has
///   latched itself read-only; it never reports success afterwards for what did not happen.
/// - Invariant: a case of the third group ("opening") is thrown before anything was written.
public enum FSError: Error, Equatable, Sendable {
    // Answers to the caller; each maps to the errno named in its comment.
    /// ENOENT
    case noSuchEntry
    /// EEXIST
    case entryExists
    /// ENOTDIR
    case notDirectory
    /// EISDIR
    case isDirectory
    /// ENOTEMPTY
    case directoryNotEmpty
    /// ENAMETOOLONG: a name is 1 to 255 bytes, a symbolic link's target 1 to 4095 bytes.
    case nameTooLong
    /// EMLINK
    case tooManyLinks
    /// EINVAL
    case invalidArgument
    /// EFBIG
    case fileTooLarge
    /// ENOSPC
    case noSpace
    /// EROFS: mounted read-only.
    case readOnly
    /// ENODATA: no such extended attribute.
    case noSuchAttribute
    /// E2BIG: an extended attribute's value is over 64 KiB.
    case attributeTooLarge
    /// EPERM: immutable, append-only, or not allowed on this kind of inode.
    case notPermitted
    /// EACCES
    case accessDenied
    /// EOPNOTSUPP
    case notSupported
    /// ESTALE: no such inode.
    case stale
    /// EXDEV: a file of one tree is to be linked, moved or shared into another.
    case crossDevice
    /// ENXIO: no data, or no hole, behind the given offset.
    case noDataBeyond
    /// EBUSY
    case busy
    /// EINTR: long work was cancelled.
    case interrupted

    // The medium.
    /// EIO: the device refused a request. `errno` is the device's own.
    case device(DeviceOperation, errno: Int32, offset: UInt64)
    /// EIO: what was read is not what was written, and no other copy was right either.
    case corrupt(Corruption)
    /// EIO: an earlier failure latched the volume; nothing is written any more.
    case latched(String)

    // Opening a volume.
    /// No superblock was found where one must be.
    case notAVolume(String)
    /// The volume was written in a disk version that this program does not know.
    case unknownVersion(found: UInt32, known: UInt32)
    /// Feature bits without which the volume must not be opened (or not written).
    case unknownFeatures(FeatureClass, bits: UInt64)
    /// The device is smaller than the superblock says.
    case truncated(expectedBytes: UInt64, foundBytes: UInt64)
    /// Going back to the older superblock would lose what is already durable.
    case superblockLost(String)
    /// The journal is too long to be replayed in memory, for a volume that is only read.
    case notReplayable
    /// The volume holds too much to become this small.
    case cannotShrink(bytes: UInt64, minimum: UInt64)
    /// The device cannot hold a volume.
    case tooSmall(bytes: UInt64, minimum: UInt64)
    /// A journal of this size is not possible.
    case journalSize(bytes: UInt64, minimum: UInt64, maximum: UInt64)
    /// The device is larger than a volume can be.
    case tooLarge(bytes: UInt64, maximum: UInt64)

    public enum DeviceOperation: String, Sendable { case open, read, write, flush, discard, resize }
    public enum FeatureClass: String, Sendable { case readOnlyCompatible, incompatible }
}

/// Names a damaged thing: what kind of structure, where it lies, and what is wrong with it.
public struct Corruption: Equatable, Sendable {
    public enum Structure: String, Sendable {
        case superblock, node, bitmap, inode, directory, extent, attribute, link, orphan, data
        /// Byte offset of a record, or number of an operation.
        case journal
        /// Byte offset of the blocks.
        case share, deadlist, remap
        /// Id of a snapshot or head.
        case snapshot
        /// Offset of the item's key.
        case module, damage
    }
    public var structure: Structure
    /// Device byte offset for blocks and nodes, inode number for items.
    public var location: UInt64
    public var detail: String

    public init(_ structure: Structure, at location: UInt64, _ detail: String) {
        self.structure = structure
        self.location = location
        self.detail = detail
    }
}

extension FSError: CustomStringConvertible {
    /// One sentence for a person, without the cure (which depends on the command).
    public var description: String {
        switch self {
        case .noSuchEntry: "no such file or directory"
        case .entryExists: "file exists"
        case .notDirectory: "not a directory"
        case .isDirectory: "is a directory"
        case .directoryNotEmpty: "directory not empty"
        case .nameTooLong: "file name too long"
        case .tooManyLinks: "too many links"
        case .invalidArgument: "invalid argument"
        case .fileTooLarge: "file too large"
        case .noSpace: "no space left on the volume"
        case .readOnly: "the volume is read-only"
        case .noSuchAttribute: "no such extended attribute"
        case .attributeTooLarge: "extended attribute value over 64 KiB"
        case .notPermitted: "operation not permitted"
        case .accessDenied: "permission denied"
        case .notSupported: "operation not supported"
        case .stale: "stale file handle"
        case .crossDevice: "not within one tree of the volume"
        case .noDataBeyond: "no data or hole beyond this offset"
        case .busy: "resource busy"
        case .interrupted: "cancelled"
        case .device(let operation, let errno, let offset):
            "device \(operation.rawValue) failed at byte \(offset) (errno \(errno))"
        case .corrupt(let what):
            "damaged \(what.structure.rawValue) at \(what.location): \(what.detail)"
        case .latched(let why): "the volume is read-only after an error: \(why)"
        case .notAVolume(let why): "not an AegisFS volume: \(why)"
        case .unknownVersion(let found, let known):
            "disk version \(found) is not known (this program writes \(known))"
        case .unknownFeatures(let group, let bits):
            "unknown \(group.rawValue) feature bits 0x\(String(bits, radix: 16))"
        case .truncated(let expected, let found):
            "the superblock says \(expected) bytes, but the device has only \(found)"
        case .superblockLost(let why): "the newest superblock is lost: \(why)"
        case .notReplayable:
            "the journal holds too much to be replayed without writing to the volume"
        case .cannotShrink(let bytes, let minimum):
            "\(bytes) bytes cannot hold what is on the volume (at least \(minimum))"
        case .tooSmall(let bytes, let minimum):
            "\(bytes) bytes are too small for a volume (at least \(minimum))"
        case .journalSize(let bytes, let minimum, let maximum):
            "a journal of \(bytes) bytes is not possible here (\(minimum) to \(maximum))"
        case .tooLarge(let bytes, let maximum):
            "\(bytes) bytes are too large for a volume (at most \(maximum))"
        }
    }
}
