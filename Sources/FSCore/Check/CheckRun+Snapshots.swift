/// Snapshots in a check: the table, the trees of all its nodes, and the deadlists.
///
/// Each node of the table has of its tree what was born after its parent; the rest is the parent's. So
/// all trees together are walked once, and what they have, with the garbage of the deadlists that
/// was not swept yet, is what is allocated. Then each deadlist is compared with the trees themselves:
/// it must have what the parent refers to and the node does not.
extension CheckRun {
    struct SnapshotTable {
        var records: [UInt64: SnapshotRecord] = [:]
        var labels: [[UInt8]: UInt64] = [:]
        var owners: [UInt64: UInt64] = [:]
        var entries: [DeadlistRecord] = []
        var children: [UInt64: Int] = [:]
        /// What makes extents of heads their own that no snapshot has.
        var rebirths: [Remedy] = []

        /// Deleted and without children: it is being freed.
        func isEnding(_ record: SnapshotRecord) -> Bool {
            record.isDeleted && children[record.id] == nil
        }
    }

    // MARK: Items

    func volumeItem(_ key: Key, _ value: ByteView) {
        do throws(FSError) {
            switch key.type {
            case .share where key.object == 0: share(key, value)
            case .remap where key.object == 0: remap(key, value)
            case .module where key.object == 0:
                let record = try ModuleRecord(key, decoding: value)
                if record.module == .settings, !Property.isPossible(setting: record) {
                    report(
                        .settingBad, "number \(record.number)", .delete(.volume, key))
                }
            case .damage where key.object == 0:
                _ = try DamageRecord(key, decoding: value)
                result.listedDamage += 1
            case .badBlocks where key.object == 0:
                _ = try BadBlockRecord(key, decoding: value, layout: layout)
            case .snapshot:
                table.records[key.offset] = try SnapshotRecord(
                    key, decoding: value, layout: layout)
            case .snapshotLabel:
                let label = try SnapshotLabel(key, decoding: value)
                if let other = table.labels[label.name] {
                    report(
                        .snapshotTreeWrong, "node \(key.offset) has the name of node \(other)",
                        .labelSnapshot(key.offset, label.name))
                } else {
                    table.labels[label.name] = key.offset
                }
            case .segment:
                table.owners[key.offset] = try SegmentRecord(key, decoding: value).owner
            case .deadlist:
                table.entries.append(try DeadlistRecord(key, decoding: value, layout: layout))
            default:
                report(
                    .unknownItem, "volume tree, object \(key.object), type \(key.type.rawValue)",
                    .delete(.volume, key))
            }
        } catch {
            switch key.type {
            case .module: report(.moduleRecordBad, "\(error)", .delete(.volume, key))
            case .damage: report(.damageRecordBad, "\(error)", .delete(.volume, key))
            case .badBlocks: report(.badBlockRecordBad, "\(error)", .delete(.volume, key))
            case .snapshotLabel:
                report(.snapshotLabelBad, "\(error)", .labelSnapshot(key.offset, []))
            case .deadlist: report(.deadlistRecordBad, "\(error)", .delete(.volume, key))
            case .segment: report(.segmentRecordBad, "\(error)", .delete(.volume, key))
            default: reportBadSnapshot(key, value, "\(error)")
            }
        }
    }

    /// What of a node's record says where its tree is, and when it was, cannot be made up; if that is
    /// right, and leads to a root, the rest can.
    private func reportBadSnapshot(_ key: Key, _ value: ByteView, _ message: String) {
        guard let record = SnapshotRecord(key, salvaging: value, layout: layout),
            record.root.map({ (root) in
                (try? nodes.read(
                    NodeValidator.Expectation(pointer: root, tree: .files, lower: nil, upper: nil)))
                    != nil
            }) ?? (record.head == .head && record.kind == .head)
        else { return report(.snapshotRecordBad, message) }
        table.records[key.offset] = record
        report(.snapshotRecordBad, message, .put(.volume, key, record.encoded()))
    }

