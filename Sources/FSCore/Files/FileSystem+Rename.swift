/// rename(2) and renameat2(2).
extension FileSystem {
    /// Moves a name, replacing what the new name pointed to; or exchanges two names.
    ///
    /// - Parameter owner: whom a whiteout belongs to; it is an inode of its own.
    public func rename(
        _ name: ByteView, in directory: InodeNumber, to newName: ByteView,
        in newDirectory: InodeNumber, _ options: RenameOptions,
        owner: (user: UInt32, group: UInt32) = (0, 0)
    ) throws(FSError) {
        guard options.rawValue & ~7 == 0,
            !options.contains(.exchange) || options == .exchange
        else { throw .invalidArgument }
        for part in [name, newName] {
            guard part.count <= DiskFormat.maximumNameLength else { throw .nameTooLong }
            guard part.count > 0 else { throw .noSuchEntry }
            guard DirectoryRecord.isValid(name: part) else { throw .busy }
        }
        while true {
            let (source, target) = try ends(name, directory, newName, newDirectory)
            guard let source else { throw .noSuchEntry }
            // A whiteout is a new inode; its number is known before the locks are taken.
            let whiteout: InodeNumber? =
                options.contains(.whiteout) ? try volume.allocateInode() : nil
            // Two moves of directories at once could tie a loop that neither sees.
            let movesDirectory =
                directory != newDirectory
                && (source.kind == .directory || target?.kind == .directory)
            if movesDirectory { topologyLock.lock() }
            defer { if movesDirectory { topologyLock.unlock() } }
            let outcome = try change(
                directory, newDirectory, source.inode, target?.inode ?? source.inode
            ) { (transaction) throws(FSError) -> (isDone: Bool, gone: InodeNumber?) in
                let nowSource = try entry(name, in: directory)
                let nowTarget = try entry(newName, in: newDirectory)
                guard nowSource?.inode == source.inode, nowTarget?.inode == target?.inode,
                    let nowSource
                else { return (false, nil) }
                let move = Move(
                    name: name, directory: directory, newName: newName,
                    newDirectory: newDirectory, source: nowSource, target: nowTarget)
                if options.contains(.exchange) {
                    try exchange(move, transaction)
                    return (true, nil)
                }
                if nowTarget != nil, options.contains(.noReplace) { throw .entryExists }
                return (true, try apply(move, whiteout: whiteout, owner, transaction))
            }
            if outcome.isDone {
                if let gone = outcome.gone { reclaimIfUnused(gone) }
                return
            }
        }
    }

    private struct Move {
        var name: ByteView
        var directory: InodeNumber
        var newName: ByteView
        var newDirectory: InodeNumber
        var source: FoundEntry
        var target: FoundEntry?
    }

    private func ends(
        _ name: ByteView, _ directory: InodeNumber, _ newName: ByteView, _ newDirectory: InodeNumber
    ) throws(FSError) -> (FoundEntry?, FoundEntry?) {
        _ = try directoryRecord(directory)
        _ = try directoryRecord(newDirectory)
        return (
            try locks.shared(directory) { () throws(FSError) in try entry(name, in: directory) },
            try locks.shared(newDirectory) { () throws(FSError) in
                try entry(newName, in: newDirectory)
            }
        )
    }

