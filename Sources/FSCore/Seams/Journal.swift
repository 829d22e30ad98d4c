/// The write-ahead journal: makes a commit durable without a checkpoint. A volume without one is
/// consistent at every checkpoint, and fsync is a checkpoint.
public protocol Journal: AnyObject, Sendable {
    /// Takes over a transaction in the order of publication. Called under the exclusive tree lock:
    /// it may only copy, never wait or do I/O.
    func append(_ transaction: JournalTransaction)
    /// Makes everything appended so far durable.
    func flush() throws(FSError)
    /// A checkpoint that contains everything up to `operation` is durable: the tail may move.
    func checkpointed(upTo operation: UInt64, sequence: SuperblockSequence)
}

/// What a journal records of one transaction: absolute values, so that replay is blind.
public struct JournalTransaction {
    public struct Update {
        public var tree: TreeID
        public var key: Key
        /// nil deletes the key.
        public var value: [UInt8]?
    }
    /// The operation's number in the volume's one order.
    public var operation: UInt64
    public var updates: [Update]
    public var allocated: [BlockRun]
    public var freed: [BlockRun]
}
