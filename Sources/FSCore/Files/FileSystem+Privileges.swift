/// What changing a file takes away from it: set-user-id, set-group-id and the file capability
/// (inode(7), capabilities(7)), as the kernel asks for it (HANDLE_KILLPRIV_V2).
extension FileSystem {
    /// What a write, truncate or chown takes from a record. Set-group-id of a file that its group may
    /// not execute stays if who changes it is root or in the group, as after a chmod.
    ///
    /// - Parameter user: nil for root.
    /// - Returns: whether there was anything to take.
    @discardableResult
    func dropPrivileges(_ record: inout InodeRecord, by user: OrdinaryUser?) -> Bool {
        let before = record.mode
        record.mode &= ~ModeBits.setUserID
        if record.mode & ModeBits.setGroupID != 0 {
            let staysFor = user.map { isMember($0, record.groupID) } ?? true
            if record.mode & ModeBits.groupExecute != 0 || !staysFor {
                record.mode &= ~ModeBits.setGroupID
            }
        }
        return record.mode != before
    }

    /// The same, where nothing else of the inode changes.
    func dropPrivileges(of inode: InodeNumber, by user: OrdinaryUser) throws(FSError) {
        let bits = ModeBits.setUserID | ModeBits.setGroupID
        let present = try record(of: inode)
        guard present.mode & bits != 0 || present.mayHaveAttributes else { return }
        try change(inode, space: .freeing) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            if dropPrivileges(&record, by: user) { transaction.unprivileged = inode }
            try dropCapability(of: inode, record, transaction)
            record.noteChanged(.now())
            transaction.put(inode, record)
        }
    }

    func dropCapability(
        of inode: InodeNumber, _ record: InodeRecord, _ transaction: Transaction
    ) throws(FSError) {
        guard record.mayHaveAttributes, record.kind == .regular else { return }
        let present = try Array("security.capability".utf8).withView { (name) throws(FSError) in
            try storedAttribute(name, of: inode)
        }
        // An empty one, which everybody may set, is none to the kernel either.
        guard let present, !present.value.isEmpty else { return }
        for key in present.keys { transaction.delete(key) }
    }
}
