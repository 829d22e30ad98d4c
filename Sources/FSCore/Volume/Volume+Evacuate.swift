/// Shrinking: empties the tail of a volume by moving its blocks, without changing a tree that refers
/// to them (`RemapTable`), and brings blocks back when there is room again.
///
///     bar the tail ─▶ ┌ checkpoint ─▶ move volume-tree nodes ─▶ copy runs, commit entries ┐ ─▶ cut
///                     └──────────────── until nothing is left ◀─────────────────────────────┘
///
/// - Invariant: only blocks that the last checkpoint has allocated are copied; what is staged for them
///   is at home by then.
/// - Invariant: an entry is committed only if no block of it was released since that checkpoint.
/// - Invariant: the size changes when every entry is durable and no request that was sent to an old
///   place is still under way, since the new end superblocks may lie there.
extension Volume {
    /// Blocks in one entry's copy, and in one transaction.
    private static let moveBlocks: UInt64 = 256
    private static let batchBlocks: UInt64 = 2048
    /// Runs in one transaction: places for nodes are held for each of them, which a volume that is to
    /// be as small as possible does not have.
    private static let batchRuns = 8

    func shrink(
        from old: DiskLayout, to new: DiskLayout, _ pace: Pace
    ) throws(FSError) {
        // The feature bit is durable before the first entry.
        try checkpoint(force: true) {
            $0.incompatible |= DiskFormat.Incompatible.remap
            $0.addressLimit = max($0.addressLimit, old.addressLimit)
        }
        let evacuation = Evacuation(boundary: new.usableEnd)
        treeLock.exclusive {
            usesRemaps = true
            self.evacuation = evacuation
        }
        remaps.watch(from: new.usableEnd)
        do throws(FSError) {
            try allocator.setUsable(new)
            try evacuate(evacuation, old, pace)
            guard remaps.drain(isCancelled: { pace.hasEnded }) else { throw .interrupted }
            allocator.truncateAtCheckpoint(to: new)
            try writeSize(old, new)
        } catch {
            endEvacuation()
            try? allocator.setUsable(old)
            allocator.cancelTruncation()
            if error != .interrupted || (try? requireWritable()) != nil {
                try? bringHome(Pace(rate: nil, total: 0, { false }, { _ in }))
            }
            throw error
        }
        geometry.change(to: new)
        allocator.resized(from: old)
        endEvacuation()
        try physical.resize(to: new.blockCount << 12)
    }

    private func endEvacuation() {
        treeLock.exclusive { evacuation = nil }
        remaps.watch(from: nil)
    }

    private func evacuate(
        _ evacuation: Evacuation, _ old: DiskLayout, _ pace: Pace
    ) throws(FSError) {
        while true {
            if pace.hasEnded { throw .interrupted }
            drainPool()
            treeLock.exclusive { evacuation.forget() }
            try checkpoint(force: true)
            if try relocateVolumeNodes(from: evacuation.boundary) { try checkpoint(force: true) }
            try retarget(from: evacuation.boundary, pace)
            var batch: [Range<UInt64>] = []
            var batched: UInt64 = 0
            for region in evacuation.boundary / DiskLayout.regionBlocks..<old.regionCount {
                for run in try allocator.committedRuns(
                    inRegion: region, from: evacuation.boundary)
                {
                    for chunk in Self.chunks(run) {
                        batch.append(chunk)
                        batched += UInt64(chunk.count)
                        guard batched >= Self.batchBlocks || batch.count == Self.batchRuns else {
                            continue
                        }
                        try move(batch, evacuation, pace)
                        batch = []
                        batched = 0
                    }
                }
            }
            try move(batch, evacuation, pace)
            try checkpoint(force: true)
            if try allocator.blocksLeft(inTailOf: old) == 0 { return }
            // What was freed is still being read, or its checkpoint comes yet.
            pace.wait(milliseconds: 5)
        }
    }

    private static func chunks(_ run: Range<UInt64>) -> [Range<UInt64>] {
        stride(from: run.lowerBound, to: run.upperBound, by: Int(moveBlocks)).map {
            $0..<min($0 + moveBlocks, run.upperBound)
        }
    }

    /// Gives back all places that wait for nodes: those in the tail would be used up too late.
    private func drainPool() {
        let places = treeLock.exclusive {
            let places = pool.surplus(over: 0)
            for place in places { cache.cancelReservation(place.first) }
            return places
        }
        for place in places { allocator.cancel(place) }
    }

