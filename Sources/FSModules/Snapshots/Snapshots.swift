/// Snapshots, clones and rollback: moments of a head that stay, at the cost of what is dropped later.
///
/// Snapshots and heads are the nodes of a tree, each with a parent: the moment from which it went on.
/// The newest node of a line is the head itself. Making a snapshot turns that node into one and
/// puts a new node in its place, so it moves nothing:
///
///     create     … ◀─ n (head)             becomes  … ◀─ n (snapshot) ◀─ m (head)
///     clone s    s ◀─ …                    becomes  s ◀─ …  and  s ◀─ m (a new head)
///     rollback   … ◀─ n (head), s          becomes  … ◀─ n (snapshot), s ◀─ m (head, with s's root)
///     delete     the node is hidden; with one child left the child takes its parent and its
///                deadlist, without any its own blocks are freed
///
/// The deadlist of a node has what its parent refers to and it does not. So a node's end needs no
/// search: what only it refers to is in its only child's deadlist, born after its parent.
///
/// - Invariant: parents have smaller ids and smaller epochs than their children.
/// - Invariant: the table changes only under the share lock and, in memory, under the exclusive tree
///   lock as well; so under either it stands still.
public import FSCore

@safe
public final class Snapshots: SnapshotPolicy, @unchecked Sendable {
    unowned let volume: Volume

    typealias Node = SnapshotTable.Node

    private struct Opened { weak var files: FileSystem? }
    private static let recentCount = 32

    /// Guards what follows; a leaf.
    private let lock = Mutex()
    private var table = SnapshotTable()
    /// Files of snapshots that somebody uses, by the snapshot's id.
    private var opened: [UInt64: Opened] = [:]
    /// The last ones, which stay open although nobody may use them just now.
    private var recent: [(id: UInt64, files: FileSystem)] = []
    /// When a name came, went or changed.
    private var renamed = Timestamp.now()
    /// How often each is being read in one go, as `diff` and `send` do: it is not deleted then.
    private var pins: [UInt64: Int] = [:]
    private var receiving: Set<VolumeUUID> = []

    let sweeper = Sweeper()
    /// Under the share lock.
    var sweepPlace: Place?

    public init(_ volume: Volume) { self.volume = volume }

    // MARK: The table in memory

    func node(_ id: UInt64) -> Node? { lock.withLock { table.nodes[id] } }
    private func headNodes() -> [Node] {
        lock.withLock { table.heads.compactMap { table.nodes[$0] } }
    }
    package var headIDs: [TreeID] { headNodes().map(\.record.head) }
    package var snapshotNames: [[UInt8]] {
        lock.withLock {
            table.nodes.values.filter { $0.record.kind == .snapshot }.compactMap(\.label?.name)
        }
    }
    public func label(of name: [UInt8]) -> SnapshotLabel? { node(named: name)?.label }
    /// Of a snapshot or clone.
    public func record(named name: [UInt8]) -> SnapshotRecord? { node(named: name)?.record }
    public func isSnapshot(_ name: [UInt8]) -> Bool { node(named: name)?.record.kind == .snapshot }
    /// Deleted ones that hold space until the sweeper, or the end of a branch, gives it back.
    public var deletedCount: Int { lock.withLock { table.deletedCount } }
    public var snapshotCount: Int {
        lock.withLock { table.nodes.count - table.heads.count - table.deletedCount }
    }
    /// Snapshots, heads, and what is left of deleted ones.
    package var nodeCount: Int { lock.withLock { table.nodes.count } }
    func allNodes() -> [Node] { lock.withLock { Array(table.nodes.values) } }
    func node(named name: [UInt8]) -> Node? {
        lock.withLock { table.idsByName[name].flatMap { table.nodes[$0] } }
    }
    /// The node that a head is now.
    func node(of head: TreeID) -> Node? { headNodes().first { $0.record.head == head } }
    /// The id of the node that a head is now; another after each snapshot and rollback.
    public func nodeID(of head: TreeID) -> UInt64? { node(of: head)?.record.id }
    /// The label of a head; the default one has none.
    public func label(of head: TreeID) -> SnapshotLabel? { node(of: head)?.label }
    public func label(ofNode id: UInt64) -> SnapshotLabel? { node(id)?.label }
    /// The head that a clone is; nil if nothing that can be worked with has the name.
    public func head(named name: [UInt8]) -> TreeID? {
        guard let record = node(named: name)?.record, record.kind == .head,
            !record.isBeingReceived
        else { return nil }
        return record.head
    }
    public func isKnown(_ id: UInt64) -> Bool { lock.withLock { table.nodes[id] != nil } }

