/// How a change gets into the trees: `commit`, and where its blocks come from.
///
///     lock ──▶ plan: all nodes resident? places enough? ──yes──▶ apply, journal, unlock
///                 └── no: unlock, load or allocate, again
///
/// - Invariant: under the exclusive tree lock nothing waits for the device, and nothing fails but what
///   damage makes fail that no check has seen; that latches the volume (`changing`).
extension Volume {
    /// On whose behalf a transaction is committed.
    enum CommitMode {
        /// It has its place in the one order, and the journal hears of it.
        case operation
        /// It comes from the journal.
        case replayed
        /// The volume's own bookkeeping, which replaying the operations makes again.
        case upkeep
    }

    enum CommitOutcome {
        case applied
        /// Made in an earlier epoch or window; nothing was changed.
        case outdated
        /// The journal has no room and the caller must not make any; nothing was changed.
        case needsCheckpoint
    }

    /// Applies a transaction: all of it, or nothing and an error.
    ///
    /// - Returns: false if it was made in an earlier epoch or, with deaths in it, before the last freeze;
    ///   then nothing was changed, either.
    @discardableResult
    package func commit(
        _ transaction: Transaction, _ space: SpaceClass
    ) throws(FSError) -> Bool {
        try commit(transaction, space, .operation)
    }

    @discardableResult
    func commit(
        _ transaction: Transaction, _ space: SpaceClass, _ mode: CommitMode
    ) throws(FSError) -> Bool {
        guard !transaction.isEmpty else { return true }
        var records: [SnapshotRecord] = []
        if transaction.changesSnapshots {
            records = try prepareHeads(transaction)
            if records.contains(where: \.isMoment) {
                return try checkpoint(recording: Recording(transaction, records, space, mode))
            }
        }
        if mode == .operation { try waitForRoom() }
        return try commit(Recording(transaction, records, space, mode), freezing: nil) == .applied
    }

    /// A transaction on its way into the trees.
    struct Recording {
        var transaction: Transaction
        /// What it says of the table of snapshots.
        var records: [SnapshotRecord]
        var space: SpaceClass
        var mode: CommitMode
        /// How many operations it stands for.
        var operations: Int
        init(
            _ transaction: Transaction, _ records: [SnapshotRecord], _ space: SpaceClass,
            _ mode: CommitMode, operations: Int = 1
        ) {
            self.transaction = transaction
            self.records = records
            self.space = space
            self.mode = mode
            self.operations = operations
        }
    }

