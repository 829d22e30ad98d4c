/// Extended attributes (xattr(7)): user, trusted, security and system names alike; who may use
/// which is the kernel's business.
extension FileSystem {
    /// getxattr(2); `.noSuchAttribute` if there is none.
    public func extendedAttribute(
        _ name: ByteView, of inode: InodeNumber
    ) throws(FSError) -> [UInt8] {
        if let property = try Property.named(byAttribute: name) {
            let value = try self.property(property, of: inode)
            guard value.isSet || name.hasPrefix("aegisfs.") else { throw .noSuchAttribute }
            return Array(value.text.utf8)
        }
        try requireNamespace(name)
        return try locks.shared(inode) { () throws(FSError) in
            let record = try record(of: inode)
            guard record.mayHaveAttributes else { throw .noSuchAttribute }
            guard let stored = try storedAttribute(name, of: inode) else { throw .noSuchAttribute }
            return stored.value
        }
    }

    /// listxattr(2): the names, each followed by a NUL; those of the trusted namespace only for who
    /// may read them.
    public func extendedAttributeNames(
        of inode: InodeNumber, includingTrusted: Bool = true
    ) throws(FSError) -> [UInt8] {
        try locks.shared(inode) { () throws(FSError) in
            let record = try record(of: inode)
            var names: [UInt8] = []
            guard record.mayHaveAttributes else { return names }
            var position: Key? = Key(inode, .attribute, 0)
            try volume.reading { () throws(TreeFault) in
                try tree.scan(&position, through: Key(inode, .attribute, .max)) {
                    (key, value) throws(FSError) in
                    guard key.offset & 0xFF == 0 else { return true }
                    let chunk = try AttributeRecord(decoding: value, inode: inode.rawValue)
                    if includingTrusted || !chunk.name.hasPrefix("trusted.") {
                        names.append(chunk.name)
                        names.append(0)
                    }
                    return true
                }
            }
            return names
        }
    }

