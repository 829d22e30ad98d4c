/// Nodes: bad copies are rewritten, and what was below a node that is lost is looked for.
///
/// A node that no pointer leads to any more is still known by itself: it has the volume's uuid, its own
/// place and its own sum. If its blocks are allocated although nothing refers to them, it was part of
/// the tree until the way to it was lost, since the bitmap is that of the same checkpoint. So its items
/// are put back, as far as they belong where something is missing.
extension RepairSession {
    func heal(_ expected: NodeValidator.Expectation, of tree: TreeID?) throws(FSError) {
        var tally = ExaminationTally()
        guard volume.nodes.examine(expected, heals: true, &tally) != nil else { return }
        if tally.healed < tally.found, let tree {
            // The medium does not keep it there.
            try volume.relocateNode(expected.lower ?? .minimum, of: tree)
        }
    }

    /// Looks for the items of dropped nodes. All of them are in memory until the next checkpoint, so
    /// that no crash comes between taking the nodes out and putting the items back, unless they are
    /// more than a checkpoint can hold.
    func salvageItems() throws(FSError) {
        guard !dropped.isEmpty else { return }
        for index in dropped.indices {
            // A whole node in a wrong place says itself where its items belong.
            guard let pointer = dropped[index].pointer, let page = leaf(at: pointer.address) else {
                continue
            }
            try putBack(page, into: dropped[index].tree, lower: nil, upper: nil)
            dropped[index].found += span(page)
        }
        var leaves: [Found] = []
        for (region, bits) in leaked {
            for run in BlockBits(bits.bytes).setRuns(from: 0) {
                let first = region * DiskLayout.regionBlocks
                collect(first + UInt64(run.lowerBound)..<first + UInt64(run.upperBound), &leaves)
            }
        }
        // Of two versions of an item the newer one is right.
        leaves.sort { $0.sequence > $1.sequence }
        var seen: Set<UInt64> = []
        for found in leaves where seen.insert(found.address).inserted {
            guard let page = leaf(at: BlockAddress(block: found.place)) else { continue }
            for index in dropped.indices where dropped[index].tree.kind == page.kind {
                let node = dropped[index]
                try putBack(page, into: node.tree, lower: node.lower, upper: node.upper)
                dropped[index].found += span(page)
            }
        }
        losses.hasLostNodes = true
        // All of a tree together: a file can have been in several of them.
        for tree in Set(dropped.map(\.tree)).sorted(by: { $0.rawValue < $1.rawValue }) {
            let gaps = dropped.filter { $0.tree == tree }.flatMap(\.gaps)
            if tree == .volume {
                noteSnapshots(between: gaps)
            } else {
                try loseItems(between: gaps, tree)
            }
        }
    }

    /// Nothing else knows which snapshots there were.
    private func noteSnapshots(between gaps: [KeyGap]) {
        let features = volume.stateLock.withLock { volume.superblock.incompatible }
        guard features & DiskFormat.Incompatible.snapshots != 0 else { return }
        let (first, last) = (SnapshotRecord.key(0), SnapshotRecord.key(.max))
        if gaps.contains(where: { ($0.lower ?? first) < last && ($0.upper ?? last) > first }) {
            losses.perhapsSnapshots = true
        }
    }

    private func span(_ page: NodePage) -> [ClosedRange<Key>] {
        page.count > 0 ? [page.key(0)...page.key(page.count - 1)] : []
    }

    private struct Found {
        var sequence: SuperblockSequence
        /// Which the node says it has, and where it was found.
        var address: UInt64
        var place: UInt64
    }

    private func collect(_ blocks: Range<UInt64>, _ leaves: inout [Found]) {
        var block = blocks.lowerBound
        while block + DiskFormat.blocksPerNode <= blocks.upperBound {
            guard let page = leaf(at: BlockAddress(block: block)) else {
                block += 1
                continue
            }
            leaves.append(
                Found(sequence: page.sequence, address: page.address.rawValue, place: block))
            block += DiskFormat.blocksPerNode
        }
    }

    /// A leaf that is whole by what it says of itself.
    private func leaf(at place: BlockAddress) -> NodePage? {
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        let offset = place.block << 12
        guard offset + UInt64(DiskFormat.nodeSize) <= volume.device.byteCount,
            (try? volume.device.read(
                into: buffer.bytes.slice(0, DiskFormat.blockSize), at: offset)) != nil,
            buffer.view.u32(32) == NodePage.magic, buffer.view[37] == 0,
            (try? volume.device.read(into: buffer.bytes, at: offset)) != nil
        else { return nil }
        let page = NodePage(buffer.bytes)
        let sum = ChecksumValue(buffer.view, 0, count: volume.checksumKind.byteCount)
        guard page.sum(volume.checksum) == sum, let kind = page.kind else { return nil }
        let pointer = NodePointer(
            level: 0, sequence: page.sequence, birth: page.birth,
            replicas: ReplicaList(page.address), checksumKind: volume.checksumKind, checksum: sum)
        let expected = NodeValidator.Expectation(
            pointer: pointer, tree: kind, lower: nil, upper: nil)
        guard (try? volume.nodes.validator.validate(page, expected)) != nil else { return nil }
        found = buffer
        return page
    }

    private func putBack(
        _ page: NodePage, into id: TreeID, lower: Key?, upper: Key?
    ) throws(FSError) {
        guard page.kind == id.kind else { return }
        var transaction = Transaction(tree: id)
        for index in 0..<page.count {
            let key = page.key(index)
            if let lower, key < lower { continue }
            if let upper, upper <= key { continue }
            guard try value(key, id) == nil else { continue }
            transaction.put(key, page.value(index).toArray(), tree: id)
            salvagedItems += 1
            if transaction.updates.count == FileSystem.reclaimBatch {
                try volume.applyRepair(transaction)
                transaction = Transaction(tree: id)
            }
        }
        try volume.applyRepair(transaction)
    }
}
