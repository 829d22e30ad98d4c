/// A volume opened to be repaired: trees may be damaged, bitmaps are taken as the check has found them
/// to be, and the journal is replayed, kept for later or given up.
///
///     bitmaps ──▶ journal: claim ──▶ roots ──▶ replay ──▶ a new ring ──▶ (changes) ──▶ checkpoints
///
/// - Invariant: nothing is allocated before every block that the trees or the journal refer to is
///   known as busy.
/// - Invariant: nothing is freed. What is not used any more is what the next check finds to be leaked.
/// - Invariant: changes are made by transactions that the journal does not hear of, and become durable
///   by checkpoints: a crash leaves one of the states between two of them.
extension Volume {
    /// What becomes of the operations in the journal.
    enum JournalTreatment {
        case replayed
        /// The trees must be repaired before it can be replayed.
        case kept
        /// It cannot be replayed at all.
        case discarded
    }

    /// - Parameter leaves: bitmaps of regions that are to be taken instead of those on the device.
    static func openForRepair(
        _ device: any BlockDevice, modules: ModuleSet, leaves: [UInt64: ByteBuffer],
        journal treatment: JournalTreatment, observer: (any VolumeObserver)?
    ) throws(FSError) -> Volume {
        let device = RemappedBlockDevice(of: device)
        let (superblock, isOtherPairReadable) = try SuperblockStore.find(device, modules: modules)
        let unknown = superblock.readOnlyCompatible & ~DiskFormat.ReadOnlyCompatible.known
        if unknown != 0 { throw .unknownFeatures(.readOnlyCompatible, bits: unknown) }
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume(device, modules, superblock, options, observer)
        volume.isRepairing = true
        volume.allocator.adopt(leaves)
        let contents = try volume.contentsToReplay(isOtherPairReadable)
        if let contents, let journal = volume.journal {
            if treatment == .kept {
                try? journal.claims(contents) { (run) throws(FSError) in
                    try? volume.allocator.claim(run)
                }
            }
        }
        // A replay claims by itself, and needs the roots. An empty one takes places that are free for
        // sure only then; so a root that is lost makes the journal wait.
        try volume.loadRoots()
        try? volume.loadRemaps()
        volume.allocator.keepSources()
        volume.loadHealth()
        volume.backing = FileSystem(volume, volume.head)
        if let contents, treatment == .replayed, let journal = volume.journal {
            try volume.replay(contents, journal)
            if contents.operationCount > 0 {
                volume.recovery = Recovery(
                    operations: contents.operationCount, bytes: contents.byteCount,
                    milliseconds: 0, damage: contents.damage)
            }
        }
        try? volume.findShares()
        if treatment != .kept { try volume.leaveRing(contents) }
        volume.health.arm()
        return volume
    }

    /// What the ring holds for the trees; nil after a clean unmount. Numbers go on behind all that it
    /// names.
    private func contentsToReplay(
        _ isOtherPairReadable: Bool
    ) throws(FSError) -> JournalContents? {
        guard let journal else { return nil }
        let isBegun = try journal.isBegun(after: ringIncarnation)
        if wasCleanlyUnmounted, isOtherPairReadable, !isBegun { return nil }
        var contents = try journal.read(
            JournalPosition(incarnation: ringIncarnation, operation: window.operations))
        if isBegun || contents.newestSequence > superblock.sequence {
            // Made for a superblock that is lost: not for these trees.
            contents.records = []
            var newest = contents.newestSequence
            for record in journal.records(damaged: { _, _ in }) {
                ringIncarnation = max(ringIncarnation, record.incarnation)
                newest = max(newest, record.durableSequence)
                window.operations = max(window.operations, record.lastOperation)
            }
            window.sequence = SuperblockSequence(
                max(window.sequence.rawValue, newest.rawValue + 1))
        }
        return contents
    }

    /// The ring's records are in the trees, or given up.
    private func leaveRing(_ contents: JournalContents?) throws(FSError) {
        guard journal != nil else { return }
        if let contents {
            window.operations = max(
                window.operations, contents.durableOperation, contents.lastOperation)
        }
        try beginRing()
    }

