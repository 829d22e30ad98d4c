/// Items and what they refer to: attributes, extents, shared and moved blocks, the table of snapshots.
extension RepairSession {
    // MARK: Attributes

    private func chunks(_ key: Key) -> ClosedRange<Key> {
        Key(
            key.object, .attribute, key.offset & ~0xFF)...Key(
                key.object, .attribute, key.offset | 0xFF)
    }

    func deleteAttribute(_ key: Key, _ tree: TreeID) throws(FSError) {
        lose(.attribute, key.object, tree)
        var found: [Key] = []
        try scan(tree, chunks(key)) { (key, _) in found.append(key) }
        try change(tree) { (transaction) in for key in found { transaction.delete(key) } }
    }

    /// Moves all chunks of an attribute to a place that is free under the right hash.
    func placeAttribute(_ key: Key, _ tree: TreeID) throws(FSError) {
        var found: [(key: Key, value: [UInt8])] = []
        try scan(tree, chunks(key)) { (key, value) in found.append((key, value.toArray())) }
        guard let first = found.first else { return }
        let files = try files(tree)
        let hash = try first.value.withView { (value) throws(FSError) in
            files.hash(try AttributeRecord(decoding: value, inode: key.object).name)
        }
        var ordinal: UInt64 = 0
        while ordinal <= AttributeRecord.maximumOrdinal {
            let place = AttributeRecord.offset(hash: hash, ordinal: ordinal, chunk: 0)
            if try value(Key(key.object, .attribute, place), tree) == nil { break }
            ordinal += 1
        }
        guard ordinal <= AttributeRecord.maximumOrdinal else { throw .noSpace }
        try change(tree) { (transaction) in
            for chunk in found { transaction.delete(chunk.key) }
            for chunk in found {
                let place = AttributeRecord.offset(
                    hash: hash, ordinal: ordinal, chunk: chunk.key.offset & 0xFF)
                transaction.put(Key(key.object, .attribute, place), chunk.value)
            }
        }
    }

    // MARK: Extents

    private func extent(_ key: Key, _ tree: TreeID) throws(FSError) -> ExtentRecord? {
        guard let value = try value(key, tree) else { return nil }
        return try value.withView { (value) throws(FSError) in
            try ExtentRecord(decoding: value, inode: key.object, layout: volume.layout)
        }
    }

    /// Extents of an inode become a file of their own.
    func salvageExtents(_ keys: [Key], _ tree: TreeID) throws(FSError) {
        var found: [(key: Key, place: UInt64, extent: ExtentRecord)] = []
        for key in keys {
            // What cannot be decoded is a finding of its own.
            guard let extent = try? extent(key, tree) else { continue }
            let isPossible =
                key.offset & 4095 == 0
                && key.offset <= DiskFormat.maximumFileSize - UInt64(extent.blocks) << 12
            found.append((key, isPossible ? key.offset : 0, extent))
        }
        guard let first = found.first else { return }
        let inode = try volume.allocateInode()
        var record = InodeRecord(
            mode: FileKind.regular.modeBits | 0o600, userID: 0, groupID: 0, linkCount: 1,
            time: .now())
        for item in found {
            record.blocks += item.extent.heldBlocks
            record.size = max(record.size, item.place + UInt64(item.extent.blocks) << 12)
        }
        try change(tree) { (transaction) in
            transaction.put(inode, record)
            transaction.inodeDelta += 1
        }
        for batch in stride(from: 0, to: found.count, by: FileSystem.reclaimBatch) {
            try change(tree) { (transaction) in
                for item in found[batch..<min(batch + FileSystem.reclaimBatch, found.count)] {
                    transaction.delete(item.key)
                    transaction.put(Key(inode, .extent, item.place), item.extent.encoded())
                }
            }
        }
        try attach(inode, tree, name: "#\(first.key.object)-\(first.key.offset)")
    }

    /// Gives an extent blocks of its own, with what is in the ones it has: their sums decide about it.
    func copyExtent(_ key: Key, _ tree: TreeID) throws(FSError) {
        guard let old = try extent(key, tree), old.kind == .data else { return }
        try change(tree) { (transaction) throws(FSError) in
            var first: UInt32 = 0
            while first < old.blocks {
                var part = old.encoding == nil ? old.part(first, old.blocks - first) : old
                let want = UInt64(part.storedBlocks)
                let made = try volume.allocator.allocateData(
                    want, copies: part.replicas.count, goal: nil, leaving: .nothing)
                for index in 0..<made.places.count {
                    transaction.publish(BlockRun(made.places[index], made.count))
                }
                guard old.encoding == nil || made.count == want else { throw .noSpace }
                if made.count < want { part = part.part(0, UInt32(made.count)) }
                var good: Set<Int> = []
                for index in 0..<made.places.count {
                    good.formUnion(try copy(part, index, to: made.places[index].block))
                }
                if good.count < made.count {
                    let lost =
                        old.encoding == nil ? made.count - UInt64(good.count) : UInt64(part.blocks)
                    lose(.data, key.object, tree, bytes: lost << 12)
                }
                part.replicas = made.places
                part.birth = transaction.epoch(in: volume)
                transaction.put(
                    Key(key.object, .extent, key.offset + UInt64(first) << 12), part.encoded())
                first += part.blocks
            }
        }
    }

