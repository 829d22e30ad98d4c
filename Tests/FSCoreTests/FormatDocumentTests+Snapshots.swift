/// The records of snapshots and deadlists, as the document draws them.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

extension FormatDocumentTests {
    @Test func snapshotRecord() throws {
        let root = NodePointer(
            level: 2, sequence: SuperblockSequence(9), birth: BirthEpoch(5),
            replicas: ReplicaList(BlockAddress(block: 1000), BlockAddress(block: 2000)),
            checksumKind: .crc32c, checksum: ChecksumValue(0x0102_0304))
        var record = SnapshotRecord(
            id: 0x0A0B, kind: .snapshot, parent: 0x0809, epoch: BirthEpoch(0x0607),
            head: TreeID(0x0405),
            created: Timestamp(seconds: 0x1112_1314_1516_1718, nanoseconds: 0x191A_1B1C),
            counts: TreeCounts(inodes: 0x2122_2324, promised: 0x0132, referenced: 0x4142_4344),
            uuid: VolumeUUID(high: 0x5152_5354_5556_5758, low: 0x595A_5B5C_5D5E_5F60), root: root)
        record.isDeleted = true
        record.isAutomatic = true
        record.received = VolumeUUID(high: 0x8182_8384_8586_8788, low: 0x898A_8B8C_8D8E_8F90)
        record.base = VolumeUUID(high: 0x9192_9394_9596_9798, low: 0x999A_9B9C_9D9E_9FA0)
        record.progress = Key(0x6162, .extent, 0x7172)
        var uuid: [UInt8] = []
        uuid += bytes(record.uuid)
        try compare(
            "Snapshot record", record.encoded(),
            [
                "version": .number(1), "kind": .number(2), "flags": .number(3),
                "parent": .number(0x0809), "epoch": .number(0x0607), "head": .number(0x0405),
                "created, seconds": .number(0x1112_1314_1516_1718),
                "created, nanoseconds": .number(0x191A_1B1C), "inodes": .number(0x2122_2324),
                "promised blocks": .number(0x0132), "referenced blocks": .number(0x4142_4344),
                "uuid": .bytes(uuid),
                "received as": .bytes(bytes(try #require(record.received))),
                "base": .bytes(bytes(try #require(record.base))),
                "progress": .bytes(
                    littleEndian([0x6162]) + [ItemType.extent.rawValue] + littleEndian([0x7172])),
                "root": .bytes(encoded(96) { root.encode(&$0) }),
            ])
        try refuse(
            "Snapshot record", record.encoded(),
            fixed: ["version", "kind"]
        ) { _ = try SnapshotRecord(record.key, decoding: $0, layout: layout) }
        let again = try record.encoded().withView {
            try SnapshotRecord(record.key, decoding: $0, layout: layout)
        }
        #expect(again == record)
    }

    @Test func snapshotLabel() throws {
        var label = SnapshotLabel(name: Array("name".utf8))
        label.description = Array("what for".utf8)
        label.tags = [SnapshotLabel.Tag(key: Array("k".utf8), value: Array("value".utf8))]
        label.holds = [Array("backup".utf8)]
        label.protectedUntil = 0x1112_1314_1516_1718
        let record = try #require(label.encoded())
        try compare(
            "Snapshot label", record,
            [
                "version": .number(1), "name length": .number(4), "tags": .number(1),
                "holds": .number(1), "description length": .number(8),
                "protected until": .number(0x1112_1314_1516_1718),
                "name": .bytes(label.name), "description": .bytes(label.description),
                "tags, holds": .bytes([1, 5, 0] + Array("kvalue".utf8) + [6] + label.holds[0]),
            ], ["n": 4, "d": 8])
        let again = try record.withView { try SnapshotLabel(SnapshotLabel.key(7), decoding: $0) }
        #expect(again == label)
        label.description = [UInt8](repeating: 1, count: 4000)
        #expect(label.encoded() == nil)
    }

    @Test func deadlistRecords() throws {
        let entry = DeadlistRecord(
            segment: 7, birth: BirthEpoch(5),
            run: BlockRun(BlockAddress(block: 1000), 0x0203), references: 0x0405_0607,
            death: SuperblockSequence(0x1112_1314_1516_1718))
        #expect(entry.key == Key(7 << 32 | 5, .deadlist, 1000))
        try compare(
            "Deadlist record", entry.encoded(),
            [
                "version": .number(1), "blocks": .number(0x0203),
                "references": .number(0x0405_0607), "death": .number(0x1112_1314_1516_1718),
            ])
        try refuse("Deadlist record", entry.encoded(), fixed: ["version"]) {
            _ = try DeadlistRecord(entry.key, decoding: $0, layout: layout)
        }
        let segment = SegmentRecord(segment: 3, owner: 0x0708)
        try compare(
            "Segment record", segment.encoded(),
            ["version": .number(1), "owner": .number(0x0708)])
        try refuse("Segment record", segment.encoded(), fixed: ["version"]) {
            _ = try SegmentRecord(segment.key, decoding: $0)
        }
    }
}
