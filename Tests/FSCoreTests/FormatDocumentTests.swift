/// Reads the tables of `docs/FORMAT.md` and compares them with what the code writes: a sample of each
/// record, every field set to a value of its own, must show that value at the place and in the size
/// that the document draws; what the document calls reserved must be zero, and refused otherwise.
import Foundation
import Testing

@testable import FSCore
@testable import FSModules

@Suite struct FormatDocumentTests {
    let document: FormatDocument
    init() throws { document = try FormatDocument() }

    let layout = DiskLayout(blockCount: 4096)

    /// What a sample holds in one field.
    enum Expected {
        case number(UInt64)
        case bytes([UInt8])
        /// In the document for orientation; compared as a record of its own or elsewhere.
        case anything
    }

    /// Compares every row of a record with a sample's bytes.
    func compare(
        _ name: String, _ sample: [UInt8], _ expected: [String: Expected],
        _ variables: [String: Int] = [:], sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let rows = try document.record(name)
        let fields = Set(rows.map(\.field).filter { $0 != "reserved" })
        #expect(fields == Set(expected.keys), "\(name)", sourceLocation: sourceLocation)
        var end = 0
        for row in rows {
            let offset = try #require(FormatDocument.evaluate(row.offset, variables))
            let size = FormatDocument.evaluate(row.size, variables) ?? sample.count - offset
            #expect(offset == end, "\(name), \(row.field): gap", sourceLocation: sourceLocation)
            end = offset + size
            guard size >= 0, end <= sample.count else { break }
            let found = Array(sample[offset..<end])
            let wanted: [UInt8]
            switch expected[row.field] ?? .number(0) {
            case .anything: continue
            case .bytes(let bytes): wanted = bytes
            case .number(let number):
                wanted = (0..<size).map { $0 < 8 ? UInt8(number >> UInt64(8 * $0) & 0xFF) : 0 }
                #expect(
                    size >= 8 || number >> UInt64(8 * size) == 0,
                    "\(name), \(row.field): too narrow", sourceLocation: sourceLocation)
            }
            #expect(found == wanted, "\(name), \(row.field)", sourceLocation: sourceLocation)
        }
        #expect(end == sample.count, "\(name): size", sourceLocation: sourceLocation)
    }

    /// Changes the first and the last byte of every reserved field, and of `fixed` ones, of a valid
    /// sample: the decoder must refuse each.
    func refuse(
        _ name: String, _ sample: [UInt8], fixed: [String], _ variables: [String: Int] = [:],
        sourceLocation: SourceLocation = #_sourceLocation, _ decode: (ByteView) throws -> Void
    ) throws {
        #expect(throws: Never.self, sourceLocation: sourceLocation) {
            try sample.withView { try decode($0) }
        }
        for row in try document.record(name)
        where row.isReserved || fixed.contains(row.field) {
            let offset = try #require(FormatDocument.evaluate(row.offset, variables))
            let size = try #require(FormatDocument.evaluate(row.size, variables))
            for place in [offset, offset + size - 1] {
                var changed = sample
                changed[place] ^= 0x80
                #expect(
                    throws: (any Error).self, "\(name), \(row.field), byte \(place)",
                    sourceLocation: sourceLocation
                ) { try changed.withView { try decode($0) } }
            }
        }
    }

    /// A view does not keep its buffer alive.
    func contents(_ buffer: ByteBuffer) -> [UInt8] {
        withExtendedLifetime(buffer) { buffer.view.toArray() }
    }
    func encoded(_ count: Int, _ body: (inout ByteWriter) -> Void) -> [UInt8] {
        let buffer = ByteBuffer(count: count)
        var writer = ByteWriter(buffer.bytes)
        body(&writer)
        return contents(buffer)
    }
    /// 16 bytes in the order of a uuid's text.
    func bytes(_ uuid: VolumeUUID) -> [UInt8] {
        [uuid.high, uuid.low].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * $0)) }
        }
    }
    func littleEndian(_ words: [UInt64]) -> [UInt8] {
        words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
    }
    func padded(_ bytes: [UInt8], to size: Int) -> [UInt8] {
        bytes + [UInt8](repeating: 0, count: size - bytes.count)
    }

    // MARK: The document

    /// A table that no test below reads would be free to drift.
    @Test func everyRecordOfTheDocumentIsCompared() {
        #expect(
            Set(document.records.keys) == [
                "Superblock", "Device entry", "Bitmap entry", "Node", "Slot", "Node pointer", "Key",
                "Inode record", "Directory record", "Directory entry", "Link record",
                "Extent record", "Share record", "Remap record", "Snapshot record",
                "Snapshot label", "Deadlist record", "Segment record", "Bad block record",
                "Damage record", "Module record",
                "Attribute place", "Attribute record", "Attribute continuation",
                "Journal record", "Journal transaction", "Journal update",
            ])
    }

    // MARK: Places

    @Test func units() throws {
        let units: [String: UInt64] = [
            "block": 1, "node": DiskFormat.blocksPerNode,
            "smallest volume": DiskLayout.minimumBlocks, "region": DiskLayout.regionBlocks,
            "zone": DiskLayout.zoneBlocks, "group": DiskLayout.groupBlocks,
            "largest volume": DiskLayout.maximumBlocks,
        ]
        let table = try document.table("unit")
        #expect(Set(table.map { $0[0] }) == Set(units.keys))
        for row in table {
            let blocks = try #require(units[row[0]])
            #expect(row[1] == "\(blocks)" && row[2] == "\(blocks * 4096)", "\(row)")
        }
        #expect(DiskLayout.smallestLastRegion == 64, "named in the text")
    }

    /// What the document calls fixed is exactly what is never allocated.
    @Test func fixedPlaces() throws {
        let layout = DiskLayout(blockCount: 2 * DiskLayout.regionBlocks + 100)
        var fixed: Set<UInt64> = []
        var named: [String: UInt64] = [:]
        for row in try document.table("first") {
            for region in row[0].contains("r") ? [1, 2] : [0] {
                let variables = ["r": region, "end": Int(layout.blockCount)]
                let first = try #require(FormatDocument.evaluate(row[0], variables))
                let last = try #require(FormatDocument.evaluate(row[1], variables))
                fixed.formUnion(UInt64(first)...UInt64(last))
                named[row[2]] = UInt64(first)
            }
        }
        for block in 0..<layout.blockCount {
            let isFree = layout.isAllocatable(BlockRun(BlockAddress(block: block), 1))
            if isFree == fixed.contains(block) { Issue.record("block \(block)") }
        }
        for pair in 0...1 {
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: layout.blockCount)
            #expect(named["superblock of pair \(pair), front"] == places.front)
            #expect(named["superblock of pair \(pair), end"] == places.end)
        }
    }

    @Test func bitmapPlaces() throws {
        let layout = DiskLayout(blockCount: 1 << 38)
        let table = try document.table("level")
        #expect(table.count == DiskLayout.BitmapLevel.allCases.count)
        for (row, level) in zip(table, DiskLayout.BitmapLevel.allCases) {
            #expect(row[0] == "\(level)" && row[1] == "\(level.leaves)")
            for slot in 0...1 {
                let first = layout.bitmapPlaces(level, index: 0, slot: slot)
                #expect(first.0 == 64 + (try #require(UInt64(row[2 + slot]))))
                #expect(first.1 == 3840 + (try #require(UInt64(row[6 + slot]))))
                guard level != .device else { continue }
                // Block 2 covers from region 2 × leaves on; block 1 lies before it.
                let third = layout.bitmapPlaces(level, index: 2, slot: slot)
                let region = level.leaves * DiskLayout.regionBlocks
                #expect(third.0 == 2 * region + (try #require(UInt64(row[2 + slot]))))
                #expect(third.1 == region + (try #require(UInt64(row[4 + slot]))))
            }
        }
    }

    @Test func kindsAndItems() throws {
        let kinds = try document.table("checksum kind").map { [$0[0], $0[1]] }
        #expect(kinds == ChecksumKind.allCases.map { ["\($0.rawValue)", "\($0.byteCount)"] })
        let types: [String: ItemType] = [
            "orphan": .orphan, "inode": .inode, "inline data": .inlineData,
            "attribute": .attribute, "link": .link, "directory entry": .directoryEntry,
            "extent": .extent, "share": .share, "snapshot": .snapshot,
            "snapshot label": .snapshotLabel, "deadlist": .deadlist, "segment": .segment,
            "remap": .remap, "bad blocks": .badBlocks, "damage": .damage, "module": .module,
        ]
        let table = try document.table("object")
        #expect(table.count == types.count)
        for row in table {
            #expect(UInt8(row[1].dropFirst(2), radix: 16) == types[row[2]]?.rawValue, "\(row)")
        }
    }

    // MARK: Superblock

    @Test func bitmapEntry() throws {
        var entry = BitmapEntry()
        entry.isWritten = true
        entry.liveSlot = 1
        entry.hasShares = true
        entry.hasRemaps = true
        entry.checksum = 0x1011_1213_1415_1617
        entry.used = 0x20_2122_2324
        entry.largestRunLog2 = 0x31
        let sample = encoded(BitmapEntry.byteCount) { entry.encode(&$0) }
        try compare(
            "Bitmap entry", sample,
            [
                "checksum": .number(entry.checksum), "used": .number(entry.used),
                "largest run": .number(0x31), "flags": .number(15),
            ])
        try refuse("Bitmap entry", sample, fixed: ["flags"]) {
            var reader = ByteReader($0, .bitmap, at: 0)
            _ = try BitmapEntry(&reader)
        }
        for (bit, change) in [
            (1, { $0.isWritten = true }), (2, { $0.liveSlot = 1 }), (4, { $0.hasShares = true }),
            (8, { $0.hasRemaps = true }),
        ] as [(UInt8, (inout BitmapEntry) -> Void)] {
            var entry = BitmapEntry()
            change(&entry)
            #expect(encoded(16) { entry.encode(&$0) }[14] == bit)
        }
    }

    // MARK: Nodes

    @Test func node() throws {
        let uuid = VolumeUUID.random()
        let page = Page(
            emptyAtLevel: 0, tree: .files, uuid: uuid,
            replicas: ReplicaList(BlockAddress(block: 200), BlockAddress(block: 300)),
            sequence: SuperblockSequence(0x1011_1213_1415_1617),
            birth: BirthEpoch(0x2021_2223_2425_2627))
        let keys = [
            Key(0x3031_3233_3435_3637, .extent, 0x4041_4243_4445_4647),
            Key(0x5051_5253_5455_5657, .inode, 0x6061_6263_6465_6667),
        ]
        for (index, key) in keys.enumerated() {
            [UInt8](repeating: 7, count: 300 + index).withView { page.node.put(key, $0) }
        }
        let sum = page.node.seal(CRC32C())
        let whole = page.node.view.toArray()
        #expect(sum.words.0 == whole.withView { CRC32C().sum($0.slice(32, 16384 - 32)).words.0 })
        let heap = 16384 - 601
        let sample = Array(whole[..<(160 + 2 * 21)])
        try compare(
            "Node", sample,
            [
                "checksum": .bytes(padded(littleEndian([sum.words.0]), to: 32)),
                "magic": .bytes(Array("AGND".utf8)), "version": .number(1), "level": .number(0),
                "internal uuid": .bytes(bytes(uuid)), "address": .number(200),
                "tree kind": .number(2), "sequence": .number(0x1011_1213_1415_1617),
                "birth": .number(0x2021_2223_2425_2627), "nonce": .number(0), "tag": .number(0),
                "key id": .number(0), "item count": .number(2), "heap start": .number(UInt64(heap)),
                "garbage": .number(0), "slots": .anything,
            ], ["n": 2])
        for (index, offset, length) in [(0, 16384 - 300, 300), (1, heap, 301)] {
            let slot = Array(sample[(160 + index * 21)..<(160 + index * 21 + 21)])
            try compare(
                "Slot", slot,
                [
                    "key": .anything, "value offset": .number(UInt64(offset)),
                    "value length": .number(UInt64(length)),
                ])
            try compare(
                "Key", Array(slot[..<17]),
                [
                    "object": .number(keys[index].object),
                    "type": .number(UInt64(keys[index].type.rawValue)),
                    "offset": .number(keys[index].offset),
                ])
        }
        // Levels have no sample above; garbage is there only between two writes.
        let inner = Page(
            emptyAtLevel: 3, tree: .volume, uuid: uuid, replicas: page.replicas,
            sequence: SuperblockSequence(1), birth: BirthEpoch(1))
        [1, 2].withView { inner.node.put(keys[0], $0) }
        [1].withView { inner.node.put(keys[0], $0) }
        #expect(inner.node.view[try document.offset("Node", "level")] == 3)
        #expect(inner.node.view.u64(try document.offset("Node", "tree kind")) == 1)
        #expect(inner.node.view.u16(try document.offset("Node", "garbage")) == 2)

        let validator = NodeValidator(
            geometry: VolumeGeometry(layout), internalUUID: uuid, checksumKind: .crc32c)
        let expectation = NodeValidator.Expectation(
            pointer: page.pointer(.crc32c), tree: .files, lower: nil, upper: nil)
        try refuse(
            "Node", whole,
            fixed: [
                "magic", "version", "level", "internal uuid", "address", "tree kind", "sequence",
                "birth", "garbage", "heap start",
            ], ["n": 2]
        ) { view in
            let copy = ByteBuffer(copying: view)
            try withExtendedLifetime(copy) {
                try validator.validate(NodePage(copy.bytes), expectation)
            }
        }
    }

    @Test func nodePointer() throws {
        let pointer = NodePointer(
            level: 9, sequence: SuperblockSequence(0x1011_1213_1415_1617),
            birth: BirthEpoch(0x2021_2223_2425_2627),
            replicas: ReplicaList(BlockAddress(block: 0x0103), BlockAddress(block: 0x0204)),
            checksumKind: .crc32c, checksum: ChecksumValue(0x3132_3334))
        let sample = encoded(pointer.byteCount) { pointer.encode(&$0) }
        try compare(
            "Node pointer", sample,
            [
                "replicas": .number(2), "checksum kind": .number(1), "level": .number(9),
                "sequence": .number(0x1011_1213_1415_1617), "birth": .number(0x2021_2223_2425_2627),
                "addresses": .bytes(littleEndian([0x0103, 0x0204])),
                "checksum": .number(0x3132_3334),
            ], ["n": 2, "s": 4])
        try refuse("Node pointer", sample, fixed: ["replicas", "checksum kind"], ["n": 2, "s": 4]) {
            var reader = ByteReader($0, .node, at: 0)
            _ = try NodePointer(&reader)
        }
    }

    // MARK: Items

    @Test func inodeRecord() throws {
        var inode = InodeRecord(
            mode: 0o100644, userID: 0x1011_1213, groupID: 0x2021_2223, linkCount: 0x3031_3233,
            time: Timestamp(seconds: 0, nanoseconds: 0))
        inode.content = .inline
        inode.mayHaveAttributes = true
        inode.mayHaveDefaultACL = true
        inode.flags = 0x4041_4243
        inode.projectID = 0x5051_5253
        inode.device = DeviceNumber(major: 0x6061_6263, minor: 0x7071_7273)
        inode.size = 2000
        inode.blocks = 0x1234
        inode.changeSequence = 0x8081_8283_8485_8687
        func time(_ number: UInt32) -> Timestamp {
            Timestamp(seconds: Int64(number) << 40 | 0x0102, nanoseconds: number << 16 | 0x0304)
        }
        inode.accessTime = time(1)
        inode.modificationTime = time(2)
        inode.changeTime = time(3)
        inode.birthTime = time(4)
        inode.parent = 0x9192_9394_9596
        inode.nameCookie = 0x0A0B_0C0D_0E0F_1011
        inode.compression = .codec(.zstd, level: 7)
        inode.copies = 2
        inode.deduplication = .on
        let buffer = ByteBuffer(count: InodeRecord.byteCount)
        inode.encode(buffer.bytes)
        let sample = contents(buffer)
        var expected: [String: Expected] = [
            "version": .number(1), "name hash kind": .number(0), "content": .number(1),
            "hints": .number(3), "mode": .number(0o100644), "uid": .number(0x1011_1213),
            "gid": .number(0x2021_2223), "link count": .number(0x3031_3233),
            "flags": .number(0x4041_4243), "project id": .number(0x5051_5253),
            "device major": .number(0x6061_6263), "device minor": .number(0x7071_7273),
            "size": .number(2000), "blocks": .number(0x1234),
            "change sequence": .number(0x8081_8283_8485_8687),
            "parent": .number(0x9192_9394_9596), "name cookie": .number(0x0A0B_0C0D_0E0F_1011),
            "codec": .number(2), "level": .number(7),
            "copies": .number(2), "deduplication": .number(1),
        ]
        for (index, name) in ["atime", "mtime", "ctime", "btime"].enumerated() {
            let time = time(UInt32(index) + 1)
            expected["\(name), seconds"] = .number(UInt64(time.seconds))
            expected["\(name), nanoseconds"] = .number(UInt64(time.nanoseconds))
        }
        try compare("Inode record", sample, expected)
        try refuse(
            "Inode record", sample,
            fixed: [
                "version", "name hash kind", "content", "hints", "codec", "level", "copies",
                "deduplication",
            ]
        ) { _ = try InodeRecord(decoding: $0, inode: 1) }
    }

    @Test func directoryRecord() throws {
        let name = Array("a name".utf8)
        let sample = try name.withView { (name) throws(FSError) in
            try DirectoryRecord.adding(
                name: name, inode: InodeNumber(0x1011_1213_1415), kind: .symbolicLink, to: nil,
                directory: 1)
        }
        let record = try #require(sample?.record)
        try compare(
            "Directory record", record,
            ["version": .number(1), "count": .number(1), "entries": .anything])
        try compare(
            "Directory entry", Array(record.dropFirst(2)),
            [
                "inode": .number(0x1011_1213_1415), "kind": .number(10), "ordinal": .number(1),
                "name length": .number(6), "name": .bytes(name),
            ], ["n": 6])
        try refuse("Directory record", record, fixed: []) {
            try DirectoryRecord.forEach($0, directory: 1) { _ in true }
        }
        // The kinds that the document lists.
        #expect(FileKind.allCases.map(\.rawValue) == [1, 2, 4, 6, 8, 10, 12])
    }

    @Test func linkRecord() throws {
        let cookies: [UInt64] = [0x1011_1213_1415_1617, 0x2021_2223_2425_2627]
        try compare(
            "Link record", LinkRecord.encode(cookies),
            ["version": .number(1), "cookies": .bytes(littleEndian(cookies))], ["n": 2])
        #expect(LinkRecord.offset(parent: InodeNumber(5), page: 7) == 5 << 16 | 7)
        #expect(LinkRecord.maximumCookies == 256)
    }

    @Test func extentRecord() throws {
        let variables = ["n": 1, "s": 4, "b": 3]
        let sums = (1...12).map { UInt8($0) }
        let extent = ExtentRecord(
            blocks: 5, birth: BirthEpoch(0x1011_1213_1415_1617),
            replicas: ReplicaList(BlockAddress(block: 0x0203)), sumKind: .crc32c, sums: sums,
            encoding: ExtentRecord.Encoding(
                codec: .zstd, storedBlocks: 3, skip: 2, wholeBlocks: 9, unusedBytes: 0x0405))
        try compare(
            "Extent record", extent.encoded(),
            [
                "version": .number(1), "kind": .number(0), "codec": .number(2),
                "layout": .number(0), "sum kind": .number(1), "replicas": .number(1),
                "key id": .number(0), "blocks": .number(5), "stored blocks": .number(3),
                "birth": .number(0x1011_1213_1415_1617), "skip": .number(2),
                "whole": .number(9), "unused": .number(0x0405),
                "addresses": .number(0x0203), "sums": .bytes(sums),
            ], variables)
        try refuse(
            "Extent record", extent.encoded(),
            fixed: [
                "version", "kind", "codec", "sum kind", "replicas", "blocks", "stored blocks",
                "whole",
            ], variables
        ) { _ = try ExtentRecord(decoding: $0, inode: 1, layout: layout) }
        let promise = ExtentRecord(promised: 3, copies: 2, sumKind: .crc32c).encoded()
        #expect(promise.count == 32)
        #expect(promise[try document.offset("Extent record", "kind")] == 1)
        #expect(promise[try document.offset("Extent record", "replicas")] == 2)
        try promise.withView { (view) in
            let decoded = try ExtentRecord(decoding: view, inode: 1, layout: layout)
            #expect(decoded.heldBlocks == 6)
        }
    }

    @Test func attributeRecord() throws {
        let name = Array("user.name".utf8)
        let value = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        let chunks = name.withView { name in
            value.withView { AttributeRecord.encode(name: name, value: $0) }
        }
        #expect(chunks.map(\.count) == [4000, 1 + 5000 - (4000 - 6 - 9)])
        try compare(
            "Attribute record", chunks[0],
            [
                "version": .number(1), "name length": .number(9), "value length": .number(5000),
                "name": .bytes(name), "value": .bytes(Array(value.prefix(4000 - 6 - 9))),
            ], ["n": 9])
        try compare(
            "Attribute continuation", chunks[1],
            ["version": .number(1), "value": .bytes(Array(value.dropFirst(4000 - 6 - 9)))])
        #expect(AttributeRecord.chunkRoom == 3999 && DiskFormat.maximumAttributeSize == 65536)
        let hash: UInt64 = 0xA1_B2C3_D4E5_F607
        try compare(
            "Attribute place",
            littleEndian([AttributeRecord.offset(hash: hash, ordinal: 9, chunk: 4)]),
            ["chunk": .number(4), "ordinal": .number(9), "name hash": .number(hash >> 8)])
    }
}
