/// The superblock in the format's document.
import FSModules
import Testing

@testable import FSCore

extension FormatDocumentTests {
    private func formatted() throws -> Superblock {
        let device = MemoryBlockDevice(byteCount: 16 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        return try SuperblockStore.newest(device, modules: .standard)
    }

    @Test func superblock() throws {
        var block = try formatted()
        try refuse(
            "Superblock", contents(block.encoded(modules: .standard)),
            fixed: [
                "disk version", "block size", "node size", "checksum kind", "name hash kind",
                "incompatible", "device count", "this device", "data copies",
            ]
        ) { _ = try Superblock(decoding: $0, at: 0) }

        block.version = 0xA1A2_A3A4
        block.compatible = 0x1011_1213_1415_1617
        block.readOnlyCompatible = 0x2021_2223_2425_2627
        block.incompatible = 0x3031_3233_3435_3637
        block.label = String(repeating: "x", count: 63)
        block.sequence = SuperblockSequence(0x4041_4243_4445_4647)
        block.birthEpoch = BirthEpoch(0x5051_5253_5455_5657)
        block.inodeCeiling = 0x6061_6263_6465_6667
        block.written = Timestamp(seconds: 0x7071_7273_7475_7677, nanoseconds: 0x7A7B_7C7D)
        block.headCounts.inodes = 0x8081_8283_8485_8687
        block.headCounts.promised = 0x9091_9293_9495_9697
        block.nextSnapshotID = 0xA0A1_A2A3_A4A5_A6A7
        block.nameHashKey = NameHashKey(0xB0B1_B2B3_B4B5_B6B7, 0xB8B9_BABB_BCBD_BEBF)
        block.journalIncarnation = 0xC0C1_C2C3_C4C5_C6C7
        let extents = (1...16).map { UInt64($0) << 48 | 0x0102 }
        block.journalExtents = extents.map { BlockRun(BlockAddress(rawValue: $0), $0 + 1) }
        block.errorCounters.counts = (1...8).map { UInt64($0) << 56 | 0x0304 }
        let bootID = VolumeUUID.random()
        block.headCounts.referenced = 0x3132_3334_3536_3738
        block.compression = .codec(.zlib, level: 9)
        block.operations = 0x2122_2324_2526_2728
        block.addressLimit = 0x3132_3334_3536_3738
        block.dataCopies = 2
        block.lease = Superblock.MountLease(
            host: "host", bootID: bootID, time: 0x1112_1314_1516_1718, processID: 0x191A_1B1C)
        block.devices[0].blockCount = 0xD0D1_D2D3_D4D5_D6D7
        block.devices[0].lastSequence = 0xE0E1_E2E3_E4E5_E6E7
        block.devices[0].flushCapability = 0xF1
        block.devices += [Superblock.DeviceEntry](repeating: block.devices[0], count: 7)
        let sample = contents(block.encoded(modules: .standard))
        let checksum = sample.withView { CRC32C().sum($0.slice(0, 4064)).words.0 }
        let root = encoded(96) { block.headRoot.encode(&$0) }
        let volumeRoot = encoded(96) { block.volumeRoot.encode(&$0) }
        let table = Array(sample[864..<1376])
        try compare(
            "Superblock", sample,
            [
                "magic": .bytes(Array("AEGISFS".utf8) + [0]), "disk version": .number(0xA1A2_A3A4),
                "block size": .number(12), "node size": .number(14), "checksum kind": .number(1),
                "name hash kind": .number(1), "compatible": .number(block.compatible),
                "read-only compatible": .number(block.readOnlyCompatible),
                "incompatible": .number(block.incompatible), "uuid": .bytes(bytes(block.uuid)),
                "internal uuid": .bytes(bytes(block.internalUUID)),
                "label": .bytes(padded(Array(block.label.utf8), to: 64)),
                "sequence": .number(block.sequence.rawValue),
                "birth epoch": .number(block.birthEpoch.rawValue),
                "inode ceiling": .number(block.inodeCeiling), "state": .number(1),
                "device count": .number(8), "this device": .number(0),
                "written, seconds": .number(0x7071_7273_7475_7677),
                "written, nanoseconds": .number(0x7A7B_7C7D),
                "inode count": .number(block.headCounts.inodes),
                "promised blocks": .number(block.headCounts.promised),
                "next snapshot id": .number(block.nextSnapshotID),
                "name hash key": .bytes(
                    littleEndian([block.nameHashKey.words.0, block.nameHashKey.words.1])),
                "bitmap root": .bytes(encoded(16) { block.bitmapRoot.encode(&$0) }),
                "head root": .bytes(root), "volume root": .bytes(volumeRoot),
                "journal incarnation": .number(block.journalIncarnation),
                "journal extents in use": .number(16),
                "journal extents": .bytes(littleEndian(extents.flatMap { [$0, $0 + 1] })),
                "error counters": .bytes(littleEndian(block.errorCounters.counts)),
                "lease host": .bytes(padded(Array("host".utf8), to: 64)),
                "lease boot id": .bytes(bytes(bootID)),
                "lease time": .number(0x1112_1314_1516_1718),
                "lease process": .number(0x191A_1B1C), "device table": .bytes(table),
                "operations": .number(block.operations),
                "referenced blocks": .number(block.headCounts.referenced),
                "address limit": .number(block.addressLimit), "data copies": .number(2),
                "codec": .number(3), "level": .number(9),
                "checksum": .bytes(padded(littleEndian([checksum]), to: 32)),
            ])
        try compare(
            "Device entry", Array(table.prefix(64)),
            [
                "uuid": .bytes(bytes(block.devices[0].uuid)),
                "blocks": .number(0xD0D1_D2D3_D4D5_D6D7),
                "last sequence": .number(0xE0E1_E2E3_E4E5_E6E7), "flush capability": .number(0xF1),
            ])
        #expect(Superblock.ErrorCounters.names.count == 8)
    }
}
