/// New names: files, directories, special files, symbolic and hard links.
extension FileSystem {
    /// Makes an inode of any kind but a symbolic link under a new name. The result holds a
    /// reference.
    public func create(
        _ name: ByteView, in directory: InodeNumber, _ new: NewInode
    ) throws(FSError) -> Attributes {
        guard let kind = FileKind(mode: new.mode), kind != .symbolicLink else {
            throw .invalidArgument
        }
        return try make(name, in: directory, new, kind: kind) { _, _, _ in }
    }

    /// symlink(2). The result holds a reference.
    public func createSymbolicLink(
        _ name: ByteView, in directory: InodeNumber, target: ByteView, userID: UInt32,
        groupID: UInt32
    ) throws(FSError) -> Attributes {
        guard target.count >= 1 else { throw .noSuchEntry }
        guard target.count <= DiskFormat.maximumSymbolicLinkLength else { throw .nameTooLong }
        let new = NewInode(
            mode: FileKind.symbolicLink.modeBits | 0o777, userID: userID, groupID: groupID)
        return try make(name, in: directory, new, kind: .symbolicLink) {
            inode, record, transaction in
            record.content = .inline
            record.size = UInt64(target.count)
            let first = min(target.count, DiskFormat.maximumValueSize)
            transaction.put(Key(inode, .inlineData, 0), target.slice(0, first).toArray())
            if first < target.count {
                transaction.put(
                    Key(inode, .inlineData, 1),
                    target.slice(first, target.count - first).toArray())
            }
        }
    }

    /// readlink(2).
    public func symbolicLinkTarget(of inode: InodeNumber) throws(FSError) -> [UInt8] {
        let (target, record) = try locks.shared(inode) {
            () throws(FSError) -> ([UInt8], InodeRecord) in
            let record = try self.record(of: inode)
            guard record.kind == .symbolicLink else { throw .invalidArgument }
            var target: [UInt8] = []
            for part in 0...1 where target.count < Int(record.size) {
                target +=
                    try value(Key(inode, .inlineData, UInt64(part))) { $0.toArray() } ?? []
            }
            guard target.count == Int(record.size) else {
                throw .corrupt(Corruption(.inode, at: inode.rawValue, "symbolic link is cut short"))
            }
            return (target, record)
        }
        noteAccess(inode, record)
        return target
    }

    /// O_TMPFILE: an inode without a name, which `link` may give one. The result holds a reference.
    public func createUnnamed(
        in directory: InodeNumber, _ new: NewInode
    ) throws(FSError) -> Attributes {
        guard FileKind(mode: new.mode) == .regular else { throw .invalidArgument }
        return try change(directory) { (transaction) throws(FSError) in
            let parent = try directoryRecord(directory)
            try requireAdditions(parent)
            let inode = try volume.allocateInode()
            var record = try newRecord(
                new, kind: .regular, inode: inode, parent, directory, transaction)
            record.linkCount = 0
            transaction.put(inode, record)
            addOrphan(inode, transaction)
            transaction.inodeDelta += 1
            transaction.retained = inode
            return record.attributes(inode)
        }
    }

    private func make(
        _ name: ByteView, in directory: InodeNumber, _ new: NewInode, kind: FileKind,
        _ fill: (InodeNumber, inout InodeRecord, Transaction) -> Void
    ) throws(FSError) -> Attributes {
        try requireName(name)
        return try change(directory) { (transaction) throws(FSError) in
            var parent = try directoryRecord(directory)
            try requireAdditions(parent)
            guard try entry(name, in: directory) == nil else { throw .entryExists }
            let inode = try volume.allocateInode()
            var record = try newRecord(
                new, kind: kind, inode: inode, parent, directory, transaction)
            fill(inode, &record, transaction)
            if kind == .directory {
                guard parent.linkCount < volume.options.linkLimit else { throw .tooManyLinks }
                parent.linkCount += 1
            }
            record.parent = directory.rawValue
            record.nameCookie = try addEntry(
                name, inode: inode, kind: kind, to: directory, transaction)
            parent.size += 1
            parent.noteModified(record.birthTime)
            transaction.put(inode, record)
            transaction.put(directory, parent)
            transaction.inodeDelta += 1
            transaction.retained = inode
            return record.attributes(inode)
        }
    }

