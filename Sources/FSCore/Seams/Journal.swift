/// The write-ahead journal: makes operations durable without a checkpoint. A volume without one is
/// consistent at every checkpoint, and fsync is a checkpoint.
///
///     open      read ──▶ replay into the trees ──▶ start (a new incarnation)
///     commit    reserve ─▶ append (under the tree lock; only copies)
///     fsync     flush: data that is not on the device yet, one record, one flush
///     checkpoint  cut (under the tree lock) ─▶ writeHome ─▶ … superblock … ─▶ retire
///
/// Small data goes through the journal: an operation *stages* it instead of writing it to its
/// blocks. It is written home later, at the latest by the next checkpoint; until then reads are
/// answered from the stage.
public protocol Journal: AnyObject, Sendable {
    /// Data of one operation up to this many bytes is staged.
    var stagedDataLimit: Int { get }
    var status: JournalStatus { get }

    // MARK: Opening

    /// Reads the whole ring and finds out what of it is valid. Changes nothing.
    func read(_ position: JournalPosition) throws(FSError) -> JournalContents
    /// Every valid record of the ring, whatever its incarnation. `damaged` hears of blocks that look
    /// like a record and are none.
    func records(damaged: (_ ringBlock: UInt64, FSError) -> Void) -> [JournalRecord]
    /// Whether the first block of the ring belongs to a later incarnation than `incarnation`: then
    /// the superblock that began it is lost.
    func isBegun(after incarnation: UInt64) throws(FSError) -> Bool
    /// Hands out the operations of `contents` behind its position, in order.
    func replay(
        _ contents: JournalContents, _ body: (Transaction) throws(FSError) -> Void
    ) throws(FSError)
    /// Hands out the blocks that those operations allocated.
    func claims(
        _ contents: JournalContents, _ body: (BlockRun) throws(FSError) -> Void
    ) throws(FSError)
    /// Begins an empty ring. The superblock that names `position` is durable.
    func start(_ position: JournalPosition, sequence: SuperblockSequence) throws(FSError)

    // MARK: Operations

    /// Whether a transaction of this size can be appended now; room once granted stays. Called under
    /// the exclusive tree lock right before `append`. Throws `.corrupt` if no record could hold it.
    func hasRoom(for transaction: Transaction) throws(FSError) -> Bool
    /// Makes room in memory, when `hasRoom` said no; false: only a checkpoint can.
    func makeRoom() throws(FSError) -> Bool
    /// Takes over the next transaction in the one order; true if whoever asks
    /// `millisecondsUntilFlush` must be woken for it. Called under the exclusive tree lock.
    func append(_ transaction: Transaction) -> Bool
    /// Data was written to its blocks, past the journal.
    func noteHomeWrite()
    /// Copies what is staged of `run` into `target` and returns which blocks those were; nil if none.
    func readStaged(_ run: BlockRun, into target: MutableByteView) -> [Bool]?

    // MARK: Durability

    /// Makes everything appended before the call durable. `false`: the ring has no room, and only a
    /// checkpoint can do it.
    func flush(_ reason: JournalFlushReason) throws(FSError) -> Bool
    /// Milliseconds until `flush(.timer)` is due; nil if there is nothing to flush.
    var millisecondsUntilFlush: Int? { get }

    // MARK: Checkpoints

    /// The ring is half full.
    var wantsCheckpoint: Bool { get }
    /// Marks the freeze of a checkpoint that contains everything up to `operation`. Called under
    /// the exclusive tree lock.
    func cut(_ operation: UInt64) -> JournalCut
    /// Writes staged data of the operations up to the cut to their blocks; the caller flushes.
    func writeHome(_ cut: JournalCut) throws(FSError)
    /// The checkpoint is durable: its operations need no journal any more.
    func retire(_ cut: JournalCut, sequence: SuperblockSequence)
}

