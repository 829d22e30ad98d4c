/// One damage for each id of the catalogue: exactly what the id is about, with all checksums right.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

struct Injection: Sendable {
    var issue: CheckIssue
    /// Paths, or beginnings of paths, whose contents the damage itself has changed.
    var victims: [String] = []
    var needsSnapshots = false
    /// Why no repair can put it right; then check goes on finding it.
    var cannotBeRepaired: String?
    var damage: @Sendable (RepairRig) throws -> Void

    /// By changed items.
    static func items(
        _ issue: CheckIssue, _ victims: [String] = [], needsSnapshots: Bool = false,
        cannotBeRepaired: String? = nil,
        _ body: @escaping @Sendable (RepairRig.Damage) throws -> Void
    ) -> Injection {
        Injection(
            issue: issue, victims: victims, needsSnapshots: needsSnapshots,
            cannotBeRepaired: cannotBeRepaired
        ) { try $0.damage(body) }
    }

    static let all = superblocks + nodes + space + inodes + names + extents + attributes + others

    // MARK: Superblocks and the journal

    private static let superblocks = [
        Injection(issue: .superblockCopyBad) { rig in
            rig.device.revert()
            rig.overwrite(block: 16)
        },
        items(.inodeCountWrong) { $0.volume.head.counts.inodes += 1 },
        items(.promisedCountWrong) { $0.volume.head.counts.promised += 1 },
        items(.headCountsWrong) { $0.volume.head.counts.referenced += 1 },
        Injection(issue: .superblockLost, victims: ["late"]) { rig in
            rig.device.revert()
            let volume = try rig.open()
            try volume.checkpoint()
            try rig.create("late", volume.fileSystem)
            try volume.close()
            let newest = try SuperblockStore.newest(rig.device, modules: .standard)
            let places = DiskLayout.superblockPlaces(
                pair: Int(newest.sequence.rawValue % 2), blockCount: newest.blockCount)
            rig.overwrite(block: places.front)
            rig.overwrite(block: places.end)
        },
        Injection(issue: .journalDamaged, victims: ["late"]) { rig in
            rig.device.revert()
            let volume = try rig.open()
            for index in 0..<6 {
                try rig.create("late\(index)", volume.fileSystem)
                try volume.synchronize()
            }
            let superblock = try SuperblockStore.newest(rig.device, modules: .standard)
            let journal = try #require(try ModuleSet.standard.journal(rig.device, superblock))
            let records = journal.records { _, _ in }.filter {
                $0.kind == .transactions && $0.incarnation == superblock.journalIncarnation
            }
            let place = superblock.journalExtents[0].start.block + records[2].ringBlock
            rig.overwrite(block: place)
        },
    ]

    // MARK: Nodes

    private static let nodes = [
        Injection(
            issue: .nodeUnreadable,
            // Whatever has something in this leaf.
            victims: [
                "copy", "double", "encoded", "a/b/named", "attributed", "hard", "link", "other",
                "small", "sparse",
            ]
        ) { rig in
            rig.device.revert()
            let leaf = try rig.leaf(of: "double", .extent)
            for index in 0..<leaf.replicas.count {
                rig.overwrite(block: leaf.replicas[index].block)
            }
        },
        Injection(issue: .nodeReplicaBad) { rig in
            rig.device.revert()
            rig.overwrite(block: try rig.leaf(of: "double", .extent).replicas[1].block)
        },
        Injection(issue: .nodeSharedTwice) { rig in
            try rig.editRoot { items in
                // The first child again, where the second begins.
                let first = items[0]
                items.insert(
                    SealedImage.Item(key: items[1].key.before, value: first.value), at: 1)
            }
        },
        Injection(issue: .keysOutOfRange) { rig in
            try rig.editRoot { items in
                // The last item of the second child now belongs to the third.
                items[2].key = try rig.lastKey(of: items[1])
            }
        },
        items(.unknownItem) {
            $0.transaction.put(Key(try $0.inode("small"), ItemType(rawValue: 0x77)), [1])
        },
    ]

    // MARK: Space

