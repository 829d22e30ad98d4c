/// The head that a stream fills, from its beginning to the snapshot that it becomes.
///
///     none ──begin──▶ head "NAME.partial", begins as the base is, or empty ──finish──▶ snapshot NAME
///
/// - Invariant: such a head has the uuid of what it becomes in its record, and how far it is in an
///   attribute of its root directory; both are gone, or a snapshot's, when it is done.
public import FSCore

/// A copy that is not finished.
public struct PartialCopy: Equatable, Sendable {
    /// Of the head that it fills.
    public var name: [UInt8]
    public var snapshot: VolumeUUID
    public var base: VolumeUUID?
    /// The record with which it goes on.
    public var next: UInt64

    /// What `send --resume` takes: which stream, and where it goes on.
    public var token: String {
        "1-\(snapshot)-\(base?.description ?? "0")-\(next)"
    }
}

/// A token as the sender understands it.
public struct ResumeToken: Equatable, Sendable {
    public var snapshot: String
    /// Nil of a full stream.
    public var base: String?
    public var next: UInt64

    public init?(_ text: String) {
        guard
            let match = text.wholeMatch(
                of: /1-([0-9a-f]{8}-[0-9a-f-]{27})-(0|[0-9a-f]{8}-[0-9a-f-]{27})-(\d{1,19})/),
            let next = UInt64(match.3), next >= 1
        else { return nil }
        snapshot = String(match.1)
        base = match.2 == "0" ? nil : String(match.2)
        self.next = next
    }
}

extension Snapshots {
    static let partialSuffix = Array(".partial".utf8)
    private static let progressName = Array("aegisfs.receive".utf8)

    /// The snapshot that a stream would know by this uuid.
    public func name(ofIdentity uuid: String) -> [UInt8]? {
        allNodes().first {
            $0.record.kind == .snapshot && !$0.record.isDeleted
                && $0.record.identity.description == uuid
        }?.label?.name
    }

    /// Copies that were begun and not finished.
    public func partialCopies() throws(FSError) -> [PartialCopy] {
        var result: [PartialCopy] = []
        for node in allNodes() where node.record.isBeingReceived {
            guard let uuid = node.record.received, let label = node.label,
                let files = try volume.files(of: node.record.head)
            else { continue }
            result.append(
                PartialCopy(
                    name: label.name, snapshot: uuid, base: node.record.base,
                    next: try Self.progress(of: files)))
        }
        return result.sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    func identified(_ uuid: VolumeUUID, _ kind: SnapshotRecord.Kind) -> Node? {
        allNodes().first {
            $0.record.kind == kind && !$0.record.isDeleted && $0.label != nil
                && (kind == .head
                    ? $0.record.received == uuid : $0.record.identity == uuid)
        }
    }

    /// The snapshot upon which a stream was made.
    func base(_ uuid: VolumeUUID) -> Node? {
        if volume.brokenRules.contains(.streamUponAnyBase) {
            return allNodes().filter { $0.record.kind == .snapshot && $0.label != nil }
                .max { $0.record.id < $1.record.id }
        }
        return identified(uuid, .snapshot)
    }

    /// The head into which a stream goes: one that was begun, or a new one.
    func headToReceive(
        _ begin: StreamBegin, name: [UInt8]
    ) throws(FSError) -> (node: Node, files: FileSystem) {
        try volume.reserveInodes(below: begin.inodeBound)
        if identified(begin.snapshot, .head) == nil {
            try change { () throws(FSError) in
                try requireRoom()
                try volume.announceSnapshots()
                let id = volume.nextSnapshotID
                var record = SnapshotRecord(
                    id: id, kind: .head, parent: 0, epoch: BirthEpoch(0), head: TreeID(id),
                    created: .now(), counts: TreeCounts(), uuid: .random())
                if let base = begin.base {
                    guard let node = self.base(base) else { throw .noSuchEntry }
                    let source = try durableRecord(node)
                    record.parent = source.id
                    record.counts = source.counts
                    record.root = source.root
                }
                record.received = begin.snapshot
                record.base = begin.base
                let transaction = Transaction(tree: .volume)
                transaction.put(record.key, record.encoded(), tree: .volume)
                if let first = self.node(SnapshotRecord.firstID), first.record.kind == .head {
                    // Until now the default head needed no record.
                    transaction.put(first.record.key, first.record.encoded(), tree: .volume)
                }
                let room = DiskFormat.maximumNameLength - Self.partialSuffix.count
                try put(
                    SnapshotLabel(name: name.prefix(room) + Self.partialSuffix), id, transaction)
                try commit(transaction, .ordinary)
            }
        }
        guard let node = identified(begin.snapshot, .head), node.record.base == begin.base,
            let files = try volume.files(of: node.record.head)
        else { throw .noSuchEntry }
        return (node, files)
    }

    /// The head becomes the snapshot; nothing goes on from it.
    func finishReceiving(
        _ id: UInt64, as label: SnapshotLabel, created: Timestamp
    ) throws(FSError) {
        try change { () throws(FSError) in
            guard let node = node(id), node.record.isBeingReceived else { throw .noSuchEntry }
            var record = node.record
            record.kind = .snapshot
            record.epoch = volume.birthEpoch
            record.created = created
            record.root = nil
            guard SnapshotRecord.isPossible(epoch: record.epoch) else { throw .noSpace }
            let transaction = Transaction(tree: .volume)
            transaction.put(record.key, record.encoded(), tree: .volume)
            try put(label, id, transaction)
            try commit(transaction, .ordinary)
        }
    }

    // MARK: How far it is

    static func progress(of files: FileSystem) throws(FSError) -> UInt64 {
        guard let value = try files.receivedAttribute(progressName, of: .root) else { return 1 }
        return try value.withView { (value) throws(FSError) in
            var reader = ByteReader(value, .attribute, at: InodeNumber.root.rawValue)
            try reader.require(try reader.u8() == 1 && reader.remaining == 8, "progress")
            return try reader.u64()
        }
    }

    /// - Parameter next: the record that comes next; nil at the end.
    static func note(_ next: UInt64?, in files: FileSystem) throws(FSError) {
        var value: [UInt8]?
        if let next {
            value = [1]
            value?.append(littleEndian: next)
        }
        try files.receiveAttribute(progressName, of: .root, value)
    }
}