    /// Moves the volume tree's own nodes by writing them anew; true if there were any.
    private func relocateVolumeNodes(from boundary: UInt64) throws(FSError) -> Bool {
        var hasMoved = false
        var position: Key? = Key.minimum
        while let key = position {
            let (inTail, next) = try reading { () throws(TreeFault) -> (Bool, Key?) in
                var inTail = false
                let next = try volumeTree.forEachPage(on: key) { page in
                    for index in 0..<page.replicas.count {
                        let end = page.replicas[index].block + DiskFormat.blocksPerNode
                        if end > boundary { inTail = true }
                    }
                }
                return (inTail, next)
            }
            if inTail {
                try relocateNode(key, of: .volume)
                hasMoved = true
            }
            position = next
        }
        return hasMoved
    }

    /// Moves what an earlier shrink had moved into what is now the tail.
    private func retarget(from boundary: UInt64, _ pace: Pace) throws(FSError) {
        while true {
            let records = remaps.records(withTargetFrom: boundary)
            guard !records.isEmpty else { return }
            for record in records {
                if pace.hasEnded { throw .interrupted }
                let first = record.target < boundary ? boundary - record.target : 0
                let count = min(record.count - first, Self.moveBlocks)
                let source = record.source + first
                let copies = try copy(
                    from: record.target + first, source: source..<source + count, nil)
                let transaction = Transaction()
                transaction.replaceRemap(
                    record,
                    with: RemapTable.subtract(source..<source + count, from: [record]) + copies)
                for copy in copies {
                    transaction.publish(BlockRun(copy.target..<copy.target + copy.count))
                }
                transaction.release(
                    BlockRun(record.target + first..<record.target + first + count))
                do throws(FSError) {
                    if try !commitMove(transaction, of: record) { cancel(copies) }
                } catch {
                    cancel(copies)
                    throw error
                }
                pace.advance(count << 12)
            }
        }
    }

    /// Commits what changes one entry, unless that is not what it was: true if it did.
    func commitMove(
        _ transaction: Transaction, of record: RemapRecord
    ) throws(FSError) -> Bool {
        transaction.condition = { [remaps] in
            remaps.records(touching: record.source..<record.source + 1) == [record]
        }
        do throws(FSError) {
            try commit(transaction, .emergency)
            return true
        } catch {
            guard error == .busy else { throw error }
            return false
        }
    }

    /// Copies blocks to places that it allocates. They are durable before an entry that names them.
    private func copy(
        from place: UInt64, source: Range<UInt64>, _ goal: BlockAddress?
    ) throws(FSError) -> [RemapRecord] {
        let buffer = ByteBuffer(count: source.count << 12)
        try physical.read(into: buffer.bytes, at: place << 12)
        return try copy(buffer.view, of: source, goal) { (bytes, run) throws(FSError) in
            try physical.write(bytes, at: run.start.block << 12)
        }
    }

    /// Puts the bytes of blocks at places that it allocates.
    func copy(
        _ bytes: ByteView, of source: Range<UInt64>, _ goal: BlockAddress?,
        write: (ByteView, BlockRun) throws(FSError) -> Void
    ) throws(FSError) -> [RemapRecord] {
        var copies: [RemapRecord] = []
        var goal = goal
        do throws(FSError) {
            var done = 0
            while done < source.count {
                let found = try allocateData(
                    UInt64(source.count - done), copies: 1, goal: goal.map { ReplicaList($0) },
                    .freeing, promised: false)
                let run = BlockRun(found.places.first, found.count)
                copies.append(
                    RemapRecord(
                        source: source.lowerBound + UInt64(done), count: run.count,
                        target: run.start.block))
                try write(bytes.slice(done << 12, Int(run.count) << 12), run)
                done += Int(run.count)
                goal = run.start + run.count
            }
        } catch {
            cancel(copies)
            throw error
        }
        journal?.noteHomeWrite()
        return copies
    }

    func cancel(_ copies: [RemapRecord]) {
        for copy in copies {
            allocator.cancel(BlockRun(copy.target..<copy.target + copy.count))
        }
    }

