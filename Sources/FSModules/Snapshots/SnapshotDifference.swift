/// What changed between two moments, in paths: the work of `diff`.
///
/// One walk over what both do not share finds the names that went and came, and the inodes whose items
/// differ; paths are looked up for these only. So the cost follows the change.
///
///     a name went, another of the same inode came     renamed (one pair of each inode)
///     a name came or went                              added, removed; also of hard links
///     contents, owner, mode, flags or attributes       modified; of a directory not the times alone
///
/// - Invariant: data that lies elsewhere but was not written is no modification: defragmented files are
///   not shown.
public import FSCore

/// One path that differs.
public struct PathChange: Equatable, Sendable {
    public enum Kind: String, Sendable, CaseIterable { case added, removed, modified, renamed }
    public var kind: Kind
    public var path: String
    /// Of a renamed one, where it was.
    public var oldPath: String?
    public var fileKind: FileKind
    /// Bytes; nil of directories, and where it is not.
    public var oldSize: UInt64?
    public var newSize: UInt64?
    /// A renamed one was also modified.
    public var isModified = false
}

extension Snapshots {
    /// The differences from snapshot `old` to snapshot `new`, or to a head as it is now, in the order of
    /// their paths.
    ///
    /// Throws `.noSuchEntry` if there is no such snapshot, `.interrupted` if it was cancelled. Memory: some
    /// 100 bytes for each path and inode that differs.
    public func difference(
        from old: [UInt8], to new: [UInt8]?, of head: TreeID = .head,
        isCancelled: () -> Bool = { false }
    ) throws(FSError) -> [PathChange] {
        try withTree(old) { (before) throws(FSError) in
            func compare(_ after: Volume.HeldTree) throws(FSError) -> [PathChange] {
                var walk = DifferenceWalk(volume: volume, old: before, new: after)
                try walk.run(isCancelled)
                return try walk.changes()
            }
            if let new { return try withTree(new, compare) }
            return try volume.withPresent(of: head, compare)
        }
    }

    /// Lends a snapshot, which is not deleted meanwhile.
    func withTree<R>(
        _ name: [UInt8], _ body: (Volume.HeldTree) throws(FSError) -> R
    ) throws(FSError) -> R {
        let id = try pin(name)
        defer { unpin(id) }
        let files = try files(of: name)
        guard let node = node(id), let root = try durableRecord(node).root else {
            throw .noSuchEntry
        }
        return try body(Volume.HeldTree(root: root, files: files))
    }
}

/// The names of a directory's item.
struct DirectoryNames: Equatable {
    struct Entry: Hashable {
        var name: [UInt8]
        var inode: InodeNumber
    }
    var entries: [Entry] = []

    init(_ value: ByteView?, _ directory: UInt64) throws(FSError) {
        guard let value else { return }
        try DirectoryRecord.forEach(value, directory: directory) { (entry) throws(FSError) in
            entries.append(Entry(name: entry.name.toArray(), inode: entry.inode))
            return true
        }
    }
}

private struct DifferenceWalk {
    let volume: Volume
    let old: Volume.HeldTree
    let new: Volume.HeldTree

    private struct Name {
        var directory: InodeNumber
        var name: [UInt8]
    }
    private var gone: [InodeNumber: [Name]] = [:]
    private var come: [InodeNumber: [Name]] = [:]
    private struct Touched: OptionSet {
        let rawValue: UInt8
        static let data = Touched(rawValue: 1)
        static let attributes = Touched(rawValue: 2)
    }
    /// Inodes with an item that differs.
    private var touched: [InodeNumber: Touched] = [:]
    private var oldPaths: [InodeNumber: String] = [:]
    private var newPaths: [InodeNumber: String] = [:]

    init(volume: Volume, old: Volume.HeldTree, new: Volume.HeldTree) {
        self.volume = volume
        self.old = old
        self.new = new
    }