    func epoch(of id: UInt64) -> BirthEpoch { node(id)?.record.epoch ?? BirthEpoch(0) }

    /// The newest deleted node without children.
    func newestEnding() -> Node? {
        lock.withLock { table.ending.last.flatMap { table.nodes[$0] } }
    }
    /// The newest deleted node with one child that stays, or is not yet at its own end.
    func newestMergeable() -> (Node, Node)? {
        lock.withLock {
            // Nothing is at its end: that was looked for first, under the same share lock.
            guard let node = table.mergeable.last.flatMap({ table.nodes[$0] }),
                let child = node.children.first.flatMap({ table.nodes[$0] })
            else { return nil }
            return (node, child)
        }
    }

    func takeUnswept() -> UInt64? { lock.withLock { table.unswept.last } }
    func noteSwept(_ id: UInt64) { lock.withLock { table.unswept.set(id, false) } }
    /// What could not be freed yet is looked at again after the next checkpoint.
    func postpone(_ id: UInt64) { lock.withLock { table.postpone(id) } }
    func takeUpPostponed() -> Bool { lock.withLock { table.takeUpPostponed() } }

    /// Files of a snapshot, by its id: those that are open, or new ones.
    func openFiles(_ id: UInt64, _ make: () throws(FSError) -> FileSystem) throws(FSError)
        -> FileSystem
    {
        if let known = lock.withLock({ opened[id]?.files }) { return known }
        let made = try make()
        let kept = lock.withLock { () -> FileSystem? in
            if let known = opened[id]?.files { return known }
            // Whoever deleted it meanwhile found nothing to close.
            guard table.nodes[id]?.record.isDeleted == false else { return nil }
            opened[id] = Opened(files: made)
            recent.append((id, made))
            if recent.count > Self.recentCount {
                let oldest = recent.removeFirst().id
                if opened[oldest]?.files == nil { opened[oldest] = nil }
            }
            return made
        }
        guard let kept else { throw .noSuchEntry }
        return kept
    }

    // MARK: Names, for browsing

    /// A snapshot as a listing shows it.
    struct Listed {
        var id: UInt64
        var name: [UInt8]
        var created: Timestamp
    }
    var namesChanged: Timestamp { lock.withLock { renamed } }

    /// Snapshots with a larger id, in the order of their ids.
    func listed(after id: UInt64, atMost limit: Int) -> [Listed] {
        lock.withLock {
            var found: [Listed] = []
            let ids = table.nodes.keys.filter { $0 > id }.sorted()
            for id in ids where found.count < limit {
                if let listed = table.nodes[id]?.listed { found.append(listed) }
            }
            return found
        }
    }
    func listed(named name: [UInt8]) -> Listed? {
        lock.withLock { table.idsByName[name].flatMap { table.nodes[$0]?.listed } }
    }
    /// The newest snapshot that was made within a second.
    func newest(createdAt seconds: Int64) -> UInt64? {
        lock.withLock {
            table.nodes.values.filter { $0.record.created.seconds == seconds }.compactMap(
                \.listed?.id
            )
            .max()
        }
    }
    /// The same for each second in which one was made.
    func newestBySecond() -> [Int64: UInt64] {
        lock.withLock {
            table.nodes.values.reduce(into: [:]) { newest, node in
                guard let listed = node.listed else { return }
                newest[listed.created.seconds] =
                    max(newest[listed.created.seconds] ?? 0, listed.id)
            }
        }
    }

