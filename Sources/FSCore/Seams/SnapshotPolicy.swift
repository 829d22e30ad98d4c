/// Decides what becomes of a reference that a head drops: with snapshots, blocks that were born
/// before the head's parent snapshot must live on (`docs/DESIGN.md`, births and deadlists).
public protocol SnapshotPolicy: AnyObject, Sendable {
    /// True if nobody but the head itself ever saw a reference of this birth, so that its blocks
    /// are free; false if a snapshot holds them, in which case the policy has taken note of it.
    /// Called under the exclusive tree lock: no waiting, no I/O.
    func isFreed(_ run: BlockRun, birth: BirthEpoch, by tree: TreeID) -> Bool
}