    /// The plain form; returns the inode whose last name was replaced.
    private func apply(
        _ move: Move, whiteout: InodeNumber?, _ owner: (user: UInt32, group: UInt32),
        _ transaction: Transaction
    ) throws(FSError) -> InodeNumber? {
        let now = Timestamp.now()
        let isSameDirectory = move.directory == move.newDirectory
        var record = try record(of: move.source.inode)
        // Two names of one inode: nothing happens, says POSIX.
        if let target = move.target, target.inode == move.source.inode { return nil }

        var from = try directoryRecord(move.directory)
        var into = isSameDirectory ? from : try directoryRecord(move.newDirectory)
        try requireAdditions(into)
        try requireRemovals(from, record)
        if record.isDirectory, !isSameDirectory {
            try requireNotBelow(move.newDirectory, ancestor: move.source.inode)
        }

        var gone: InodeNumber?
        var cookie: UInt64
        if let target = move.target {
            var replaced = try self.record(of: target.inode)
            try requireRemovals(into, replaced)
            if record.isDirectory {
                guard replaced.isDirectory else { throw .notDirectory }
                guard replaced.size == 0 else { throw .directoryNotEmpty }
                into.linkCount -= min(into.linkCount, 1)
            } else if replaced.isDirectory {
                throw .isDirectory
            }
            try dropName(
                of: target.inode, &replaced, parent: move.newDirectory, cookie: target.cookie,
                now, transaction)
            if replaced.linkCount == 0 { gone = target.inode }
            try replaceEntry(
                move.newName, in: move.newDirectory, with: move.source.inode,
                kind: move.source.kind, transaction)
            cookie = target.cookie
        } else {
            cookie = try addEntry(
                move.newName, inode: move.source.inode, kind: move.source.kind,
                to: move.newDirectory, transaction)
            into.size += 1
        }
        if record.isDirectory {
            guard into.linkCount < volume.options.linkLimit else { throw .tooManyLinks }
            into.linkCount += 1
        }

        try removeName(
            of: move.source.inode, &record, parent: move.directory, cookie: move.source.cookie,
            transaction)
        try addName(
            of: move.source.inode, &record, parent: move.newDirectory, cookie: cookie, transaction)
        record.noteChanged(now)
        transaction.put(move.source.inode, record)

        if isSameDirectory { from = into }
        if let whiteout {
            try replaceEntry(
                move.name, in: move.directory, with: whiteout, kind: .characterDevice, transaction)
            var device = InodeRecord(
                mode: FileKind.characterDevice.modeBits, userID: owner.user,
                groupID: from.mode & ModeBits.setGroupID != 0 ? from.groupID : owner.group,
                linkCount: 1, time: now)
            device.parent = move.directory.rawValue
            device.nameCookie = move.source.cookie
            transaction.put(whiteout, device)
            transaction.inodeDelta += 1
        } else {
            try removeEntry(move.name, from: move.directory, transaction)
            from.size -= min(from.size, 1)
        }
        if record.isDirectory { from.linkCount -= min(from.linkCount, 1) }
        from.noteModified(now)
        transaction.put(move.directory, from)
        if !isSameDirectory {
            into.noteModified(now)
            transaction.put(move.newDirectory, into)
        }
        return gone
    }

    /// RENAME_EXCHANGE: each name then points to the other's inode.
    private func exchange(_ move: Move, _ transaction: Transaction) throws(FSError) {
        guard let target = move.target else { throw .noSuchEntry }
        guard target.inode != move.source.inode else { return }
        let now = Timestamp.now()
        let isSameDirectory = move.directory == move.newDirectory
        var first = try record(of: move.source.inode)
        var second = try record(of: target.inode)
        var from = try directoryRecord(move.directory)
        var into = isSameDirectory ? from : try directoryRecord(move.newDirectory)
        try requireRemovals(from, first)
        try requireRemovals(into, second)
        if !isSameDirectory {
            if first.isDirectory {
                try requireNotBelow(move.newDirectory, ancestor: move.source.inode)
            }
            if second.isDirectory {
                try requireNotBelow(move.directory, ancestor: target.inode)
            }
            let change = (second.isDirectory ? 1 : 0) - (first.isDirectory ? 1 : 0)
            from.linkCount = UInt32(clamping: Int64(from.linkCount) + Int64(change))
            into.linkCount = UInt32(clamping: Int64(into.linkCount) - Int64(change))
        }
        try replaceEntry(
            move.name, in: move.directory, with: target.inode, kind: target.kind, transaction)
        try replaceEntry(
            move.newName, in: move.newDirectory, with: move.source.inode, kind: move.source.kind,
            transaction)
        try removeName(
            of: move.source.inode, &first, parent: move.directory, cookie: move.source.cookie,
            transaction)
        try addName(
            of: move.source.inode, &first, parent: move.newDirectory, cookie: target.cookie,
            transaction)
        try removeName(
            of: target.inode, &second, parent: move.newDirectory, cookie: target.cookie,
            transaction)
        try addName(
            of: target.inode, &second, parent: move.directory, cookie: move.source.cookie,
            transaction)
        first.noteChanged(now)
        second.noteChanged(now)
        from.noteModified(now)
        if isSameDirectory { into = from } else { into.noteModified(now) }
        transaction.put(move.source.inode, first)
        transaction.put(target.inode, second)
        transaction.put(move.directory, from)
        transaction.put(move.newDirectory, into)
    }

    /// A directory cannot move below itself. The way up is bounded, so that damage cannot make it
    /// endless.
    private func requireNotBelow(
        _ directory: InodeNumber, ancestor: InodeNumber
    ) throws(FSError) {
        var current = directory
        for _ in 0..<1_000_000 {
            if current == ancestor { throw .invalidArgument }
            if current == .root { return }
            let record = try record(of: current)
            guard record.parent != 0 else { return }
            current = InodeNumber(record.parent)
        }
        throw .corrupt(Corruption(.directory, at: directory.rawValue, "its parents form a loop"))
    }
}
