/// How changes of the trees keep the remap table true: what a transaction releases by its old number
/// is released where it is now, and its entry goes with it.
///
/// - Invariant: a transaction is put in terms of where blocks are under the same lock under which it
///   is applied, so no move can come between.
/// - Invariant: the journal has the outcome (items, freed targets), so replay translates nothing.
extension Volume {
    /// Reads the remaps of the volume tree. Nothing was allocated yet.
    func loadRemaps() throws(FSError) {
        usesRemaps = superblock.incompatible & DiskFormat.Incompatible.remap != 0
        guard usesRemaps else { return }
        let layout = layout
        var position: Key? = Key(0, .remap, 0)
        try reading { () throws(TreeFault) in
            try volumeTree.scan(&position, through: Key(0, .remap, .max)) {
                (key, value) throws(FSError) in
                let record = try RemapRecord(key, decoding: value, layout: layout)
                guard remaps.insert(record) else {
                    throw .corrupt(Corruption(.remap, at: key.offset, "remaps overlap"))
                }
                return true
            }
        }
        allocator.countSources()
    }

    /// With the first superblock of a new journal, which has no old number in it: forgets that there
    /// were remaps when there are none left.
    func endRemaps(_ superblock: inout Superblock) {
        guard usesRemaps, remaps.isEmpty else { return }
        superblock.incompatible &= ~DiskFormat.Incompatible.remap
        superblock.addressLimit = 0
        treeLock.exclusive { usesRemaps = false }
    }

    // MARK: Under the exclusive tree lock

    /// Before a transaction is applied. Throws `.busy` if its condition does not hold any more.
    func settleRemaps(_ transaction: Transaction) throws(FSError) {
        if let condition = transaction.condition {
            guard condition() else { throw .busy }
        } else if usesRemaps {
            settle(transaction)
        }
    }

    private func settle(_ transaction: Transaction) {
        var dropped: [Range<UInt64>] = []
        for run in transaction.beginSettling() {
            var position = run.blocks.lowerBound
            func plain(to end: UInt64) {
                guard position < end else { return }
                transaction.release(BlockRun(position..<end))
            }
            for record in remaps.records(touching: run.blocks) {
                guard let part = record.part(run.blocks) else { continue }
                plain(to: part.source)
                transaction.release(BlockRun(part.target..<part.target + part.count))
                dropped.append(part.source..<part.end)
                position = part.end
            }
            plain(to: run.blocks.upperBound)
        }
        guard !dropped.isEmpty else { return }
        dropped.sort { $0.lowerBound < $1.lowerBound }
        // An entry may lose several parts at once.
        var index = 0
        while index < dropped.count {
            let first = dropped[index].lowerBound
            guard let record = remaps.records(touching: first..<first + 1).first else { break }
            var rest = [record]
            while index < dropped.count, dropped[index].lowerBound < record.end {
                rest = RemapTable.subtract(dropped[index], from: rest)
                index += 1
            }
            transaction.replaceRemap(record, with: rest)
        }
    }

    /// What an applied transaction has changed of the table.
    func noteRemaps(_ transaction: Transaction) {
        guard usesRemaps else { return }
        var old: [RemapRecord] = []
        var new: [RemapRecord] = []
        for update in transaction.updates where update.tree == .volume && update.key.type == .remap
        {
            let block = BlockAddress(rawValue: update.key.offset).block
            old += remaps.records(touching: block..<block + 1).filter { $0.source == block }
            guard let range = update.value else { continue }
            let record = transaction.bytes.withView { view in
                try? RemapRecord(
                    update.key, decoding: view.slice(range.lowerBound, range.count), layout: layout)
            }
            if let record { new.append(record) }
        }
        guard !old.isEmpty || !new.isEmpty else { return }
        window.droppedRemaps += remaps.replace(
            old, with: new, home: transaction.published.map(\.blocks))
    }

    /// Whether dropping a run of blocks may change an item of the volume tree for each of them: because
    /// they are shared, a snapshot has them, or they were moved.
    func hasItemsOfBlocks(_ tree: CopyOnWriteTree) -> Bool {
        mayHaveShares || treeLock.shared { usesRemaps || tree.parentEpoch.rawValue > 0 }
    }

    /// Whether a released run has just moved away: then its number stays taken.
    func hasMoved(_ run: BlockRun) -> Bool {
        guard usesRemaps else { return false }
        return remaps.sources(in: run.blocks).reduce(0) { $0 + UInt64($1.count) } == run.count
    }

    /// Gives up a node's place. If it was moved, its entry can only go with the next checkpoint.
    func freeNode(_ run: BlockRun) {
        if usesRemaps, !isRepairing, !remaps.records(touching: run.blocks).isEmpty {
            window.droppedNodes.append(run)
        } else {
            free(run)
        }
    }

    /// Takes the exclusive tree lock with no entries of dropped nodes left. Nodes are not in the
    /// journal, so neither is this: whoever replays the operations drops the nodes again.
    func lockSettlingNodes() throws(FSError) {
        while true {
            treeLock.lockExclusive()
            if window.droppedNodes.isEmpty { return }
            let transaction = Transaction()
            for run in window.droppedNodes { transaction.release(run) }
            settle(transaction)
            let isOrdered = transaction.updates.count > CopyOnWriteTree.orderedFrom
            let updates = transaction.updates(inKeyOrder: isOrdered)
            guard try isReady(updates, room: transaction.growth) else { continue }
            window.droppedNodes = []
            try changing { () throws(FSError) in
                try applyUpdates(transaction, updates, isOrdered: isOrdered)
            }
            noteRemaps(transaction)
            for run in transaction.released { free(run) }
            return
        }
    }

    /// Moves the nodes on the way to `key` to new places, unless they have some.
    func relocateNode(_ key: Key, of tree: TreeID) throws(FSError) {
        let update = Transaction.Update(tree: tree, key: key, value: 0..<0)
        repeat { treeLock.lockExclusive() } while try !isReady([update], room: 0)
        try changing { () throws(FSError) in try self.tree(tree)?.touchPath(key) }
        treeLock.unlock()
    }

    /// Whether updates can be applied now. If not, the lock is given up, and what they need is
    /// brought.
    private func isReady(
        _ updates: [Transaction.Update], room: Int
    ) throws(FSError) -> Bool {
        var counted = PlannedPages()
        var needed = 0
        let isOrdered = updates.count > CopyOnWriteTree.orderedFrom
        do throws(TreeFault) {
            for update in updates {
                guard let tree = tree(update.tree) else { continue }
                needed += try tree.plan(
                    update.key, room: room, isDelete: update.value == nil, isOrdered: isOrdered,
                    &counted)
            }
            if isOrdered { needed += counted.addedNodes(growth: room) }
        } catch {
            try unlockAndBring(error)
            return false
        }
        if pool.count >= needed { return true }
        let dirty = window.dirty.count
        treeLock.unlock()
        try refillPool(to: needed, .emergency, dirtyPages: dirty)
        return false
    }
}

extension Transaction {
    /// Puts in place of an entry what is left of it.
    func replaceRemap(_ record: RemapRecord, with rest: [RemapRecord]) {
        if !rest.contains(where: { $0.source == record.source }) {
            replayUpdate(.volume, record.key, nil)
        }
        for piece in rest {
            piece.encoded().withView { replayUpdate(.volume, piece.key, $0) }
        }
    }
}
