/// Keeps moments of heads: the table of snapshots, and the deadlists that say what they hold
/// (`docs/DESIGN.md`, snapshots).
///
/// The volume knows what a head needs for every change: the epoch of its parent, and the segment that
/// takes what it drops of older births. Everything else is here.
public protocol SnapshotPolicy: AnyObject, Sendable {
    /// Reads the table and attaches every head. The trees' roots are loaded, nothing is replayed yet.
    func load() throws(FSError)
    /// Begins and ends the work in the background: giving back what deleted snapshots held.
    func start()
    func stop()

    /// A snapshot by its name: its id, and its files, which are only read. Throws `.noSuchEntry`.
    func snapshot(named name: [UInt8]) throws(FSError) -> (id: UInt64, files: FileSystem)
    /// Whether the table has a node of this id. Under the tree lock.
    func isKnown(_ id: UInt64) -> Bool
    /// Puts dropped references into a deadlist, by changes of the same transaction.
    func keep(
        _ dropped: [Transaction.Release], in segment: UInt64, death: SuperblockSequence,
        _ transaction: Transaction
    ) throws(FSError)
    /// Follows a transaction that changes the table, live or replayed. Under the exclusive lock; the
    /// records were checked (`Volume.prepareHeads`).
    func follow(_ records: [SnapshotRecord], _ transaction: Transaction)
}