    /// An item of a snapshot, seen by itself: it was compared with others when it was a head's.
    func snapshotItem(_ key: Key, _ value: ByteView) {
        do throws(FSError) {
            switch key.type {
            case .inode: _ = try InodeRecord(decoding: value, inode: key.object)
            case .extent:
                markData(
                    try ExtentRecord(decoding: value, inode: key.object, layout: layout), key)
            case .link: _ = try LinkRecord.cookies(value, inode: key.object)
            case .directoryEntry:
                try DirectoryRecord.forEach(value, directory: key.object) { _ in true }
            case .orphan, .inlineData, .attribute: break
            default: report(.unknownItem, "inode \(key.object), type \(key.type.rawValue)")
            }
        } catch {
            switch key.type {
            case .inode: report(.inodeRecordBad, "\(error)")
            case .link: report(.linkRecordBad, "\(error)")
            case .directoryEntry: report(.directoryRecordBad, "\(error)")
            default: report(.extentRecordBad, "\(error)")
            }
        }
    }

    // MARK: Trees

    func checkTrees() {
        checkTable()
        let deadlists = heldEntries()
        for record in table.records.values.sorted(by: { $0.id < $1.id }) {
            if shouldStop() { return }
            checkTree(of: record)
            // The nodes in which it differs from its parent were read a moment ago.
            if !hasUnreadableNodes, !table.isEnding(record), !shouldStop() {
                checkDeadlist(of: record, deadlists[record.id] ?? [])
            }
        }
        checkGarbage()
        if !hasUnreadableNodes {
            for finding in deadlistFindings {
                report(finding.issue, finding.message, finding.remedies)
            }
        }
    }

    private func checkTree(of record: SnapshotRecord) {
        guard let root = root(of: record) else { return }
        var scope = Scope()
        scope.limit = epoch(of: record.parent)
        scope.isHead = record.kind == .head
        scope.tree = record.kind == .head ? record.head : nil
        if table.isEnding(record) { scope.from = record.progress }
        if scope.from == .maximum || !scope.isHead && root.birth <= scope.limit { return }
        counts = TreeCounts()
        inodes = [:]
        orphans = []
        withoutRecord = []
        walk(root, scope)
        guard scope.isHead, !shouldStop() else { return }
        tell("names")
        let isDefault = record.head == .head
        self.scope.tree = record.head
        defer { self.scope = Scope() }
        checkInodes(isDefault ? superblock.headCounts : record.counts, isDefault: isDefault)
    }

    private func root(of record: SnapshotRecord) -> NodePointer? {
        record.kind == .head && record.head == .head ? superblock.headRoot : record.root
    }

    private func epoch(of id: UInt64) -> BirthEpoch {
        table.records[id]?.epoch ?? BirthEpoch(0)
    }

    private func checkTable() {
        let isAnnounced = superblock.incompatible & DiskFormat.Incompatible.snapshots != 0
        if table.records.isEmpty {
            let id = SnapshotRecord.firstID
            table.records[id] = SnapshotRecord(
                id: id, kind: .head, parent: 0, epoch: BirthEpoch(0), head: .head,
                created: superblock.written, counts: superblock.headCounts,
                uuid: superblock.uuid)
        } else if !isAnnounced {
            report(
                .snapshotTreeWrong, "there are snapshots, but the superblock knows of none",
                .feature(DiskFormat.Incompatible.snapshots))
        }
        var heads: Set<UInt64> = []
        for record in table.records.values.sorted(by: { $0.id < $1.id }) {
            func require(_ condition: Bool, _ detail: String, _ remedies: Remedy...) {
                if !condition {
                    report(.snapshotTreeWrong, "node \(record.id): \(detail)", remedies)
                }
            }
            if record.parent != 0 {
                table.children[record.parent, default: 0] += 1
                let parent = table.records[record.parent]
                require(parent?.kind == .snapshot, "its parent is no snapshot")
                require(
                    record.epoch.rawValue == 0 || epoch(of: record.parent) < record.epoch,
                    "it is not younger than its parent")
            }
            require(
                record.id == SnapshotRecord.firstID || record.id < superblock.nextSnapshotID,
                "an id of the future", .snapshotID(record.id))
            require(record.epoch < superblock.birthEpoch, "an epoch of the future")
            if record.kind == .head {
                require(heads.insert(record.head.rawValue).inserted, "a head twice")
                require((record.root == nil) == (record.head == .head), "root of a head")
            } else {
                require(record.root != nil, "no root")
                require(
                    (record.root?.birth ?? BirthEpoch(0)) <= record.epoch || record.isDeleted,
                    "a root of after its moment")
            }
        }
        if !heads.contains(TreeID.head.rawValue) {
            report(.snapshotTreeWrong, "there is no default head")
        }
        for (name, id) in table.labels where table.records[id] == nil {
            report(
                .snapshotTreeWrong, "'\(String(decoding: name, as: UTF8.self))' names no snapshot",
                .delete(.volume, SnapshotLabel.key(id)))
        }
    }