    /// Keeps a snapshot from being deleted; throws `.noSuchEntry` without one.
    func pin(_ name: [UInt8]) throws(FSError) -> UInt64 {
        let id = lock.withLock { () -> UInt64? in
            guard let id = table.idsByName[name], table.nodes[id]?.record.kind == .snapshot else {
                return nil
            }
            pins[id, default: 0] += 1
            return id
        }
        guard let id else { throw .noSuchEntry }
        return id
    }
    func pin(id: UInt64) { lock.withLock { pins[id, default: 0] += 1 } }
    func unpin(_ id: UInt64) {
        lock.withLock {
            let count = (pins[id] ?? 1) - 1
            pins[id] = count == 0 ? nil : count
        }
    }
    /// One receive at a time makes a copy of a snapshot.
    func beginReceiving(_ uuid: VolumeUUID) -> Bool {
        lock.withLock { receiving.insert(uuid).inserted }
    }
    func endReceiving(_ uuid: VolumeUUID) { lock.withLock { _ = receiving.remove(uuid) } }
    /// Whether it is being sent, received or compared.
    public func isInUse(_ name: [UInt8]) -> Bool {
        node(named: name).map { isPinned($0.record.id) } ?? false
    }
    func isPinned(_ id: UInt64) -> Bool { lock.withLock { pins[id] != nil } }

    // MARK: Opening

    public func load() throws(FSError) {
        var found: [UInt64: Node] = [:]
        found.reserveCapacity(Int(min(volume.nextSnapshotID, 1 << 14)))
        var links: [(id: UInt64, parent: UInt64)] = []
        var labels: [(id: UInt64, label: SnapshotLabel)] = []
        var segments: [SegmentRecord] = []
        let layout = volume.diskLayout
        var position: Key? = SnapshotRecord.key(0)
        try volume.reading { () throws(TreeFault) in
            try volume.volumeTree.scan(&position, through: Key(0, .segment, .max)) {
                (key, value) throws(FSError) in
                switch key.type {
                case .snapshot:
                    let record = try SnapshotRecord(key, decoding: value, layout: layout)
                    links.append((record.id, record.parent))
                    found[key.offset] = Node(record: record)
                case .snapshotLabel:
                    labels.append((key.offset, try SnapshotLabel(key, decoding: value)))
                case .segment: segments.append(try SegmentRecord(key, decoding: value))
                default: break
                }
                return true
            }
        }
        if found.isEmpty { found[SnapshotRecord.firstID] = Node(record: Self.first()) }
        for (id, parent) in links where parent != 0 { found[parent]?.children.insert(id) }
        for (id, label) in labels { found[id]?.label = label }
        for segment in segments {
            guard found[segment.segment] == nil, found[segment.owner] != nil else {
                throw .corrupt(Corruption(.deadlist, at: segment.segment, "owner of a segment"))
            }
            found[segment.owner]?.adopted.insert(segment.segment)
        }
        let loaded = SnapshotTable(loaded: found)
        for (id, label) in labels where loaded.idsByName[label.name] != id {
            throw .corrupt(Corruption(.snapshot, at: id, "a label without a node of its own"))
        }
        try requireSane(loaded.nodes)
        for id in loaded.heads {
            if let record = loaded.nodes[id]?.record, record.head != .head, let root = record.root {
                volume.attach(record, try volume.readRoot(root))
            }
        }
        table = loaded
        settleHeads()
    }

    /// The default head before its first snapshot.
    private static func first() -> SnapshotRecord {
        SnapshotRecord(
            id: SnapshotRecord.firstID, kind: .head, parent: 0, epoch: BirthEpoch(0), head: .head,
            created: .now(), counts: TreeCounts(), uuid: .random())
    }

