/// The few structures of the FUSE wire protocol (linux/fuse.h, up to 7.45) that are newer than
/// libfuse 3.14 and that `FuseChannel` therefore reads and writes itself. Pure functions over
/// bytes, without I/O.
///
/// The kernel and its server share one machine: integers are in host order, which on every
/// supported platform is little-endian.
///
/// - Invariant: nothing here reads or writes outside the view it is given; a message shorter than
///   its structure is left as it is.
package import FSCore

/// Opcodes of `struct fuse_in_header` that the channel looks at.
package enum FuseOpcode {
    package static let getattr: UInt32 = 3
    package static let write: UInt32 = 16
    package static let setxattr: UInt32 = 21
    package static let initialize: UInt32 = 26
    package static let create: UInt32 = 35
    package static let copyFileRange: UInt32 = 47
    package static let tmpfile: UInt32 = 51
    package static let statx: UInt32 = 52
    package static let copyFileRange64: UInt32 = 53
}

/// Flags of INIT, `flags` and `flags2` in one word, that libfuse 3.14 does not negotiate.
package struct FuseFeatures: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The server drops set-user-id, set-group-id and file capabilities where the kernel says so.
    /// Without it every write(2) is preceded by a GETXATTR of `security.capability`.
    package static let handleKillPrivilegesV2 = FuseFeatures(rawValue: 1 << 28)
    /// SETXATTR says whether an ACL change must drop set-group-id.
    package static let extendedSetxattr = FuseFeatures(rawValue: 1 << 29)
    /// `flags2` is valid.
    package static let extendedInit = FuseFeatures(rawValue: 1 << 30)
    /// Id-mapped mounts, which need `default_permissions`.
    package static let allowIDMap = FuseFeatures(rawValue: 1 << 40)
    /// Requests by io_uring; the kernel then waits for the rings. Offered where the administrator
    /// has set the kernel module's parameter `enable_uring`.
    package static let overRings = FuseFeatures(rawValue: 1 << 41)

    /// What `FuseChannel` always turns on when the kernel offers it.
    package static let wanted: FuseFeatures = [
        .handleKillPrivilegesV2, .extendedSetxattr, .allowIDMap,
    ]
}

/// What a request says that does not reach a callback of libfuse 3.14.
package struct FuseRequestNotes: Equatable, Sendable {
    /// Which operation the kernel asked for when it is not the one that libfuse sees.
    package enum Origin: Sendable {
        case asSent
        /// TMPFILE, seen as CREATE.
        case tmpfile
        /// STATX, seen as GETATTR.
        case statx
    }
    package var origin = Origin.asSent
    /// WRITE: drop set-user-id, set-group-id and the file capability.
    package var dropPrivileges = false
    /// SETXATTR of an ACL: drop set-group-id.
    package var dropSetGroupID = false

    package init() {}
}

