/// POSIX ACLs (acl(5), POSIX 1003.1e draft 17): the kernel checks them, the filesystem stores them,
/// keeps them and the mode in step, and lets new inodes inherit.
extension FileSystem {
    private static let accessName = Array("system.posix_acl_access".utf8)
    private static let defaultName = Array("system.posix_acl_default".utf8)

    /// Gives a new inode its directory's default ACL: as its access ACL, restricted by the mode
    /// it was asked for, and if it is a directory as its own default. False if there is none, in which
    /// case the umask applies.
    func inheritACL(
        _ inode: InodeNumber, _ record: inout InodeRecord, from parent: InodeRecord,
        _ directory: InodeNumber, _ transaction: Transaction
    ) throws(FSError) -> Bool {
        guard parent.mayHaveDefaultACL,
            let inherited = try storedACL(Self.defaultName, of: directory)
        else { return false }
        var access = inherited
        record.mode = access.restrict(by: record.mode)
        if record.isDirectory {
            try put(inherited, Self.defaultName, of: inode, &record, transaction)
            record.mayHaveDefaultACL = true
        }
        if !access.isMinimal { try put(access, Self.accessName, of: inode, &record, transaction) }
        return true
    }

    /// chmod(2) on an inode with an access ACL changes its owner, mask (or group) and other entries.
    func updateAccessACL(
        of inode: InodeNumber, _ record: inout InodeRecord, _ transaction: Transaction
    ) throws(FSError) {
        guard record.mayHaveAttributes, var acl = try storedACL(Self.accessName, of: inode) else {
            return
        }
        acl.apply(mode: record.mode)
        let present = try Self.accessName.withView { (name) throws(FSError) in
            try storedAttribute(name, of: inode)
        }
        try acl.encoded().withView { (value) throws(FSError) in
            try Self.accessName.withView { (name) throws(FSError) in
                try store(name, value, of: inode, over: present, &record, transaction)
            }
        }
    }

    /// What setting an attribute means for mode and hints if it is an ACL. True if it is an access
    /// ACL that the mode expresses fully, so that it need not be stored.
    func setACL(
        _ name: ByteView, _ value: ByteView, of inode: InodeNumber, _ record: inout InodeRecord
    ) throws(FSError) -> Bool {
        if Self.defaultName.withView({ $0.equals(name) }) {
            guard record.isDirectory else { throw .accessDenied }
            _ = try AccessControlList(decoding: value)
            record.mayHaveDefaultACL = true
            return false
        }
        guard isAccessACL(name) else { return false }
        let acl = try AccessControlList(decoding: value)
        record.mode = record.mode & ~0o777 | acl.mode
        return acl.isMinimal
    }

    func isAccessACL(_ name: ByteView) -> Bool { Self.accessName.withView { $0.equals(name) } }
    func isACL(_ name: ByteView) -> Bool {
        isAccessACL(name) || Self.defaultName.withView { $0.equals(name) }
    }

    private func storedACL(
        _ name: [UInt8], of inode: InodeNumber
    ) throws(FSError) -> AccessControlList? {
        let stored = try name.withView { (name) throws(FSError) in
            try storedAttribute(name, of: inode)
        }
        guard let stored else { return nil }
        return try stored.value.withView { (value) throws(FSError) in
            try AccessControlList(decoding: value)
        }
    }

    private func put(
        _ acl: AccessControlList, _ name: [UInt8], of inode: InodeNumber,
        _ record: inout InodeRecord, _ transaction: Transaction
    ) throws(FSError) {
        try acl.encoded().withView { (value) throws(FSError) in
            try name.withView { (name) throws(FSError) in
                try store(name, value, of: inode, over: nil, &record, transaction)
            }
        }
    }
}

/// An ACL in the form of the `system.posix_acl_*` attributes (linux/posix_acl_xattr.h): a u32
/// version 2, then entries of tag u16, permissions u16, id u32.
struct AccessControlList: Equatable {
    enum Tag: UInt16 {
        case userObject = 0x01
        case user = 0x02
        case groupObject = 0x04
        case group = 0x08
        case mask = 0x10
        case other = 0x20
    }
    struct Entry: Equatable {
        var tag: Tag
        var permissions: UInt16
        var id: UInt32
    }
    private(set) var entries: [Entry] = []

    /// `.invalidArgument` for anything but a valid ACL: each of owner, group and other once, a mask
    /// if users or groups are named.
    init(decoding value: ByteView) throws(FSError) {
        guard value.count >= 4, value.u32(0) == 2, (value.count - 4) % 8 == 0 else {
            throw .invalidArgument
        }
        var counts: [Tag: Int] = [:]
        for offset in stride(from: 4, to: value.count, by: 8) {
            guard let tag = Tag(rawValue: value.u16(offset)), value.u16(offset + 2) <= 7 else {
                throw .invalidArgument
            }
            counts[tag, default: 0] += 1
            entries.append(
                Entry(tag: tag, permissions: value.u16(offset + 2), id: value.u32(offset + 4)))
        }
        let isNamed = counts[.user] != nil || counts[.group] != nil
        guard counts[.userObject] == 1, counts[.groupObject] == 1, counts[.other] == 1,
            counts[.mask] ?? 0 <= 1, !isNamed || counts[.mask] == 1
        else { throw .invalidArgument }
    }

    func encoded() -> [UInt8] {
        var bytes: [UInt8] = [2, 0, 0, 0]
        func append<T: FixedWidthInteger>(_ value: T) {
            bytes.append(littleEndian: value)
        }
        for entry in entries {
            append(entry.tag.rawValue)
            append(entry.permissions)
            append(entry.id)
        }
        return bytes
    }

    /// No more than the three classes of the mode.
    var isMinimal: Bool { entries.count == 3 }

    private func permissions(_ tag: Tag) -> UInt32? {
        entries.first { $0.tag == tag }.map { UInt32($0.permissions) }
    }

    /// The permission bits that stand for this ACL; the group class is the mask if there is one.
    var mode: UInt32 {
        (permissions(.userObject) ?? 0) << 6
            | (permissions(.mask) ?? permissions(.groupObject) ?? 0) << 3
            | (permissions(.other) ?? 0)
    }

    /// Sets the entries that the mode stands for.
    mutating func apply(mode: UInt32) {
        let groupTag: Tag = permissions(.mask) != nil ? .mask : .groupObject
        for index in entries.indices {
            switch entries[index].tag {
            case .userObject: entries[index].permissions = UInt16(mode >> 6 & 7)
            case groupTag: entries[index].permissions = UInt16(mode >> 3 & 7)
            case .other: entries[index].permissions = UInt16(mode & 7)
            default: break
            }
        }
    }

    /// An inherited ACL takes away what the mode does not ask for; returns the resulting mode.
    mutating func restrict(by mode: UInt32) -> UInt32 {
        let result = mode & self.mode & 0o777
        apply(mode: result)
        return mode & ~0o777 | result
    }
}
