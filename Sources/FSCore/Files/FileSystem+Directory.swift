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
    private static let parentCookie: UInt64 = 2

    /// Lists a directory behind `cookie` (0 from the start) until `body` returns false, which means
    /// that the entry was not taken. `body` is called without locks held. With attributes, each
    /// taken entry but "." and ".." holds a reference on its inode.
    public func readDirectory(
        _ inode: InodeNumber, after cookie: UInt64, withAttributes: Bool,
        _ body: (DirectoryEntry, Attributes?) -> Bool
    ) throws(FSError) {
        let record = try directoryRecord(inode)
        if cookie == 0 { noteAccess(inode, record) }
        let dots: [(String, UInt64, UInt64)] = [
            (".", Self.selfCookie, inode.rawValue),
            ("..", Self.parentCookie, max(record.parent, 1)),
        ]
        for (name, dotCookie, number) in dots where cookie < dotCookie {
            let attributes = withAttributes ? record.attributes(inode) : nil
            let isTaken = Array(name.utf8).withView { view in
                body(
                    DirectoryEntry(
                        name: view, inode: InodeNumber(number), kind: .directory,
                        cookie: dotCookie), attributes)
            }
            if !isTaken { return }
        }
        var after = max(cookie, Self.parentCookie)
        while true {
            let batch = try self.batch(inode, after: after, withAttributes: withAttributes)
            var taken = 0
            var goesOn = true
            for listed in batch.entries {
                goesOn = batch.names.withView { names in
                    body(
                        DirectoryEntry(
                            name: names.slice(listed.name.lowerBound, listed.name.count),
                            inode: listed.inode, kind: listed.kind, cookie: listed.cookie),
                        listed.attributes)
                }
                guard goesOn else { break }
                taken += 1
                after = listed.cookie
            }
            if withAttributes {
                for listed in batch.entries.dropFirst(taken) where listed.attributes != nil {
                    release(listed.inode, count: 1)
                }
            }
            if !goesOn || batch.isLast { return }
        }
    }

    private struct Batch {
        struct Listed {
            var inode: InodeNumber
            var kind: FileKind
            var cookie: UInt64
            var name: Range<Int>
            var attributes: Attributes?
        }
        var entries: [Listed] = []
        var names: [UInt8] = []
        var isLast = false
    }

    /// Copies some entries out of the tree: about as many as a page of the kernel's takes, since what
    /// it does not take was looked up in vain.
    private func batch(
        _ directory: InodeNumber, after cookie: UInt64, withAttributes: Bool
    ) throws(FSError) -> Batch {
        let batchSize = withAttributes ? 24 : 128
        return try locks.shared(directory) { () throws(FSError) in
            var batch = Batch()
            var position: Key? = Key(directory, .directoryEntry, cookie >> 4)
            let last = Key(directory, .directoryEntry, .max)
            try volume.reading { () throws(TreeFault) in
                try tree.scan(&position, through: last) { (key, value) throws(FSError) in
                    try DirectoryRecord.forEach(value, directory: directory.rawValue) {
                        (entry) throws(FSError) in
                        let own = DirectoryRecord.cookie(hash: key.offset, ordinal: entry.ordinal)
                        guard own > cookie else { return true }
                        let start = batch.names.count
                        batch.names.append(entry.name)
                        batch.entries.append(
                            Batch.Listed(
                                inode: entry.inode, kind: entry.kind, cookie: own,
                                name: start..<batch.names.count))
                        return true
                    }
                    return batch.entries.count < batchSize
                }
            }
            batch.isLast = position == nil
            if withAttributes {
                for index in batch.entries.indices {
                    // A name whose inode is damaged is listed all the same, without attributes.
                    let inode = batch.entries[index].inode
                    guard let attributes = try? attributes(of: inode) else { continue }
                    batch.entries[index].attributes = attributes
                    references.retain(inode)
                }
            }
            return batch
        }
    }
}