/// `struct fuse_in_header` and the structures behind it.
package enum FuseRequestMessage {
    /// Length of `struct fuse_in_header`: len, opcode, unique, nodeid, uid, gid, pid, extensions.
    package static let headerLength = 40
    private static let lengthOffset = 0
    private static let opcodeOffset = 4

    /// The opcode of a message that has at least a header.
    package static func opcode(_ message: MutableByteView) -> UInt32 {
        message.view.u32(opcodeOffset)
    }

    /// The features that the kernel offers in an INIT request: major, minor, max_readahead,
    /// flags, flags2.
    package static func offeredFeatures(_ message: ByteView) -> FuseFeatures {
        guard message.count >= headerLength + 16 else { return [] }
        let flags = UInt64(message.u32(headerLength + 12))
        let low = FuseFeatures(rawValue: flags)
        guard low.contains(.extendedInit), message.count >= headerLength + 20 else { return low }
        return FuseFeatures(rawValue: flags | UInt64(message.u32(headerLength + 16)) << 32)
    }

    /// Rewrites what libfuse 3.14 does not know into what it knows, and notes what is lost on the
    /// way. The three operations it would reject have the request of an older one:
    ///
    /// - TMPFILE has CREATE's request and reply; only the name means nothing.
    /// - STATX begins as GETATTR; its reply is `FuseStatxReply`.
    /// - COPY_FILE_RANGE_64 has COPY_FILE_RANGE's request. Its reply is one u64, and the older one
    ///   is a u32 followed by a u32 of zero: the same eight bytes.
    ///
    /// So they go through libfuse like any other request, which keeps its count of busy threads
    /// and its handling of interrupts right.
    ///
    /// - Returns: the length of the message, which may have shrunk.
    package static func translate(
        _ message: MutableByteView, _ features: FuseFeatures, _ notes: inout FuseRequestNotes
    ) -> Int {
        switch opcode(message) {
        case FuseOpcode.write:
            noteWriteFlags(message.view, &notes)
        case FuseOpcode.setxattr where features.contains(.extendedSetxattr):
            return shortenSetxattr(message, &notes)
        case FuseOpcode.tmpfile:
            message.store(FuseOpcode.create, at: opcodeOffset)
            notes.origin = .tmpfile
        case FuseOpcode.statx:
            message.store(FuseOpcode.getattr, at: opcodeOffset)
            notes.origin = .statx
        case FuseOpcode.copyFileRange64:
            message.store(FuseOpcode.copyFileRange, at: opcodeOffset)
        default:
            break
        }
        return message.count
    }

    /// `struct fuse_write_in`: fh, offset, size, write_flags. libfuse hides the third flag,
    /// `FUSE_WRITE_KILL_SUIDGID`.
    private static func noteWriteFlags(_ message: ByteView, _ notes: inout FuseRequestNotes) {
        guard message.count >= headerLength + 24 else { return }
        notes.dropPrivileges = message.u32(headerLength + 20) & 1 << 2 != 0
    }

    /// `struct fuse_setxattr_in`: size, flags, and with the feature setxattr_flags and padding,
    /// which libfuse would take for the name; they are cut out.
    private static func shortenSetxattr(
        _ message: MutableByteView, _ notes: inout FuseRequestNotes
    ) -> Int {
        let extra = headerLength + 8
        guard message.count >= extra + 8 else { return message.count }
        notes.dropSetGroupID = message.view.u32(extra) & 1 << 0 != 0
        message.move(from: extra + 8, to: extra, count: message.count - extra - 8)
        message.store(UInt32(message.count - 8), at: lengthOffset)
        return message.count - 8
    }
}

/// `struct fuse_init_out`: major, minor, max_readahead, flags, max_background,
/// congestion_threshold, max_write, time_gran, max_pages, map_alignment, flags2, ...
package enum FuseInitReply {
    private static let flagsOffset = 12
    private static let flags2Offset = 32

    /// Turns on what is both wanted and offered.
    ///
    /// - Returns: what is on now.
    package static func extend(
        _ reply: MutableByteView, offered: FuseFeatures, wanted: FuseFeatures = .wanted
    ) -> FuseFeatures {
        guard reply.count >= flags2Offset + 4 else { return [] }
        let enabled = offered.intersection(wanted)
        var flags = enabled
        if enabled.rawValue >> 32 != 0 { flags.insert(.extendedInit) }
        add(UInt32(truncatingIfNeeded: flags.rawValue), to: reply, at: flagsOffset)
        add(UInt32(truncatingIfNeeded: flags.rawValue >> 32), to: reply, at: flags2Offset)
        return enabled
    }

    private static func add(_ bits: UInt32, to reply: MutableByteView, at offset: Int) {
        reply.store(reply.view.u32(offset) | bits, at: offset)
    }
}

/// `struct fuse_uring_req_header`: the memory that an entry of a ring shares with the kernel, besides
/// that of the payload. Of a request it has the header and the first argument; the reply's header
/// takes the place of the request's.
package enum FuseRingHeader {
    package static let length = 288
    package static let argumentOffset = 128
    package static let argumentCapacity = 128
    package static let commitIDOffset = 264
    package static let payloadCountOffset = 272

    /// Where a request lies in one piece with its payload behind it, the way it would have come from
    /// `/dev/fuse`.
    ///
    /// - Returns: the length of header and first argument; nil for a header that contradicts itself.
    package static func fixedCount(_ header: ByteView, payloadCapacity: Int) -> Int? {
        let payload = Int(header.u32(payloadCountOffset))
        let fixed = Int(header.u32(0)) - payload
        guard payload <= payloadCapacity, fixed >= FuseRequestMessage.headerLength,
            fixed <= FuseRequestMessage.headerLength + argumentCapacity
        else { return nil }
        return fixed
    }
}

