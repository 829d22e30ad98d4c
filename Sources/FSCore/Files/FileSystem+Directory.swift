/// Directory entries: finding, adding, removing, listing.
extension FileSystem {
    /// A found name.
    struct FoundEntry {
        var inode: InodeNumber
        var kind: FileKind
        var hash: UInt64
        var ordinal: UInt8
        var cookie: UInt64 { DirectoryRecord.cookie(hash: hash, ordinal: ordinal) }
    }

    /// The keyed hash of a name; 0 is left to "." and "..".
    func hash(_ name: ByteView) -> UInt64 {
        max(volume.nameHash.hash(name) & DirectoryRecord.hashMask, 1)
    }

    func entry(
        _ name: ByteView, in directory: InodeNumber, _ transaction: Transaction? = nil
    ) throws(FSError) -> FoundEntry? {
        let hash = hash(name)
        let found = try value(Key(directory, .directoryEntry, hash), in: transaction) {
            (value) throws(FSError) -> FoundEntry? in
            guard
                let entry = try DirectoryRecord.find(
                    name, in: value, directory: directory.rawValue)
            else { return nil }
            return FoundEntry(
                inode: entry.inode, kind: entry.kind, hash: hash, ordinal: entry.ordinal)
        }
        return found ?? nil
    }

    /// Adds a name that is not there yet; returns its cookie. The caller counts it in the
    /// directory's size.
    func addEntry(
        _ name: ByteView, inode: InodeNumber, kind: FileKind, to directory: InodeNumber,
        _ transaction: Transaction
    ) throws(FSError) -> UInt64 {
        let hash = hash(name)
        let key = Key(directory, .directoryEntry, hash)
        let present = try value(key, in: transaction) { $0.toArray() }
        let added: (record: [UInt8], ordinal: UInt8)?
        if let present {
            added = try present.withView { (value) throws(FSError) in
                try DirectoryRecord.adding(
                    name: name, inode: inode, kind: kind, to: value,
                    directory: directory.rawValue)
            }
        } else {
            added = try DirectoryRecord.adding(
                name: name, inode: inode, kind: kind, to: nil, directory: directory.rawValue)
        }
        // Sixteen names with one 56-bit keyed hash do not happen by chance.
        guard let added else { throw .noSpace }
        transaction.put(key, added.record)
        return DirectoryRecord.cookie(hash: hash, ordinal: added.ordinal)
    }

    func removeEntry(
        _ name: ByteView, from directory: InodeNumber, _ transaction: Transaction
    ) throws(FSError) {
        let key = Key(directory, .directoryEntry, hash(name))
        let left = try value(key, in: transaction) { (value) throws(FSError) in
            try DirectoryRecord.removing(name: name, from: value, directory: directory.rawValue)
        }
        guard let left else { throw .noSuchEntry }
        if left.isEmpty { transaction.delete(key) } else { transaction.put(key, left) }
    }

    /// Lets an existing name point to another inode.
    func replaceEntry(
        _ name: ByteView, in directory: InodeNumber, with inode: InodeNumber, kind: FileKind,
        _ transaction: Transaction
    ) throws(FSError) {
        let key = Key(directory, .directoryEntry, hash(name))
        let record = try value(key, in: transaction) { (value) throws(FSError) in
            try DirectoryRecord.replacing(
                name: name, inode: inode, kind: kind, in: value, directory: directory.rawValue)
        }
        guard let record else { throw .noSuchEntry }
        transaction.put(key, record)
    }

    // MARK: Names of an inode

