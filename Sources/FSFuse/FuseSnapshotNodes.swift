/// Node ids of what is below `.snapshots`.
///
/// A snapshot gets a tag when the kernel comes to know an inode below its root, and keeps it until it is
/// forgotten and another needs it; roots, and directories of names, have node ids of their own
/// (`FuseTags.places`). A handle that outlives the tag names the generation, which is the snapshot's
/// own, and becomes stale.
internal import FSCore

final class FuseSnapshotNodes: Sendable {
    let namespace: any SnapshotNamespace
    private let tags: FuseTags

    static let directoryName: StaticString = ".snapshots"
    static func isDirectoryName(_ name: ByteView) -> Bool {
        name.count == directoryName.utf8CodeUnitCount && name.hasPrefix(directoryName)
    }

    init(_ namespace: any SnapshotNamespace, _ tags: FuseTags) {
        self.namespace = namespace
        self.tags = tags
    }

    /// The node id of where ".." leads.
    func parent(of place: SnapshotPlace) -> UInt64 {
        namespace.parent(of: place).map(Self.nodeID) ?? FuseNodeID.root
    }

    // MARK: Between node ids and places

    static func nodeID(of place: SnapshotPlace) -> UInt64 {
        FuseTags.places << FuseNodeID.tagShift | place.rawValue
    }

    /// A directory of names; nil for everything else.
    func listing(_ nodeID: UInt64) -> SnapshotPlace? {
        guard nodeID >> FuseNodeID.tagShift == FuseTags.places else { return nil }
        let place = SnapshotPlace(rawValue: nodeID)
        return namespace.isListing(place) ? place : nil
    }

    /// An inode of a snapshot, and the root below which it is.
    struct Node {
        var place: SnapshotPlace
        var inode: InodeNumber
        var files: FileSystem
    }

    /// Throws `.stale` for a node id that leads nowhere.
    ///
    /// - Parameter listed: what is thrown for a directory of names, which has nothing but names.
    func node(
        _ nodeID: UInt64, orListing listed: FSError = .readOnly
    ) throws(FSError) -> Node {
        let tag = nodeID >> FuseNodeID.tagShift
        let place: SnapshotPlace
        var inode = InodeNumber(nodeID & (InodeNumber.limit - 1))
        if tag == FuseTags.places {
            place = SnapshotPlace(rawValue: nodeID)
            guard !namespace.isListing(place) else { throw listed }
            inode = .root
        } else {
            guard case .snapshot(let known) = tags.owner(tag) else { throw .stale }
            place = known
        }
        return Node(place: place, inode: inode, files: try namespace.files(of: place))
    }

    /// The node id for an inode of a snapshot; it has a reference, which `release` gives back.
    ///
    /// Throws `.busy` if the kernel knows inodes of so many snapshots that no tag is left.
    func retain(_ inode: InodeNumber, in place: SnapshotPlace) throws(FSError) -> UInt64 {
        if inode == .root { return Self.nodeID(of: place) }
        guard let tag = tags.retain(.snapshot(place)) else { throw .busy }
        return tag << FuseNodeID.tagShift | inode.rawValue
    }

    /// One more reference on an inode below a root that has one.
    func retain(_ nodeID: UInt64) {
        let tag = nodeID >> FuseNodeID.tagShift
        if tag != FuseTags.places { tags.retain(tag) }
    }

    func release(_ nodeID: UInt64, count: UInt64) {
        let tag = nodeID >> FuseNodeID.tagShift
        if tag != FuseTags.places { tags.release(tag, count) }
    }
}
