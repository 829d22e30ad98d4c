/// Blocks in use that the device does not keep any more: a scrub moves what lies in them, so that there
/// are two copies again, and the blocks are never used afterwards.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct RelocationTests {
    private let device = SimulatedBlockDevice(byteCount: 64 << 20)
    private static let fileCount = 400

    init() throws {
        var format = FormatOptions()
        format.journalByteCount = 4 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        let volume = try open()
        for index in 0..<Self.fileCount {
            try write(Self.content(index, 1500), to: "file-\(index)", volume)
        }
        try write(Self.content(1, 1 << 20), to: "double", copies: "2", volume)
        try volume.snapshotStore.create(SnapshotLabel(name: Array("kept".utf8)))
        // What the snapshot has now is in nodes that the head has no more.
        for index in stride(from: 0, to: Self.fileCount, by: 5) {
            try write(Self.content(index, 1500), to: "file-\(index)", volume)
        }
        try volume.close()
    }

    private static func content(_ seed: Int, _ count: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(seed) + 4077)
        return random.bytes(count)
    }
    private func open(_ device: SimulatedBlockDevice? = nil) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return try Volume.open(device ?? self.device, modules: .standard, options: options)
    }
    private func find(_ name: String, _ fs: FileSystem) throws -> InodeNumber {
        let found = try Array(name.utf8).withView { try fs.lookup($0, in: .root) }
        fs.release(found.inode, count: 1)
        return found.inode
    }
    private func write(
        _ bytes: [UInt8], to name: String, copies: String = "1", _ volume: Volume
    ) throws {
        let fs = volume.fileSystem
        let inode: InodeNumber
        if let found = try? find(name, fs) {
            inode = found
        } else {
            inode = try Array(name.utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: 0o100644)).inode
            }
            fs.release(inode, count: 1)
        }
        try fs.setProperty(.copies, of: inode, copies)
        _ = try bytes.withView { try fs.write(inode, at: 0, $0) }
    }
    private func read(_ name: String, _ count: Int, _ fs: FileSystem) throws -> [UInt8] {
        let buffer = ByteBuffer(count: count)
        let got = try fs.read(find(name, fs), at: 0, into: buffer.bytes)
        return buffer.view.slice(0, got).toArray()
    }
    /// Of the head and of the snapshot.
    private func expectContents(_ volume: Volume, double: Bool = true) throws {
        for fs in [volume.fileSystem, try volume.snapshotStore.files(of: Array("kept".utf8))] {
            for index in 0..<Self.fileCount {
                #expect(try read("file-\(index)", 1500, fs) == Self.content(index, 1500))
            }
            if double || fs.tree.id != .head {
                #expect(try read("double", 1 << 20, fs) == Self.content(1, 1 << 20))
            }
        }
    }
    private func scrub(_ volume: Volume) throws -> ScrubRecord {
        try Scrubber.run(volume, .init(), command: { .goOn }, progress: { _ in })
    }
    private func expectClean(_ device: SimulatedBlockDevice? = nil) throws {
        let report = try Checker.check(device ?? self.device, modules: .standard)
        #expect(report.isClean, "\(report.findings.prefix(4))")
    }
    private func spoil(_ block: UInt64) {
        var bytes = device.bytes(at: block << 12, count: 4096)
        bytes[100] ^= 1
        device.overwrite(bytes, at: block << 12)
    }
    /// Blocks of a copy of a file's data.
    private func places(_ name: String, copy: Int, _ volume: Volume) throws -> [UInt64] {
        let files = volume.fileSystem
        return try files.fileMap.extents(find(name, files), 0..<(1 << 40)).flatMap { extent in
            (0..<UInt64(extent.record.blocks)).map { extent.record.replicas[copy].block + $0 }
        }
    }
    /// Every node of the trees of the last checkpoint: the first block of each copy.
    private func nodes(_ volume: Volume, _ kind: TreeKind) throws -> [[UInt64]] {
        let view = volume.openDurableView()
        defer { volume.close(view) }
        var found: Set<[UInt64]> = []
        func visit(_ expected: NodeValidator.Expectation) throws {
            found.insert(
                (0..<expected.pointer.replicas.count).map {
                    expected.pointer.replicas[$0].block
                })
            let page = try volume.nodes.read(expected)
            guard page.level > 0 else { return }
            for index in 0..<page.node.count { try visit(expected.child(page.node, index)) }
        }
        for tree in view.trees where tree.kind == kind {
            try visit(
                NodeValidator.Expectation(
                    pointer: tree.root, tree: tree.kind, lower: nil, upper: nil))
        }
        return found.sorted { $0[0] < $1[0] }
    }
    private func spoilForGood(_ block: UInt64) {
        device.makeUnreadable(at: block << 12, untilWritten: false)
    }
    /// Where blocks are that are said to be at these places.
    private func now(_ blocks: [UInt64], _ volume: Volume) -> [UInt64] {
        blocks.flatMap { volume.remaps.translate($0..<$0 + 1).map(\.start) }
    }

    @Test func dataIsMoved() throws {
        var volume = try open()
        let (first, second) = (
            try places("double", copy: 0, volume), try places("double", copy: 1, volume)
        )
        let bad = Array(second[3..<9]) + [second[40], second[200]]
        for block in bad { spoilForGood(block) }
        var record = try scrub(volume)
        #expect(record.found == 8 && record.healed == 8 && record.lost == 0, "\(record)")
        #expect(volume.status().badBlocks.reduce(0) { $0 + $1.count } == 8)
        record = try scrub(volume)
        #expect(record.found == 0)
        try volume.close()
        try expectClean()

        // The other copy goes, and what was moved is the good one.
        volume = try open()
        #expect(Set(now(bad, volume)).isDisjoint(with: bad))
        for index in [3, 5, 40, 200] { spoil(first[index]) }
        try expectContents(volume)
        try volume.close()
        try expectClean()

        // A larger volume has room at home, but that is bad; the file goes, and so does its place.
        volume = try open()
        _ = try volume.resize(.bytes(128 << 20))
        #expect(Set(now(bad, volume)).isDisjoint(with: bad))
        try expectContents(volume)
        try Array("double".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        try volume.snapshotStore.delete([Array("kept".utf8)])
        for _ in 0..<3 {
            try volume.checkpoint(force: true)
            _ = try volume.snapshotStore.sweep()
        }
        try volume.close()
        for _ in 0..<2 {
            volume = try open()
            try volume.close()
        }
        volume = try open()
        #expect(volume.remaps.isEmpty && volume.status().badBlocks.count == 3)
        let filler = [UInt8](repeating: 3, count: 1 << 20)
        var position: UInt64 = 0
        try write([1], to: "filler", volume)
        let inode = try find("filler", volume.fileSystem)
        while (try? filler.withView { try volume.fileSystem.write(inode, at: position, $0) }) != nil
        {
            position += 1 << 20
        }
        #expect(Set(try places("filler", copy: 0, volume)).isDisjoint(with: bad))
        #expect(volume.status().state == .online)
        try volume.close()
        try expectClean()
    }

    @Test(arguments: [TreeKind.files, .volume]) func nodesAreMoved(kind: TreeKind) throws {
        var volume = try open()
        let all = try nodes(volume, kind)
        for copies in all { spoilForGood(copies[1] + 1) }
        let record = try scrub(volume)
        #expect(record.found == UInt64(all.count) && record.healed == record.found, "\(record)")
        #expect(try scrub(volume).found == 0)
        try volume.close()
        try expectClean()
        // Each node of the snapshot, and of the head, has two copies again.
        volume = try open()
        for copies in try nodes(volume, .files) { spoil(copies[0] + 2) }
        try expectContents(volume)
        #expect(try scrub(volume).lost == 0)
        try volume.close()
        try expectClean()
    }

    /// What a power cut leaves of a scrub that moves things opens, is whole, and has all its bytes.
    @Test func movesAreCrashSafe() throws {
        let volume = try open()
        for block in try places("double", copy: 1, volume).prefix(12) { spoilForGood(block) }
        for copies in try nodes(volume, .files) { spoilForGood(copies[0]) }
        let start = device.eventCount
        #expect(try scrub(volume).lost == 0)
        let end = device.eventCount
        try volume.close()
        var random = SeededRandom(seed: 9)
        for _ in 0..<60 {
            let cut = start + random.below(end - start + 1)
            let image = device.crashed(after: cut, .anySubset, random: &random)
            let again = try open(image)
            try expectContents(again)
            try again.close()
            try expectClean(image)
        }
    }

    /// A file is deleted between the copy of its block and the move: then there is nothing to move. Moved all
    /// the same, it would be noticed.
    @Test(arguments: [false, true]) func whatIsReleasedMeanwhileIsNotMoved(isBroken: Bool) throws {
        let hooked = HookedDevice(device)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        if isBroken { options.brokenRules = .releasedBlocksMoved }
        let volume = try Volume.open(hooked, modules: .standard, options: options)
        try write(Self.content(9, 40_000), to: "goes", copies: "2", volume)
        try volume.checkpoint()
        let block = try places("goes", copy: 1, volume)[4]
        spoilForGood(block)
        hooked.whenRewritten(elsewhereThan: block) {
            _ = try? Array("goes".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        }
        let record = try? scrub(volume)
        if !isBroken {
            #expect(record?.found == 1 && record?.healed == 0 && record?.lost == 0)
            #expect(volume.remaps.isEmpty)
            try expectContents(volume)
        }
        let isClosed = (try? volume.close()) != nil
        let isClean = (try? Checker.check(device, modules: .standard))?.isClean == true
        #expect((isClosed && isClean) != isBroken)
    }

    /// Does something when a block is written that is to be read back.
    private final class HookedDevice: BlockDevice, @unchecked Sendable {
        private let base: SimulatedBlockDevice
        private let lock = Mutex()
        private var hook: (block: UInt64, body: () -> Void)?

        init(_ base: SimulatedBlockDevice) { self.base = base }
        func whenRewritten(elsewhereThan block: UInt64, _ body: @escaping () -> Void) {
            lock.withLock { hook = (block, body) }
        }

        var byteCount: UInt64 { base.byteCount }
        var sectorSize: Int { base.sectorSize }
        var name: String { base.name }
        var isReadOnly: Bool { false }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            try base.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            try base.write(source, at: offset)
        }
        func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool {
            let body = lock.withLock { () -> (() -> Void)? in
                guard let hook, hook.block << 12 != offset else { return nil }
                defer { self.hook = nil }
                return hook.body
            }
            body?()
            return try base.rewrite(source, at: offset)
        }
        func flush() throws(FSError) { try base.flush() }
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {
            try base.discard(at: offset, count: count)
        }
    }
}
