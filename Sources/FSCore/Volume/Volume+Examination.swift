/// What a scrub does with the parts of a volume: it looks at every copy of everything, and heals.
///
/// The trees are those of the last checkpoint, held still for a while (`DurableView`): all that they
/// refer to is on the device, and stays there until the view is closed. Bitmap blocks are those of the
/// running volume, each looked at under the lock on the slots.
///
/// - Invariant: a copy counts as good only if it was read from the medium and verified.
/// - Invariant: without `heals` nothing is written, and nothing is remembered.

/// What was found by looking at copies.
package struct ExaminationTally {
    /// Read, all copies together.
    package var bytes: UInt64 = 0
    /// Copies that were bad, in blocks or nodes.
    package var found: UInt64 = 0
    /// Of those, made good again.
    package var healed: UInt64 = 0
    /// Blocks or nodes without a good copy.
    package var lost: UInt64 = 0
    /// Where the first of those are.
    package private(set) var lostPlaces: Set<UInt64> = []
    /// Of those found, the first that the medium does not take any more (`Volume+Relocate`).
    private(set) var unwritable: [UnwritableCopy] = []
    private static let unwritableLimit = 256
    package init() {}

    mutating func noteUnwritable(_ copy: UnwritableCopy) {
        if unwritable.count < Self.unwritableLimit { unwritable.append(copy) }
    }
    mutating func takeUnwritable() -> [UnwritableCopy] {
        defer { unwritable = [] }
        return unwritable
    }

    mutating func lose(_ place: BlockAddress) {
        lost += 1
        if lostPlaces.count < 2 * MediumHealth.knownLimit { lostPlaces.insert(place.rawValue) }
    }

    /// Begins to count anew; the places stay.
    package mutating func forgetCounts() {
        (bytes, found, healed, lost) = (0, 0, 0, 0)
    }
}

/// A checkpoint's state that stays on the device as long as this is open.
package struct DurableView {
    let superblock: Superblock
    let token: ReadEpochs.Token
    /// Every tree of it, in the order of their ids.
    package let trees: [ExaminedTree]
}

/// A tree of a view, and what of it is its own.
package struct ExaminedTree {
    /// 1 is the volume tree; heads and snapshots have theirs from the table.
    package let id: UInt64
    let kind: TreeKind
    let root: NodePointer
    /// What was born up to here is its parent's, and looked at there.
    let limit: BirthEpoch
    /// Nil of a snapshot.
    let head: TreeID?
    package var isDefaultHead: Bool { head == .head }
    /// As damage records name it.
    var number: UInt64 { head?.rawValue ?? DamageRecord.snapshotBit | id }
}

/// Data that a tree of a view refers to.
package struct ExaminedExtent {
    package var inode: InodeNumber
    /// In the file, in bytes.
    package var offset: UInt64
    package var record: ExtentRecord
}

/// How far one step of a walk goes: whatever comes first.
package struct WalkBudget {
    package var nodes: Int
    package var blocks: UInt64
    package init(nodes: Int, blocks: UInt64) {
        self.nodes = nodes
        self.blocks = blocks
    }
}

extension Volume {
    package func openDurableView() -> DurableView {
        let superblock = stateLock.withLock {
            // While one is being written, it is not known which of two is the durable one.
            while progress.isRunning { stateLock.wait() }
            progress.isRunning = true
            return self.superblock
        }
        let token = epochs.enter()
        stateLock.withLock {
            progress.isRunning = false
            stateLock.signalAll()
        }
        return DurableView(superblock: superblock, token: token, trees: trees(of: superblock))
    }

    package func close(_ view: DurableView) { leave(view.token) }