    mutating func run(_ isCancelled: () -> Bool) throws(FSError) {
        try TreeComparison(volume).run(old: old.root, new: new.root) {
            (difference) throws(FSError) in
            if isCancelled() { throw .interrupted }
            guard case .item(let key, let before, let after) = difference, key.object != 0 else {
                return
            }
            let inode = InodeNumber(key.object)
            switch key.type {
            case .directoryEntry:
                let was = try DirectoryNames(before, key.object).entries
                let now = try DirectoryNames(after, key.object).entries
                for entry in was where !now.contains(entry) {
                    gone[entry.inode, default: []].append(Name(directory: inode, name: entry.name))
                }
                for entry in now where !was.contains(entry) {
                    come[entry.inode, default: []].append(Name(directory: inode, name: entry.name))
                }
            case .inode: touched[inode, default: []].formUnion([])
            case .extent, .inlineData: touched[inode, default: []].insert(.data)
            case .attribute: touched[inode, default: []].insert(.attributes)
            default: break
            }
        }
    }

    mutating func changes() throws(FSError) -> [PathChange] {
        var result: [PathChange] = []
        for (inode, names) in gone {
            var gone = names
            var come = self.come.removeValue(forKey: inode) ?? []
            let before = try record(inode, old)
            let after = try record(inode, new)
            while before != nil, after != nil, let from = gone.last, let to = come.last {
                gone.removeLast()
                come.removeLast()
                var change = try change(.renamed, to, new, before, after)
                change.oldPath = path(from, old)
                change.isModified = isModified(inode, before, after)
                touched[inode] = nil
                result.append(change)
            }
            for name in gone { result.append(try change(.removed, name, old, before, nil)) }
            for name in come { result.append(try change(.added, name, new, nil, after)) }
        }
        for (inode, names) in come {
            let after = try record(inode, new)
            for name in names { result.append(try change(.added, name, new, nil, after)) }
        }
        for inode in touched.keys {
            guard let before = try record(inode, old), let after = try record(inode, new),
                before.linkCount > 0, after.linkCount > 0, isModified(inode, before, after),
                let path = volume.path(of: inode, in: new.files)
            else { continue }
            result.append(
                PathChange(
                    kind: .modified, path: path, fileKind: after.kind, oldSize: size(before),
                    newSize: size(after)))
        }
        return result.sorted {
            ($0.path, $0.kind.rawValue) < ($1.path, $1.kind.rawValue)
        }
    }

    private func record(
        _ inode: InodeNumber, _ moment: Volume.HeldTree
    ) throws(FSError) -> InodeRecord? {
        do throws(FSError) { return try moment.files.record(of: inode) } catch .stale {
            return nil
        }
    }

    /// Whether anything was done to it but giving it names, or reading.
    private func isModified(
        _ inode: InodeNumber, _ before: InodeRecord?, _ after: InodeRecord?
    ) -> Bool {
        guard var before, let after else { return false }
        let touched = touched[inode] ?? []
        if touched.contains(.attributes) { return true }
        // Data that only lies elsewhere leaves no trace in the record.
        if touched.contains(.data), before.changeSequence != after.changeSequence { return true }
        for keyPath in [
            \InodeRecord.accessTime, \.changeTime,
        ] as [WritableKeyPath<InodeRecord, Timestamp>] {
            before[keyPath: keyPath] = after[keyPath: keyPath]
        }
        before.changeSequence = after.changeSequence
        before.linkCount = after.linkCount
        before.parent = after.parent
        before.nameCookie = after.nameCookie
        before.blocks = after.blocks
        before.content = after.content
        if before.isDirectory {
            before.modificationTime = after.modificationTime
            before.size = after.size
        }
        return before != after
    }

    private func size(_ record: InodeRecord?) -> UInt64? {
        record.flatMap { $0.isDirectory ? nil : $0.size }
    }

    private mutating func change(
        _ kind: PathChange.Kind, _ name: Name, _ moment: Volume.HeldTree, _ before: InodeRecord?,
        _ after: InodeRecord?
    ) throws(FSError) -> PathChange {
        PathChange(
            kind: kind, path: path(name, moment), fileKind: (after ?? before)?.kind ?? .regular,
            oldSize: size(before), newSize: size(after))
    }

    private mutating func path(_ name: Name, _ moment: Volume.HeldTree) -> String {
        let isOld = moment.files === old.files
        var directory = isOld ? oldPaths[name.directory] : newPaths[name.directory]
        if directory == nil {
            let found = volume.path(of: name.directory, in: moment.files) ?? "?"
            directory = found == "/" ? "" : found
            if isOld {
                oldPaths[name.directory] = directory
            } else {
                newPaths[name.directory] = directory
            }
        }
        return "\(directory ?? "")/\(String(decoding: name.name, as: UTF8.self))"
    }
}
