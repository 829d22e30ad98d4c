/// An inode as an item of the head tree: key (number, inode, 0), 160 bytes.
///
///     0   version          u8   1
///     1   name hash kind   u8   of a directory; 1 = SipHash-2-4
///     2   content          u8   where the bytes are: 0 none or extents, 1 inline
///     3   hints            u8   1 may have extended attributes · 2 may have a default ACL
///     4   mode             u32
///     8   uid              u32
///     12  gid              u32
///     16  link count       u32
///     20  flags            u32  FS_*_FL
///     24  project id       u32
///     28  device major     u32
///     32  device minor     u32
///     36  reserved         u32
///     40  size             u64  bytes; of a directory, entries
///     48  blocks           u64  4 KiB blocks held or promised
///     56  change sequence  u64
///     64  atime mtime ctime btime: 4 × i64 seconds
///     96  the same:                 4 × u32 nanoseconds
///     112 parent           u64  directory of one of the names; 0 = none
///     120 name cookie      u64  hash ‖ ordinal of that name
///     128 compression      u8 codec, u8 level; 0 = as the mount or volume says, codec 255 = none
///     130 copies           u8   of its data; of a directory, for new inodes; 0 = as the volume says
///     131 deduplication    u8   0 as the mount says, 1 on, 2 off; of a directory, for new inodes
///     132 reserved         28
///
/// - Invariant: an inode with names has one of them as (parent, name cookie); the others are link
///   records. So every inode has a path.
public struct InodeRecord: Equatable, Sendable {
    public static let byteCount = 160

    public enum Content: UInt8, Sendable {
        case extents = 0
        case inline = 1
    }

    public var content = Content.extents
    /// Never false when there are any; saves most inodes the look-up.
    public var mayHaveAttributes = false
    public var mayHaveDefaultACL = false
    public var mode: UInt32
    public var userID: UInt32
    public var groupID: UInt32
    public var linkCount: UInt32
    public var flags: UInt32 = 0
    public var projectID: UInt32 = 0
    public var device = DeviceNumber.none
    public var size: UInt64 = 0
    public var blocks: UInt64 = 0
    public var changeSequence: UInt64 = 0
    public var accessTime: Timestamp
    public var modificationTime: Timestamp
    public var changeTime: Timestamp
    public var birthTime: Timestamp
    public var parent: UInt64 = 0
    public var nameCookie: UInt64 = 0
    /// What new data is compressed with; new inodes have it from their directory.
    public var compression = CompressionSetting.inherited
    /// Copies of the data: 1 or 2; 0 as the volume says. New inodes take their directory's.
    public var copies: UInt8 = 0
    /// Whether new data is shared with equal data; new inodes have it from their directory.
    public var deduplication = Deduplication.inherited

    public enum Deduplication: UInt8, Sendable {
        case inherited = 0
        case on = 1
        case off = 2
    }

    public var kind: FileKind { FileKind(mode: mode) ?? .regular }
    public var isDirectory: Bool { mode & ModeBits.kind == FileKind.directory.modeBits }

    public init(
        mode: UInt32, userID: UInt32, groupID: UInt32, linkCount: UInt32, time: Timestamp
    ) {
        self.mode = mode
        self.userID = userID
        self.groupID = groupID
        self.linkCount = linkCount
        accessTime = time
        modificationTime = time
        changeTime = time
        birthTime = time
    }

