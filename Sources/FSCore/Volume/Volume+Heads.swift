/// Several heads, and what the volume itself does for snapshots: it follows the records of the table,
/// and tells the deadlists which nodes died, right before a freeze.
///
/// Deaths of nodes are not operations and stand in no journal: replaying the operations changes
/// nodes again, though others, and these deaths are told before the freeze that ends the replay. So a
/// checkpoint has exactly the deaths of the nodes that it no longer refers to, whichever they are.
///
/// - Invariant: a checkpoint with a node's death has it in the deadlist, or frees it.
/// - Invariant: in the journal a record names no root that came to be after the last checkpoint: such
///   a root lies elsewhere after a crash. It is left out, and means "as it is at this operation".
extension Volume {
    /// A change of the volume tree that only the freeze knows of.
    struct UpkeepPut {
        var key: Key
        var value: [UInt8]
    }

    /// The deaths since the last freeze, and the roots of changed heads. Under the exclusive lock.
    func upkeepBeforeFreeze() throws(TreeFault) -> [UpkeepPut] {
        var puts = window.deaths.map(put(of:))
        for tree in clones.values where tree.root.state != .clean {
            let key = SnapshotRecord.key(tree.segment)
            let layout = layout
            guard
                var record = try volumeTree.get(
                    key,
                    { (value) throws(FSError) in
                        try SnapshotRecord(key, decoding: value, layout: layout)
                    })
            else { continue }
            record.root = tree.rootPointer
            record.counts = tree.counts
            puts.append(UpkeepPut(key: key, value: record.encoded()))
        }
        return puts
    }

    private func put(of death: NodeDeath) -> UpkeepPut {
        let record = DeadlistRecord(
            segment: death.segment, birth: death.birth, run: death.run, references: 1,
            death: window.sequence)
        return UpkeepPut(key: record.key, value: record.encoded())
    }

    /// Tells the deadlists of most deaths ahead of the freeze, so that it holds the lock for a
    /// moment only. One checkpoint at a time.
    func tellDeaths() throws(FSError) {
        while true {
            let batch = treeLock.exclusive { () -> [NodeDeath] in
                guard window.deaths.count > Self.deathsAtFreeze else { return [] }
                let batch = Array(window.deaths.suffix(Self.deathsAtFreeze))
                window.deaths.removeLast(batch.count)
                return batch
            }
            guard !batch.isEmpty else { return }
            let transaction = Transaction(tree: .volume)
            for put in treeLock.shared({ batch.map(put(of:)) }) {
                put.value.withView { transaction.replayUpdate(.volume, put.key, $0) }
            }
            do throws(FSError) { try commit(transaction, .emergency, .upkeep) } catch {
                treeLock.exclusive { window.deaths += batch }
                throw error
            }
        }
    }

    private static let deathsAtFreeze = 512

    // MARK: Following the table

    /// Decodes and checks what a transaction says of the table, and loads the roots that heads begin
    /// with.
    func prepareHeads(_ transaction: Transaction) throws(FSError) -> [SnapshotRecord] {
        var records: [SnapshotRecord] = []
        let layout = layout
        try transaction.bytes.withView { (bytes) throws(FSError) in
            for update in transaction.updates where update.tree == .volume {
                guard let range = update.value else { continue }
                let value = bytes.slice(range.lowerBound, range.count)
                switch update.key.type {
                case .snapshot:
                    records.append(
                        try SnapshotRecord(update.key, decoding: value, layout: layout))
                case .snapshotLabel: _ = try SnapshotLabel(update.key, decoding: value)
                case .segment: _ = try SegmentRecord(update.key, decoding: value)
                default: break
                }
            }
        }
        for record in records {
            let (isNew, hasTree) = treeLock.shared {
                (!snapshots.isKnown(record.id), tree(record.head) != nil)
            }
            guard let root = record.root, record.kind == .head, isNew else {
                guard
                    hasTree || record.beginsEmpty && isNew
                        || record.kind == .snapshot && record.root != nil
                else {
                    throw .corrupt(Corruption(.snapshot, at: record.id, "a head without a tree"))
                }
                continue
            }
            transaction.roots[record.id] = try readRoot(root)
        }
        return records
    }

    /// A root as a page of its own: the cache's would be changed with another tree.
    package func readRoot(_ pointer: NodePointer) throws(FSError) -> Page {
        try nodes.read(
            NodeValidator.Expectation(pointer: pointer, tree: .files, lower: nil, upper: nil))
    }

