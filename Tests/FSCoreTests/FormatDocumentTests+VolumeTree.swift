/// The items of the volume tree in the format's document.
import Testing

@testable import FSCore

extension FormatDocumentTests {
    @Test func shareRecord() throws {
        let share = ShareRecord(
            start: BlockAddress(block: 1000), blocks: 0x0203, references: 0x0405_0607)
        try compare(
            "Share record", share.encoded(),
            [
                "version": .number(1), "blocks": .number(0x0203),
                "references": .number(0x0405_0607),
            ])
        try refuse("Share record", share.encoded(), fixed: ["version"]) {
            _ = try ShareRecord(share.key, decoding: $0, layout: layout)
        }
    }

    @Test func healthRecords() throws {
        var bad = BadBlockRecord(BlockRun(BlockAddress(block: 1000), 0x0203))
        bad.time = 0x1011_1213_1415_1617
        try compare(
            "Bad block record", bad.encoded(),
            [
                "version": .number(1), "blocks": .number(0x0203),
                "time": .number(0x1011_1213_1415_1617),
            ])
        try refuse("Bad block record", bad.encoded(), fixed: ["version"]) {
            let decoded = try BadBlockRecord(bad.key, decoding: $0, layout: layout)
            #expect(decoded == bad)
        }
        // A fixed place can be bad as well as any other.
        let fixed = BadBlockRecord(BlockRun(BlockAddress(block: DiskLayout.firstCopyBase), 1))
        #expect(
            try fixed.encoded().withView {
                try BadBlockRecord(fixed.key, decoding: $0, layout: layout).run
            } == fixed.run)
        var damage = DamageRecord(
            .node, at: BlockAddress(block: 1000), blocks: 4, tree: 0x2021_2223_2425_2627,
            object: 0x3031_3233_3435_3637, offset: 0x4041_4243_4445_4647)
        damage.time = 0x5051_5253_5455_5657
        try compare(
            "Damage record", damage.encoded(),
            [
                "version": .number(1), "kind": .number(2), "blocks": .number(4),
                "tree": .number(damage.tree), "object": .number(damage.object),
                "offset": .number(damage.offset), "time": .number(0x5051_5253_5455_5657),
            ])
        try refuse("Damage record", damage.encoded(), fixed: ["version", "kind"]) {
            let decoded = try DamageRecord(damage.key, decoding: $0)
            #expect(decoded == damage)
        }
    }

    @Test func moduleRecord() throws {
        let record = ModuleRecord(.settings, 5, [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(record.key == Key(0, .module, 1 << 48 | 5))
        try compare(
            "Module record", record.encoded(),
            ["version": .number(1), "payload": .bytes(record.payload)])
        try refuse("Module record", record.encoded(), fixed: ["version"]) {
            let decoded = try ModuleRecord(record.key, decoding: $0)
            #expect(decoded == record)
        }
        let modules = try document.table("module").map { [$0[0], $0[1]] }
        #expect(modules == ModuleRecord.Module.allCases.map { ["\($0.rawValue)", "\($0)"] })
        let settings = try document.table("setting").map { [$0[0], $0[1]] }
        #expect(settings == Property.settings.map { ["\($0.number)", $0.name] })
    }
}
