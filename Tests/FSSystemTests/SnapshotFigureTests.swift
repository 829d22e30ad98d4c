/// Figures of snapshots against what deleting them gives back.
@testable internal import FSCore
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotFigureTests {
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func whatIsSaidComesBack(seed: UInt64) throws {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        let files = volume.fileSystem
        var random = SeededRandom(seed: seed)
        let made = try Array("file".utf8).withView {
            try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        let data = [UInt8](repeating: 7, count: 256 << 10)
        var names: [[UInt8]] = []
        for number in 0..<10 {
            for _ in 0..<4 {
                let offset = UInt64(random.below(64)) << 16
                _ = try data.withView { try files.write(made.inode, at: offset, $0) }
            }
            names.append(Array("s\(number)".utf8))
            try store.create(SnapshotLabel(name: names[number]))
        }
        files.release(made.inode, count: 1)
        func free() throws -> Int64 {
            try store.sweep()
            try volume.checkpoint()
            return Int64(files.statistics().freeBlocks)
        }
        while !names.isEmpty {
            let figures = try store.figures()
            for name in names {
                let unique = figures.first { $0.label?.name == name }?.uniqueBlocks
                #expect(unique == (try store.blocksFreed(by: [name]).blocks))
            }
            for (index, name) in names.enumerated() {
                let older = figures.first { $0.label?.name == name }?.blocksWithOlder
                #expect(older == (try store.blocksFreed(by: Array(names[...index])).blocks))
            }
            var order = names
            order.shuffle(using: &random)
            let gone = Array(order.prefix(1 + random.below(3)))
            names.removeAll { gone.contains($0) }
            let said = try store.blocksFreed(by: gone)
            #expect(said.isComplete)
            let before = try free()
            try store.delete(gone)
            // The nodes of the table and of the deadlists themselves come and go, too.
            #expect(abs(try free() - before - Int64(said.blocks)) <= 64, "seed \(seed)")
        }
        #expect(store.nodeCount == 1)
    }

    /// Blocks of a tree: its nodes and its data.
    private static func blocks(_ volume: Volume, _ root: NodePointer) throws -> Set<UInt64> {
        var found: Set<UInt64> = []
        try TreeComparison(volume).run(old: nil, new: root) { (difference) throws(FSError) in
            switch difference {
            case .node(_, let pointer):
                for index in 0..<pointer.replicas.count {
                    found.formUnion(
                        BlockRun(pointer.replicas[index], DiskFormat.blocksPerNode).blocks)
                }
            case .item(let key, _, let value):
                guard key.type == .extent, let value else { return }
                let extent = try ExtentRecord(
                    decoding: value, inode: key.object, layout: volume.layout)
                guard extent.kind == .data else { return }
                for index in 0..<extent.replicas.count {
                    found.formUnion(extent.storedRun(index).blocks)
                }
            }
        }
        return found
    }

    /// What each snapshot and head has alone, and what several have, is all that is used but for the
    /// volume's own tables; and what the list says of each is that, or more where blocks are shared.
    private static func expectSum(_ volume: Volume, isExact: Bool, _ comment: String) throws {
        let store = volume.snapshotStore
        try store.sweep()
        for _ in 0...1 { try volume.checkpoint(force: true) }
        var trees: [UInt64: Set<UInt64>] = [:]
        for node in store.allNodes() {
            if node.record.kind == .head, node.record.head == .head {
                try volume.withPresent(of: .head) { (held) throws(FSError) in
                    trees[node.record.id] = (try? Self.blocks(volume, held.root)) ?? []
                }
            } else if let root = try store.durableRecord(node).root {
                trees[node.record.id] = try Self.blocks(volume, root)
            }
        }
        var owners: [UInt64: Int] = [:]
        for blocks in trees.values { for block in blocks { owners[block, default: 0] += 1 } }
        let exclusive = trees.mapValues { $0.count { owners[$0] == 1 } }
        let shared = owners.values.count { $0 > 1 }
        let sum = exclusive.values.reduce(0, +) + shared
        #expect(sum == owners.count)
        let statistics = volume.fileSystem.statistics()
        let used = Int(statistics.totalBlocks - statistics.freeBlocks)
        // The volume tree, and nodes that are at hand for the next change.
        #expect(used >= sum && used - sum < 1500, "\(comment): \(sum) of \(used)")
        for figures in try store.figures() {
            guard let unique = figures.uniqueBlocks, figures.record.kind == .snapshot,
                store.node(figures.record.id)?.children.count == 1
            else { continue }
            let found = UInt64(exclusive[figures.record.id] ?? 0)
            #expect(isExact ? unique == found : unique >= found, "\(comment): \(found)")
        }
        let pending = try store.blocksToGive()
        #expect(pending.blocks == 0 && pending.isComplete, "\(comment): \(pending)")
    }

    /// Over snapshots and clones, and with files that share blocks by copying and by deduplication.
    @Test(arguments: 1...4 as ClosedRange<UInt64>, [false, true])
    func exclusiveAndSharedAreAllThatIsUsed(seed: UInt64, shares: Bool) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        var random = SeededRandom(seed: seed)
        var inodes: [InodeNumber] = []
        for number in 0..<8 {
            let made = try Array("file\(number)".utf8).withView {
                try volume.fileSystem.create(
                    $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            inodes.append(made.inode)
        }
        var heads: [TreeID] = [.head]
        var names: [[UInt8]] = []
        for step in 0..<120 {
            let head = random.pick(heads)
            let files = try #require(try volume.files(of: head))
            let inode = random.pick(inodes)
            let offset = UInt64(random.below(256)) << 12
            switch random.below(12) {
            case 0...5:
                // Few contents, so that there is something to deduplicate.
                let data = [UInt8](
                    repeating: UInt8(random.below(4)), count: 4096 * (1 + random.below(60)))
                _ = try data.withView { try files.write(inode, at: offset, $0) }
            case 6...7:
                let name = Array("s\(step)".utf8)
                try store.create(SnapshotLabel(name: name), of: head)
                names.append(name)
            case 8:
                guard heads.count < 3, let name = names.randomElement(using: &random) else { break }
                heads.append(
                    try store.clone(name, as: SnapshotLabel(name: Array("c\(step)".utf8))))
            case 9:
                guard let name = names.randomElement(using: &random) else { break }
                try store.delete([name])
                names.removeAll { $0 == name }
            case 10 where shares && random.chance(1, in: 4):
                _ = try files.deduplicate(
                    [.root], memoryBytes: 1 << 20, progress: { _, _ in })
            case 10 where shares:
                let other = random.pick(inodes)
                if other != inode {
                    _ = try files.copyRange(
                        from: inode, at: offset, to: other, at: offset, count: 200_000)
                }
            default: try files.allocate(inode, at: offset, count: 90_000, [.punchHole, .keepSize])
            }
            if step % 15 == 14 {
                try Self.expectSum(volume, isExact: !shares, "seed \(seed), step \(step)")
            }
        }
        #expect(names.count > 3)
        #expect(try Checker.check(volume).isClean)
    }

    /// What is said to come back still is what comes back, at no more than the rate that was asked for, or
    /// that is the volume's; and deleting very many costs in proportion.
    @Test(arguments: [false, true]) func whatIsStillToComeBackIsTold(isOfVolume: Bool) throws {
        let device = MemoryBlockDevice(byteCount: 512 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        let files = volume.fileSystem
        let made = try Array("file".utf8).withView {
            try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        var names: [[UInt8]] = []
        for number in 0..<20 {
            let data = [UInt8](repeating: UInt8(number), count: 1 << 20)
            _ = try data.withView { try files.write(made.inode, at: 0, $0) }
            names.append(Array("s\(number)".utf8))
            try store.create(SnapshotLabel(name: names[number]))
        }
        let gone = Array(names[1..<19])
        let said = try store.blocksFreed(by: gone)
        try store.delete(gone)
        #expect(store.deletedCount == 18 && store.snapshotCount == 2)
        let pending = try store.blocksToGive()
        #expect(pending.blocks == said.blocks && pending.isComplete && said.blocks >= 17 << 8)
        let given = store.givenBlocks
        if isOfVolume {
            let property = try #require(Property.named("sweep-rate"))
            try files.setProperty(property, of: .root, "40M")
            #expect(try files.property(property, of: .root).value == "40M")
        } else {
            store.sweepRate = 40 << 20
        }
        let start = monotonicNanoseconds()
        try store.sweep()
        let seconds = Double(monotonicNanoseconds() - start) / 1e9
        #expect(store.givenBlocks - given == said.blocks)
        #expect(seconds >= Double(said.blocks << 12) / Double(40 << 20) * 0.9)
        #expect(try store.blocksToGive().blocks == 0 && store.deletedCount == 0)
        #expect(try Checker.check(volume).isClean)
    }
}
