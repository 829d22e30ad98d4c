/// Making, naming and dropping snapshots. Each is one transaction, and durable on return only after
/// an fsync, except those that begin a new epoch, which end with a checkpoint.
public import FSCore

extension Snapshots {
    /// Keeps the present state of a head under a name.
    ///
    /// Throws `.entryExists` if the name is taken, `.noSpace` if the volume is nearly full,
    /// `.invalidArgument` if the label does not fit.
    @discardableResult
    public func create(
        _ label: SnapshotLabel, of head: TreeID = .head
    ) throws(FSError) -> UInt64 {
        try change { () throws(FSError) in
            try requireRoom()
            guard let node = node(of: head) else { throw .noSuchEntry }
            try volume.announceSnapshots()
            let transaction = Transaction(tree: .volume)
            try keep(node, label, isAutomatic: false, transaction)
            try putHead(after: node, parent: node.record.id, nil, transaction)
            try commit(transaction, .ordinary)
            return node.record.id
        }
    }

    /// A new head that begins as a snapshot is.
    @discardableResult
    public func clone(
        _ name: [UInt8], as label: SnapshotLabel
    ) throws(FSError) -> TreeID {
        try change { () throws(FSError) in
            try requireRoom()
            let source = try durableRecord(try snapshot(name))
            let id = volume.nextSnapshotID
            let transaction = Transaction(tree: .volume)
            let record = SnapshotRecord(
                id: id, kind: .head, parent: source.id, epoch: BirthEpoch(0), head: TreeID(id),
                created: .now(), counts: source.counts, uuid: .random(), root: source.root)
            transaction.put(record.key, record.encoded(), tree: .volume)
            try put(label, id, transaction)
            try commit(transaction, .ordinary)
            return record.head
        }
    }

    /// Takes a head back to a snapshot. What it was stays as a snapshot with the label `kept`, and so
    /// do all others.
    @discardableResult
    public func rollback(
        _ head: TreeID = .head, to name: [UInt8], keeping kept: SnapshotLabel
    ) throws(FSError) -> UInt64 {
        let id = try change { () throws(FSError) in
            try requireRoom()
            guard let node = node(of: head) else { throw .noSuchEntry }
            let target = try durableRecord(try snapshot(name))
            let transaction = Transaction(tree: .volume)
            try keep(node, kept, isAutomatic: true, transaction)
            try putHead(after: node, parent: target.id, target, transaction)
            try commit(transaction, .ordinary)
            return node.record.id
        }
        try volume.files(of: head)?.restart()
        return id
    }

    /// Takes snapshots, and heads other than the default one, off the table; their space comes back in
    /// the background.
    ///
    /// Throws `.busy` if one is held, `.notPermitted` if one is protected still.
    public func delete(_ names: [[UInt8]], now: Timestamp = .now()) throws(FSError) {
        try change { () throws(FSError) in
            let chosen = try names.map { (name) throws(FSError) in try requireFree(name, now) }
            for node in chosen {
                let transaction = Transaction(tree: .volume)
                var record = node.record
                if record.kind == .snapshot {
                    record = try durableRecord(node)
                } else {
                    // The moment of its end: from then on it is like any deleted snapshot.
                    record.kind = .snapshot
                    record.root = nil
                }
                record.isDeleted = true
                transaction.put(record.key, record.encoded(), tree: .volume)
                transaction.delete(SnapshotLabel.key(record.id), tree: .volume)
                try commit(transaction, .emergency)
            }
        }
        sweeper.wake()
    }

    /// Throws as the deletion of these would.
    public func requireDeletable(
        _ names: [[UInt8]], now: Timestamp = .now()
    ) throws(FSError) {
        for name in names { _ = try requireFree(name, now) }
    }

    /// Changes a label; throws `.entryExists` if its name is another's.
    public func relabel(
        _ name: [UInt8], _ change: (inout SnapshotLabel) throws(FSError) -> Void
    ) throws(FSError) {
        try self.change { () throws(FSError) in
            guard let node = node(named: name), var label = node.label else { throw .noSuchEntry }
            try change(&label)
            if label.name != name, self.node(named: label.name) != nil { throw .entryExists }
            guard let value = label.encoded() else { throw .invalidArgument }
            let transaction = Transaction(tree: .volume)
            transaction.put(SnapshotLabel.key(node.record.id), value, tree: .volume)
            try commit(transaction, .freeing)
        }
    }

    // MARK: Parts

    func change<R>(_ body: () throws(FSError) -> R) throws(FSError) -> R {
        try volume.shareLock.withLock(body)
    }

    func requireRoom() throws(FSError) {
        guard volume.hasRoomForSnapshots else { throw .noSpace }
    }

    func commit(
        _ transaction: Transaction, _ space: SpaceClass
    ) throws(FSError) {
        guard try volume.commit(transaction, space) else {
            preconditionFailure("a change of the table belongs to no epoch")
        }
    }

    private func snapshot(_ name: [UInt8]) throws(FSError) -> Node {
        guard let node = node(named: name), node.record.kind == .snapshot else {
            throw .noSuchEntry
        }
        return node
    }

    private func requireFree(_ name: [UInt8], _ now: Timestamp) throws(FSError) -> Node {
        guard let node = node(named: name), node.record.head != .head || node.record.kind != .head
        else { throw .noSuchEntry }
        guard !isPinned(node.record.id) else { throw .busy }
        if let label = node.label {
            guard label.holds.isEmpty else { throw .busy }
            guard label.protectedUntil <= now.seconds else { throw .notPermitted }
        }
        return node
    }

    /// The head's node becomes a snapshot.
    private func keep(
        _ node: Node, _ label: SnapshotLabel, isAutomatic: Bool, _ transaction: Transaction
    ) throws(FSError) {
        var record = node.record
        record.kind = .snapshot
        record.epoch = volume.birthEpoch
        record.created = .now()
        record.uuid = .random()
        record.received = nil
        record.base = nil
        record.isAutomatic = isAutomatic
        record.root = nil
        guard SnapshotRecord.isPossible(epoch: record.epoch) else { throw .noSpace }
        transaction.put(record.key, record.encoded(), tree: .volume)
        try put(label, record.id, transaction)
    }

    /// A new node in the place of the head's.
    private func putHead(
        after node: Node, parent: UInt64, _ target: SnapshotRecord?, _ transaction: Transaction
    ) throws(FSError) {
        let id = volume.nextSnapshotID
        let record = SnapshotRecord(
            id: id, kind: .head, parent: parent, epoch: BirthEpoch(0), head: node.record.head,
            created: node.record.created, counts: target?.counts ?? TreeCounts(),
            uuid: node.record.uuid, root: target?.root)
        transaction.put(record.key, record.encoded(), tree: .volume)
        if let label = node.label?.encoded() {
            transaction.put(SnapshotLabel.key(id), label, tree: .volume)
        }
    }

    func put(
        _ label: SnapshotLabel, _ id: UInt64, _ transaction: Transaction
    ) throws(FSError) {
        guard node(named: label.name) == nil else { throw .entryExists }
        guard let value = label.encoded() else { throw .invalidArgument }
        transaction.put(SnapshotLabel.key(id), value, tree: .volume)
    }

    /// A record as the tree has it: its root has its sum, which comes with the checkpoint.
    func durableRecord(_ node: Node) throws(FSError) -> SnapshotRecord {
        let key = node.record.key
        let layout = volume.diskLayout
        let record = try volume.value(key, of: volume.volumeTree) { (value) throws(FSError) in
            try SnapshotRecord(key, decoding: value, layout: layout)
        }
        guard let record else { throw .noSuchEntry }
        return record
    }
}
