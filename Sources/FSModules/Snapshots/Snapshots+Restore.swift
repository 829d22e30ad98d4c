/// Taking files and directory trees of a snapshot back into a head.
///
///     copy, under a name for the time being ──▶ place, by one rename ──▶ what was there before goes
///
/// On a mount the caller makes the rename through the kernel, which knows of it then.
///
/// - Invariant: at the target is always something whole: what was there, or what is restored.
public import FSCore

/// What a restore copies.
public struct RestoreSummary: Equatable, Sendable {
    /// Of what was asked for.
    public var kind = FileKind.regular
    public var files: UInt64 = 0
    public var directories: UInt64 = 0
    /// Symbolic links, devices, FIFOs and sockets.
    public var others: UInt64 = 0
    /// Further names of the same files.
    public var links: UInt64 = 0
    /// Of data without holes.
    public var bytes: UInt64 = 0
    /// Files of which parts cannot be read, if they were read.
    public var unreadable: UInt64 = 0
    /// Immutable or append-only: to be set when it has its place.
    public var fixedFlags: UInt32 = 0
}

extension Snapshots {
    /// Names of copies that have no place yet begin so.
    public static let temporaryPrefix = ".aegisfs-restore-"

    /// Counts what a path of a snapshot has. Throws as `copy` does.
    public func planRestore(
        of path: String, from snapshot: [UInt8], isCancelled: () -> Bool = { false }
    ) throws(FSError) -> RestoreSummary {
        try withSource(path, snapshot) { (files, source) throws(FSError) in
            var walk = TreeCopy(volume, from: files, to: nil, verifies: false)
            try walk.run(source, as: [], in: .root) { _ in !isCancelled() }
            return walk.summary
        }
    }

    /// Copies a path of a snapshot into a directory of a head, under a name that begins with
    /// `temporaryPrefix`. What was copied until an error is taken away again; after a crash it is there.
    ///
    /// Throws `.noSuchEntry` without such a snapshot, `.stale` if it has no such path,
    /// `.invalidArgument` for its root, `.noSpace`, `.interrupted`.
    ///
    /// - Parameters:
    ///   - verifies: all data is read, not only shared.
    ///   - step: hears how far it is; false ends it.
    public func copy(
        _ path: String, from snapshot: [UInt8], to head: FileSystem, as name: [UInt8],
        in directory: InodeNumber, verifies: Bool = false,
        _ step: (RestoreSummary) -> Bool = { _ in true }
    ) throws(FSError) -> RestoreSummary {
        guard name.starts(with: Self.temporaryPrefix.utf8) else { throw .invalidArgument }
        return try withSource(path, snapshot) { (files, source) throws(FSError) in
            let attributes = try head.attributes(of: directory)
            guard attributes.kind == .directory else { throw .notDirectory }
            guard attributes.flags & (InodeFlags.immutable | InodeFlags.append) == 0 else {
                throw .notPermitted
            }
            guard
                try name.withView({ (name) throws(FSError) in
                    try head.entry(named: name, in: directory) == nil
                })
            else { throw .entryExists }
            var walk = TreeCopy(volume, from: files, to: head, verifies: verifies)
            do throws(FSError) { try walk.run(source, as: name, in: directory, step) } catch {
                try? head.removeTree(name, in: directory, keepsTop: false, loosens: true)
                throw error
            }
            return walk.summary
        }
    }

    private func withSource<R>(
        _ path: String, _ snapshot: [UInt8],
        _ body: (FileSystem, InodeNumber) throws(FSError) -> R
    ) throws(FSError) -> R {
        try withTree(snapshot) { (tree) throws(FSError) in
            let source: InodeNumber
            do throws(FSError) { source = try tree.files.inode(at: path) } catch .noSuchEntry {
                throw .stale
            } catch .notDirectory { throw .stale }
            guard source != .root else { throw .invalidArgument }
            return try body(tree.files, source)
        }
    }

    /// Puts a copy where it is to be, in a head that nobody else uses; false if what was there has
    /// immutable files and is left under the name for the time being.
    ///
    /// Throws `.entryExists` if something is there that is not to be replaced, and then takes the copy away.
    public func place(
        _ temporary: [UInt8], _ copy: RestoreSummary, as name: [UInt8],
        in directory: InodeNumber, of head: FileSystem, replaces: Bool
    ) throws(FSError) -> Bool {
        let present = try name.withView { (name) throws(FSError) in
            try head.entry(named: name, in: directory)
        }
        var options: RenameOptions = .noReplace
        if replaces, let present {
            let isTree = try head.attributes(of: present).kind == .directory
            options = isTree || copy.kind == .directory ? .exchange : []
        }
        do throws(FSError) {
            try temporary.withView { (from) throws(FSError) in
                try name.withView { (to) throws(FSError) in
                    try head.rename(from, in: directory, to: to, in: directory, options)
                }
            }
        } catch {
            try? head.removeTree(temporary, in: directory, keepsTop: false, loosens: true)
            throw error
        }
        let placed = try name.withView { (name) throws(FSError) in
            try head.entry(named: name, in: directory)
        }
        if copy.fixedFlags != 0, let placed {
            let attributes = try head.attributes(of: placed)
            try head.setFlags(of: placed, attributes.flags | copy.fixedFlags, projectID: nil)
        }
        guard options == .exchange else { return true }
        do throws(FSError) {
            try head.removeTree(temporary, in: directory, keepsTop: false, loosens: false)
            return true
        } catch .notPermitted { return false }
    }

    /// Takes away a copy that found no place, or what it has replaced; of a directory it leaves the empty
    /// directory itself, for the kernel to remove.
    ///
    /// - Parameter loosens: also what is immutable, as in a copy.
    public func discard(
        _ temporary: [UInt8], in directory: InodeNumber, of head: FileSystem, loosens: Bool
    ) throws(FSError) {
        guard temporary.starts(with: Self.temporaryPrefix.utf8) else { throw .invalidArgument }
        try head.removeTree(temporary, in: directory, keepsTop: true, loosens: loosens)
    }
}