    /// All trees of a checkpoint: the one place that knows them. What a deleted snapshot leaves is
    /// being freed, and not among them.
    private func trees(of superblock: Superblock) -> [ExaminedTree] {
        let table = snapshotTable(of: superblock)
        let parents = Set(table.values.map(\.parent))
        var trees = [
            ExaminedTree(
                id: TreeID.volume.rawValue, kind: .volume, root: superblock.volumeRoot,
                limit: BirthEpoch(0), head: .volume)
        ]
        for record in table.values.sorted(by: { $0.id < $1.id }) {
            let isDefault = record.kind == .head && record.head == .head
            guard let root = isDefault ? superblock.headRoot : record.root,
                !record.isDeleted || parents.contains(record.id)
            else { continue }
            trees.append(
                ExaminedTree(
                    id: record.id, kind: .files, root: root,
                    limit: table[record.parent]?.epoch ?? BirthEpoch(0),
                    head: record.kind == .head ? record.head : nil))
        }
        if !trees.contains(where: \.isDefaultHead) {
            trees.append(
                ExaminedTree(
                    id: SnapshotRecord.firstID, kind: .files, root: superblock.headRoot,
                    limit: BirthEpoch(0), head: .head))
        }
        return trees
    }

    private func snapshotTable(of superblock: Superblock) -> [UInt64: SnapshotRecord] {
        guard superblock.incompatible & DiskFormat.Incompatible.snapshots != 0 else { return [:] }
        var table: [UInt64: SnapshotRecord] = [:]
        func visit(_ expected: NodeValidator.Expectation) {
            guard let page = try? nodes.read(expected) else { return }
            let node = page.node
            for index in 0..<node.count {
                let upper = index + 1 < node.count ? node.key(index + 1) : nil
                if node.key(index) > SnapshotRecord.key(.max) { return }
                if node.level > 0 {
                    if let upper, upper <= SnapshotRecord.key(0) { continue }
                    if let child = try? expected.child(node, index) { visit(child) }
                } else if node.key(index).type == .snapshot,
                    let record = try? SnapshotRecord(
                        node.key(index), decoding: node.value(index), layout: layout)
                {
                    table[record.id] = record
                }
            }
        }
        visit(
            NodeValidator.Expectation(
                pointer: superblock.volumeRoot, tree: .volume, lower: nil, upper: nil))
        return table
    }

    /// Bytes that are in use for anything but the journal's ring, all copies together.
    package var scrubbableBytes: UInt64 {
        stateLock.withLock {
            let ring = superblock.journalExtents.reduce(0) { $0 + $1.count }
            return (superblock.bitmapRoot.used - min(ring, superblock.bitmapRoot.used)) << 12
        }
    }

    package var isWritable: Bool { (try? requireWritable()) != nil }

