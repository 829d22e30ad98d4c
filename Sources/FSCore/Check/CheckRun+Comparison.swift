/// The second half of a check: what the walk gathered about inodes is compared with their records,
/// and the blocks it marked with the allocation bitmap.
extension CheckRun {
    /// What was gathered about one inode.
    struct Facts {
        var mode: UInt32 = 0
        var hasRecord = false
        var linkCount: UInt32 = 0
        var names: UInt32 = 0
        var subdirectories: UInt32 = 0
        /// Sums over (parent, cookie): of the names found, and of those the inode records.
        var foundNames: UInt64 = 0
        var recordedNames: UInt64 = 0
        var parent: UInt64 = 0
        var namedBy: UInt64 = 0
        /// What the last name found says of the kind; 0 = no name.
        var namedKind: UInt8 = 0
        var isDirectory: Bool { mode & ModeBits.kind == FileKind.directory.modeBits }
    }

    /// Of an encoded extent.
    func checkFeature(_ key: Key) {
        guard superblock.incompatible & DiskFormat.Incompatible.encodedExtents == 0 else { return }
        report(
            .encodedWithoutFeature, "inode \(key.object), offset \(key.offset)",
            .feature(DiskFormat.Incompatible.encodedExtents))
    }

    // MARK: References against counts

    /// The volume tree is walked first, so all shares are known when the extents come.
    func share(_ key: Key, _ value: ByteView) {
        do throws(FSError) {
            let record = try ShareRecord(key, decoding: value, layout: layout)
            if !shares.add(record) {
                report(
                    .shareRecordBad, "shares overlap at \(key.offset)", .delete(.volume, key))
            }
        } catch { report(.shareRecordBad, "\(error)", .delete(.volume, key)) }
    }

    func checkShares() {
        for share in shares.records {
            mark(BlockRun(share.start, share.blocks), .blockUsedTwice, .share(share.key))
        }
        guard !hasUnreadableNodes else { return }
        shares.forEachWrong { record, block, found, parts in
            var remedies = parts.map { Remedy.put(.volume, $0.key, $0.encoded()) }
            if parts.first?.start != record.start {
                remedies.append(.delete(.volume, record.key))
            }
            report(
                .shareCountWrong,
                "block \(block): \(record.references) recorded, \(found) found", remedies)
        }
    }

    // MARK: Inodes against names

    /// - Parameter expected: what is recorded of the head whose walk has ended.
    func checkInodes(_ expected: TreeCounts, isDefault: Bool) {
        let root = InodeNumber.root.rawValue
        if inodes[root]?.hasRecord != true {
            report(
                .rootWrong, "the root directory is missing", change { .rebuildInode($0, root) })
        } else if let facts = inodes[root], !facts.isDirectory {
            report(.rootWrong, "the root is no directory", change { .rebuildInode($0, root) })
        }
        for (number, facts) in inodes.sorted(by: { $0.key < $1.key }) {
            if number % 1024 == 0, shouldStop() { return }
            guard facts.hasRecord else {
                if facts.names > 0 {
                    report(
                        .nameWithoutInode, "inode \(number), named by directory \(facts.namedBy)",
                        change {
                            withoutRecord.contains(number)
                                ? .rebuildInode($0, number) : .names($0, number, .remove)
                        })
                }
                continue
            }
            if facts.namedKind != 0, FileKind(mode: facts.mode)?.rawValue != facts.namedKind {
                report(
                    .nameKindWrong, "inode \(number)", change { .names($0, number, .kind) })
            }
            if number == root {
                if facts.linkCount != 2 + facts.subdirectories {
                    wrongLinks(number, facts, 2 + facts.subdirectories)
                }
                if facts.names > 0 {
                    report(
                        .directoryLoop, "the root directory has a name",
                        change { .names($0, number, .remove) })
                }
                continue
            }
            if facts.linkCount == 0 {
                if facts.names > 0 {
                    wrongLinks(
                        number, facts, facts.isDirectory ? 2 + facts.subdirectories : facts.names)
                } else if !orphans.contains(number) {
                    report(
                        .orphanNotListed, "inode \(number)",
                        change { .put($0, Key(0, .orphan, number), []) })
                }
                continue
            }
            if facts.names == 0 {
                report(.inodeUnreachable, "inode \(number)", change { .attach($0, number) })
                continue
            }
            if facts.isDirectory {
                if facts.names > 1 {
                    report(
                        .directoryLoop, "directory \(number) has \(facts.names) names",
                        change { .names($0, number, .keepOne) })
                } else if facts.parent != facts.namedBy {
                    report(
                        .directoryParentWrong, "directory \(number)",
                        change { .names($0, number, .record) })
                }
                if facts.linkCount != 2 + facts.subdirectories {
                    wrongLinks(number, facts, 2 + facts.subdirectories)
                }
            } else if facts.linkCount != facts.names {
                wrongLinks(number, facts, facts.names)
            }
            if facts.foundNames != facts.recordedNames {
                report(
                    .nameNotRecorded, "inode \(number)", change { .names($0, number, .record) })
            }
        }
        for orphan in orphans.sorted() where inodes[orphan]?.hasRecord != true {
            report(
                .orphanListWrong, "inode \(orphan)",
                change { .delete($0, Key(0, .orphan, orphan)) })
        }
        checkConnection(root)
        if counts.inodes != expected.inodes {
            report(
                isDefault ? .inodeCountWrong : .headCountsWrong,
                "\(expected.inodes) recorded, \(counts.inodes) found", setCounts(expected))
        }
        if counts.promised != expected.promised {
            report(
                isDefault ? .promisedCountWrong : .headCountsWrong,
                "\(expected.promised) recorded, \(counts.promised) found", setCounts(expected))
        }
        if counts.referenced != expected.referenced {
            report(
                .headCountsWrong,
                "\(expected.referenced) blocks recorded, \(counts.referenced) found",
                setCounts(expected))
        }
    }