    /// Moves runs of the tail out of it by one transaction; if one of them was released meanwhile,
    /// each of them by its own.
    private func move(
        _ runs: [Range<UInt64>], _ evacuation: Evacuation, _ pace: Pace
    ) throws(FSError) {
        guard !runs.isEmpty else { return }
        if pace.hasEnded { throw .interrupted }
        var copies: [RemapRecord] = []
        do throws(FSError) {
            for run in runs {
                let goal = copies.last.map { BlockAddress(block: $0.target + $0.count) }
                copies += try copy(from: run.lowerBound, source: run, goal)
            }
        } catch {
            cancel(copies)
            throw error
        }
        // An entry takes in what goes on where it ends.
        var entries = remaps.records(touching: runs[0].lowerBound - 1..<runs[0].lowerBound)
        let before = entries.first
        for copy in copies {
            if let last = entries.last, last.canJoin(copy) {
                entries[entries.count - 1].count += copy.count
            } else {
                entries.append(copy)
            }
        }
        let transaction = Transaction()
        for entry in entries where entry != before {
            transaction.put(entry.key, entry.encoded(), tree: .volume)
        }
        for copy in copies {
            transaction.publish(BlockRun(copy.target..<copy.target + copy.count))
        }
        for run in runs { transaction.release(BlockRun(run)) }
        let checks = !options.brokenRules.contains(.releasedBlocksMoved)
        transaction.condition = { [remaps] in
            !(checks && runs.contains { evacuation.hasReleased($0) })
                && remaps.records(touching: runs[0].lowerBound - 1..<runs[0].lowerBound).first
                    == before
        }
        do throws(FSError) {
            try commit(transaction, .emergency)
        } catch {
            cancel(copies)
            guard error == .busy else { throw error }
            // What alone was released is gone anyway.
            if runs.count > 1 { for run in runs { try move([run], evacuation, pace) } }
            return
        }
        pace.advance(runs.reduce(0) { $0 + UInt64($1.count) } << 12)
    }

    // MARK: Home

    /// Blocks that were moved and whose old places are inside of a size.
    func blocksComingHome(_ layout: DiskLayout) -> UInt64 {
        entriesComingHome(layout.usableEnd).reduce(0) { $0 + $1.count }
    }

    /// The parts of entries below a block, but of those whose old places are bad.
    private func entriesComingHome(_ end: UInt64) -> [RemapRecord] {
        remaps.all.compactMap { $0.part(0..<end) }.filter {
            !allocator.hasBadBlocks(in: $0.source..<$0.end)
        }
    }

    /// Copies blocks back to where everything says that they are.
    func bringHome(_ pace: Pace) throws(FSError) {
        let end = layout.usableEnd
        guard blocksComingHome(layout) > 0 else { return }
        // The bitmap must know that they had left.
        try checkpoint(force: true)
        for listed in entriesComingHome(end) {
            var position = listed.source
            let stop = listed.end
            while position < stop,
                let record = remaps.records(touching: position..<stop).first
            {
                if pace.hasEnded { throw .interrupted }
                position = max(position, record.source)
                let source = position..<min(position + Self.moveBlocks, record.end, stop)
                // What changed just now is looked at again.
                guard try bringHome(source, of: record) else { continue }
                pace.advance(UInt64(source.count) << 12)
                position = source.upperBound
            }
        }
    }

    private func bringHome(
        _ source: Range<UInt64>, of record: RemapRecord
    ) throws(FSError) -> Bool {
        let buffer = ByteBuffer(count: source.count << 12)
        // From here on neither place is handed out, even if the file is deleted.
        let token: ReadEpochs.Token? = treeLock.shared {
            remaps.records(touching: source).contains(record) ? epochs.enter() : nil
        }
        guard let token else { return false }
        defer { leave(token) }
        // Once the entry is gone, only a bitmap in memory knows until the next checkpoint.
        guard try allocator.hold(source) else {
            throw .corrupt(Corruption(.bitmap, at: source.lowerBound << 12, "not readable"))
        }
        let target = record.target + (source.lowerBound - record.source)
        try physical.read(into: buffer.bytes, at: target << 12)
        try physical.write(buffer.view, at: source.lowerBound << 12)
        journal?.noteHomeWrite()
        let transaction = Transaction()
        transaction.replaceRemap(record, with: RemapTable.subtract(source, from: [record]))
        transaction.publish(BlockRun(source))
        transaction.release(
            BlockRun(target..<target + UInt64(source.count)))
        // The source was never allocated, so nothing is given back if this comes too late.
        return try commitMove(transaction, of: record)
    }
}