    // MARK: Deadlists

    /// Whether an entry is garbage that the sweeper has not come to.
    private func isGarbage(_ entry: DeadlistRecord, of owner: SnapshotRecord) -> Bool {
        entry.birth > epoch(of: owner.parent)
    }

    private func owner(of entry: DeadlistRecord) -> SnapshotRecord? {
        table.records[table.owners[entry.segment] ?? entry.segment]
    }

    /// What deadlists hold, by the nodes that have them.
    private func heldEntries() -> [UInt64: [DeadlistRecord]] {
        for (segment, owner) in table.owners {
            if table.records[owner] == nil || table.records[segment] != nil {
                report(
                    .segmentRecordBad, "segment \(segment) is said to be of node \(owner)",
                    .delete(.volume, Key(0, .segment, segment)))
            }
        }
        var held: [UInt64: [DeadlistRecord]] = [:]
        for entry in table.entries {
            guard let owner = owner(of: entry) else {
                report(
                    .deadlistWrong, "segment \(entry.segment) is nobody's",
                    .delete(.volume, entry.key))
                continue
            }
            if !isGarbage(entry, of: owner) { held[owner.id, default: []].append(entry) }
        }
        return held
    }

    /// Behind all trees: of a block that a tree and garbage have, the garbage is wrong.
    private func checkGarbage() {
        for entry in table.entries {
            guard let owner = owner(of: entry), isGarbage(entry, of: owner) else { continue }
            for _ in 0..<entry.references { markReference(entry.run, .deadlist(entry.key)) }
        }
    }

    private func checkDeadlist(of record: SnapshotRecord, _ entries: [DeadlistRecord]) {
        guard let parent = table.records[record.parent] else {
            if let entry = entries.first {
                noteWrong(
                    "node \(record.id): block \(entry.run.start.block)",
                    [.deadlist(old: entries.map(\.key), new: [])])
            }
            return
        }
        compare(record, with: parent, entries)
    }

    private func noteWrong(_ message: String, _ remedies: [Remedy]) {
        deadlistFindings.append(
            CheckFinding(issue: .deadlistWrong, message: message, remedies: remedies))
    }