    /// Notes one more name of an inode: in its record if there is none yet, else as a link record.
    func addName(
        of inode: InodeNumber, _ record: inout InodeRecord, parent: InodeNumber, cookie: UInt64,
        _ transaction: Transaction
    ) throws(FSError) {
        if record.parent == 0 {
            record.parent = parent.rawValue
            record.nameCookie = cookie
            return
        }
        // The last page takes it, or a new one behind that: looking for room in all of them, each
        // time, would make the cost of many names of one inode a square.
        let keys = try linkKeys(of: inode, parent: parent, transaction)
        var number: UInt64 = 0
        if let last = keys.last {
            var cookies = try linkCookies(last, of: inode, transaction) ?? []
            if cookies.count < LinkRecord.maximumCookies {
                cookies.append(cookie)
                return store(cookies, last, transaction)
            }
            number = (last.offset & 0xFFFF) + 1
        }
        if number >= UInt64(UInt16.max) {
            for key in keys {
                var cookies = try linkCookies(key, of: inode, transaction) ?? []
                guard cookies.count < LinkRecord.maximumCookies else { continue }
                cookies.append(cookie)
                return store(cookies, key, transaction)
            }
            let taken = Set(keys.map { $0.offset & 0xFFFF })
            guard let free = (0..<UInt64(UInt16.max)).first(where: { !taken.contains($0) }) else {
                throw .tooManyLinks
            }
            number = free
        }
        store(
            [cookie], Key(inode, .link, LinkRecord.offset(parent: parent, page: number)),
            transaction)
    }

    /// Forgets a name of an inode; if it was the one in the record, another takes its place.
    func removeName(
        of inode: InodeNumber, _ record: inout InodeRecord, parent: InodeNumber, cookie: UInt64,
        _ transaction: Transaction
    ) throws(FSError) {
        if record.parent == parent.rawValue, record.nameCookie == cookie {
            record.parent = 0
            record.nameCookie = 0
            // Directories and most files have one name only.
            guard record.linkCount > 0, !record.isDirectory else { return }
            guard var page = try linkPages(of: inode, parent: nil, transaction).first else {
                return
            }
            record.parent = page.key.offset >> 16
            record.nameCookie = page.cookies.removeLast()
            store(page.cookies, page.key, transaction)
            return
        }
        for var page in try linkPages(of: inode, parent: parent, transaction) {
            if let index = page.cookies.firstIndex(of: cookie) {
                page.cookies.swapAt(index, page.cookies.count - 1)
                page.cookies.removeLast()
                store(page.cookies, page.key, transaction)
                return
            }
        }
        throw .corrupt(Corruption(.link, at: inode.rawValue, "a name is not recorded"))
    }

    /// The link records of an inode as the transaction sees them, of one parent or of all.
    private func linkPages(
        of inode: InodeNumber, parent: InodeNumber?, _ transaction: Transaction
    ) throws(FSError) -> [(key: Key, cookies: [UInt64])] {
        var pages: [(key: Key, cookies: [UInt64])] = []
        for key in try linkKeys(of: inode, parent: parent, transaction) {
            if let cookies = try linkCookies(key, of: inode, transaction) {
                pages.append((key, cookies))
            }
        }
        return pages
    }

