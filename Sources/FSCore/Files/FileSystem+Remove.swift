/// Names that go: unlink and rmdir.
extension FileSystem {
    /// unlink(2): removes a name of anything but a directory. The inode lives on while it has
    /// other names or references.
    public func unlink(_ name: ByteView, in directory: InodeNumber) throws(FSError) {
        try remove(name, in: directory) { (record) throws(FSError) in
            if record.isDirectory { throw .isDirectory }
        }
    }

    /// rmdir(2): removes an empty directory.
    public func removeDirectory(_ name: ByteView, in directory: InodeNumber) throws(FSError) {
        if name.count == 1, name[0] == 0x2E { throw .invalidArgument }
        if name.count == 2, name[0] == 0x2E, name[1] == 0x2E { throw .directoryNotEmpty }
        try remove(name, in: directory) { (record) throws(FSError) in
            if !record.isDirectory { throw .notDirectory }
            if record.size > 0 { throw .directoryNotEmpty }
        }
    }

    private func remove(
        _ name: ByteView, in directory: InodeNumber,
        _ allows: (InodeRecord) throws(FSError) -> Void
    ) throws(FSError) {
        guard name.count <= DiskFormat.maximumNameLength else { throw .nameTooLong }
        let gone = try withNamed(name, in: directory) {
            (found, transaction) throws(FSError) -> InodeNumber in
            var parent = try directoryRecord(directory)
            var record = try record(of: found.inode)
            try requireRemovals(parent, record)
            try allows(record)
            let now = Timestamp.now()
            try removeEntry(name, from: directory, transaction)
            parent.size -= min(parent.size, 1)
            if record.isDirectory { parent.linkCount -= min(parent.linkCount, 1) }
            parent.noteModified(now)
            try dropName(
                of: found.inode, &record, parent: directory, cookie: found.cookie, now, transaction)
            transaction.put(directory, parent)
            return found.inode
        }
        reclaimIfUnused(gone)
    }

    /// Takes one name from an inode; without any left it becomes an orphan.
    func dropName(
        of inode: InodeNumber, _ record: inout InodeRecord, parent: InodeNumber, cookie: UInt64,
        _ now: Timestamp, _ transaction: Transaction
    ) throws(FSError) {
        record.linkCount = record.isDirectory ? 0 : record.linkCount - min(record.linkCount, 1)
        try removeName(of: inode, &record, parent: parent, cookie: cookie, transaction)
        record.noteChanged(now)
        transaction.put(inode, record)
        if record.linkCount == 0 { addOrphan(inode, transaction) }
    }

    /// Locks a directory together with the inode behind one of its names. Which one that is can
    /// only be known by looking, so the look is repeated under the locks.
    private func withNamed<R>(
        _ name: ByteView, in directory: InodeNumber,
        _ body: (FoundEntry, Transaction) throws(FSError) -> R
    ) throws(FSError) -> R {
        while true {
            let expected = try locks.shared(directory) { () throws(FSError) in
                _ = try directoryRecord(directory)
                return try entry(name, in: directory)
            }
            guard let expected else { throw .noSuchEntry }
            let result = try change(directory, expected.inode, space: .freeing) {
                (transaction) throws(FSError) -> R? in
                guard let found = try entry(name, in: directory) else { throw .noSuchEntry }
                guard found.inode == expected.inode else { return nil }
                return try body(found, transaction)
            }
            if let result { return result }
        }
    }
}