    private func requireSane(_ nodes: [UInt64: Node]) throws(FSError) {
        var heads: Set<UInt64> = []
        let epoch = volume.birthEpoch
        let next = volume.nextSnapshotID
        for (id, node) in nodes {
            let record = node.record
            func require(_ condition: Bool, _ detail: String) throws(FSError) {
                if !condition { throw .corrupt(Corruption(.snapshot, at: id, detail)) }
            }
            try require(id < next || id == SnapshotRecord.firstID, "an id of the future")
            try require(record.epoch < epoch, "an epoch of the future")
            if record.parent != 0 {
                let parent = nodes[record.parent]?.record
                try require(parent?.kind == .snapshot, "its parent is no snapshot")
                try require(
                    record.epoch.rawValue == 0
                        || record.epoch > parent?.epoch ?? BirthEpoch(0), "epoch of its parent")
            }
            switch record.kind {
            case .head:
                try require(!record.isDeleted, "a head that is deleted")
                try require((record.root == nil) == (record.head == .head), "root of a head")
                try require(heads.insert(record.head.rawValue).inserted, "a head twice")
                try require(node.children.isEmpty, "a head with children")
            case .snapshot:
                try require(record.root != nil, "no root")
                try require(
                    record.epoch.rawValue > 0 || record.isDeleted && node.children.isEmpty,
                    "no epoch")
            }
        }
        guard heads.contains(TreeID.head.rawValue) else {
            throw .corrupt(Corruption(.snapshot, at: TreeID.head.rawValue, "no default head"))
        }
    }

    // MARK: Following

    public func follow(_ records: [SnapshotRecord], _ transaction: Transaction) {
        lock.withLock {
            for record in records {
                table.put(record)
                if record.isDeleted, let files = opened.removeValue(forKey: record.id)?.files {
                    files.tree.isClosed = true
                    recent.removeAll { $0.id == record.id }
                }
            }
            transaction.bytes.withView { bytes in
                for update in transaction.updates where update.tree == .volume {
                    followItem(
                        update.key,
                        update.value.map { bytes.slice($0.lowerBound, $0.count) })
                }
            }
        }
        settleHeads()
    }

    private func followItem(_ key: Key, _ value: ByteView?) {
        switch key.type {
        case .snapshot: if value == nil { table.remove(key.offset) }
        case .snapshotLabel:
            table.setLabel(
                value.flatMap { try? SnapshotLabel(key, decoding: $0) }, of: key.offset)
            renamed = .now()
        case .segment:
            let segment = value.flatMap { try? SegmentRecord(key, decoding: $0) }
            table.setOwner(segment?.owner, of: key.offset)
        default: break
        }
    }

    /// Tells every head what its parent's epoch and its own segment are.
    private func settleHeads() {
        for node in headNodes() {
            guard let tree = volume.tree(node.record.head) else { continue }
            tree.segment = node.record.id
            tree.parentEpoch = epoch(of: node.record.parent)
            if volume.brokenRules.contains(.globalLatestSnapshot) {
                tree.parentEpoch =
                    lock.withLock {
                        table.nodes.values.filter { !$0.record.isDeleted }.map(\.record.epoch).max()
                    } ?? tree.parentEpoch
            }
        }
    }

    public func start() { sweeper.start(self) }
    public func stop() { sweeper.stop() }
}

extension Volume {
    /// The module that keeps this volume's snapshots.
    public var snapshotStore: Snapshots {
        guard let store = snapshots as? Snapshots else {
            preconditionFailure("every program of this project brings this module")
        }
        return store
    }
}

extension Snapshots {
    /// The files of a clone; throws `.noSuchEntry` without such a clone.
    public func files(ofClone name: [UInt8]) throws(FSError) -> FileSystem {
        guard let head = head(named: name), let files = try volume.files(of: head) else {
            throw .noSuchEntry
        }
        return files
    }

    /// The files of a snapshot, which are only read; throws `.noSuchEntry` without such a snapshot. Once
    /// it is deleted every call of theirs throws `.stale`.
    public func files(of name: [UInt8]) throws(FSError) -> FileSystem {
        try snapshot(named: name).files
    }

    public func snapshot(
        named name: [UInt8]
    ) throws(FSError) -> (id: UInt64, files: FileSystem) {
        guard let node = node(named: name), node.record.kind == .snapshot else {
            throw .noSuchEntry
        }
        return (node.record.id, try files(ofSnapshot: node.record.id))
    }

    func files(ofSnapshot id: UInt64) throws(FSError) -> FileSystem {
        try openFiles(id) { () throws(FSError) in
            try volume.shareLock.withLock { () throws(FSError) in
                guard let now = node(id), now.record.kind == .snapshot, !now.record.isDeleted
                else { throw .noSuchEntry }
                let record = try durableRecord(now)
                guard let root = record.root else { throw .noSuchEntry }
                return try volume.files(ofRoot: root, record)
            }
        }
    }
}