    /// Under the exclusive lock, after the records were put.
    func followHeads(
        _ records: [SnapshotRecord], _ transaction: Transaction
    ) throws(FSError) {
        var followed: [SnapshotRecord] = []
        // First what the roots are at this moment, then what they become.
        for var record in records {
            if record.root == nil, let tree = tree(record.head) {
                record.counts = tree.counts
                if record.kind == .snapshot || record.head != .head {
                    record.root = tree.rootPointer
                    try store(record)
                }
            }
            followed.append(record)
        }
        for record in followed {
            window.nextSnapshotID = max(window.nextSnapshotID, record.id + 1)
            if record.kind == .head { try followHead(record, transaction) }
            if record.epoch.rawValue > 0 { beginEpoch(after: record.epoch) }
        }
        for record in followed where record.kind == .snapshot && record.head != .head {
            // Nobody took its place: the head itself was deleted.
            guard let tree = clones[record.head], tree.segment == record.id else { continue }
            tree.isClosed = true
            clones[record.head] = nil
        }
        snapshots.follow(followed, transaction)
        window.promisedBlocks = clones.values.reduce(head.counts.promised) {
            $0 + $1.counts.promised
        }
    }

    private func store(_ record: SnapshotRecord) throws(FSError) {
        try record.encoded().withView { (view) throws(FSError) in
            try volumeTree.put(record.key, view)
        }
    }

    private func followHead(
        _ record: SnapshotRecord, _ transaction: Transaction
    ) throws(FSError) {
        if record.beginsEmpty, tree(record.head) == nil { return try beginEmpty(record) }
        if let page = transaction.roots[record.id], let root = record.root {
            if let tree = tree(record.head) {
                tree.adopt(page, root)
                tree.counts = record.counts
            } else {
                attach(record, page)
            }
            if record.head == .head {
                // From the next checkpoint on the superblock says it.
                var record = record
                record.root = nil
                try store(record)
            }
        }
        tree(record.head)?.segment = record.id
    }

    /// A head with nothing but a root directory, in a node that `commit` has a place for.
    private func beginEmpty(_ record: SnapshotRecord) throws(FSError) {
        let page = try newPage(level: 0, tree: .files)
        var record = record
        record.root = page.pointer(checksumKind)
        record.counts = TreeCounts(inodes: 1)
        try store(record)
        attach(record, page)
        var root = InodeRecord(
            mode: FileKind.directory.modeBits | 0o755, userID: 0, groupID: 0, linkCount: 2,
            time: record.created)
        root.parent = InodeNumber.root.rawValue
        let buffer = ByteBuffer(count: InodeRecord.byteCount)
        root.encode(buffer.bytes)
        try clones[record.head]?.put(Key(InodeNumber.root, .inode), buffer.view)
    }

    /// Makes a head known that is not the default one. Under the exclusive lock, or while opening.
    package func attach(_ record: SnapshotRecord, _ root: Page) {
        guard let pointer = record.root else { return }
        let tree = CopyOnWriteTree(
            id: record.head, root: root, durableRoot: pointer, counts: record.counts, context: self)
        tree.segment = record.id
        clones[record.head] = tree
        window.promisedBlocks += record.counts.promised
    }

    private func beginEpoch(after epoch: BirthEpoch) {
        guard !options.brokenRules.contains(.epochReused) else { return }
        window.birthEpoch = max(window.birthEpoch, BirthEpoch(epoch.rawValue + 1))
    }

    // MARK: Figures of the moment, for the module

    /// An id that no node has had.
    package var nextSnapshotID: UInt64 { treeLock.shared { window.nextSnapshotID } }

    /// Operations since the volume was opened, for who wants to know whether others work.
    package var operationCount: UInt64 { treeLock.shared { window.operations } }

    /// The newest superblock that is durable.
    package var durableSequence: SuperblockSequence { stateLock.withLock { superblock.sequence } }

    /// Announces the feature before its first use.
    package func announceSnapshots() throws(FSError) {
        try enable(DiskFormat.Incompatible.snapshots)
    }

    /// Whether snapshots and clones, which pin space, are still allowed.
    package var hasRoomForSnapshots: Bool {
        allocator.hasRoom(
            beyond: floor(.ordinary, dirtyPages: treeLock.shared { window.dirty.count }))
    }
}

extension SnapshotRecord {
    /// A snapshot of the moment at which its transaction is committed.
    var isMoment: Bool { kind == .snapshot && root == nil }
}
