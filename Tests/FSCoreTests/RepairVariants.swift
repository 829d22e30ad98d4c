/// Other ways in which the same ids can be right: each has a remedy of its own, or none.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

extension Injection {
    static let variants = itemVariants + inodeVariants + blockVariants + snapshotVariants

    // MARK: Items and names

    private static let itemVariants = [
        items(.itemWithoutInode) {
            $0.transaction.put(Key(1 << 50, .inlineData, 0), [1, 2, 3])
        },
        items(.attributeRecordBad) { damage in
            let all = try damage.items("attributed", .attribute)
            let single = all.first { item in
                item.key.offset & 0xFF == 0
                    && !all.contains { $0.key.offset == item.key.offset + 1 }
            }
            let item = try #require(single)
            damage.transaction.delete(item.key)
            damage.transaction.put(
                Key(item.key.object, .attribute, item.key.offset ^ 1 << 40), item.value)
        },
        items(.attributeChunksWrong, ["attributed"]) { damage in
            let chunk = try damage.items("attributed", .attribute).last { $0.key.offset & 0xFF > 0 }
            let value = try #require(chunk)
            damage.transaction.put(
                Key(value.key.object, .attribute, value.key.offset + 9), value.value)
        },
        items(.directoryLoop) { damage in
            // The root is named by a directory below it.
            let directory = try damage.inode("d")
            let name = Array("root".utf8)
            let record = try name.withView {
                try DirectoryRecord.adding(
                    name: $0, inode: .root, kind: .directory, to: nil,
                    directory: directory.rawValue)
            }
            damage.transaction.put(
                Key(directory, .directoryEntry, name.withView { damage.fs.hash($0) }),
                record?.record ?? [])
        },
        items(.directoryLoop) { damage in
            // A directory with two names.
            let (directory, second) = (try damage.inode("d"), try damage.inode("e"))
            let name = Array("again".utf8)
            let record = try name.withView {
                try DirectoryRecord.adding(
                    name: $0, inode: second, kind: .directory, to: nil,
                    directory: directory.rawValue)
            }
            damage.transaction.put(
                Key(directory, .directoryEntry, name.withView { damage.fs.hash($0) }),
                record?.record ?? [])
        },
        items(.contentOfWrongKind) { damage in
            var item = try damage.name("a/file-7")
            item.key.object = try damage.inode("victim").rawValue
            damage.transaction.put(item.key, item.value)
        },
        items(.unknownItem) { $0.transaction.put(Key(0, ItemType(rawValue: 0x70), 5), [1]) },
        items(.unknownItem) {
            $0.transaction.put(Key(0, ItemType(rawValue: 0x71), 5), [1], tree: .volume)
        },
    ]

    // MARK: Inodes

    private static let inodeVariants = [
        items(.rootWrong) { damage in
            var root = try damage.fs.record(of: .root)
            root.mode = FileKind.regular.modeBits | 0o755
            damage.transaction.put(.root, root)
        },
        items(.linkCountWrong) { try $0.record("small") { $0.linkCount = 0 } },
        items(.linkCountWrong) { try $0.record("a/b") { $0.linkCount = 9 } },
        items(.inlineDataWrong, ["small"]) {
            $0.transaction.delete(Key(try $0.inode("small"), .inlineData))
        },
        items(.inlineDataWrong) {
            $0.transaction.put(Key(try $0.inode("victim"), .inlineData), [1, 2, 3])
        },
        items(.inodeUnreachable, ["small"]) { damage in
            damage.transaction.delete(try damage.name("small").key)
        },
        items(.nameWithoutInode, ["link"]) {
            for item in try $0.items("link", .inode) + $0.items("link", .inlineData) {
                $0.transaction.delete(item.key)
            }
        },
        items(.extentRecordBad, ["victim"]) { damage in
            let item = try damage.items("victim", .extent)[0]
            damage.transaction.delete(item.key)
            damage.transaction.put(
                Key(item.key.object, .extent, item.key.offset + 100), item.value)
        },
    ]

    // MARK: Blocks

