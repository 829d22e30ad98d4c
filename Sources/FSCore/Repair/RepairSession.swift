/// Applies the remedies of one round to a volume that was opened for it: nodes first, then items,
/// inodes, names, and at last what is counted.
///
/// A remedy looks at what is there now, since others were applied since the check; what it cannot do any
/// more is done in the next round. Nobody else uses the volume.
final class RepairSession {
    let volume: Volume
    let leaked: [UInt64: ByteBuffer]
    var salvagedInodes: UInt64 = 0
    var salvagedItems: UInt64 = 0
    var losses: RepairLosses
    var unreadableBlocksLeft = RepairSession.lossLimit
    /// By finding.
    private(set) var failures: [String: String] = [:]

    // Gathered, because one pass over the directories, or one record, serves many findings.
    var wantedNames: [TreeID: [UInt64: Remedy.NamesRemedy]] = [:]
    var dropped: [DroppedNode] = []
    var sharedRuns: [BlockRun] = []
    var wantedCounts: [TreeID: (recorded: TreeCounts, found: TreeCounts)] = [:]
    /// Inodes that were counted, but had no record.
    var rebuiltInodes: [TreeID: UInt64] = [:]
    /// Keeps the bytes of the leaf that was read last.
    var found: ByteBuffer?

    /// What was taken out of a tree.
    struct DroppedNode {
        var tree: TreeID
        var lower: Key?
        var upper: Key?
        var pointer: NodePointer?
        /// Keys of leaves whose items were put back, each without a gap.
        var found: [ClosedRange<Key>] = []

        /// Where items may be missing.
        var gaps: [KeyGap] {
            var gaps: [KeyGap] = []
            var position = lower
            for span in found.sorted(by: { $0.lowerBound < $1.lowerBound }) {
                if let upper, span.lowerBound >= upper { break }
                if let position, span.upperBound <= position { continue }
                if position.map({ $0 < span.lowerBound }) ?? true {
                    gaps.append(KeyGap(lower: position, upper: span.lowerBound))
                }
                position = span.upperBound
            }
            if let position, let upper, position >= upper { return gaps }
            return gaps + [KeyGap(lower: position, upper: upper)]
        }
    }

    /// - Parameter losses: of the rounds before.
    init(_ volume: Volume, leaked: [UInt64: ByteBuffer], losses: RepairLosses) {
        self.volume = volume
        self.leaked = leaked
        self.losses = losses
    }

    func apply(_ findings: [CheckFinding]) {
        for step in Step.allCases {
            for finding in findings {
                for remedy in finding.remedies where remedy.step == step {
                    do throws(FSError) { try apply(remedy) } catch {
                        failures["\(finding.id) \(finding.message)"] = "\(error)"
                    }
                }
            }
            do throws(FSError) { try finish(step) } catch { volume.errors.record(error) }
        }
        losses.findPaths { volume.path(of: InodeNumber($0.inode), $0.tree.rawValue) }
    }

    enum Step: CaseIterable {
        case nodes, items, records, blocks, entries, names, inodes, places, volume, counts
    }

    private func finish(_ step: Step) throws(FSError) {
        switch step {
        case .nodes: try salvageItems()
        case .blocks: try recordShares()
        case .names: try settleNames()
        case .counts:
            try settleCounts()
            try listDamage()
        default: break
        }
    }

