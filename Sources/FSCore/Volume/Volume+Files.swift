/// The files of heads and snapshots: which `FileSystem` is over which tree.
extension Volume {
    /// The files of a head; nil if there is none. Inodes that a crash, or the snapshot from which the
    /// head came, left without a name are reclaimed first.
    public func files(of head: TreeID) throws(FSError) -> FileSystem? {
        if head == .head { return fileSystem }
        guard let tree = treeLock.shared({ clones[head] }) else { return nil }
        let (files, isNew) = filesLock.withLock { () -> (FileSystem, Bool) in
            if let known = cloneFiles[head], known.tree === tree { return (known, false) }
            let made = FileSystem(self, tree)
            cloneFiles[head] = made
            return (made, true)
        }
        if isNew, stateLock.withLock({ state == .online }) { try files.reclaimOrphans() }
        return files
    }

    /// The files of a snapshot's root, which must be durable.
    package func files(ofRoot root: NodePointer, _ record: SnapshotRecord) throws(FSError)
        -> FileSystem
    {
        let tree = CopyOnWriteTree(
            id: record.head, root: try readRoot(root), durableRoot: root, counts: record.counts,
            context: self)
        return FileSystem(self, tree, isReadOnly: true)
    }
}

extension FileSystem {
    /// How often inodes are held.
    package var referenceCount: UInt64 { references.total }

    /// The head has become another tree: nobody holds an inode of it yet, and which have no name is found
    /// out anew. Nobody uses the files.
    package func restart() throws(FSError) {
        references.removeAll()
        orphans.removeAll()
        if !isReadOnly, (try? requireWritable()) != nil { try reclaimOrphans() }
    }
}
