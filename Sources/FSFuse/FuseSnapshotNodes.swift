/// Node ids of what is below `.snapshots`: which tag stands for which snapshot.
///
///     tag       inode number
///     0         of the mounted head
///     1…32766   of a snapshot, below its root                          (a `Tree`)
///     32767     of a `SnapshotPlace`: a directory of names, or the root of a snapshot
///
/// So a snapshot has a tag only while the kernel knows an inode below its root. A tag follows from
/// the snapshot if it is free, and then inode numbers that programs see are the same each time.
///
/// - Invariant: a tag leads to one place as long as the kernel has a reference below it. A handle
///   that outlives that names the generation, which is the snapshot's own, and becomes stale.
internal import FSCore

final class FuseSnapshotNodes: Sendable {
    let namespace: any SnapshotNamespace
    private let trees: LockedTrees

    static let directoryName: StaticString = ".snapshots"
    static func isDirectoryName(_ name: ByteView) -> Bool {
        name.count == directoryName.utf8CodeUnitCount && name.hasPrefix(directoryName)
    }

    static let placeTag: UInt64 = 0x7FFF

    /// - Parameter tagCount: at most 32766; a test takes fewer.
    init(_ namespace: any SnapshotNamespace, tagCount: UInt64 = placeTag - 1) {
        self.namespace = namespace
        trees = LockedTrees(tagCount)
    }

    /// The node id of where ".." leads.
    func parent(of place: SnapshotPlace) -> UInt64 {
        namespace.parent(of: place).map(Self.nodeID) ?? FuseNodeID.root
    }

    // MARK: Between node ids and places

    static func nodeID(of place: SnapshotPlace) -> UInt64 {
        placeTag << FuseNodeID.tagShift | place.rawValue
    }

    /// A directory of names; nil for everything else.
    func listing(_ nodeID: UInt64) -> SnapshotPlace? {
        guard nodeID >> FuseNodeID.tagShift == Self.placeTag else { return nil }
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
        if tag == Self.placeTag {
            place = SnapshotPlace(rawValue: nodeID)
            guard !namespace.isListing(place) else { throw listed }
            inode = .root
        } else {
            guard let known = trees.place(tag) else { throw .stale }
            place = known
        }
        return Node(place: place, inode: inode, files: try namespace.files(of: place))
    }

    /// The node id for an inode of a snapshot; it has a reference, which `release` gives back.
    ///
    /// Throws `.busy` if the kernel knows inodes of so many snapshots that no tag is left.
    func retain(_ inode: InodeNumber, in place: SnapshotPlace) throws(FSError) -> UInt64 {
        if inode == .root { return Self.nodeID(of: place) }
        guard let tag = trees.retain(place) else { throw .busy }
        return tag << FuseNodeID.tagShift | inode.rawValue
    }

    /// One more reference on an inode below a root that has one.
    func retain(_ nodeID: UInt64) {
        let tag = nodeID >> FuseNodeID.tagShift
        if tag != Self.placeTag { trees.retain(tag) }
    }

    func release(_ nodeID: UInt64, count: UInt64) {
        let tag = nodeID >> FuseNodeID.tagShift
        if tag != Self.placeTag { trees.release(tag, count) }
    }
}

/// Which tag is whose, and how many references the kernel has below it.
private final class LockedTrees: @unchecked Sendable {
    private struct Tree {
        var place: SnapshotPlace
        var references: UInt64
    }
    private let lock = Mutex()
    private let tagCount: UInt64
    private var trees: [UInt64: Tree] = [:]
    private var tags: [SnapshotPlace: UInt64] = [:]

    init(_ tagCount: UInt64) { self.tagCount = tagCount }

    func place(_ tag: UInt64) -> SnapshotPlace? { lock.withLock { trees[tag]?.place } }

    /// Nil if no tag is left.
    func retain(_ place: SnapshotPlace) -> UInt64? {
        lock.withLock {
            if let tag = tags[place] {
                trees[tag]?.references += 1
                return tag
            }
            guard UInt64(trees.count) < tagCount else { return nil }
            var tag = 1 + preferred(place) % tagCount
            while trees[tag] != nil { tag = 1 + tag % tagCount }
            trees[tag] = Tree(place: place, references: 1)
            tags[place] = tag
            return tag
        }
    }

    func retain(_ tag: UInt64) { lock.withLock { trees[tag]?.references += 1 } }

    /// The ways into one snapshot lie far from each other.
    private func preferred(_ place: SnapshotPlace) -> UInt64 {
        place.rawValue &+ (place.rawValue >> 46) &* 10_923
    }

    func release(_ tag: UInt64, _ count: UInt64) {
        lock.withLock {
            guard let tree = trees[tag] else { return }
            if tree.references > count {
                trees[tag]?.references -= count
            } else {
                trees[tag] = nil
                tags[tree.place] = nil
            }
        }
    }
}