    /// Copies what is stored at one of an extent's places; returns which blocks are what they should be.
    private func copy(
        _ extent: ExtentRecord, _ replica: Int, to: UInt64
    ) throws(FSError) -> Set<Int> {
        let run = extent.storedRun(replica)
        let block = ByteBuffer(count: DiskFormat.blockSize)
        var good: Set<Int> = []
        for index in 0..<Int(run.count) {
            let from = run.start.block + UInt64(index)
            // What cannot be read has no right sum, either.
            if (try? volume.device.read(into: block.bytes, at: from << 12)) == nil {
                block.bytes.zeroAll()
            }
            good.insert(index)
            volume.examine(extent, block.view, from: index) { good.remove($0) }
            try volume.device.write(block.view, at: (to + UInt64(index)) << 12)
        }
        return good
    }

    /// How many references there are is counted by the next check.
    func recordShares() throws(FSError) {
        let runs = sharedRuns.sorted { $0.start < $1.start }
        sharedRuns = []
        var end: UInt64 = 0
        for run in runs {
            let start = max(run.start.rawValue, end)
            guard start < run.start.rawValue + run.count else { continue }
            end = run.start.rawValue + run.count
            let record = ShareRecord(
                start: BlockAddress(rawValue: start), blocks: end - start, references: 2)
            try change(.volume) { $0.put(record.key, record.encoded(), tree: .volume) }
        }
    }

    /// Blocks that were moved to where others were moved away from get a place of their own.
    func moveTarget(_ record: RemapRecord) throws(FSError) {
        try change(.volume) { (transaction) throws(FSError) in
            let run = try volume.allocator.allocateData(record.count, goal: nil, leaving: .nothing)
            transaction.publish(run)
            guard run.count == record.count else { throw .noSpace }
            let block = ByteBuffer(count: DiskFormat.blockSize)
            for index in 0..<record.count {
                try volume.physical.read(into: block.bytes, at: (record.target + index) << 12)
                try volume.physical.write(block.view, at: (run.start.block + index) << 12)
            }
            var moved = record
            moved.target = run.start.block
            transaction.put(moved.key, moved.encoded(), tree: .volume)
        }
    }

    // MARK: Snapshots

    /// A name for a snapshot whose label is lost, or is another's too.
    func label(_ id: UInt64, _ name: [UInt8]) throws(FSError) {
        let isThere = try value(SnapshotRecord.key(id), .volume) != nil
        let base = name.isEmpty ? Array("recovered".utf8) : Array(name.prefix(200))
        let label = SnapshotLabel(name: base + Array("-\(id)".utf8))
        try change(.volume) { (transaction) in
            if isThere, let encoded = label.encoded() {
                transaction.put(SnapshotLabel.key(id), encoded, tree: .volume)
            } else {
                transaction.delete(SnapshotLabel.key(id), tree: .volume)
            }
        }
    }

    func replaceDeadlist(_ old: [Key], _ new: [DeadlistRecord]) throws(FSError) {
        let kept = Set(new.map(\.key))
        let gone = old.filter { !kept.contains($0) }
        let batch = FileSystem.reclaimBatch
        for start in stride(from: 0, to: gone.count, by: batch) {
            try change(.volume) { (transaction) in
                for key in gone[start..<min(start + batch, gone.count)] {
                    transaction.delete(key, tree: .volume)
                }
            }
        }
        for start in stride(from: 0, to: new.count, by: batch) {
            try change(.volume) { (transaction) in
                for entry in new[start..<min(start + batch, new.count)] {
                    transaction.put(entry.key, entry.encoded(), tree: .volume)
                }
            }
        }
    }

    // MARK: Counts

    /// What was made in this round is in the counts already; inodes that got a record again were there
    /// before.
    func settleCounts() throws(FSError) {
        for id in Set(wantedCounts.keys).union(rebuiltInodes.keys) {
            var counts = try tree(id).counts
            let rebuilt = rebuiltInodes[id] ?? 0
            if let (recorded, found) = wantedCounts[id] {
                if losses.hasLostNodes {
                    let left = min(found.inodes + rebuilt, recorded.inodes)
                    losses.missingInodes += recorded.inodes - left
                }
                counts = counts.corrected(from: recorded, to: found)
            }
            counts.inodes += rebuilt
            try setCounts(counts, of: id)
        }
    }

    private func setCounts(_ counts: TreeCounts, of id: TreeID) throws(FSError) {
        volume.setCounts(counts, of: id)
        guard id != .head else { return }
        let segment = try tree(id).segment
        let key = SnapshotRecord.key(segment)
        guard let old = try value(key, .volume) else { return }
        var record = try old.withView { (value) throws(FSError) in
            try SnapshotRecord(key, decoding: value, layout: volume.layout)
        }
        record.counts = counts
        try change(.volume) { $0.put(key, record.encoded(), tree: .volume) }
    }

    func announce(_ bit: UInt64) throws(FSError) {
        try volume.checkpoint(force: true) {
            $0.incompatible |= bit
            if bit == DiskFormat.Incompatible.remap {
                $0.addressLimit = max($0.addressLimit, $0.blockCount)
            }
        }
    }
}
