/// Names: entries of directories, and what inodes record of them.
extension RepairSession {
    /// A name as it stands in a directory.
    private struct Found {
        var key: Key
        var ordinal: UInt8
        var cookie: UInt64 { DirectoryRecord.cookie(hash: key.offset, ordinal: ordinal) }
    }

    /// Rewrites the entries of one item; false from `body` removes an entry.
    private func edit(
        _ key: Key, _ tree: TreeID, _ transaction: Transaction,
        _ body: (inout DirectoryRecord.Entry) -> Bool
    ) throws(FSError) {
        let old = try volume.value(key, of: try self.tree(tree), in: transaction) { $0.toArray() }
        guard let old else { return }
        let new = try old.withView { (value) throws(FSError) in
            try DirectoryRecord.rewriting(value, directory: key.object, body)
        }
        if new.isEmpty { transaction.delete(key) } else { transaction.put(key, new) }
    }

    /// - Parameter isMoved: it is put where its hash says, unless there is one of this name already.
    func removeEntry(
        _ key: Key, _ ordinal: UInt8, _ tree: TreeID, isMoved: Bool
    ) throws(FSError) {
        let files = try files(tree)
        try change(tree) { (transaction) throws(FSError) in
            var moved: (name: [UInt8], inode: InodeNumber, kind: FileKind)?
            try edit(key, tree, transaction) { entry in
                guard entry.ordinal == ordinal else { return true }
                moved = (entry.name.toArray(), entry.inode, entry.kind)
                return false
            }
            guard isMoved, let moved else { return }
            try moved.name.withView { (name) throws(FSError) in
                let directory = InodeNumber(key.object)
                guard try files.entry(name, in: directory, transaction) == nil else { return }
                _ = try files.addEntry(
                    name, inode: moved.inode, kind: moved.kind, to: directory, transaction)
            }
        }
    }

    /// One pass over the directories of each tree, for all inodes whose names matter.
    func settleNames() throws(FSError) {
        for (tree, wanted) in wantedNames {
            var names: [UInt64: [Found]] = [:]
            try scan(tree, .minimum ... .maximum) { (key, value) in
                guard key.type == .directoryEntry else { return }
                try? DirectoryRecord.forEach(value, directory: key.object) { entry in
                    if wanted[entry.inode.rawValue] != nil {
                        names[entry.inode.rawValue, default: []].append(
                            Found(key: key, ordinal: entry.ordinal))
                    }
                    return true
                }
            }
            for (inode, remedy) in wanted.sorted(by: { $0.key < $1.key }) {
                let found = names[inode] ?? []
                switch remedy {
                case .record: try recordNames(found, of: InodeNumber(inode), tree)
                case .kind:
                    let kind = try files(tree).record(of: InodeNumber(inode)).kind
                    try editNames(found, tree) { entry in
                        entry.kind = kind
                        return true
                    }
                case .remove:
                    var kind = FileKind.regular
                    let path = try found.first.flatMap { (name) throws(FSError) in
                        try self.path(name, tree)
                    }
                    try editNames(found, tree) { entry in
                        kind = entry.kind
                        return false
                    }
                    // A directory in a loop is there, and gets another name.
                    if try value(Key(inode, .inode, 0), tree) == nil, !found.isEmpty {
                        lose(kind == .directory ? .directory : .file, inode, tree, path: path)
                    }
                case .keepOne:
                    let record = try files(tree).record(of: InodeNumber(inode))
                    let kept =
                        found.firstIndex {
                            $0.key.object == record.parent && $0.cookie == record.nameCookie
                        } ?? 0
                    var others = found
                    if !others.isEmpty { others.remove(at: kept) }
                    try editNames(others, tree) { _ in false }
                }
            }
        }
        wantedNames = [:]
    }

    private func path(_ name: Found, _ id: TreeID) throws(FSError) -> String? {
        let directory = InodeNumber(name.key.object)
        guard let parent = volume.path(of: directory, id.rawValue),
            let name = volume.name(name.cookie, in: directory, try tree(id))
        else { return nil }
        return parent == "/" ? "/" + name : "\(parent)/\(name)"
    }

    private func editNames(
        _ names: [Found], _ tree: TreeID, _ body: (inout DirectoryRecord.Entry) -> Bool
    ) throws(FSError) {
        for name in names {
            try change(tree) { (transaction) throws(FSError) in
                try edit(name.key, tree, transaction) { entry in
                    entry.ordinal == name.ordinal ? body(&entry) : true
                }
            }
        }
    }

    /// The name that the record has stays, if it is one; the others become link records.
    private func recordNames(
        _ names: [Found], of inode: InodeNumber, _ tree: TreeID
    ) throws(FSError) {
        var record = try files(tree).record(of: inode)
        let old = try keys(of: inode.rawValue, .link, tree)
        let first =
            names.firstIndex {
                $0.key.object == record.parent && $0.cookie == record.nameCookie
            } ?? 0
        guard names.indices.contains(first) else { return }
        record.parent = names[first].key.object
        record.nameCookie = names[first].cookie
        var pages: [Key: [UInt64]] = [:]
        var counts: [UInt64: UInt64] = [:]
        for (index, name) in names.enumerated() where index != first {
            let parent = name.key.object
            let number = counts[parent, default: 0]
            counts[parent] = number + 1
            let page = number / UInt64(LinkRecord.maximumCookies)
            let key = Key(
                inode, .link, LinkRecord.offset(parent: InodeNumber(parent), page: page))
            pages[key, default: []].append(name.cookie)
        }
        try change(tree) { (transaction) in transaction.put(inode, record) }
        for key in old where pages[key] == nil {
            try change(tree) { $0.delete(key) }
        }
        for (key, cookies) in pages {
            try change(tree) { $0.put(key, LinkRecord.encode(cookies)) }
        }
    }
}