    /// References that a node has no more, by three ways of adding up: each block of each birth that
    /// the parent has and the node has not must be in the deadlist as often.
    private func compare(
        _ record: SnapshotRecord, with parent: SnapshotRecord, _ entries: [DeadlistRecord]
    ) {
        guard let old = root(of: parent), let new = root(of: record) else { return }
        var edges: [Edge] = []
        // Of a head: what it says to be as old as its snapshot.
        var elders: [(key: Key, extent: ExtentRecord)] = []
        func add(_ run: BlockRun, _ birth: BirthEpoch, _ count: Int) {
            guard birth <= parent.epoch else { return }
            edges.append(Edge(birth: birth, at: run.start.rawValue, delta: count))
            edges.append(Edge(birth: birth, at: run.start.rawValue + run.count, delta: -count))
        }
        func add(_ value: ByteView?, _ key: Key, _ count: Int) throws(FSError) {
            guard let value, key.type == .extent else { return }
            let extent = try ExtentRecord(decoding: value, inode: key.object, layout: layout)
            if count < 0, record.kind == .head, extent.birth <= parent.epoch {
                elders.append((key, extent))
            }
            for index in 0..<extent.replicas.count {
                add(extent.storedRun(index), extent.birth, count)
            }
        }
        do throws(FSError) {
            try TreeComparison(read: readAgain).run(old: old, new: new) {
                (difference) throws(FSError) in
                switch difference {
                case .node(let side, let pointer):
                    for index in 0..<pointer.replicas.count {
                        add(
                            BlockRun(pointer.replicas[index], DiskFormat.blocksPerNode),
                            pointer.birth, side == .old ? 1 : -1)
                    }
                case .item(let key, let before, let after):
                    try add(before, key, 1)
                    try add(after, key, -1)
                }
            }
        } catch {
            report(.nodeUnreadable, "\(error)")
            return
        }
        let right = edges
        for entry in entries { add(entry.run, entry.birth, -Int(entry.references)) }
        edges.sort { ($0.birth, $0.at) < ($1.birth, $1.at) }
        var sum = 0
        for (index, edge) in edges.enumerated() {
            sum += edge.delta
            if index + 1 < edges.count, edges[index + 1].birth == edge.birth,
                edges[index + 1].at == edge.at
            {
                continue
            }
            guard sum != 0 else { continue }
            let reborn = reborn(elders, right, record.head)
            noteWrong(
                "node \(record.id): block \(edge.at & BlockAddress.blockMask), born in "
                    + "\(edge.birth.rawValue), is \(sum > 0 ? "missing" : "too often there")",
                [.deadlist(old: entries.map(\.key), new: deadlist(of: record.id, right))] + reborn)
            table.rebirths += reborn
            return
        }
    }

    /// Extents of a head that say that they are older than its snapshot, which has not got them: no
    /// deadlist can say so. They are the head's own, and born now.
    private func reborn(
        _ elders: [(key: Key, extent: ExtentRecord)], _ edges: [Edge], _ head: TreeID
    ) -> [Remedy] {
        guard !elders.isEmpty else { return [] }
        var missing: [(birth: BirthEpoch, places: Range<UInt64>)] = []
        var sum = 0
        let edges = edges.sorted { ($0.birth, $0.at) < ($1.birth, $1.at) }
        for (index, edge) in edges.enumerated() {
            sum += edge.delta
            if sum < 0, index + 1 < edges.count, edges[index + 1].birth == edge.birth,
                edge.at < edges[index + 1].at
            {
                missing.append((edge.birth, edge.at..<edges[index + 1].at))
            }
        }
        return elders.compactMap { key, extent in
            let isMissing = (0..<extent.replicas.count).contains { index in
                let run = extent.storedRun(index)
                let places = run.start.rawValue..<run.start.rawValue + run.count
                return missing.contains { $0.birth == extent.birth && $0.places.overlaps(places) }
            }
            guard isMissing else { return nil }
            var extent = extent
            extent.birth = superblock.birthEpoch
            return .put(head, key, extent.encoded())
        }
    }

    /// The entries of a deadlist that says what the trees differ in.
    private func deadlist(of node: UInt64, _ edges: [Edge]) -> [DeadlistRecord] {
        var entries: [DeadlistRecord] = []
        var sum = 0
        let edges = edges.sorted { ($0.birth, $0.at) < ($1.birth, $1.at) }
        for (index, edge) in edges.enumerated() {
            sum += edge.delta
            guard sum > 0, index + 1 < edges.count, edges[index + 1].birth == edge.birth else {
                continue
            }
            var position = edge.at
            let region = DiskLayout.regionBlocks
            while position < edges[index + 1].at {
                let end = min(edges[index + 1].at, (position / region + 1) * region)
                entries.append(
                    DeadlistRecord(
                        segment: node, birth: edge.birth,
                        run: BlockRun(BlockAddress(rawValue: position), end - position),
                        references: UInt32(clamping: sum), death: superblock.sequence))
                position = end
            }
        }
        return entries
    }

    private struct Edge {
        var birth: BirthEpoch
        var at: UInt64
        var delta: Int
    }
}