    package func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try device.readMedium(into: target, at: offset)
    }

    /// The inode at a path from the root, and whose tree it is in. What is below `.snapshots/NAME` is
    /// that snapshot's. Nothing is above the root: `..` names nothing.
    package func locate(
        _ path: String
    ) throws(FSError) -> (tree: UInt64?, files: FileSystem, inode: InodeNumber) {
        var files = fileSystem
        var tree: UInt64?
        var current = InodeNumber.root
        var names = path.utf8.split(separator: UInt8(ascii: "/"))[...]
        if names.count > 1, names[0].elementsEqual(".snapshots".utf8) {
            let found = try snapshots.snapshot(named: Array(names[1]))
            (tree, files) = (found.id, found.files)
            names = names.dropFirst(2)
        }
        for name in names where !name.elementsEqual(".".utf8) {
            if name.elementsEqual("..".utf8) { throw .noSuchEntry }
            let found = try Array(name).withView { (name) throws(FSError) in
                try files.lookup(name, in: current)
            }
            files.release(found.inode, count: 1)
            current = found.inode
        }
        return (tree, files, current)
    }

    /// What is at a path and all below it, by number, with the bytes that their data takes on the device.
    package func inodes(
        below path: String
    ) throws(FSError) -> (tree: UInt64?, inodes: [(inode: InodeNumber, bytes: UInt64)]) {
        let (tree, files, top) = try locate(path)
        var bytes: [InodeNumber: UInt64] = [:]
        var waiting = [top]
        while let inode = waiting.popLast() {
            let attributes = try files.attributes(of: inode)
            // Directories may be linked to each other on a crafted volume.
            guard bytes.updateValue(attributes.blocks512 << 9, forKey: inode) == nil else {
                continue
            }
            guard attributes.kind == .directory else { continue }
            try files.readDirectory(inode, after: 0, withAttributes: false) { entry, _ in
                if entry.cookie > 2 { waiting.append(entry.inode) }
                return true
            }
        }
        return (
            tree, bytes.sorted { $0.key.rawValue < $1.key.rawValue }.map { ($0.key, $0.value) }
        )
    }

    // MARK: Trees

    /// Looks at the nodes that hold keys from `position` to `last`, and hands out the extents there.
    /// Returns where to go on, or nil at the end. The caller has the view open.
    ///
    /// - Parameter isWhole: also what is the tree's parent's.
    package func examine(
        _ tree: ExaminedTree, isWhole: Bool = false, from position: Key, through last: Key,
        _ budget: WalkBudget, heals: Bool, _ tally: inout ExaminationTally,
        _ body: (ExaminedExtent) -> Void
    ) throws(FSError) -> Key? {
        let limit = isWhole ? BirthEpoch(0) : tree.limit
        guard tree.root.birth > limit else { return nil }
        var walk = Walk(
            position: position, last: last, limit: limit, heals: heals, nodes: budget.nodes,
            blocks: budget.blocks)
        walk.tally = tally
        defer { tally = walk.tally }
        try examine(
            NodeValidator.Expectation(
                pointer: tree.root, tree: tree.kind, lower: nil, upper: nil), &walk, body)
        return walk.next
    }

    private struct Walk {
        let position: Key
        let last: Key
        let limit: BirthEpoch
        let heals: Bool
        var nodes: Int
        var blocks: UInt64
        var tally = ExaminationTally()
        /// Set when the budget is used up.
        var next: Key?
        var isUsedUp: Bool { nodes <= 0 || blocks == 0 }
    }

    private func examine(
        _ expected: NodeValidator.Expectation, _ walk: inout Walk,
        _ body: (ExaminedExtent) -> Void
    ) throws(FSError) {
        let page: Page?
        if let lower = expected.lower, lower < walk.position {
            // On the way to where the last step ended: it was looked at then.
            page = try? nodes.read(expected)
        } else if expected.lower == nil, walk.position > .minimum {
            page = try? nodes.read(expected)
        } else {
            page = nodes.examine(expected, heals: walk.heals, &walk.tally)
            walk.nodes -= 1
        }
        guard let page else { return }
        let node = page.node
        guard node.level > 0 else {
            if expected.tree == .files { try extents(node, &walk, body) }
            return
        }
        for index in 0..<node.count {
            let lower = index > 0 ? node.key(index) : expected.lower
            let upper = index + 1 < node.count ? node.key(index + 1) : expected.upper
            if let upper, upper <= walk.position { continue }
            if let lower, lower > walk.last { return }
            if walk.isUsedUp, let lower {
                walk.next = walk.next ?? lower
                return
            }
            var reader = ByteReader(node.value(index), .node, at: page.address.block << 12)
            let pointer = try NodePointer(&reader)
            guard pointer.birth > walk.limit else { continue }
            try examine(
                NodeValidator.Expectation(
                    pointer: pointer, tree: expected.tree, lower: lower, upper: upper), &walk, body)
            if walk.next != nil { return }
        }
    }

    private func extents(
        _ node: NodePage, _ walk: inout Walk, _ body: (ExaminedExtent) -> Void
    ) throws(FSError) {
        for index in node.lowerBound(walk.position)..<node.count {
            let key = node.key(index)
            guard key <= walk.last else { return }
            // A record that cannot be decoded is what `check` is for.
            guard key.type == .extent,
                let record = try? ExtentRecord(
                    decoding: node.value(index), inode: key.object, layout: layout),
                record.kind == .data, record.birth > walk.limit
            else { continue }
            walk.blocks -= min(walk.blocks, UInt64(record.storedBlocks))
            body(
                ExaminedExtent(
                    inode: InodeNumber(key.object), offset: key.offset, record: record))
        }
    }

    // MARK: Data

    /// Verifies stored blocks of an extent, from block `first` of it on; calls `body` with the index of
    /// every block that is bad.
    package func examine(
        _ extent: ExtentRecord, _ bytes: ByteView, from first: Int, bad body: (Int) -> Void
    ) {
        let checksum = modules.requiredChecksum(extent.sumKind)
        for index in 0..<bytes.count >> 12
        where checksum.sum(bytes.slice(index << 12, DiskFormat.blockSize))
            != extent.sum(first + index)
        {
            body(first + index)
        }
    }

    /// Heals a block of an extent of which copies are bad, or says that it is lost.
    package func mend(
        _ extent: ExaminedExtent, block index: Int, of tree: ExaminedTree, heals: Bool,
        _ tally: inout ExaminationTally
    ) {
        let record = extent.record
        let checksum = modules.requiredChecksum(record.sumKind)
        let buffer = ByteBuffer(count: DiskFormat.blockSize)
        let good = ByteBuffer(count: DiskFormat.blockSize)
        var hasGood = false
        var bad: [UInt64] = []
        for copy in 0..<record.replicas.count {
            let place = (record.replicas[copy].block + UInt64(index)) << 12
            do throws(FSError) {
                try device.readMedium(into: buffer.bytes, at: place)
                guard checksum.sum(buffer.view) == record.sum(index) else {
                    throw .corrupt(
                        Corruption(.data, at: extent.inode.rawValue, "checksum mismatch"))
                }
                good.bytes.copy(buffer.view)
                hasGood = true
            } catch {
                if heals { errors.record(error) }
                bad.append(place)
            }
        }
        tally.found += UInt64(bad.count)
        let inFile = record.encoding == nil ? UInt64(index) << 12 : 0
        let offset = extent.offset + inFile
        let files = treeLock.shared { tree.head.flatMap { self.tree($0) } } ?? head!
        if hasGood {
            guard heals else { return }
            let outcome = health.heal(good.view, over: bad) { name(extent.inode, offset, files) }
            tally.healed += outcome.healed
            for place in outcome.unwritable {
                tally.noteUnwritable(UnwritableCopy(block: place >> 12, bytes: good))
            }
            return
        }
        let place = record.replicas.first + UInt64(index)
        tally.lose(place)
        guard heals else { return }
        health.lose(
            DamageRecord(
                .data, at: place, blocks: record.encoding == nil ? 1 : record.blocks,
                tree: tree.number,
                object: extent.inode.rawValue, offset: offset)
        ) { "\(name(extent.inode, offset, files)): block \(place.block) has no good copy" }
    }

    // MARK: Superblocks and bitmap

    /// Looks at the four copies of the superblock. Bad ones are written anew by checkpoints, two of
    /// which write all four.
    package func examineSuperblocks(heals: Bool, _ tally: inout ExaminationTally) throws(FSError) {
        let found = Checker.superblockFindings(self).count
        tally.bytes += 4 << 12
        guard found > 0 else { return }
        tally.found += UInt64(found)
        guard heals else { return }
        for _ in 0..<2 { try checkpoint(force: true) }
        let left = Checker.superblockFindings(self).count
        let healed = found - min(left, found)
        tally.healed += UInt64(healed)
        for _ in 0..<healed { errors.noteHealed() }
        if healed > 0 { observer?.volume(.healed("\(healed) copies of the superblock")) }
    }

    /// Looks at both copies of every block of the allocation bitmap.
    package func examineBitmap(
        heals: Bool, _ tally: inout ExaminationTally, isCancelled: () -> Bool
    ) {
        allocator.examine(heals: heals, &tally, isCancelled: isCancelled)
    }
}
