/// What a check says of damaged tables and deadlists, by their ids.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotCheckTests {
    /// A volume with two snapshots, a clone, and something in every deadlist.
    private func make() throws -> (MemoryBlockDevice, Volume) {
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let session = RandomSession(seed: 5, executor: FileSystemExecutor(volume.fileSystem))
        let store = volume.snapshotStore
        try session.run(60)
        try store.create(SnapshotLabel(name: Array("first".utf8)))
        try session.run(60)
        try store.create(SnapshotLabel(name: Array("second".utf8)))
        try session.run(60)
        try store.clone(Array("first".utf8), as: SnapshotLabel(name: Array("clone".utf8)))
        try volume.checkpoint()
        return (device, volume)
    }

    /// Changes items of the volume tree past all rules; what is checked is the next checkpoint.
    private func findings(
        _ change: (Transaction, [(Key, [UInt8])]) throws -> Void
    ) throws -> [CheckFinding] {
        let (device, volume) = try make()
        #expect(try Checker.check(volume).isClean)
        var items: [(Key, [UInt8])] = []
        var position: Key? = .minimum
        try volume.reading { () throws(TreeFault) in
            try volume.volumeTree.scan(&position, through: .maximum) { key, value in
                items.append((key, value.toArray()))
                return true
            }
        }
        let transaction = Transaction(tree: .volume)
        try change(transaction, items)
        let recording = Volume.Recording(transaction, [], .emergency, .upkeep)
        _ = try volume.commit(recording, freezing: nil)
        // Nobody follows the change in memory: as if it had been found on the device.
        try volume.checkpoint(force: true)
        defer { _ = device }
        return try Checker.check(volume).findings
    }

    private func item(_ items: [(Key, [UInt8])], _ type: ItemType, _ number: Int = 0) throws
        -> (Key, [UInt8])
    {
        let found = items.filter { $0.0.type == type }
        return try #require(found.count > number ? found[number] : nil)
    }

    @Test func damagedRecordsAreNamed() throws {
        for (type, issue) in [
            (ItemType.snapshot, CheckIssue.snapshotRecordBad),
            (.snapshotLabel, .snapshotLabelBad), (.deadlist, .deadlistRecordBad),
        ] {
            let found = try findings { transaction, items in
                var (key, value) = try item(items, type)
                value[0] = 9
                transaction.put(key, value, tree: .volume)
            }
            #expect(found.contains { $0.issue == issue }, "\(issue): \(found.prefix(3))")
        }
        let found = try findings { transaction, _ in
            transaction.put(Key(0, .segment, 3), [1], tree: .volume)
        }
        #expect(found.contains { $0.issue == .segmentRecordBad })
    }

    @Test func aTableThatContradictsItselfIsNamed() throws {
        // Byte 8: the parent; byte 16: the epoch; byte 24: the head.
        for (byte, value) in [(8, 1), (16, 200), (24, 3)] as [(Int, UInt8)] {
            let found = try findings { transaction, items in
                var (key, record) = try item(items, .snapshot, byte == 16 ? 0 : 2)
                record[byte] = value
                transaction.put(key, record, tree: .volume)
            }
            let names = found.map(\.issue)
            #expect(
                names.contains(.snapshotTreeWrong) || names.contains(.snapshotRecordBad),
                "byte \(byte): \(found.prefix(3))")
        }
        let found = try findings { transaction, items in
            let (_, value) = try item(items, .snapshotLabel)
            transaction.put(SnapshotLabel.key(999), value, tree: .volume)
        }
        #expect(found.contains { $0.issue == .snapshotTreeWrong })
    }

    @Test func wrongDeadlistsAreNamed() throws {
        var found = try findings { transaction, items in
            transaction.delete(try item(items, .deadlist).0, tree: .volume)
        }
        #expect(found.contains { $0.issue == .deadlistWrong })
        found = try findings { transaction, items in
            var (key, value) = try item(items, .deadlist)
            value[8] += 1
            transaction.put(key, value, tree: .volume)
        }
        #expect(found.contains { $0.issue == .deadlistWrong })
        found = try findings { transaction, items in
            let (key, value) = try item(items, .deadlist)
            transaction.put(
                Key(60 << 32 | key.object & 0xFFFF_FFFF, .deadlist, key.offset), value,
                tree: .volume)
        }
        #expect(found.contains { $0.issue == .deadlistWrong })
        found = try findings { transaction, items in
            let (key, _) = try item(items, .snapshot)
            transaction.put(
                Key(0, .segment, key.offset), SegmentRecord(segment: 2, owner: 3).encoded(),
                tree: .volume)
        }
        #expect(found.contains { $0.issue == .segmentRecordBad })
    }

    @Test func wrongCountsOfAHeadAreNamed() throws {
        let found = try findings { transaction, items in
            let clone = items.last { $0.0.type == .snapshot }
            var (key, value) = try #require(clone)
            value[48] &+= 1
            transaction.put(key, value, tree: .volume)
        }
        #expect(found.contains { $0.issue == .headCountsWrong }, "\(found.prefix(3))")
    }
}