    private static let blockVariants = [
        items(.blockUsedTwice, ["victim"]) { damage in
            // A file lies where the journal is.
            var (key, extent) = try damage.extent("victim")
            damage.transaction.release(extent.storedRun(0))
            extent.replicas = ReplicaList(
                damage.volume.stateLock.withLock { damage.volume.superblock }
                    .journalExtents[0].start + 8)
            damage.transaction.put(key, extent.encoded())
        },
        items(.blockUsedTwice, ["victim"]) { damage in
            // A file lies on a node.
            var (key, extent) = try damage.extent("victim")
            damage.transaction.release(extent.storedRun(0))
            try damage.volume.checkpoint(force: true)
            let root = damage.volume.volumeTree.root.replicas[0]
            extent = extent.part(0, 4)
            extent.replicas = ReplicaList(root)
            damage.transaction.put(key, extent.encoded())
        },
        items(.blockUsedTwice, ["double"]) { damage in
            // Of a file with two copies one is another file's.
            var (key, extent) = try damage.extent("double")
            let other = try damage.extent("victim").extent
            extent = extent.part(0, 4)
            damage.transaction.release(
                BlockRun(extent.replicas[1], UInt64(extent.storedBlocks)))
            extent.replicas[1] = other.replicas[0]
            damage.transaction.put(key, extent.encoded())
        },
        items(.shareRecordBad) { damage in
            let share = try damage.volumeItems(.share)[0]
            damage.transaction.put(
                Key(0, .share, share.key.offset + 1), share.value, tree: .volume)
        },
        items(.shareRecordBad) {
            $0.transaction.delete(try $0.volumeItems(.share)[0].key, tree: .volume)
            $0.transaction.put(Key(0, .share, 5), [1, 2, 3], tree: .volume)
        },
        items(.remapRecordBad) { damage in
            damage.allowRemaps()
            let limit = damage.volume.layout.blockCount
            let run = try damage.allocate(8)
            damage.put(RemapRecord(source: limit + 64, count: 8, target: run.start.block))
            damage.put(RemapRecord(source: limit + 68, count: 8, target: run.start.block))
        },
        items(.remapRecordBad) { damage in
            let run = try damage.allocate(8)
            let free = try damage.volume.allocator.allocateData(8, goal: nil, leaving: .nothing)
            damage.put(
                RemapRecord(source: free.start.block, count: 8, target: run.start.block))
        },
        items(.addressBeyondEnd) { damage in
            // The other copy is where it should be.
            damage.allowRemaps()
            var (key, extent) = try damage.extent("double")
            damage.transaction.release(extent.storedRun(1))
            extent.replicas[1] = BlockAddress(block: damage.volume.layout.blockCount + 64)
            damage.transaction.put(key, extent.encoded())
        },
    ]

    // MARK: Snapshots

    private static let contradiction = "which of the records is wrong cannot be told"

    private static let snapshotVariants = [
        // Parent, epoch and head of a record.
        snapshot(8, 1), snapshot(16, 200), snapshot(24, 3),
        items(.snapshotTreeWrong, ["@second"], needsSnapshots: true) { damage in
            // Two with one name.
            let labels = try damage.volumeItems(.snapshotLabel)
            damage.transaction.put(labels[1].key, labels[0].value, tree: .volume)
        },
        items(.snapshotTreeWrong, needsSnapshots: true) { damage in
            damage.alter = { $0.incompatible &= ~DiskFormat.Incompatible.snapshots }
        },
        items(.deadlistWrong, needsSnapshots: true) {
            try $0.edit(volume: .deadlist) { $0[8] += 1 }
        },
        items(.deadlistWrong, needsSnapshots: true) {
            let (key, value) = try $0.volumeItems(.deadlist)[0]
            $0.transaction.put(
                Key(60 << 32 | key.object & 0xFFFF_FFFF, .deadlist, key.offset), value,
                tree: .volume)
        },
        items(.segmentRecordBad, needsSnapshots: true) {
            let key = try $0.volumeItems(.snapshot)[0].key
            $0.transaction.put(
                Key(0, .segment, key.offset), SegmentRecord(segment: 2, owner: 3).encoded(),
                tree: .volume)
        },
        items(.snapshotRecordBad, needsSnapshots: true) {
            // Everything but where the tree is, and when it was.
            try $0.edit(volume: .snapshot) { record in
                for byte in [1, 2, 5, 43, 45, 54, 140] { record[byte] = 0xEE }
            }
        },
        items(
            .snapshotRecordBad, needsSnapshots: true,
            cannotBeRepaired: "the root is the only thing that leads to the snapshot's tree"
        ) { try $0.edit(volume: .snapshot) { for byte in 144..<176 { $0[byte] ^= 0x5A } } },
        items(.headCountsWrong, needsSnapshots: true) {
            let clone = try $0.volumeItems(.snapshot).last
            var (key, value) = try #require(clone)
            value[48] &+= 1
            $0.transaction.put(key, value, tree: .volume)
        },
    ]

    private static func snapshot(_ byte: Int, _ value: UInt8) -> Injection {
        items(
            .snapshotTreeWrong, needsSnapshots: true, cannotBeRepaired: contradiction
        ) { damage in
            var (key, record) = try damage.volumeItems(.snapshot)[byte == 16 ? 0 : 2]
            record[byte] = value
            damage.transaction.put(key, record, tree: .volume)
        }
    }
}
