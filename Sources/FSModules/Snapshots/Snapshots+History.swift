/// The versions of a path: what each snapshot has there.
public import FSCore

/// One version, and who has it.
public struct FileVersion: Equatable, Sendable {
    public var inode: InodeNumber
    public var kind: FileKind
    /// Bytes; of a directory, entries.
    public var size: UInt64
    public var modified: Timestamp
    /// The snapshots that have it, in the order of creation.
    public var snapshots: [[UInt8]] = []
    /// The head has it now.
    public var isPresent = false
}

extension Snapshots {
    /// The versions of a path from the volume's root, the oldest first. Two snapshots have the same version
    /// if there it is the same inode, as large, and last written at the same time. Where there is nothing,
    /// nothing is said: empty if it never was.
    ///
    /// Costs a look-up of the path in each snapshot.
    public func history(
        of path: String, in head: TreeID = .head, isCancelled: () -> Bool = { false }
    ) throws(FSError) -> [FileVersion] {
        var versions: [FileVersion] = []
        let nodes = allNodes().filter { $0.record.kind == .snapshot && $0.label != nil }
            .sorted { $0.record.id < $1.record.id }
        for node in nodes {
            if isCancelled() { throw .interrupted }
            guard let name = node.label?.name else { continue }
            do throws(FSError) {
                let id = try pin(name)
                defer { unpin(id) }
                guard let now = self.node(id) else { continue }
                let record = try durableRecord(now)
                guard let root = record.root else { continue }
                // Not kept open: there may be very many.
                let files = try volume.files(ofRoot: root, record)
                try add(try version(path, in: files), &versions) { $0.snapshots.append(name) }
            } catch .noSuchEntry { continue } catch .notDirectory { continue }
        }
        do throws(FSError) {
            guard let files = try volume.files(of: head) else { throw .noSuchEntry }
            try add(try version(path, in: files), &versions) { $0.isPresent = true }
        } catch .noSuchEntry {} catch .notDirectory {}
        return versions
    }

    private func version(_ path: String, in files: FileSystem) throws(FSError) -> FileVersion {
        let attributes = try files.attributes(of: try files.inode(at: path))
        return FileVersion(
            inode: attributes.inode, kind: attributes.kind, size: attributes.size,
            modified: attributes.modificationTime)
    }

    private func add(
        _ version: FileVersion, _ versions: inout [FileVersion],
        _ change: (inout FileVersion) -> Void
    ) throws(FSError) {
        let index = versions.firstIndex {
            $0.inode == version.inode && $0.size == version.size
                && $0.modified == version.modified && $0.kind == version.kind
        }
        if index == nil { versions.append(version) }
        change(&versions[index ?? versions.count - 1])
    }
}
