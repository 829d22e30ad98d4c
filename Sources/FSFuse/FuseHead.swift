/// Node ids of the mounted head. When it goes back to a snapshot they all become others at once, but the
/// root's: what the kernel still knows by the old ones is stale, and never mixed with the new tree.
///
/// - Invariant: the tag changes only while no request is worked on (`FuseGate`).
internal import FSCore
internal import Synchronization

final class FuseHead: Sendable {
    let files: FileSystem
    private let tags: FuseTags
    /// The tag in its place in a node id.
    private let bits = Atomic<UInt64>(0)
    private let changes = Atomic<UInt64>(0)

    init(_ files: FileSystem, _ tags: FuseTags) {
        self.files = files
        self.tags = tags
    }

    @inline(__always)
    func contains(_ nodeID: UInt64) -> Bool {
        nodeID ^ bits.load(ordering: .relaxed) < InodeNumber.limit || nodeID == FuseNodeID.root
    }

    @inline(__always)
    func nodeID(of inode: InodeNumber) -> UInt64 {
        inode == .root ? FuseNodeID.root : inode.rawValue | bits.load(ordering: .relaxed)
    }

    /// Tells a handle of an earlier tree from one of this, should it have the same tag. The root stays
    /// what it is: to the kernel, another generation would be another inode in its place.
    @inline(__always)
    func generation(of inode: InodeNumber) -> UInt64 {
        inode == .root ? 0 : changes.load(ordering: .relaxed)
    }

    /// Lets `change` make the head another tree; false if it did not, or no tag is left.
    ///
    /// - Parameter change: returns whether it did.
    func become(_ change: () -> Bool) -> Bool {
        let number = changes.load(ordering: .relaxed) + 1
        guard let tag = tags.retain(.head(number)) else { return false }
        let references = files.referenceCount
        guard change() else {
            tags.release(tag)
            return false
        }
        // The old tag is in use until the kernel has forgotten all that it knows by it.
        let old = bits.load(ordering: .relaxed) >> FuseNodeID.tagShift
        tags.retain(old, references)
        tags.release(old)
        bits.store(tag << FuseNodeID.tagShift, ordering: .relaxed)
        changes.store(number, ordering: .relaxed)
        return true
    }
}