    /// setxattr(2). Setting an access ACL changes the mode with it (acl(5)).
    ///
    /// - Parameter caller: who asks, where that matters: properties belong to the owner and to root,
    ///   which the kernel does not know.
    public func setExtendedAttribute(
        _ name: ByteView, of inode: InodeNumber, _ value: ByteView, _ mode: AttributeSetMode,
        dropSetGroupID: Bool = false, caller: () -> AttributeCaller = { .privileged }
    ) throws(FSError) {
        guard name.count >= 1, name.count <= 255 else { throw .invalidArgument }
        if let property = try Property.named(byAttribute: name) {
            // Every property is always there.
            guard mode != .createOnly else { throw .entryExists }
            guard var text = String(validating: value.toArray(), as: UTF8.self) else {
                throw .invalidArgument
            }
            if text.isEmpty { text = Property.unset }
            return try setProperty(property, of: inode, text, caller: caller())
        }
        try requireNamespace(name)
        guard value.count <= DiskFormat.maximumAttributeSize else { throw .attributeTooLarge }
        try change(inode) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            guard record.flags & (InodeFlags.immutable | InodeFlags.append) == 0 else {
                throw .notPermitted
            }
            let present = record.mayHaveAttributes ? try storedAttribute(name, of: inode) : nil
            if mode == .createOnly, present != nil { throw .entryExists }
            if mode == .replaceOnly, present == nil { throw .noSuchAttribute }
            let before = record
            let isRedundant = try setACL(name, value, of: inode, &record)
            // The kernel asks for it with either ACL; the default one has no say in this mode.
            if dropSetGroupID, isAccessACL(name) { record.mode &= ~ModeBits.setGroupID }
            // Setting what is there already is no change, as to ext4.
            let isThere = present?.value.withView { $0.equals(value) } ?? false
            if record == before, isRedundant ? present == nil : isThere { return }
            if isRedundant {
                // An ACL that says no more than the mode is not stored.
                for key in present?.keys ?? [] { transaction.delete(key) }
            } else {
                try store(name, value, of: inode, over: present, &record, transaction)
            }
            record.noteChanged(.now())
            transaction.put(inode, record)
        }
    }

    /// removexattr(2)
    public func removeExtendedAttribute(
        _ name: ByteView, of inode: InodeNumber,
        caller: () -> AttributeCaller = { .privileged }
    ) throws(FSError) {
        if let property = try Property.named(byAttribute: name) {
            return try setProperty(property, of: inode, Property.unset, caller: caller())
        }
        try requireNamespace(name)
        try change(inode, space: .freeing) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            guard record.flags & (InodeFlags.immutable | InodeFlags.append) == 0 else {
                throw .notPermitted
            }
            guard let present = try storedAttribute(name, of: inode) else {
                // Taking away an ACL that is not there leaves what was asked for (acl(5)).
                if isACL(name) { return }
                throw .noSuchAttribute
            }
            for key in present.keys { transaction.delete(key) }
            record.noteChanged(.now())
            transaction.put(inode, record)
        }
    }

    /// The namespaces of xattr(7); in the system namespace only the ACLs have a meaning.
    private func requireNamespace(_ name: ByteView) throws(FSError) {
        let namespaces: [StaticString] = ["user.", "trusted.", "security."]
        for prefix in namespaces where name.hasPrefix(prefix) {
            guard name.count > prefix.utf8CodeUnitCount else { throw .invalidArgument }
            return
        }
        guard name.hasPrefix("system.posix_acl_") else { throw .notSupported }
    }

    // MARK: Items

    struct StoredAttribute {
        var value: [UInt8]
        /// The items that hold it.
        var keys: [Key]
        var ordinal: UInt64
    }

    /// Finds an attribute and reads it whole.
    func storedAttribute(_ name: ByteView, of inode: InodeNumber) throws(FSError)
        -> StoredAttribute?
    {
        let hash = hash(name)
        let first = Key(inode, .attribute, AttributeRecord.offset(hash: hash, ordinal: 0, chunk: 0))
        let last = Key(
            inode, .attribute,
            AttributeRecord.offset(hash: hash, ordinal: AttributeRecord.maximumOrdinal, chunk: 255))
        var found: StoredAttribute?
        var missing = 0
        var position: Key? = first
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: last) { (key, value) throws(FSError) in
                let ordinal = key.offset >> 8 & 0xFF
                if key.offset & 0xFF == 0 {
                    if found != nil { return false }
                    let chunk = try AttributeRecord(decoding: value, inode: inode.rawValue)
                    guard chunk.name.equals(name) else { return true }
                    found = StoredAttribute(
                        value: chunk.firstBytes.toArray(), keys: [key], ordinal: ordinal)
                    missing = chunk.valueLength - chunk.firstBytes.count
                    return missing > 0
                }
                guard found?.ordinal == ordinal else { return true }
                let part = try AttributeRecord.continuation(value, inode: inode.rawValue)
                found?.value.append(part)
                found?.keys.append(key)
                missing -= part.count
                return missing > 0
            }
        }
        guard missing == 0 else {
            throw .corrupt(Corruption(.attribute, at: inode.rawValue, "a chunk is missing"))
        }
        return found
    }

    /// Puts an attribute's items; `mayHaveAttributes` follows, the caller puts the record.
    func store(
        _ name: ByteView, _ value: ByteView, of inode: InodeNumber, over present: StoredAttribute?,
        _ record: inout InodeRecord, _ transaction: Transaction
    ) throws(FSError) {
        let hash = hash(name)
        var ordinal = present?.ordinal ?? 0
        if present == nil, record.mayHaveAttributes { ordinal = try freeOrdinal(hash, inode) }
        for key in present?.keys ?? [] { transaction.delete(key) }
        let chunks = AttributeRecord.encode(name: name, value: value)
        for (index, chunk) in chunks.enumerated() {
            let offset = AttributeRecord.offset(hash: hash, ordinal: ordinal, chunk: UInt64(index))
            transaction.put(Key(inode, .attribute, offset), chunk)
        }
        record.mayHaveAttributes = true
    }

    private func freeOrdinal(_ hash: UInt64, _ inode: InodeNumber) throws(FSError) -> UInt64 {
        var used: Set<UInt64> = []
        var position: Key? = Key(
            inode, .attribute, AttributeRecord.offset(hash: hash, ordinal: 0, chunk: 0))
        let last = Key(
            inode, .attribute,
            AttributeRecord.offset(hash: hash, ordinal: AttributeRecord.maximumOrdinal, chunk: 255))
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: last) { (key, _) throws(FSError) in
                used.insert(key.offset >> 8 & 0xFF)
                return true
            }
        }
        guard let free = (0...AttributeRecord.maximumOrdinal).first(where: { !used.contains($0) })
        else { throw .noSpace }
        return free
    }
}