/// Why a journal is flushed.
public enum JournalFlushReason: Sendable {
    /// Somebody waits for it: data goes along in the record.
    case synchronize
    /// Nobody waits: data goes home first, so that it is written once.
    case timer
}

/// Where a ring stands, as the superblock says.
public struct JournalPosition: Equatable, Sendable {
    /// Counts rings begun; records of another incarnation are nothing.
    public var incarnation: UInt64
    /// Operations up to this one are in the trees.
    public var operation: UInt64
    public init(incarnation: UInt64, operation: UInt64) {
        self.incarnation = incarnation
        self.operation = operation
    }
}

/// The end of what a checkpoint contains.
public struct JournalCut: Sendable {
    public var operation: UInt64
    /// The journal's own place of it.
    public var offset: UInt64
    public init(operation: UInt64, offset: UInt64) {
        self.operation = operation
        self.offset = offset
    }
}

/// What was found in a ring.
public struct JournalContents: Sendable {
    public var position: JournalPosition
    /// The records to replay, in order.
    public var records: [JournalRecord] = []
    /// The newest superblock that a record of this or a later incarnation names as durable.
    public var newestSequence = SuperblockSequence(0)
    /// Operations up to this one were durable, say the records.
    public var durableOperation: UInt64 = 0
    /// Something that was durable, or may have been, cannot be read.
    public var damage: Corruption?
    public init(position: JournalPosition) { self.position = position }

    /// The last operation that can be replayed.
    public var lastOperation: UInt64 { records.last?.lastOperation ?? position.operation }
    public var operationCount: UInt64 { lastOperation - min(position.operation, lastOperation) }
    public var byteCount: UInt64 { records.reduce(0) { $0 + UInt64($1.byteCount) } }
}

/// One record of a ring, as `inspect` shows it.
public struct JournalRecord: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        case transactions
        /// Says only what is durable.
        case seal
    }
    public var kind: Kind
    public var incarnation: UInt64
    /// Blocks of the ring written before it since the ring began.
    public var position: UInt64
    /// Block of the ring at which it begins.
    public var ringBlock: UInt64
    public var firstOperation: UInt64
    /// `firstOperation - 1` for a seal.
    public var lastOperation: UInt64
    public var durableOperation: UInt64
    public var durableSequence: SuperblockSequence
    /// Header included, padding not.
    public var byteCount: Int
    public init(
        kind: Kind, incarnation: UInt64, position: UInt64, ringBlock: UInt64,
        firstOperation: UInt64, lastOperation: UInt64, durableOperation: UInt64,
        durableSequence: SuperblockSequence,
        byteCount: Int
    ) {
        self.kind = kind
        self.incarnation = incarnation
        self.position = position
        self.ringBlock = ringBlock
        self.firstOperation = firstOperation
        self.lastOperation = lastOperation
        self.durableOperation = durableOperation
        self.durableSequence = durableSequence
        self.byteCount = byteCount
    }
}

/// What `status` shows of a journal.
public struct JournalStatus: Equatable, Sendable {
    public var ringBytes: UInt64 = 0
    /// Held for operations that no checkpoint contains yet.
    public var usedBytes: UInt64 = 0
    public var pendingBytes: UInt64 = 0
    public var stagedBytes: UInt64 = 0
    /// Since the volume was opened.
    public var records: UInt64 = 0
    public var flushes: UInt64 = 0
    public var seals: UInt64 = 0
    public var bytesWritten: UInt64 = 0
    public init() {}
}

/// What a journal module is made with.
public struct JournalSetup: Sendable {
    public var device: any BlockDevice
    public var layout: DiskLayout
    public var internalUUID: VolumeUUID
    public var extents: [BlockRun]
    /// Makes the keyed sum of the records of one incarnation.
    public var recordSum: @Sendable (_ incarnation: UInt64) -> any NameHash
    /// Rules that a test has switched off.
    package var brokenRules: BrokenRules
}