    private func apply(_ remedy: Remedy) throws(FSError) {
        switch remedy {
        case .superblocks, .journal, .bitmap: break
        case .bitmapCopies:
            var tally = ExaminationTally()
            volume.allocator.examine(heals: true, &tally) { false }
        case .feature(let bit): try announce(bit)
        case .inodeCeiling(let inode): volume.raise(inode: inode)
        case .snapshotID(let id): volume.raise(snapshotID: id)
        case .counts(let tree, let recorded, let found): wantedCounts[tree] = (recorded, found)
        case .heal(let tree, let expected): try heal(expected, of: tree)
        case .moveNodes(let tree, let key): try volume.relocateNode(key, of: tree)
        case .dropNode(let tree, let expected):
            if try volume.dropNode(expected, of: tree) {
                dropped.append(
                    DroppedNode(
                        tree: tree, lower: expected.lower, upper: expected.upper,
                        pointer: expected.pointer))
            }
        case .emptyRoot(let tree): dropped.append(DroppedNode(tree: tree))
        case .put(let tree, let key, let value):
            try change(tree) { $0.put(key, value, tree: tree) }
        case .delete(let tree, let key): try change(tree) { $0.delete(key, tree: tree) }
        case .deleteAttribute(let tree, let key): try deleteAttribute(key, tree)
        case .placeAttribute(let tree, let key): try placeAttribute(key, tree)
        case .loseExtent(let tree, let key): try loseExtent(key, tree)
        case .salvageExtent(let tree, let key): try salvageExtents([key], tree)
        case .salvageExtents(let tree, let inode):
            try salvageExtents(keys(of: inode, .extent, tree), tree)
        case .copyExtent(let tree, let key): try copyExtent(key, tree)
        case .share(let runs): sharedRuns += runs
        case .moveTarget(let record): try moveTarget(record)
        case .labelSnapshot(let id, let name): try label(id, name)
        case .deadlist(let old, let new): try replaceDeadlist(old, new)
        case .inode(let tree, let inode, let field): try set(field, of: inode, tree)
        case .rebuildInode(let tree, let inode): try rebuildInode(inode, tree)
        case .deleteInode(let tree, let inode): try deleteInode(inode, tree)
        case .attach(let tree, let inode): try attach(InodeNumber(inode), tree)
        case .names(let tree, let inode, let what): wantedNames[tree, default: [:]][inode] = what
        case .removeEntry(let tree, let key, let ordinal):
            try removeEntry(key, ordinal, tree, isMoved: false)
        case .rehashEntry(let tree, let key, let ordinal):
            try removeEntry(key, ordinal, tree, isMoved: true)
        }
    }

    // MARK: What all of them use

    func tree(_ id: TreeID) throws(FSError) -> CopyOnWriteTree {
        guard let tree = volume.treeLock.shared({ volume.tree(id) }) else { throw .stale }
        return tree
    }

    func files(_ id: TreeID) throws(FSError) -> FileSystem {
        id == .head ? volume.backing : FileSystem(volume, try tree(id))
    }

    /// One transaction, which is no operation.
    func change(
        _ tree: TreeID, _ body: (Transaction) throws(FSError) -> Void
    ) throws(FSError) {
        let transaction = Transaction(tree: tree)
        do throws(FSError) {
            try body(transaction)
            try volume.applyRepair(transaction)
        } catch {
            for run in transaction.published { volume.allocator.cancel(run) }
            throw error
        }
    }

    func value(_ key: Key, _ id: TreeID) throws(FSError) -> [UInt8]? {
        try volume.value(key, of: try tree(id)) { $0.toArray() }
    }

    func scan(
        _ id: TreeID, _ range: ClosedRange<Key>,
        _ body: (Key, ByteView) throws(FSError) -> Void
    ) throws(FSError) {
        let tree = try tree(id)
        var position: Key? = range.lowerBound
        try volume.reading { () throws(TreeFault) in
            try tree.scan(&position, through: range.upperBound) { (key, value) throws(FSError) in
                try body(key, value)
                return true
            }
        }
    }

    func keys(
        of inode: UInt64, _ type: ItemType, _ tree: TreeID
    ) throws(FSError) -> [Key] {
        var keys: [Key] = []
        try scan(tree, Key(inode, type, 0)...Key(inode, type, .max)) { (key, _) in keys.append(key)
        }
        return keys
    }
}

extension Remedy {
    /// When it is applied.
    var step: RepairSession.Step {
        switch self {
        case .heal, .bitmapCopies, .moveNodes, .dropNode, .emptyRoot: .nodes
        case .put, .delete, .deleteAttribute, .placeAttribute, .loseExtent, .deleteInode: .items
        case .rebuildInode: .records
        case .salvageExtent, .salvageExtents, .copyExtent, .share, .moveTarget: .blocks
        case .removeEntry, .rehashEntry: .entries
        case .names: .names
        case .inode: .inodes
        case .attach: .places
        case .labelSnapshot, .deadlist, .snapshotID, .feature: .volume
        case .superblocks, .journal, .bitmap, .inodeCeiling, .counts: .counts
        }
    }
}