    private func setCounts(_ recorded: TreeCounts) -> [Remedy] {
        let counts = counts
        return change { .counts($0, recorded: recorded, found: counts) }
    }

    private func wrongLinks(_ inode: UInt64, _ facts: Facts, _ found: UInt32) {
        report(
            .linkCountWrong, "inode \(inode): \(facts.linkCount) recorded, \(found) found",
            change { .inode($0, inode, .links(found)) })
    }

    /// That the way up from every directory ends at the root.
    private func checkConnection(_ root: UInt64) {
        var connected: Set<UInt64> = [root]
        // In order, so that a loop is always told, and broken, at the same place.
        let directories = inodes.filter { $1.hasRecord && $1.isDirectory && $1.names > 0 }.keys
        for number in directories.sorted() {
            var way: Set<UInt64> = []
            var step = number
            while !connected.contains(step) {
                guard way.insert(step).inserted else {
                    report(
                        .directoryLoop, "directory \(number)",
                        change { .names($0, number, .remove) })
                    break
                }
                guard let next = inodes[step], next.names > 0 else { break }
                step = next.namedBy
            }
            connected.formUnion(way)
        }
    }

    // MARK: Bitmap against references

    func checkBitmap() {
        for region in 0..<layout.regionCount {
            if shouldStop() { return }
            let marked = reachable[region]
            let bits: ByteBuffer
            do throws(FSError) {
                bits = try leaf(region)
            } catch {
                report(
                    .bitmapUnreadable, "region \(region): \(error)",
                    .bitmap(region, marked ?? ByteBuffer(count: DiskFormat.blockSize)))
                continue
            }
            if marked == nil, bits.view.isAllZero { continue }
            compare(region, bits, marked ?? ByteBuffer(count: DiskFormat.blockSize))
        }
    }

    private func compare(_ region: UInt64, _ allocated: ByteBuffer, _ used: ByteBuffer) {
        let first = region * DiskLayout.regionBlocks
        var missing: UInt64 = 0
        var leaked: UInt64 = 0
        var example: (missing: UInt64, leaked: UInt64) = (0, 0)
        for word in 0..<DiskFormat.blockSize / 8 {
            let have = allocated.view.u64(word * 8)
            let need = used.view.u64(word * 8)
            guard have != need else { continue }
            let lacks = need & ~have
            let extra = have & ~need
            if lacks != 0 {
                if missing == 0 {
                    example.missing = first + UInt64(word * 64 + lacks.trailingZeroBitCount)
                }
                missing += UInt64(lacks.nonzeroBitCount)
            }
            if extra != 0 {
                if leaked == 0 {
                    example.leaked = first + UInt64(word * 64 + extra.trailingZeroBitCount)
                }
                leaked += UInt64(extra.nonzeroBitCount)
            }
        }
        if leaked > 0, hasUnreadableNodes { leakedRegions[region] = leakedBits(allocated, used) }
        // Until everything is reached again, nothing is free that was not.
        let right = missing > 0 || leaked > 0 ? ByteBuffer(copying: used.view) : used
        if hasUnreadableNodes, missing > 0 {
            for word in 0..<DiskFormat.blockSize / 8 {
                right.bytes.store(
                    allocated.view.u64(word * 8) | used.view.u64(word * 8), at: word * 8)
            }
        }
        if missing > 0 {
            report(
                .blockNotAllocated,
                "region \(region): \(missing) blocks, the first is \(example.missing)",
                .bitmap(region, right))
        }
        if leaked > 0, !hasUnreadableNodes {
            report(
                .blockLeaked, "region \(region): \(leaked) blocks, the first is \(example.leaked)",
                .bitmap(region, right))
        }
    }

    private func leakedBits(_ allocated: ByteBuffer, _ used: ByteBuffer) -> ByteBuffer {
        let leaked = ByteBuffer(count: DiskFormat.blockSize)
        for word in 0..<DiskFormat.blockSize / 8 {
            leaked.bytes.store(
                allocated.view.u64(word * 8) & ~used.view.u64(word * 8), at: word * 8)
        }
        return leaked
    }
}
