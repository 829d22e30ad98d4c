/// Rules of the design that a test may switch off, to prove that the tests would notice. Nothing but
/// tests can reach them: no option of the program sets one.
///
/// Each name says what goes wrong; `docs/DESIGN.md` says why the rule is there, and
/// `NegativeControlTests` that each of them is caught.
package struct BrokenRules: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The superblock is written before the nodes that it names.
    package static let superblockBeforeTree = BrokenRules(rawValue: 1 << 0)
    /// A block counts as committed from its allocation, not from its publication on.
    package static let bitAtAllocation = BrokenRules(rawValue: 1 << 1)
    /// Replay allocates without first claiming what the journal has allocated.
    package static let noClaimingPass = BrokenRules(rawValue: 1 << 2)
    /// A release after the freeze already shows in the frozen bitmap.
    package static let freeInFrozenBitmap = BrokenRules(rawValue: 1 << 3)
    /// A released block is handed out again before a checkpoint without it is durable.
    package static let reuseBeforeCheckpoint = BrokenRules(rawValue: 1 << 4)
    /// The older superblock is used although the journal names a newer one.
    package static let fallBackToOlderSuperblock = BrokenRules(rawValue: 1 << 5)
    /// The first checkpoint after a recovery re-uses the sequence of the one that was found.
    package static let sequenceReusedAfterRecovery = BrokenRules(rawValue: 1 << 6)
    /// A dropped reference frees its blocks, whoever else refers to them.
    package static let sharesSkipped = BrokenRules(rawValue: 1 << 8)
    /// Making a snapshot does not begin a new epoch.
    package static let epochReused = BrokenRules(rawValue: 1 << 9)
    /// What was allocated before a snapshot and published after it is born before it.
    package static let birthAtAllocation = BrokenRules(rawValue: 1 << 10)
    /// A deadlist knows each block and birth once.
    package static let deadlistIsSet = BrokenRules(rawValue: 1 << 11)
    /// A head asks the newest snapshot that can be seen, not its own parent, what it may free.
    package static let globalLatestSnapshot = BrokenRules(rawValue: 1 << 12)
    /// The sweeper frees what no durable checkpoint knows to be dead.
    package static let sweepsUndurable = BrokenRules(rawValue: 1 << 13)
    /// The end of a node without children frees what its nearest visible ancestor lacks.
    package static let freesToVisibleAncestor = BrokenRules(rawValue: 1 << 14)
    /// What is left of an encoded extent that was cut is no reference of its own.
    package static let partsNotReferenced = BrokenRules(rawValue: 1 << 16)
    /// It keeps the birth of the whole, as if it were the reference that a snapshot has.
    package static let partsKeepTheirBirth = BrokenRules(rawValue: 1 << 17)
    /// A block that was released since it was copied is moved all the same.
    package static let releasedBlocksMoved = BrokenRules(rawValue: 1 << 20)
    /// What is released is discarded at once.
    package static let discardAtRelease = BrokenRules(rawValue: 1 << 22)
    /// The number of a block that was moved is handed out while something refers to it.
    package static let movedNumbersReused = BrokenRules(rawValue: 1 << 21)
    /// Data takes the last places in which a node could lie.
    package static let dataTakesLastPlaces = BrokenRules(rawValue: 1 << 23)
    /// A change does not find out beforehand how many nodes it takes.
    package static let plansNothing = BrokenRules(rawValue: 1 << 27)
    /// The sum of a stream's record is not looked at.
    package static let streamUnverified = BrokenRules(rawValue: 1 << 28)
    /// A stream upon another snapshot is received upon the newest one here.
    package static let streamUponAnyBase = BrokenRules(rawValue: 1 << 29)
    /// A record goes to the block of the record before it.
    package static let recordBlockRewritten = BrokenRules(rawValue: 1 << 7)
}