    package init(decoding value: ByteView, inode: UInt64) throws(FSError) {
        var reader = ByteReader(value, .inode, at: inode)
        try reader.require(value.count == Self.byteCount, "record of \(value.count) bytes")
        try reader.require(try reader.u8() == 1, "record version")
        let hashKind = try reader.u8()
        guard let content = Content(rawValue: try reader.u8()) else {
            throw reader.corrupt("content kind")
        }
        self.content = content
        let hints = try reader.u8()
        try reader.require(hints & ~3 == 0, "unknown hints")
        mayHaveAttributes = hints & 1 != 0
        mayHaveDefaultACL = hints & 2 != 0
        mode = try reader.u32()
        userID = try reader.u32()
        groupID = try reader.u32()
        linkCount = try reader.u32()
        flags = try reader.u32()
        projectID = try reader.u32()
        device = DeviceNumber(major: try reader.u32(), minor: try reader.u32())
        try reader.reserved(4)
        size = try reader.u64()
        blocks = try reader.u64()
        changeSequence = try reader.u64()
        let seconds = (
            try reader.i64(), try reader.i64(), try reader.i64(), try reader.i64()
        )
        let nanoseconds = (
            try reader.u32(), try reader.u32(), try reader.u32(), try reader.u32()
        )
        try reader.require(
            max(nanoseconds.0, nanoseconds.1, nanoseconds.2, nanoseconds.3) < 1_000_000_000,
            "nanoseconds of a time")
        accessTime = Timestamp(seconds: seconds.0, nanoseconds: nanoseconds.0)
        modificationTime = Timestamp(seconds: seconds.1, nanoseconds: nanoseconds.1)
        changeTime = Timestamp(seconds: seconds.2, nanoseconds: nanoseconds.2)
        birthTime = Timestamp(seconds: seconds.3, nanoseconds: nanoseconds.3)
        parent = try reader.u64()
        nameCookie = try reader.u64()
        compression = try CompressionSetting(&reader)
        copies = try reader.u8()
        try reader.require(copies <= DiskFormat.maximumDataCopies, "\(copies) copies")
        guard let deduplication = Deduplication(rawValue: try reader.u8()) else {
            throw reader.corrupt("deduplication")
        }
        self.deduplication = deduplication
        try reader.reserved(Self.byteCount - reader.offset)
        guard let kind = FileKind(mode: mode), mode >> 16 == 0 else {
            throw reader.corrupt("mode 0o\(String(mode, radix: 8))")
        }
        try reader.require(hashKind == (kind == .directory ? 1 : 0), "name hash kind")
        try reader.require(parent < InodeNumber.limit, "parent number")
        try reader.require(
            size <= (kind == .directory ? InodeNumber.limit : DiskFormat.maximumFileSize),
            "size of \(size)")
        try reader.require(blocks <= DiskLayout.maximumBlocks, "\(blocks) blocks")
        if content == .inline {
            let limit =
                kind == .symbolicLink
                ? DiskFormat.maximumSymbolicLinkLength : DiskFormat.maximumInlineSize
            try reader.require(
                size <= UInt64(limit) && (kind == .regular || kind == .symbolicLink),
                "inline content of \(size) bytes")
        } else {
            try reader.require(kind != .symbolicLink, "symbolic link without inline target")
        }
    }

    package func encode(_ target: MutableByteView) {
        var writer = ByteWriter(target)
        writer.u8(1)
        writer.u8(isDirectory ? 1 : 0)
        writer.u8(content.rawValue)
        writer.u8((mayHaveAttributes ? 1 : 0) | (mayHaveDefaultACL ? 2 : 0))
        writer.u32(mode)
        writer.u32(userID)
        writer.u32(groupID)
        writer.u32(linkCount)
        writer.u32(flags)
        writer.u32(projectID)
        writer.u32(device.major)
        writer.u32(device.minor)
        writer.reserved(4)
        writer.u64(size)
        writer.u64(blocks)
        writer.u64(changeSequence)
        writer.i64(accessTime.seconds)
        writer.i64(modificationTime.seconds)
        writer.i64(changeTime.seconds)
        writer.i64(birthTime.seconds)
        writer.u32(accessTime.nanoseconds)
        writer.u32(modificationTime.nanoseconds)
        writer.u32(changeTime.nanoseconds)
        writer.u32(birthTime.nanoseconds)
        writer.u64(parent)
        writer.u64(nameCookie)
        compression.encode(&writer)
        writer.u8(copies)
        writer.u8(deduplication.rawValue)
        writer.reserved(Self.byteCount - writer.offset)
    }

    /// stat(2): what the contents take. tar(1) takes a file without blocks for one hole, so a small
    /// file says what it takes inside the tree.
    private var blocks512: UInt64 {
        kind == .regular && content == .inline ? (size + 511) / 512 : blocks * 8
    }

    package func attributes(_ inode: InodeNumber) -> Attributes {
        Attributes(
            inode: inode, mode: mode, linkCount: linkCount, userID: userID, groupID: groupID,
            device: device, size: size, blocks512: blocks512, accessTime: accessTime,
            modificationTime: modificationTime, changeTime: changeTime, birthTime: birthTime,
            flags: flags | compression.inodeFlags, projectID: projectID,
            changeSequence: changeSequence)
    }
}