    /// The keys of those pages in order; the transaction may have deleted some.
    private func linkKeys(
        of inode: InodeNumber, parent: InodeNumber?, _ transaction: Transaction
    ) throws(FSError) -> [Key] {
        let first = Key(inode, .link, parent.map { LinkRecord.offset(parent: $0, page: 0) } ?? 0)
        let last = Key(
            inode, .link, parent.map { LinkRecord.offset(parent: $0, page: 0xFFFF) } ?? .max)
        var keys = Set(transaction.keys(first...last))
        var position: Key? = first
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: last) { (key, _) throws(FSError) in
                keys.insert(key)
                return true
            }
        }
        return keys.sorted()
    }

    private func linkCookies(
        _ key: Key, of inode: InodeNumber, _ transaction: Transaction
    ) throws(FSError) -> [UInt64]? {
        try value(key, in: transaction) { (value) throws(FSError) in
            try LinkRecord.cookies(value, inode: inode.rawValue)
        }
    }

    private func store(_ cookies: [UInt64], _ key: Key, _ transaction: Transaction) {
        if cookies.isEmpty {
            transaction.delete(key)
        } else {
            transaction.put(key, LinkRecord.encode(cookies))
        }
    }

    // MARK: Listing

    /// Cookies of the two entries that every directory has.
    private static let selfCookie: UInt64 = 1
    package static let parentCookie: UInt64 = 2

    /// Lists a directory behind `cookie` (0 from the start) until `body` returns false, which means
    /// that the entry was not taken. `body` is called without locks held. With attributes, each
    /// taken entry but "." and ".." holds a reference on its inode. `expecting` is about how many
    /// entries the caller takes: what it does not take was looked up in vain.
    public func readDirectory(
        _ inode: InodeNumber, after cookie: UInt64, withAttributes: Bool,
        expecting expected: Int = .max,
        _ body: (DirectoryEntry, Attributes?) -> Bool
    ) throws(FSError) {
        var after = cookie
        let record = try directoryRecord(inode)
        if cookie < Self.parentCookie {
            if cookie == 0 { noteAccess(inode, record) }
            func take(_ name: StaticString, _ dotCookie: UInt64, _ number: UInt64) -> Bool {
                guard cookie < dotCookie else { return true }
                let entry = unsafe DirectoryEntry(
                    name: ByteView(base: name.utf8Start, count: name.utf8CodeUnitCount),
                    inode: InodeNumber(number), kind: .directory, cookie: dotCookie)
                return body(entry, withAttributes ? record.attributes(inode) : nil)
            }
            guard take(".", Self.selfCookie, inode.rawValue),
                take("..", Self.parentCookie, max(record.parent, 1))
            else { return }
            after = Self.parentCookie
        }
        let batchSize = min(max(expected, 1), DirectoryBatch.maximumSize)
        let batch = batches.take() ?? DirectoryBatch()
        defer { batches.give(batch) }
        while true {
            try fill(batch, batchSize, inode, after: after, withAttributes: withAttributes)
            let taken = batch.names.withView { names in
                var start = 0
                for (index, listed) in batch.entries.enumerated() {
                    let entry = DirectoryEntry(
                        name: names.slice(start, Int(listed.nameLength)), inode: listed.inode,
                        kind: listed.kind, cookie: listed.cookie)
                    start += Int(listed.nameLength)
                    guard body(entry, withAttributes ? batch.attributes[index] : nil) else {
                        return index
                    }
                }
                return batch.entries.count
            }
            for index in batch.attributes.indices.dropFirst(taken)
            where batch.attributes[index] != nil {
                release(batch.entries[index].inode, count: 1)
            }
            guard taken == batch.entries.count, !batch.isLast, let last = batch.entries.last else {
                return
            }
            after = last.cookie
        }
    }

    private func fill(
        _ batch: DirectoryBatch, _ batchSize: Int, _ directory: InodeNumber, after cookie: UInt64,
        withAttributes: Bool
    ) throws(FSError) {
        batch.entries.removeAll(keepingCapacity: true)
        batch.names.removeAll(keepingCapacity: true)
        batch.attributes.removeAll(keepingCapacity: true)
        try locks.shared(directory) { () throws(FSError) in
            var position: Key? = Key(directory, .directoryEntry, cookie >> 4)
            let last = Key(directory, .directoryEntry, .max)
            try volume.reading { () throws(TreeFault) in
                try tree.scan(&position, through: last) { (key, value) throws(FSError) in
                    try DirectoryRecord.forEach(value, directory: directory.rawValue) {
                        (entry) throws(FSError) in
                        let own = DirectoryRecord.cookie(hash: key.offset, ordinal: entry.ordinal)
                        guard own > cookie else { return true }
                        batch.names.append(entry.name)
                        batch.entries.append(
                            DirectoryBatch.Listed(
                                inode: entry.inode, cookie: own, kind: entry.kind,
                                nameLength: UInt8(entry.name.count)))
                        return true
                    }
                    return batch.entries.count < batchSize
                }
            }
            batch.isLast = position == nil
            guard withAttributes else { return }
            for listed in batch.entries {
                // A name whose inode is damaged is listed all the same, without attributes.
                let attributes = try? attributes(of: listed.inode)
                if attributes != nil { retain(listed.inode) }
                batch.attributes.append(attributes)
            }
        }
    }
}