    private static let space = [
        Injection(issue: .bitmapUnreadable) { rig in
            rig.device.revert()
            for place in try rig.bitmapLeafPlaces() { rig.overwrite(block: place) }
        },
        Injection(issue: .bitmapCopyBad) { rig in
            rig.device.revert()
            rig.overwrite(block: try rig.bitmapLeafPlaces()[1])
        },
        items(.blockNotAllocated) {
            $0.transaction.release(try $0.extent("victim").extent.storedRun(0))
        },
        items(.blockLeaked) {
            $0.transaction.publish(
                try $0.volume.allocator.allocateData(20, goal: nil, leaving: .nothing))
        },
        items(.blockUsedTwice, ["victim"]) {
            let (key, extent) = try $0.extent("victim")
            var other = try $0.extent("double").extent.part(0, 4)
            other.replicas = ReplicaList(other.replicas[0])
            var rest = extent.part(4, extent.blocks - 4)
            rest.birth = extent.birth
            $0.transaction.release(BlockRun(extent.replicas[0], 4))
            $0.transaction.put(key, other.encoded())
            $0.transaction.put(Key(key.object, .extent, key.offset + 4 << 12), rest.encoded())
        },
        items(.shareRecordBad) { try $0.edit(volume: .share) { $0[0] = 9 } },
        items(.shareCountWrong) { try $0.edit(volume: .share) { $0[8] += 3 } },
        items(.badBlockRecordBad) { damage in
            damage.transaction.put(Key(0, .badBlocks, 9000), [1, 2], tree: .volume)
        },
        items(.damageRecordBad) { damage in
            damage.transaction.put(Key(0, .damage, 9000), [1, 2], tree: .volume)
        },
        items(.moduleRecordBad) { try $0.edit(volume: .module) { $0[0] = 9 } },
        items(.settingBad) { try $0.edit(volume: .module) { $0[15] = 0xFF } },
        items(.remapRecordBad) { damage in
            damage.allowRemaps()
            damage.transaction.put(Key(0, .remap, 9000), [1, 2], tree: .volume)
        },
        items(.remapUnreferenced) { damage in
            damage.allowRemaps()
            let run = try damage.volume.allocator.allocateData(8, goal: nil, leaving: .nothing)
            damage.transaction.publish(run)
            damage.put(
                RemapRecord(
                    source: damage.volume.layout.blockCount + 64, count: 8, target: run.start.block)
            )
        },
        items(.remapTargetMoved) { damage in
            damage.allowRemaps()
            // The file's blocks were moved; and what is there now, too.
            let extent = try damage.extent("victim").extent
            let old = BlockRun(extent.replicas[0], 8)
            let (one, two) = (try damage.allocate(8), try damage.allocate(8))
            try damage.copy(old, to: one)
            damage.transaction.release(old)
            damage.put(RemapRecord(source: old.start.block, count: 8, target: one.start.block))
            damage.put(RemapRecord(source: one.start.block, count: 8, target: two.start.block))
        },
        items(.addressBeyondEnd, ["victim"]) { damage in
            damage.allowRemaps()
            var (key, extent) = try damage.extent("victim")
            damage.transaction.release(extent.storedRun(0))
            extent.replicas = ReplicaList(
                BlockAddress(block: damage.volume.layout.blockCount + 64))
            damage.transaction.put(key, extent.encoded())
        },
    ]

    // MARK: Inodes

    private static let inodes = [
        items(.inodeRecordBad, ["victim"]) { try $0.edit("victim", .inode) { $0[0] = 9 } },
        items(.itemWithoutInode, ["victim"]) {
            $0.transaction.delete(Key(try $0.inode("victim"), .inode))
        },
        items(.linkCountWrong) { try $0.record("hard") { $0.linkCount += 3 } },
        items(.blockCountWrong) { try $0.record("victim") { $0.blocks += 3 } },
        items(.inodeNumberTooHigh) { damage in
            let count = damage.volume.head.counts.inodes
            damage.alter = { $0.inodeCeiling = count + 2 }
        },
        items(.inlineDataWrong, ["small"]) { try $0.record("small") { $0.size -= 1 } },
        items(.contentOfWrongKind) { damage in
            let extent = try damage.extent("victim").extent
            let run = try damage.allocate(4)
            var own = extent.part(0, 4)
            own.replicas = ReplicaList(run.start)
            damage.transaction.put(Key(try damage.inode("d"), .extent), own.encoded())
            try damage.record("d") { $0.blocks += 4 }
            damage.volume.head.counts.referenced += 4
        },
        items(.inodeUnreachable, ["a/b"]) { damage in
            damage.transaction.delete(try damage.name("a/b").key)
            try damage.record("a") {
                $0.size -= 1
                $0.linkCount -= 1
            }
        },
        items(.orphanNotListed, ["victim"]) { damage in
            damage.transaction.delete(try damage.name("victim").key)
            var root = try damage.fs.record(of: .root)
            root.size -= 1
            damage.transaction.put(.root, root)
            try damage.record("victim") {
                $0.linkCount = 0
                $0.parent = 0
                $0.nameCookie = 0
            }
        },
        items(.orphanListWrong) { $0.transaction.put(Key(0, .orphan, 77_777), []) },
        items(.rootWrong) { $0.transaction.delete(Key(.root, .inode)) },
    ]

