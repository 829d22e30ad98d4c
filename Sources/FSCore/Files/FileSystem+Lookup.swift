/// Names to inodes, and what stat shows.
extension FileSystem {
    /// Finds `name` in a directory; "." and ".." too, also of an inode that is only known by
    /// number. The result holds a reference.
    public func lookup(_ name: ByteView, in directory: InodeNumber) throws(FSError) -> Attributes {
        try locks.shared(directory) { () throws(FSError) in
            let inode: InodeNumber
            if name.count == 1, name[0] == 0x2E {
                // Asked for by a file handle whose inode the kernel does not have. Without a name
                // it is gone, though its FORGET may still be on the way.
                guard try record(of: directory).linkCount > 0 else { throw .stale }
                inode = directory
            } else {
                let record = try directoryRecord(directory)
                if name.count == 2, name[0] == 0x2E, name[1] == 0x2E {
                    guard record.parent != 0 else { throw .noSuchEntry }
                    inode = InodeNumber(record.parent)
                } else {
                    guard name.count <= DiskFormat.maximumNameLength else { throw .nameTooLong }
                    guard let found = try entry(name, in: directory) else { throw .noSuchEntry }
                    inode = found.inode
                }
            }
            let attributes = try attributes(of: inode)
            // Under the directory's lock: the name cannot go and its inode not be reclaimed.
            retain(inode)
            return attributes
        }
    }

    /// What cannot lose its name needs no counting.
    func retain(_ inode: InodeNumber) {
        if !isReadOnly { references.retain(inode) }
    }

    /// Gives back `count` references; the last one of an inode without a name reclaims it.
    public func release(_ inode: InodeNumber, count: UInt64) {
        guard !isReadOnly else { return }
        if references.release(inode, count), orphans.contains(inode) { reclaim(inode) }
    }

    public func attributes(of inode: InodeNumber) throws(FSError) -> Attributes {
        try record(of: inode).attributes(inode)
    }

    /// chmod, chown, utimensat and truncate in one.
    public func setAttributes(
        of inode: InodeNumber, _ changes: AttributeChanges
    ) throws(FSError) -> Attributes {
        if let size = changes.size {
            try truncate(inode, to: size, by: changes.user)
        }
        return try change(inode, space: .freeing) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            let now = Timestamp.now()
            try requireMutable(record, allowing: changes)
            if let mode = changes.mode {
                record.mode = record.mode & ModeBits.kind | mode & ModeBits.permissions
                try updateAccessACL(of: inode, &record, transaction)
            }
            if changes.isChown {
                // Who is in the group that the file had keeps set-group-id, whatever the new one.
                if changes.mode == nil, !record.isDirectory {
                    dropPrivileges(&record, by: changes.user)
                }
                record.userID = changes.userID ?? record.userID
                record.groupID = changes.groupID ?? record.groupID
                try dropCapability(of: inode, record, transaction)
            }
            if let time = changes.accessTime { record.accessTime = time.resolve(now) }
            if let time = changes.modificationTime { record.modificationTime = time.resolve(now) }
            record.noteChanged(changes.changeTime ?? now)
            transaction.put(inode, record)
            return record.attributes(inode)
        }
    }

    /// Immutable and append-only inodes keep their attributes (ioctl_iflags(2)); touching an
    /// append-only file to the present is allowed.
    private func requireMutable(
        _ record: InodeRecord, allowing changes: AttributeChanges
    ) throws(FSError) {
        let fixed = record.flags & (InodeFlags.immutable | InodeFlags.append)
        guard fixed != 0 else { return }
        let setsTime: Bool =
            switch (changes.accessTime, changes.modificationTime) {
            case (.at, _), (_, .at): true
            default: false
            }
        if record.flags & InodeFlags.immutable != 0
            || changes.mode != nil || changes.userID != nil || changes.groupID != nil || setsTime
        {
            throw .notPermitted
        }
    }

    /// `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR`: flags outside `InodeFlags.settable` are refused.
    public func setFlags(
        of inode: InodeNumber, _ flags: UInt32, projectID: UInt32?
    ) throws(FSError) {
        guard flags & ~InodeFlags.settable == 0 else { throw .notSupported }
        try change(inode) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            guard record.kind == .regular || record.kind == .directory else { throw .notSupported }
            record.flags = flags & ~InodeFlags.compression
            record.compression = try record.compression.applying(
                flags, inherited: volume.compression)
            if let projectID { record.projectID = projectID }
            record.noteChanged(.now())
            transaction.put(inode, record)
        }
    }
}

extension AttributeChanges.Time {
    func resolve(_ now: Timestamp) -> Timestamp {
        switch self {
        case .now: now
        case .at(let time): time
        }
    }
}