/// `struct fuse_uring_cmd_req`: flags, commit_id, qid.
package enum FuseRingCommand {
    /// Where the command area begins in a submission of 128 bytes.
    package static let offset = 48
    package static let register: UInt32 = 1
    package static let commitAndFetch: UInt32 = 2
    package static let length = 24
    package static let commitIDOffset = 8
    package static let queueOffset = 16
}

/// `struct fuse_out_header`: len, error, unique.
package enum FuseReplyHeader {
    package static let length = 16
    package static let errorOffset = 4
    package static let uniqueOffset = 8
}

/// `struct fuse_statx_out`: attr_valid (seconds, nanoseconds), flags, spare, `struct fuse_statx`.
package enum FuseStatxReply {
    package static let length = 288
    private static let statOffset = 32
    /// `STATX_BASIC_STATS | STATX_BTIME`
    private static let mask: UInt32 = 0xFFF

    /// Fills a reply of `length` bytes.
    package static func encode(
        _ attributes: Attributes, blockSize: UInt32, validSeconds: UInt64,
        into reply: MutableByteView
    ) {
        reply.zeroAll()
        reply.store(validSeconds, at: 0)
        let stat = reply.slice(statOffset, length - statOffset)
        stat.store(mask, at: 0)
        stat.store(blockSize, at: 4)
        stat.store(attributes.linkCount, at: 16)
        stat.store(attributes.userID, at: 20)
        stat.store(attributes.groupID, at: 24)
        stat.store(UInt16(truncatingIfNeeded: attributes.mode), at: 28)
        stat.store(attributes.inode.rawValue, at: 32)
        stat.store(attributes.size, at: 40)
        stat.store(attributes.blocks512, at: 48)
        store(attributes.accessTime, in: stat, at: 64)
        store(attributes.birthTime, in: stat, at: 80)
        store(attributes.changeTime, in: stat, at: 96)
        store(attributes.modificationTime, in: stat, at: 112)
        stat.store(attributes.device.major, at: 128)
        stat.store(attributes.device.minor, at: 132)
    }

    private static func store(_ time: Timestamp, in stat: MutableByteView, at offset: Int) {
        stat.store(time.seconds, at: offset)
        stat.store(time.nanoseconds, at: offset + 8)
    }
}

/// `struct fuse_dirent`: ino, off, namelen, type, the name padded to 8 bytes.
package enum FuseDirectoryReply {
    private static let headerLength = 24

    /// Appends an entry to a READDIR reply.
    ///
    /// - Parameter type: as in `d_type`.
    /// - Returns: whether it fitted.
    package static func append(
        _ name: ByteView, inode: UInt64, offset: UInt64, type: UInt32,
        to reply: MutableByteView, _ used: inout Int
    ) -> Bool {
        let padded = (headerLength + name.count + 7) & ~7
        guard padded <= reply.count - used else { return false }
        reply.store(inode, at: used)
        reply.store(offset, at: used + 8)
        reply.store(UInt32(name.count), at: used + 16)
        reply.store(type, at: used + 20)
        // The padding; the name, of at least one byte, takes what it needs of it.
        reply.store(UInt64(0), at: used + padded - 8)
        reply.copy(name, at: used + headerLength)
        used += padded
        return true
    }
}

/// `struct fuse_direntplus` as libfuse wrote it into a READDIRPLUS reply: a `struct
/// fuse_entry_out` of 128 bytes that begins with the node id, then ino, off, namelen, type and
/// the name, padded to 8 bytes.
package enum FuseDirectoryPlusReply {
    private static let nameLengthOffset = 128 + 16
    private static let nameOffset = 128 + 24

    /// Names each node id of a reply; zero stands for an entry without reference.
    package static func forEachNodeID(_ reply: ByteView, _ body: (UInt64) -> Void) {
        var offset = 0
        while reply.count - offset >= nameOffset {
            body(reply.u64(offset))
            let nameLength = Int(reply.u32(offset + nameLengthOffset))
            offset += (nameOffset + nameLength + 7) & ~7
        }
    }
}