    /// A record with the owner, group, mode and ACLs that a new inode of this directory gets.
    private func newRecord(
        _ new: NewInode, kind: FileKind, inode: InodeNumber, _ parent: InodeRecord,
        _ directory: InodeNumber, _ transaction: Transaction
    ) throws(FSError) -> InodeRecord {
        var record = InodeRecord(
            mode: kind.modeBits | new.mode & ModeBits.permissions, userID: new.userID,
            groupID: new.groupID, linkCount: kind == .directory ? 2 : 1, time: .now())
        if kind == .characterDevice || kind == .blockDevice { record.device = new.device }
        record.copies = parent.copies
        record.deduplication = parent.deduplication
        if parent.mode & ModeBits.setGroupID != 0 {
            record.groupID = parent.groupID
            if kind == .directory { record.mode |= ModeBits.setGroupID }
        }
        if parent.flags & InodeFlags.projectInherit != 0 {
            record.projectID = parent.projectID
            if kind == .directory { record.flags |= InodeFlags.projectInherit }
        }
        if kind == .regular || kind == .directory { record.compression = parent.compression }
        let inherited =
            kind == .symbolicLink
            ? false
            : try inheritACL(inode, &record, from: parent, directory, transaction)
        if !inherited, kind != .symbolicLink { record.mode &= ~(new.umask & 0o777) }
        return record
    }

    /// link(2): one more name for an inode that is no directory. The result holds a reference.
    public func link(
        _ inode: InodeNumber, as name: ByteView, in directory: InodeNumber
    ) throws(FSError) -> Attributes {
        try requireName(name)
        return try change(directory, inode) { (transaction) throws(FSError) in
            var parent = try directoryRecord(directory)
            try requireAdditions(parent)
            var record = try record(of: inode)
            guard !record.isDirectory else { throw .notPermitted }
            guard record.flags & (InodeFlags.immutable | InodeFlags.append) == 0 else {
                throw .notPermitted
            }
            guard try entry(name, in: directory) == nil else { throw .entryExists }
            guard record.linkCount < volume.options.linkLimit else { throw .tooManyLinks }
            // Without a name it may only come from O_TMPFILE; one that was unlinked stays so.
            if record.linkCount == 0 {
                guard orphans.contains(inode) else { throw .noSuchEntry }
                removeOrphan(inode, transaction)
            }
            let cookie = try addEntry(
                name, inode: inode, kind: record.kind, to: directory, transaction)
            record.linkCount += 1
            try addName(of: inode, &record, parent: directory, cookie: cookie, transaction)
            let now = Timestamp.now()
            record.noteChanged(now)
            parent.size += 1
            parent.noteModified(now)
            transaction.put(inode, record)
            transaction.put(directory, parent)
            transaction.retained = inode
            return record.attributes(inode)
        }
    }

    // MARK: Conditions

    func requireName(_ name: ByteView) throws(FSError) {
        guard name.count <= DiskFormat.maximumNameLength else { throw .nameTooLong }
        guard name.count > 0 else { throw .noSuchEntry }
        if !DirectoryRecord.isValid(name: name) {
            // "." and ".." exist everywhere; the kernel passes no other bad name.
            throw name[0] == 0x2E && name.count <= 2 ? .entryExists : .invalidArgument
        }
    }

    /// A directory takes new names unless it is immutable or itself without a name.
    func requireAdditions(_ directory: InodeRecord) throws(FSError) {
        guard directory.linkCount > 0 else { throw .noSuchEntry }
        guard directory.flags & InodeFlags.immutable == 0 else { throw .notPermitted }
    }

    /// Names go from a directory unless it, or the inode behind the name, is immutable or
    /// append-only.
    func requireRemovals(_ directory: InodeRecord, _ target: InodeRecord) throws(FSError) {
        let fixed = InodeFlags.immutable | InodeFlags.append
        guard (directory.flags | target.flags) & fixed == 0 else { throw .notPermitted }
    }
}