    /// An empty tree for a root that cannot be read.
    func emptyRoot(_ id: TreeID) throws(FSError) -> Page {
        let places = try allocator.allocateNode(leaving: .nothing)
        return try treeLock.exclusive { () throws(FSError) in
            stock(places)
            return try newPage(level: 0, tree: id.kind)
        }
    }

    /// Applies changes that are no operation.
    func applyRepair(_ transaction: Transaction) throws(FSError) {
        guard !transaction.updates.isEmpty || !transaction.published.isEmpty else { return }
        try waitForRoom()
        _ = try commit(Recording(transaction, [], .emergency, .upkeep), freezing: nil)
    }

    /// Makes everything durable, in both pairs of superblocks.
    func closeAfterRepair(_ treatment: JournalTreatment) throws(FSError) {
        try checkpoint(force: true)
        guard treatment == .kept else { return try close() }
        try checkpoint(force: true)
        stateLock.withLock { state = .closed }
    }

    /// Takes a node that cannot be read out of its tree, with all that is below it. False if it is not
    /// in the tree.
    func dropNode(
        _ expected: NodeValidator.Expectation, of id: TreeID
    ) throws(FSError) -> Bool {
        while true {
            treeLock.lockExclusive()
            guard let tree = tree(id) else {
                treeLock.unlock()
                return false
            }
            let needed: Int?
            do throws(TreeFault) {
                needed = try tree.planDrop(expected)
            } catch {
                try unlockAndBring(error)
                continue
            }
            guard let needed else {
                treeLock.unlock()
                return false
            }
            if pool.count >= needed {
                try changing { () throws(FSError) in
                    try tree.drop(expected.pointer.address, on: expected.lower ?? .minimum)
                }
                noteDeath(expected.pointer, of: tree)
                treeLock.unlock()
                return true
            }
            treeLock.unlock()
            try refillPool(to: needed, .emergency, dirtyPages: 0)
        }
    }

    private func noteDeath(_ pointer: NodePointer, of tree: CopyOnWriteTree) {
        guard pointer.birth <= tree.parentEpoch else { return }
        for index in 0..<pointer.replicas.count {
            window.deaths.append(
                NodeDeath(
                    segment: tree.segment, birth: pointer.birth,
                    run: BlockRun(pointer.replicas[index], DiskFormat.blocksPerNode)))
        }
    }

    /// What the next superblock says beyond the trees.
    func raise(inode: UInt64? = nil, snapshotID: UInt64? = nil) {
        treeLock.exclusive {
            if let inode, inode < InodeNumber.limit {
                window.nextInode = max(window.nextInode, inode + 1)
            }
            if let snapshotID {
                window.nextSnapshotID = max(window.nextSnapshotID, snapshotID + 1)
            }
        }
    }

    func setCounts(_ counts: TreeCounts, of id: TreeID) {
        treeLock.exclusive { tree(id)?.counts = counts }
    }
}

extension CopyOnWriteTree {
    /// How many places `drop` may take; nil if there is no such pointer for these keys.
    func planDrop(_ expected: NodeValidator.Expectation) throws(TreeFault) -> Int? {
        let key = expected.lower ?? .minimum
        var page = root
        var lower: Key?
        var upper: Key?
        var needed = 0
        while page.level > 0 {
            // Itself, and a neighbour with which it may be merged.
            needed += 2
            let index = page.node.childIndex(for: key)
            narrow(page, index, &lower, &upper)
            if address(page, index) == expected.pointer.address {
                return lower == expected.lower && upper == expected.upper ? needed : nil
            }
            page = try child(page, index, lower, upper)
        }
        return nil
    }

    /// Removes the pointer to a node from its parent.
    func drop(_ address: BlockAddress, on key: Key) throws(FSError) {
        var path = try touchedPath(key, above: address)
        guard let parent = path.last?.page else { return }
        let index = parent.node.childIndex(for: key)
        guard self.address(parent, index) == address else { return }
        parent.node.remove(index)
        path[path.count - 1].index = 0
        try shrink(path)
    }

    private func address(_ page: Page, _ index: Int) -> BlockAddress {
        BlockAddress(rawValue: page.node.value(index).u64(NodePointer.addressOffset))
    }
}