    /// - Parameter freeze: the cut of a checkpoint, made right behind the transaction under the same
    ///   lock; before that the deadlists and the table hear of what they must know in the checkpoint.
    func commit(
        _ recording: Recording, freezing freeze: (() -> Void)?
    ) throws(FSError) -> CommitOutcome {
        let transaction = recording.transaction
        let journal = recording.mode == .operation ? self.journal : nil
        while true {
            var needed = 0
            var counted = PlannedPages()
            var upkeep: [UpkeepPut] = []
            var updates: [Transaction.Update] = []
            var isOrdered = transaction.updates.count > CopyOnWriteTree.orderedFrom
            if freeze == nil { treeLock.lockExclusive() } else { try lockSettlingNodes() }
            do throws(FSError) {
                if recording.mode == .operation {
                    try requireWritable()
                    try settleRemaps(transaction)
                }
            } catch {
                treeLock.unlock()
                throw error
            }
            guard isCurrent(transaction) else {
                treeLock.unlock()
                return .outdated
            }
            if let journal {
                let hasRoom: Bool
                do throws(FSError) { hasRoom = try journal.hasRoom(for: transaction) } catch {
                    treeLock.unlock()
                    throw error
                }
                if !hasRoom {
                    treeLock.unlock()
                    if freeze != nil { return .needsCheckpoint }
                    try makeJournalRoom(journal)
                    continue
                }
            }
            do throws(TreeFault) {
                var room = transaction.growth
                if freeze != nil {
                    upkeep = try upkeepBeforeFreeze()
                    room += upkeep.reduce(0) { $0 + NodePage.itemSize($1.value.count) }
                    isOrdered =
                        upkeep.count + transaction.updates.count > CopyOnWriteTree.orderedFrom
                    if isOrdered { upkeep.sort { $0.key < $1.key } }
                    for put in upkeep {
                        needed += try volumeTree.plan(
                            put.key, room: room, isDelete: false, isOrdered: isOrdered, &counted)
                    }
                }
                updates = transaction.updates(inKeyOrder: isOrdered)
                for update in updates {
                    guard let tree = tree(update.tree) else {
                        throw .failed(
                            .corrupt(
                                Corruption(
                                    .journal, at: window.operations + 1,
                                    "change of tree \(update.tree.rawValue), which is none")))
                    }
                    needed += try tree.plan(
                        update.key, room: room, isDelete: update.value == nil, isOrdered: isOrdered,
                        &counted)
                }
                // One pass in the order of the keys behind another may cut everything once more.
                if isOrdered {
                    needed += counted.addedNodes(growth: room) * (upkeep.isEmpty ? 1 : 2)
                }
            } catch {
                try unlockAndBring(error)
                continue
            }
            needed += recording.records.count(where: \.beginsEmpty)
            if options.brokenRules.contains(.plansNothing) { needed = 0 }
            if pool.count >= needed {
                try changing { () throws(FSError) in
                    for put in upkeep {
                        try put.value.withView { (view) throws(FSError) in
                            try volumeTree.put(put.key, view)
                        }
                    }
                    if freeze != nil { window.deaths = [] }
                    try apply(transaction, updates, isOrdered: isOrdered)
                    if transaction.changesSnapshots {
                        try followHeads(recording.records, transaction)
                    }
                }
                if recording.mode != .upkeep { window.operations += UInt64(recording.operations) }
                let wakesTimer = journal?.append(transaction) ?? false
                freeze?()
                treeLock.unlock()
                if wakesTimer { wakeTimers() }
                return .applied
            }
            let dirty = window.dirty.count
            treeLock.unlock()
            try refillPool(to: needed, recording.space, dirtyPages: dirty)
        }
    }

    /// Whether what a transaction took for granted still holds. Under the tree lock.
    private func isCurrent(_ transaction: Transaction) -> Bool {
        if let epoch = transaction.epoch, epoch != window.birthEpoch,
            !options.brokenRules.contains(.birthAtAllocation)
        {
            return false
        }
        return transaction.deathSequence.map { $0 == window.sequence } ?? true
    }

    /// Changes the trees under the exclusive tree lock. What fails has left half of a change: the lock is
    /// given up, and nothing is written from then on.
    func changing(_ body: () throws(FSError) -> Void) throws(FSError) {
        do throws(FSError) { try body() } catch {
            let isFirst = endWriting(error)
            treeLock.unlock()
            if isFirst { observer?.volume(.latched(error.description)) }
            throw error
        }
    }

    /// Makes the changes of a transaction, in the order in which they were planned.
    func applyUpdates(
        _ transaction: Transaction, _ updates: [Transaction.Update], isOrdered: Bool
    ) throws(FSError) {
        try transaction.bytes.withView { (view) throws(FSError) in
            var cursor: LeafCursor?
            var last: CopyOnWriteTree?
            for update in updates {
                guard let tree = last?.id == update.tree ? last : tree(update.tree) else {
                    continue
                }
                if tree !== last { cursor = nil }
                last = tree
                guard let range = update.value else {
                    try tree.delete(update.key)
                    cursor = nil
                    continue
                }
                let value = view.slice(range.lowerBound, range.count)
                if isOrdered {
                    try tree.put(update.key, value, near: &cursor)
                } else {
                    try tree.put(update.key, value)
                }
            }
        }
    }

    private func apply(
        _ transaction: Transaction, _ updates: [Transaction.Update], isOrdered: Bool
    ) throws(FSError) {
        try applyUpdates(transaction, updates, isOrdered: isOrdered)
        window.published += transaction.published
        noteRemaps(transaction)
        for run in transaction.released { free(run) }
        if transaction.tree != .volume, let tree = tree(transaction.tree) {
            tree.counts = tree.counts.adding(transaction)
            window.promisedBlocks = UInt64(
                clamping: Int64(window.promisedBlocks) + transaction.promisedDelta)
        }
    }

