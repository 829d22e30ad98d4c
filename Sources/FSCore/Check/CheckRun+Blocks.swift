/// Which blocks are in use: every reference, put in terms of where the blocks are now, is marked once.
extension CheckRun {
    /// What refers to blocks.
    enum BlockOwner {
        case journal
        case node(NodeValidator.Expectation)
        /// - Parameter isOnly: it has no other replica.
        case extent(TreeID?, Key, isOnly: Bool)
        case share(Key)
        /// Garbage of a deadlist.
        case deadlist(Key)

        var isMetadata: Bool {
            switch self {
            case .journal, .node: true
            case .extent, .share, .deadlist: false
            }
        }
    }

    /// Notes that a run is in use; false if part of it already was.
    @discardableResult
    func mark(_ run: BlockRun, _ issue: CheckIssue, _ owner: BlockOwner) -> Bool {
        visitedBlocks += run.count
        noteSources(run)
        var isFresh = true
        for part in remaps.translate(run.blocks) {
            guard part.start + part.count <= layout.usableEnd else {
                report(
                    .addressBeyondEnd, "blocks \(part.start) to \(part.start + part.count - 1)",
                    remedies(ofLost: owner))
                hasUnreadableNodes = true
                continue
            }
            // Two targets may lie one behind the other, in two regions.
            var position = part.start
            while position < part.start + part.count {
                let region = position / DiskLayout.regionBlocks
                let end = min(part.start + part.count, (region + 1) * DiskLayout.regionBlocks)
                let taken = Self.set(position..<end, in: &reachable)
                if let first = taken.first, let last = taken.last {
                    report(
                        issue, "blocks \(first.lowerBound) to \(last.upperBound - 1)",
                        remedies(of: owner, taken))
                    isFresh = false
                }
                if owner.isMetadata { _ = Self.set(position..<end, in: &metadata) }
                position = end
            }
        }
        return isFresh
    }

    /// Notes blocks of a head that its parent's tree must have as well.
    func noteInherited(_ run: BlockRun) {
        for part in remaps.translate(run.blocks)
        where part.start + part.count <= layout.usableEnd {
            var position = part.start
            while position < part.start + part.count {
                let end = min(
                    part.start + part.count,
                    (position / DiskLayout.regionBlocks + 1) * DiskLayout.regionBlocks)
                _ = Self.set(position..<end, in: &inherited)
                position = end
            }
        }
    }

    /// What heads refer to is in use, whatever the table of snapshots says.
    func checkInherited() {
        for (region, bits) in inherited.sorted(by: { $0.key < $1.key }) {
            let used = reachable[region] ?? ByteBuffer(count: DiskFormat.blockSize)
            var stray: Int?
            for word in 0..<DiskFormat.blockSize / 8 {
                let (have, need) = (used.view.u64(word * 8), bits.view.u64(word * 8))
                if need & ~have != 0, stray == nil { stray = word * 64 }
                used.bytes.store(have | need, at: word * 8)
            }
            reachable[region] = used
            guard let stray, !hasUnreadableNodes else { continue }
            report(
                .snapshotTreeWrong,
                "region \(region): blocks of a head, as block "
                    + "\(region * DiskLayout.regionBlocks + UInt64(stray)), are in no snapshot",
                table.rebirths)
        }
        inherited = [:]
    }

    private func remedies(of owner: BlockOwner, _ taken: [Range<UInt64>]) -> [Remedy] {
        switch owner {
        case .journal: return []
        case .node(let expected): return remedy(ofTwice: expected)
        case .share(let key), .deadlist(let key): return [.delete(.volume, key)]
        case .extent(let tree, let key, let isOnly):
            // Other replicas would heal the blocks with what belongs to one of both. A shared block
            // is known by its old number.
            let isShareable =
                isOnly && remaps.isEmpty
                && taken.allSatisfy { range in
                    metadata[range.lowerBound / DiskLayout.regionBlocks].map {
                        BlockBits($0.bytes).isClear(
                            Int(range.lowerBound % DiskLayout.regionBlocks), range.count)
                    } ?? true
                }
            if isShareable { return [.share(taken.map(BlockRun.init))] }
            return tree.map { [.copyExtent($0, key)] } ?? []
        }
    }

    private func remedies(ofLost owner: BlockOwner) -> [Remedy] {
        switch owner {
        case .journal: []
        case .node(let expected): remedy(ofTwice: expected)
        case .share(let key), .deadlist(let key): [.delete(.volume, key)]
        case .extent(let tree, let key, _): tree.map { [.copyExtent($0, key)] } ?? []
        }
    }

    /// Sets the bits of a range within one region; returns the parts that were set already.
    private static func set(
        _ range: Range<UInt64>, in regions: inout [UInt64: ByteBuffer]
    ) -> [Range<UInt64>] {
        let region = range.lowerBound / DiskLayout.regionBlocks
        let buffer = regions[region] ?? ByteBuffer(count: DiskFormat.blockSize)
        regions[region] = buffer
        let bits = BlockBits(buffer.bytes)
        let start = Int(range.lowerBound % DiskLayout.regionBlocks)
        var taken: [Range<UInt64>] = []
        if !bits.isClear(start, range.count) {
            let end = start + range.count
            let base = region * DiskLayout.regionBlocks
            var position = bits.firstSet(from: start, limit: end)
            while position < end {
                let stop = min(bits.firstClear(from: position), end)
                taken.append(base + UInt64(position)..<base + UInt64(stop))
                position = bits.firstSet(from: stop, limit: end)
            }
        }
        bits.set(start, range.count)
        return taken
    }

    // MARK: Moved blocks

    /// The volume tree is walked first, so all remaps are known when references come.
    func remap(_ key: Key, _ value: ByteView) {
        do throws(FSError) {
            let record = try RemapRecord(key, decoding: value, layout: layout)
            if !remaps.insert(record) {
                report(
                    .remapRecordBad, "remaps overlap at \(key.offset)", .delete(.volume, key))
            }
        } catch { report(.remapRecordBad, "\(error)", .delete(.volume, key)) }
    }

    private func noteSources(_ run: BlockRun) {
        for source in remaps.sources(in: run.blocks) { _ = Self.set(source, in: &referredSources) }
    }

    func checkRemaps() {
        if superblock.incompatible & DiskFormat.Incompatible.remap == 0, !remaps.isEmpty {
            report(
                .remapRecordBad, "remaps without their feature bit",
                .feature(DiskFormat.Incompatible.remap))
        }
        for record in remaps.all {
            let region = record.source / DiskLayout.regionBlocks
            if !hasUnreadableNodes, !isReferred(record, region) {
                report(
                    .remapUnreferenced, "blocks \(record.source) to \(record.end - 1)",
                    .delete(.volume, record.key))
            }
            for block in [record.target, record.target + record.count - 1]
            where !remaps.sources(in: block..<block + 1).isEmpty {
                report(.remapTargetMoved, "block \(block)", .moveTarget(record))
            }
        }
    }

    private func isReferred(_ record: RemapRecord, _ region: UInt64) -> Bool {
        guard let bits = referredSources[region] else { return false }
        return BlockBits(bits.bytes).isAllSet(
            Int(record.source % DiskLayout.regionBlocks), Int(record.count))
    }
}
