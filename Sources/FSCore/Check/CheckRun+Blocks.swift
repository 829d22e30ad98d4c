/// Which blocks are in use: every reference, put in terms of where the blocks are now, is marked once.
extension CheckRun {
    /// Notes that a run is in use; false if part of it already was.
    @discardableResult
    func mark(_ run: BlockRun, _ issue: CheckIssue) -> Bool {
        visitedBlocks += run.count
        noteSources(run)
        var isFresh = true
        for part in remaps.translate(run.blocks) {
            guard part.start + part.count <= layout.usableEnd else {
                report(
                    .addressBeyondEnd, "blocks \(part.start) to \(part.start + part.count - 1)")
                hasUnreadableNodes = true
                continue
            }
            // Two targets may lie one behind the other, in two regions.
            var position = part.start
            while position < part.start + part.count {
                let region = position / DiskLayout.regionBlocks
                let end = min(part.start + part.count, (region + 1) * DiskLayout.regionBlocks)
                if !Self.set(position..<end, in: &reachable) {
                    report(issue, "blocks \(position) to \(end - 1)")
                    isFresh = false
                }
                position = end
            }
        }
        return isFresh
    }

    /// Sets the bits of a range within one region; false if one of them was set.
    private static func set(
        _ range: Range<UInt64>, in regions: inout [UInt64: ByteBuffer]
    ) -> Bool {
        let region = range.lowerBound / DiskLayout.regionBlocks
        let buffer = regions[region] ?? ByteBuffer(count: DiskFormat.blockSize)
        regions[region] = buffer
        let bits = BlockBits(buffer.bytes)
        let start = Int(range.lowerBound % DiskLayout.regionBlocks)
        guard bits.isClear(start, range.count) else { return false }
        bits.set(start, range.count)
        return true
    }

    // MARK: Moved blocks

    /// The volume tree is walked first, so all remaps are known when references come.
    func remap(_ key: Key, _ value: ByteView) {
        do throws(FSError) {
            let record = try RemapRecord(key, decoding: value, layout: layout)
            if !remaps.insert(record) { report(.remapRecordBad, "remaps overlap at \(key.offset)") }
        } catch { report(.remapRecordBad, "\(error)") }
    }

    private func noteSources(_ run: BlockRun) {
        for source in remaps.sources(in: run.blocks) { _ = Self.set(source, in: &referredSources) }
    }

    func checkRemaps() {
        if superblock.incompatible & DiskFormat.Incompatible.remap == 0, !remaps.isEmpty {
            report(.remapRecordBad, "remaps without their feature bit")
        }
        for record in remaps.all {
            let region = record.source / DiskLayout.regionBlocks
            if !hasUnreadableNodes, !isReferred(record, region) {
                report(.remapUnreferenced, "blocks \(record.source) to \(record.end - 1)")
            }
            for block in [record.target, record.target + record.count - 1]
            where !remaps.sources(in: block..<block + 1).isEmpty {
                report(.remapTargetMoved, "block \(block)")
            }
        }
    }

    private func isReferred(_ record: RemapRecord, _ region: UInt64) -> Bool {
        guard let bits = referredSources[region] else { return false }
        return BlockBits(bits.bytes).isAllSet(
            Int(record.source % DiskLayout.regionBlocks), Int(record.count))
    }
}