    /// Frees blocks that nobody refers to any more. Under the exclusive tree lock.
    func free(_ run: BlockRun) {
        if isRepairing { return }
        if options.brokenRules.contains(.reuseBeforeCheckpoint) {
            allocator.reuse(ReadEpochs.Freed(runs: [run]))
        }
        if hasMoved(run) { return window.moved.append(run) }
        if let evacuation { evacuation.noteReleased(run) }
        if options.brokenRules.contains(.discardAtRelease) {
            try? physical.discard(at: run.start.block << 12, count: run.count << 12)
        }
        window.released.append(run)
        window.releasedBlocks += run.count
    }

    /// The epoch in which references that are published now are born.
    package var birthEpoch: BirthEpoch { treeLock.shared { window.birthEpoch } }

    /// What an allocation of this class must leave free.
    func floor(_ space: SpaceClass, dirtyPages: Int) -> KeptSpace {
        // Changing a node again in the next window takes a new place while the old is still held.
        let again = UInt64(dirtyPages) * DiskFormat.blocksPerNode * UInt64(DiskFormat.nodeReplicas)
        return allocator.floors.kept(by: space, forNodes: again)
    }

    /// So much free space that a few places held ahead of need do not matter: 256 MiB.
    static let plentyBlocks: UInt64 = 65536

    func refillPool(
        to needed: Int, _ space: SpaceClass, dirtyPages: Int
    ) throws(FSError) {
        // More than needed when space is plenty, so that most commits find the pool filled.
        let kept = floor(space, dirtyPages: dirtyPages)
        let plenty = allocator.freeBlocks > kept.blocks + Self.plentyBlocks
        let target = plenty ? max(needed, NodePool.target) + NodePool.target / 2 : needed
        var places: [ReplicaList] = []
        defer { treeLock.exclusive { for place in places { stock(place) } } }
        while pool.count + places.count < target {
            do throws(FSError) {
                places.append(try allocator.allocateNode(leaving: kept))
            } catch .noSpace where pool.count + places.count >= needed { return }
        }
    }

    /// Adds a place to the pool. Under the exclusive tree lock.
    func stock(_ place: ReplicaList) {
        guard !allocator.isBarred(place) else { return allocator.cancel(place) }
        cache.reserve(place.first)
        pool.put(place)
    }

    /// How many copies the data of a file gets that is written now.
    func dataCopies(of record: InodeRecord) -> Int {
        record.copies == 0 ? defaultDataCopies : Int(record.copies)
    }

    /// Allocates runs of one length, one for each copy of some data and far from each other; the
    /// caller publishes or cancels them.
    func allocateData(
        _ want: UInt64, copies: Int, goal: ReplicaList?, _ space: SpaceClass, promised: Bool
    ) throws(FSError) -> (places: ReplicaList, count: UInt64) {
        let (dirty, promisedBlocks) = treeLock.shared {
            (window.dirty.count, window.promisedBlocks)
        }
        var kept = floor(promised ? .freeing : space, dirtyPages: dirty)
        // Promised blocks are kept for those they were promised to.
        if !promised { kept.promise(promisedBlocks) }
        return try allocator.allocateData(want, copies: copies, goal: goal, leaving: kept)
    }

    /// Whether a checkpoint would make blocks available: what was released, and what is kept for nodes
    /// that may change again.
    var hasReleasedBlocks: Bool {
        treeLock.shared { window.releasedBlocks > 0 || !window.dirty.isEmpty }
    }

    /// A number that no inode of any head has, and all above it.
    package var inodeBound: UInt64 { treeLock.shared { window.nextInode } }

    /// Numbers below `bound` are not handed out any more: a received tree has them.
    package func reserveInodes(below bound: UInt64) throws(FSError) {
        let isDurable = treeLock.exclusive {
            window.nextInode = max(window.nextInode, bound)
            return window.nextInode < window.inodeCeiling
        }
        if !isDurable { try checkpoint(force: true) }
    }

    /// A fresh inode number.
    package func allocateInode() throws(FSError) -> InodeNumber {
        while true {
            let number: UInt64? = treeLock.exclusive {
                guard window.nextInode < window.inodeCeiling else { return nil }
                window.nextInode += 1
                return window.nextInode - 1
            }
            if let number { return InodeNumber(number) }
            guard treeLock.shared({ window.nextInode < InodeNumber.limit }) else { throw .noSpace }
            try requireWritable()
            try checkpoint(force: true)
        }
    }
}
