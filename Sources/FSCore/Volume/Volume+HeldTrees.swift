/// Moments of heads that are looked at beside running operations: a root that stays, and the files below.
extension Volume {
    /// A root and what can be read through it.
    package struct HeldTree: Sendable {
        package var root: NodePointer
        /// Reads only.
        package var files: FileSystem

        package init(root: NodePointer, files: FileSystem) {
            self.root = root
            self.files = files
        }
    }

    /// Lends a head as it is in a checkpoint made now, or in a later one. Throws `.noSuchEntry` if there
    /// is no such head.
    package func withPresent<R>(
        of head: TreeID, _ body: (HeldTree) throws(FSError) -> R
    ) throws(FSError) -> R {
        let view = try openConsistentView()
        // What any checkpoint from now on refers to is not handed out again meanwhile.
        defer { leave(view.token) }
        guard
            let (root, counts) = treeLock.shared({ tree(head).map { ($0.durableRoot, $0.counts) } })
        else { throw .noSuchEntry }
        let record = SnapshotRecord(
            id: SnapshotRecord.firstID, kind: .head, parent: 0, epoch: BirthEpoch(0), head: head,
            created: .now(), counts: counts, uuid: .none)
        return try body(HeldTree(root: root, files: try files(ofRoot: root, record)))
    }

    /// One path of an inode as names from the root on; nil if it has none that can be found.
    package func path(of inode: InodeNumber, in files: FileSystem) -> String? {
        path(of: inode, in: files.tree)
    }
}
