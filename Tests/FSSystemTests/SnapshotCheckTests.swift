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

    // MARK: Cost

    /// Counts reads of nodes.
    private final class CountingDevice: BlockDevice, @unchecked Sendable {
        let base = MemoryBlockDevice(byteCount: 256 << 20)
        private let lock = Mutex()
        private var count = 0
        var nodeReads: Int { lock.withLock { count } }

        var byteCount: UInt64 { base.byteCount }
        var sectorSize: Int { base.sectorSize }
        var name: String { base.name }
        var isReadOnly: Bool { false }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            if target.count == DiskFormat.nodeSize { lock.withLock { count += 1 } }
            try base.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            try base.write(source, at: offset)
        }
        func flush() throws(FSError) { try base.flush() }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            try base.discard(at: offset, count: count)
        }
    }

    /// What snapshots share is looked at once, what one has for itself once for each copy; and what an
    /// incremental stream is made of is read once, however many walks it takes.
    @Test func sharedNodesAreReadOnce() throws {
        let device = CountingDevice()
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let content = [UInt8](repeating: 7, count: 1500)
        var files: [InodeNumber] = []
        for number in 0..<600 {
            let file = try Array("file\(number)".utf8).withView {
                try volume.fileSystem.create(
                    $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644)
                ).inode
            }
            _ = try content.withView { try volume.fileSystem.write(file, at: 0, $0) }
            files.append(file)
        }
        try volume.checkpoint()
        let tree = Int(try Checker.check(volume).nodes)
        for number in 0..<60 {
            try volume.snapshotStore.create(SnapshotLabel(name: Array("s\(number)".utf8)))
            _ = try [UInt8(number)].withView {
                try volume.fileSystem.write(files[number * 7], at: 0, $0)
            }
        }
        try volume.close()
        var before = device.nodeReads
        let report = try Checker.check(device, modules: .standard)
        #expect(report.isClean)
        let reads = device.nodeReads - before
        #expect(reads > 2 * tree && reads <= 2 * Int(report.nodes) + tree + 8, "\(reads)")

        volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        let (old, new) = (Array("s10".utf8), Array("s50".utf8))
        _ = try StreamSender.run(store, new, from: old, output: nil)
        before = device.nodeReads
        #expect(try store.difference(from: old, to: new).count == 40)
        let once = device.nodeReads - before
        before = device.nodeReads
        _ = try StreamSender.run(store, new, from: old, output: nil)
        #expect(device.nodeReads - before <= once + 4, "\(device.nodeReads - before), \(once)")
        try volume.close()
    }
}
