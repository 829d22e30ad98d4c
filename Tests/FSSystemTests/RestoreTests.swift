/// What is restored from a snapshot is what the snapshot has, shares its data, and is whole after any crash.
@testable internal import FSCore
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct RestoreTests {
    /// All that a restore keeps of an inode.
    private struct Item: Equatable {
        var record: FileSystem.ReceivedRecord
        var content: ContentFingerprint?
        var data: [Range<UInt64>] = []
        var target: [UInt8]?
        var attributes: [[UInt8]: [UInt8]] = [:]
        /// The first of its names that was met.
        var firstPath = Path.root
    }

    /// Everything at and below an inode, by path from there.
    private static func items(
        _ files: FileSystem, _ top: InodeNumber = .root
    ) throws -> [Path: Item] {
        var found: [Path: Item] = [:]
        var names: [InodeNumber: Path] = [:]
        var open: [(InodeNumber, Path)] = [(top, .root)]
        while let (inode, path) = open.popLast() {
            let record = try files.record(of: inode)
            var item = Item(record: FileSystem.ReceivedRecord(record))
            // Looking changes it.
            item.record.times[0] = record.modificationTime
            item.record.times[2] = record.modificationTime
            item.record.times[3] = record.modificationTime
            item.record.changeSequence = 0
            for name in try files.extendedAttributeNames(of: inode).split(separator: 0) {
                item.attributes[Array(name)] = try files.receivedAttribute(Array(name), of: inode)
            }
            switch record.kind {
            case .regular:
                item.content = try files.fingerprint(of: inode, size: record.size)
                var position: UInt64 = 0
                while position < record.size,
                    let start = try? files.nextData(inode, from: position)
                {
                    position = try files.nextHole(inode, from: start)
                    item.data.append(start..<position)
                }
            case .symbolicLink: item.target = try files.symbolicLinkTarget(of: inode)
            default: break
            }
            if !record.isDirectory { item.firstPath = names[inode] ?? path }
            names[inode] = item.firstPath
            found[path] = item
            guard record.isDirectory else { continue }
            for name in try files.names(in: inode).sorted(by: { $0.lexicographicallyPrecedes($1) })
                .reversed()
            {
                let child = try name.withView { try files.entry(named: $0, in: inode) }
                open.append((try #require(child), path.appending(name)))
            }
        }
        return found
    }

    private static func difference(_ found: [Path: Item], _ expected: [Path: Item]) -> String? {
        for path in Set(found.keys).union(expected.keys).sorted()
        where found[path] != expected[path] {
            return "\(path): \(String(describing: found[path])), expected "
                + "\(String(describing: expected[path]))"
        }
        return nil
    }

    private static func text(_ path: Path) -> String? {
        let parts = path.names.map { String(validating: $0, as: UTF8.self) }
        return parts.contains(nil) ? nil : "/" + parts.compactMap { $0 }.joined(separator: "/")
    }
    private static func temporary(_ number: Int) -> [UInt8] {
        Array("\(Snapshots.temporaryPrefix)\(number)".utf8)
    }
    private static func inode(_ name: String, _ files: FileSystem) throws -> InodeNumber? {
        try Array(name.utf8).withView { try files.entry(named: $0, in: .root) }
    }

    /// Any path of any snapshot, of several heads and after rollbacks; then the snapshots go, and what was
    /// restored stays.
    @Test(arguments: 1...8 as ClosedRange<UInt64>) func anyPathOfAnySnapshot(seed: UInt64) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 0)) + seed
        let session = try SnapshotSession.grown(seed: seed)
        let volume = session.volume
        let store = volume.snapshotStore
        var random = SeededRandom(seed: seed)
        var restored: [(name: String, items: [Path: Item])] = []
        for snapshot in session.snapshotNames.prefix(8) {
            let source = try store.files(of: snapshot)
            let paths = try Self.items(source).keys.filter { !$0.names.isEmpty }.sorted()
            for _ in 0..<6 {
                guard let path = paths.randomElement(using: &random),
                    let text = Self.text(path)
                else { continue }
                let expected = try Self.items(source, try source.inode(at: text))
                let name = "restored-\(restored.count)"
                let temporary = Self.temporary(restored.count)
                let plan = try store.planRestore(of: text, from: snapshot)
                let summary = try store.copy(
                    text, from: snapshot, to: volume.fileSystem, as: temporary, in: .root,
                    verifies: random.chance(1, in: 2))
                #expect(summary == plan && summary.unreadable == 0)
                #expect(
                    try store.place(
                        temporary, summary, as: Array(name.utf8), in: .root,
                        of: volume.fileSystem, replaces: false))
                let made = try #require(try Self.inode(name, volume.fileSystem))
                let times = try [
                    volume.fileSystem.attributes(of: made),
                    source.attributes(of: source.inode(at: text)),
                ].map(\.accessTime)
                #expect(times[0] == times[1])
                let difference = Self.difference(
                    try Self.items(volume.fileSystem, made), expected)
                #expect(difference == nil, "seed \(seed), \(text): \(difference ?? "")")
                restored.append((name, expected))
            }
        }
        #expect(restored.count > 10)
        #expect(try Checker.check(volume).findings.isEmpty)
        try store.delete(session.snapshotNames)
        try store.sweep()
        for (name, expected) in restored {
            let made = try #require(try Self.inode(name, volume.fileSystem))
            let difference = Self.difference(try Self.items(volume.fileSystem, made), expected)
            #expect(difference == nil, "seed \(seed), later: \(difference ?? "")")
        }
        #expect(try Checker.check(volume).findings.isEmpty)
    }

    /// A tree with some weight, kept by a snapshot, changed since.
    private static func volume(_ device: any BlockDevice, _ seed: UInt64) throws -> Volume {
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(
            device, modules: .standard, options: CrashRun.openOptions)
        let files = volume.fileSystem
        _ = try Array("tree".utf8).withView {
            try files.create($0, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o755))
        }
        let directory = try #require(try inode("tree", files))
        var random = SeededRandom(seed: seed)
        for number in 0..<40 {
            let made = try Array("file\(number)".utf8).withView {
                try files.create(
                    $0, in: directory, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            _ = try random.bytes(20_000).withView { try files.write(made.inode, at: 0, $0) }
            if number % 3 == 0 {
                _ = try Array("link\(number)".utf8).withView {
                    try files.link(made.inode, as: $0, in: directory)
                }
            }
        }
        try volume.snapshotStore.create(SnapshotLabel(name: Array("kept".utf8)))
        for number in 0..<20 {
            try Array("file\(number)".utf8).withView { try files.unlink($0, in: directory) }
        }
        try volume.checkpoint()
        return volume
    }

    private static func used(_ volume: Volume) throws -> UInt64 {
        for _ in 0...1 { try volume.checkpoint(force: true) }
        let statistics = volume.fileSystem.statistics()
        return statistics.totalBlocks - statistics.freeBlocks
    }

    /// Ended anywhere, nothing is left; done, it takes next to no space, since data is shared.
    @Test func endedAnywhereNothingIsLeft() throws {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        let volume = try Self.volume(device, 1)
        let files = volume.fileSystem
        let before = try Self.used(volume)
        for steps in [0, 1, 7, 30, 60] {
            var left = steps
            do throws(FSError) {
                _ = try volume.snapshotStore.copy(
                    "/tree", from: Array("kept".utf8), to: files, as: Self.temporary(1), in: .root
                ) { _ in
                    left -= 1
                    return left >= 0
                }
                Issue.record("a restore was not ended")
            } catch .interrupted {}
            #expect(try files.names(in: .root) == [Array("tree".utf8)])
        }
        #expect(try Checker.check(volume).findings.isEmpty)
        #expect(try Self.used(volume) <= before + 16)
        _ = try volume.snapshotStore.copy(
            "/tree", from: Array("kept".utf8), to: files, as: Self.temporary(2), in: .root)
        // 800 kB of data, and some nodes.
        #expect(try Self.used(volume) < before + 100)
        let kept = Array("kept".utf8)
        func fails(_ path: String, _ snapshot: String, _ error: FSError) {
            #expect(throws: error) {
                try volume.snapshotStore.planRestore(of: path, from: Array(snapshot.utf8))
            }
        }
        fails("/none", "kept", .stale)
        fails("/tree/file1/below", "kept", .stale)
        fails("/tree", "none", .noSuchEntry)
        fails("/", "kept", .invalidArgument)
        #expect(throws: FSError.invalidArgument) {
            try volume.snapshotStore.copy(
                "/tree", from: kept, to: files, as: Array("visible".utf8), in: .root)
        }
        #expect(throws: FSError.invalidArgument) {
            try volume.snapshotStore.discard(
                Array("tree".utf8), in: .root, of: files, loosens: true)
        }
        // What is being restored from is not deleted.
        var tried = false
        _ = try volume.snapshotStore.copy(
            "/tree", from: kept, to: files, as: Self.temporary(3), in: .root
        ) { _ in
            if !tried {
                tried = true
                #expect(throws: FSError.busy) { try volume.snapshotStore.delete([kept]) }
            }
            return true
        }
    }

    /// Power cuts while a tree is restored, and while it replaces another: the volume is clean, and at the
    /// target is nothing, the one or the other, whole.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func everyCrashLeavesOneOrTheOther(
        seed: UInt64
    ) throws {
        let device = SimulatedBlockDevice(byteCount: 96 << 20)
        let volume = try Self.volume(device, seed)
        let store = volume.snapshotStore
        let kept = Array("kept".utf8)
        let source = try store.files(of: kept)
        let before = try Self.items(
            volume.fileSystem, try #require(try Self.inode("tree", volume.fileSystem)))
        let wanted = try Self.items(source, try source.inode(at: "/tree"))
        #expect(before != wanted)
        let first = device.eventCount
        for (number, name) in ["fresh", "tree"].enumerated() {
            let copy = try store.copy(
                "/tree", from: kept, to: volume.fileSystem, as: Self.temporary(number), in: .root)
            if seed % 2 == 0 { try volume.synchronize() }
            _ = try store.place(
                Self.temporary(number), copy, as: Array(name.utf8), in: .root,
                of: volume.fileSystem, replaces: true)
            try volume.synchronize()
        }
        try volume.checkpoint()
        var random = SeededRandom(seed: seed)
        for _ in 0..<40 {
            let event = random.integer(in: first...device.eventCount)
            let crashed = device.crashed(
                after: event, random.pick([.anySubset, .nothing, .everything, .allTorn]),
                tornAt: 512, random: &random)
            let after = try Volume.open(
                crashed, modules: .standard, options: CrashRun.openOptions)
            #expect(try Checker.check(after).findings.isEmpty, "event \(event)")
            let tree = try #require(try Self.inode("tree", after.fileSystem))
            let found = try Self.items(after.fileSystem, tree)
            #expect(found == before || found == wanted, "event \(event)")
            if let fresh = try Self.inode("fresh", after.fileSystem) {
                let difference = Self.difference(
                    try Self.items(after.fileSystem, fresh), wanted)
                #expect(difference == nil, "event \(event): \(difference ?? "")")
            }
            try after.close()
        }
    }
}