    // MARK: Names

    private static let names = [
        items(.directoryRecordBad, ["a/file-7"]) { damage in
            var item = try damage.name("a/file-7")
            item.value[0] = 9
            damage.transaction.put(item.key, item.value)
        },
        items(.nameHashWrong) { damage in
            let item = try damage.name("a/file-7")
            damage.transaction.delete(item.key)
            damage.transaction.put(
                Key(item.key.object, .directoryEntry, item.key.offset ^ 5), item.value)
        },
        items(.nameWithoutInode) { damage in
            let text = Array("nothing".utf8)
            let record = try text.withView {
                try DirectoryRecord.adding(
                    name: $0, inode: InodeNumber(66_666), kind: .regular, to: nil, directory: 1)
            }
            let hash = text.withView { damage.fs.hash($0) }
            damage.transaction.put(Key(.root, .directoryEntry, hash), record?.record ?? [])
        },
        items(.nameKindWrong) { damage in
            var item = try damage.name("a/file-7")
            item.value[10] = FileKind.fifo.rawValue
            damage.transaction.put(item.key, item.value)
        },
        items(.directorySizeWrong) { try $0.record("a") { $0.size += 2 } },
        items(.directoryParentWrong) { damage in
            let other = try damage.inode("d")
            try damage.record("a/b") { $0.parent = other.rawValue }
        },
        items(.nameNotRecorded) { try $0.record("hard") { $0.nameCookie ^= 1 << 20 } },
        items(.linkRecordBad) { try $0.edit("hard", .link) { $0[0] = 9 } },
        items(.directoryLoop, ["a/b"]) { damage in
            // a/b is taken out of a and put into a/b/c.
            let item = try damage.name("a/b")
            let inner = try damage.inode("a/b/c")
            damage.transaction.delete(item.key)
            damage.transaction.put(
                Key(inner, .directoryEntry, item.key.offset), item.value)
        },
        items(.duplicateName, ["a/file-7"]) { damage in
            let item = try damage.name("a/file-7")
            var value = item.value
            var entry = Array(value[2...])
            entry[9] = 2
            value[1] = 2
            damage.transaction.put(item.key, value + entry)
        },
    ]

    // MARK: Extents

    private static let extents = [
        items(.extentRecordBad, ["victim"]) { try $0.edit("victim", .extent) { $0[0] = 9 } },
        items(.extentsOverlap) { damage in
            let (key, extent) = try damage.extent("victim")
            let run = try damage.allocate(2)
            var own = extent.part(0, 2)
            own.replicas = ReplicaList(run.start)
            damage.transaction.put(Key(key.object, .extent, key.offset + 4096), own.encoded())
        },
        items(.extentFromFuture) { damage in
            var (key, extent) = try damage.extent("victim")
            extent.birth = BirthEpoch(extent.birth.rawValue + 9)
            damage.transaction.put(key, extent.encoded())
        },
        items(.encodedWithoutFeature) { damage in
            damage.alter = { $0.incompatible &= ~DiskFormat.Incompatible.encodedExtents }
        },
    ]

    // MARK: Attributes

    private static let attributes = [
        items(.attributeRecordBad, ["attributed"]) {
            try $0.edit("attributed", .attribute) { $0[0] = 9 }
        },
        items(.attributeChunksWrong, ["attributed"]) { damage in
            let chunk = try damage.items("attributed", .attribute).last { $0.key.offset & 0xFF > 0 }
            damage.transaction.delete(try #require(chunk).key)
        },
        items(.attributeHintWrong) { try $0.record("attributed") { $0.mayHaveAttributes = false } },
        items(.accessControlListBad) { damage in
            let name = Array("system.posix_acl_access".utf8)
            let inode = try damage.inode("attributed")
            let hash = name.withView { damage.fs.hash($0) }
            let chunks = name.withView { name in
                [7, 7, 7].withView { AttributeRecord.encode(name: name, value: $0) }
            }
            damage.transaction.put(
                Key(
                    inode, .attribute, AttributeRecord.offset(hash: hash, ordinal: 0, chunk: 0)),
                chunks[0])
        },
    ]

    // MARK: Snapshots

    private static let others = [
        items(
            .snapshotRecordBad, needsSnapshots: true
        ) { try $0.edit(volume: .snapshot) { $0[0] = 9 } },
        items(.snapshotTreeWrong, needsSnapshots: true) { damage in
            let label = try damage.volumeItems(.snapshotLabel)[0]
            damage.transaction.put(SnapshotLabel.key(999), label.value, tree: .volume)
        },
        items(.snapshotLabelBad, ["@first", "@second"], needsSnapshots: true) {
            try $0.edit(volume: .snapshotLabel) { $0[0] = 9 }
        },
        items(.deadlistRecordBad, needsSnapshots: true) {
            try $0.edit(volume: .deadlist) { $0[0] = 9 }
        },
        items(.deadlistWrong, needsSnapshots: true) {
            $0.transaction.delete(try $0.volumeItems(.deadlist)[0].key, tree: .volume)
        },
        items(.segmentRecordBad, needsSnapshots: true) {
            $0.transaction.put(Key(0, .segment, 3), [1], tree: .volume)
        },
    ]
}

extension RepairRig.Damage {
    /// The next superblock says that blocks may have moved.
    func allowRemaps() {
        let limit = volume.layout.blockCount + 4096
        alter = {
            $0.incompatible |= DiskFormat.Incompatible.remap
            $0.addressLimit = limit
        }
    }

