/// What a mount shows in the directory `.snapshots` of its root: the seam between the kernel protocol
/// and whoever keeps the snapshots.

/// A directory that is not in the mounted tree: the root of a snapshot, by one of the names that lead
/// to it, or a directory of such names. Below 2⁴⁸.
public struct SnapshotPlace: Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue & (InodeNumber.limit - 1) }
    /// `.snapshots` itself.
    public static let names = SnapshotPlace(rawValue: 0)
}

/// The names in `.snapshots`, and the trees behind them. Nothing in it can be changed.
public protocol SnapshotNamespace: AnyObject, Sendable {
    /// Whether it is a directory of names; else it is the root of a snapshot.
    func isListing(_ place: SnapshotPlace) -> Bool
    /// Finds a name in a directory of names; throws `.noSuchEntry`.
    func lookup(_ name: ByteView, in place: SnapshotPlace) throws(FSError) -> SnapshotPlace
    /// What stat shows of a directory of names, or of a snapshot's root; the inode is the place's number.
    func attributes(of place: SnapshotPlace) throws(FSError) -> Attributes
    /// Where ".." leads; nil out of `.snapshots`.
    func parent(of place: SnapshotPlace) -> SnapshotPlace?
    /// Lists a directory of names behind `cookie` until `body` returns false; inodes are the numbers of
    /// places. Without "." and "..", to which the cookies 1 and 2 are left. `limit` is about how many
    /// entries the caller takes.
    func list(
        _ place: SnapshotPlace, after cookie: UInt64, atMost limit: Int,
        _ body: (DirectoryEntry) -> Bool
    ) throws(FSError)
    /// The files of the snapshot whose root it is; throws `.stale` if it was deleted.
    func files(of place: SnapshotPlace) throws(FSError) -> FileSystem
    /// A number of the snapshot that no other of the volume has, not zero.
    func generation(of place: SnapshotPlace) -> UInt64
}
