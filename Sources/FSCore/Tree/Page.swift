/// One resident tree node.
///
/// A page is *clean* (its bytes are on the device), *dirty* (changed in the running checkpoint
/// window, changed further in place), or *frozen* (being written by a checkpoint; whoever wants to
/// change it copies it). All changes happen under the exclusive tree lock; readers hold it shared.
///
///     clean ──touch──▶ dirty ──freeze──▶ frozen ──written──▶ clean
///                        │                 └──touch──▶ (a dirty copy at a new address)
///                        └──merged away──▶ dead
///
/// - Invariant: the bytes of a clean or frozen page never change, except that a checkpoint patches
///   child checksums under the exclusive lock.
@safe
package final class Page: @unchecked Sendable {
    enum State {
        case clean, dirty, frozen, dead
    }

    let buffer: ByteBuffer
    package let node: NodePage
    let tree: TreeKind
    var replicas: ReplicaList
    var state: State
    /// A frozen page that was copied for further changes: nothing of the live tree refers to it.
    var isSuperseded = false

    // The cache's own bookkeeping, guarded by its shard's lock.
    var isReferenced = true
    var ringIndex = -1

    init(buffer: ByteBuffer, tree: TreeKind, replicas: ReplicaList, state: State) {
        self.buffer = buffer
        node = NodePage(buffer.bytes)
        self.tree = tree
        self.replicas = replicas
        self.state = state
    }

    /// An empty dirty node.
    convenience init(
        emptyAtLevel level: UInt8, tree: TreeKind, uuid: VolumeUUID, replicas: ReplicaList,
        sequence: SuperblockSequence, birth: BirthEpoch
    ) {
        self.init(
            buffer: ByteBuffer(count: DiskFormat.nodeSize), tree: tree, replicas: replicas,
            state: .dirty)
        node.initialize(level: level, tree: tree, uuid: uuid)
        stamp(sequence: sequence, birth: birth)
    }

    /// A dirty copy of a frozen page.
    convenience init(copying page: Page, replicas: ReplicaList) {
        self.init(
            buffer: ByteBuffer(copying: page.node.view), tree: page.tree, replicas: replicas,
            state: .dirty)
    }

    var address: BlockAddress { replicas.first }
    var level: UInt8 { node.level }

    /// Writes place, sequence and birth into the header.
    func stamp(sequence: SuperblockSequence, birth: BirthEpoch) {
        node.address = replicas.first
        node.sequence = sequence
        node.birth = birth
    }

    /// The pointer to this page as its parent stores it; the checksum is patched at write-out.
    func pointer(_ kind: ChecksumKind, checksum: ChecksumValue = .zero) -> NodePointer {
        NodePointer(
            level: level, sequence: node.sequence, birth: node.birth, replicas: replicas,
            checksumKind: kind, checksum: checksum)
    }
}