    func put(_ record: RemapRecord) {
        transaction.put(record.key, record.encoded(), tree: .volume)
    }

    func allocate(_ count: UInt64) throws -> BlockRun {
        let run = try volume.allocator.allocateData(count, goal: nil, leaving: .nothing)
        transaction.publish(run)
        return run
    }

    func copy(_ run: BlockRun, to target: BlockRun) throws {
        let buffer = ByteBuffer(count: Int(run.count) << 12)
        try volume.physical.read(into: buffer.bytes, at: run.start.block << 12)
        try volume.physical.write(buffer.view, at: target.start.block << 12)
    }
}

extension RepairRig {
    func overwrite(block: UInt64) {
        let bytes = [UInt8](repeating: 0xEE, count: DiskFormat.blockSize)
        try? bytes.withView { try device.write($0, at: block << 12) }
    }

    private func page(_ pointer: NodePointer) throws -> ByteBuffer {
        let page = ByteBuffer(count: DiskFormat.nodeSize)
        try device.read(into: page.bytes, at: pointer.address.block << 12)
        return page
    }

    private func pointer(_ value: [UInt8]) throws -> NodePointer {
        try value.withView { (view) throws(FSError) in
            var reader = ByteReader(view, .node, at: 0)
            return try NodePointer(&reader)
        }
    }

    /// The leaf of the default head with the first item of this type of a file.
    func leaf(of path: String, _ type: ItemType) throws -> NodePointer {
        let volume = try open()
        let damage = Damage(volume)
        let key = try damage.items(path, type)[0].key
        device.revert()
        let root = try SuperblockStore.newest(device, modules: .standard).headRoot
        try #require(root.level == 1)
        let items = try #require(SealedImage.items(try page(root)))
        return try pointer(items.last { $0.key <= key }?.value ?? items[0].value)
    }

    func lastKey(of item: SealedImage.Item) throws -> Key {
        let items = try #require(SealedImage.items(try page(pointer(item.value))))
        return items[items.count - 1].key
    }

    /// Changes the root node of the default head, which has leaves below it, and the superblock.
    func editRoot(_ edit: (inout [SealedImage.Item]) throws -> Void) throws {
        device.revert()
        var superblock = try SuperblockStore.newest(device, modules: .standard)
        try #require(superblock.headRoot.level == 1)
        let page = try page(superblock.headRoot)
        var items = try #require(SealedImage.items(page))
        try #require(items.count >= 4)
        try edit(&items)
        SealedImage.store(items, page)
        let sum = NodePage(page.bytes).sum(CRC32C())
        sum.store(page.bytes, 0, count: 32)
        superblock.headRoot.checksum = sum
        for index in 0..<superblock.headRoot.replicas.count {
            try device.write(page.view, at: superblock.headRoot.replicas[index].block << 12)
        }
        try SuperblockStore.write(superblock, to: device, modules: .standard)
    }

    /// Both copies of the live slot of the first region's bitmap.
    func bitmapLeafPlaces() throws -> [UInt64] {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let store = BitmapStore(
            device: device, checksum: CRC32C(), geometry: VolumeGeometry(superblock.layout),
            root: superblock.bitmapRoot, errors: ErrorLog())
        let entry = try store.entry(ofRegion: 0)
        let places = superblock.layout.bitmapPlaces(.leaf, index: 0, slot: entry.liveSlot)
        return [places.0, places.1]
    }
}

extension Key {
    /// A key a little below this one.
    fileprivate var before: Key {
        offset > 0 ? Key(object, type, offset - 1) : Key(object - 1, ItemType(rawValue: .max), 0)
    }
}
