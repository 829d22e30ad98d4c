/// A medium that forgets: each kind of block in its turn has a bad copy, or no good one.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct HealingTests {
    private final class Events: VolumeObserver, @unchecked Sendable {
        private let lock = Mutex()
        private var lines: [String] = []
        func volume(_ event: VolumeEvent) {
            lock.withLock {
                switch event {
                case .healed(let what): lines.append("healed: \(what)")
                case .damage(let what): lines.append("damage: \(what)")
                default: break
                }
            }
        }
        func count(_ text: String) -> Int {
            lock.withLock { lines.filter { $0.contains(text) }.count }
        }
    }

    private let device = SimulatedBlockDevice(byteCount: 64 << 20)
    private let events = Events()
    private static let fileCount = 400

    init() throws {
        var format = FormatOptions()
        format.journalByteCount = 4 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        let volume = try open()
        for index in 0..<Self.fileCount {
            let inode = try create("file-\(index)", in: volume)
            try write(volume, inode, Self.content(index, 1500))
        }
        let double = try create("double", in: volume)
        try volume.fileSystem.setProperty(.copies, of: double, "2")
        try write(volume, double, Self.content(1, 200_000))
        try write(volume, try create("single", in: volume), Self.content(2, 200_000))
        try volume.close()
    }

    private static func content(_ seed: Int, _ count: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(seed) + 77)
        return random.bytes(count)
    }
    private func open(readOnly: Bool = false) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.readOnly = readOnly
        return try Volume.open(device, modules: .standard, options: options, observer: events)
    }
    private func create(_ name: String, in volume: Volume) throws -> InodeNumber {
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
        }
        volume.fileSystem.release(made.inode, count: 1)
        return made.inode
    }
    private func write(_ volume: Volume, _ inode: InodeNumber, _ bytes: [UInt8]) throws {
        _ = try bytes.withView { try volume.fileSystem.write(inode, at: 0, $0) }
    }
    private func find(_ name: String, in volume: Volume) throws -> InodeNumber {
        let found = try Array(name.utf8).withView {
            try volume.fileSystem.lookup($0, in: .root)
        }
        volume.fileSystem.release(found.inode, count: 1)
        return found.inode
    }
    private func read(
        _ volume: Volume, _ name: String, at offset: UInt64 = 0, count: Int = 200_000
    ) throws -> [UInt8] {
        let buffer = ByteBuffer(count: count)
        let got = try volume.fileSystem.read(
            find(name, in: volume), at: offset, into: buffer.bytes)
        return buffer.view.slice(0, got).toArray()
    }
    private func counters(_ volume: Volume) -> [String: UInt64] {
        Dictionary(uniqueKeysWithValues: volume.status().errors.map { ($0.name, $0.count) })
    }
    /// The leaves of the head's tree, without the root.
    private func leaves() throws -> [NodePointer] {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        try #require(superblock.headRoot.level == 1)
        let page = ByteBuffer(count: DiskFormat.nodeSize)
        try device.read(into: page.bytes, at: superblock.headRoot.address.block << 12)
        let node = NodePage(page.bytes)
        return try (0..<node.count).map {
            var reader = ByteReader(node.value($0), .node, at: 0)
            return try NodePointer(&reader)
        }
    }
    private func extents(_ name: String) throws -> [FileMap.Extent] {
        let volume = try open(readOnly: true)
        defer { try? volume.close() }
        return try volume.fileSystem.fileMap.extents(find(name, in: volume), 0..<(1 << 40))
    }
    private func spoil(_ block: UInt64, _ bit: Int = 99) {
        var bytes = device.bytes(at: block << 12, count: 4096)
        bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        device.overwrite(bytes, at: block << 12)
    }
    private func bytes(_ block: UInt64, _ count: Int = 1) -> [UInt8] {
        device.bytes(at: block << 12, count: count << 12)
    }
    private func expectClean() throws {
        let report = try Checker.check(device, modules: .standard)
        #expect(report.isClean, "\(report.findings)")
    }

    @Test(arguments: [0, 1]) func nodesAreHealedOnRead(copy: Int) throws {
        let leaves = try leaves()
        let whole = leaves.map { bytes($0.replicas[copy].block, 4) }
        for leaf in leaves { spoil(leaf.replicas[copy].block + 2) }
        let reading = try open(readOnly: true)
        #expect(try read(reading, "file-7") == Self.content(7, 1500))
        try reading.close()
        #expect(events.count("healed") == 0)
        #expect(
            leaves.indices.allSatisfy { bytes(leaves[$0].replicas[copy].block, 4) != whole[$0] })

        let volume = try open()
        for index in 0..<Self.fileCount {
            #expect(try read(volume, "file-\(index)") == Self.content(index, 1500))
        }
        // The second copy is not looked at while the first is good: that is what scrub is for.
        #expect(events.count("healed") == (copy == 0 ? leaves.count : 0))
        if copy == 0 {
            #expect(
                leaves.indices.allSatisfy { bytes(leaves[$0].replicas[0].block, 4) == whole[$0] })
            #expect(counters(volume)["healed"] == UInt64(leaves.count))
        }
        try volume.close()
        guard copy == 0 else { return }
        // Counted for good.
        let again = try open()
        #expect(counters(again)["healed"] == UInt64(leaves.count))
        #expect(counters(again)["checksum"]! >= UInt64(leaves.count))
        try again.close()
        try expectClean()
    }

    /// A node begins with a copy of its sum, which no sum covers.
    @Test func everyByteOfANodeIsVerified() throws {
        let leaf = try leaves()[1].replicas[1].block
        for byte in [0, 3, 4, 31, 32, 16383] {
            spoil(leaf + UInt64(byte / 4096), byte % 4096 * 8 + 5)
            #expect(try !Checker.check(device, modules: .standard).isClean, "byte \(byte)")
            let volume = try open()
            let record = try Scrubber.run(
                volume, .init(), command: { .goOn }, progress: { _ in })
            #expect(record.found == 1 && record.healed == 1, "byte \(byte): \(record)")
            try volume.close()
        }
        try expectClean()
    }

    @Test func bitmapBlocksAreHealedOnRead() throws {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let layout = DiskLayout(blockCount: superblock.blockCount)
        // Opening makes a checkpoint, which reads all and then goes on to the other slots; healing
        // waits until after that.
        let volume = try open()
        try volume.close()
        let store = BitmapStore(
            device: device, checksum: volume.checksum, geometry: VolumeGeometry(layout),
            root: try SuperblockStore.newest(device, modules: .standard).bitmapRoot,
            errors: volume.errors, health: volume.health)
        _ = try store.entry(ofRegion: 0)
        volume.health.mayWrite = { true }
        let entry = try store.entry(ofRegion: 0)
        let places = layout.bitmapPlaces(.leaf, index: 0, slot: entry.liveSlot)
        let whole = bytes(places.0)
        spoil(places.0)
        _ = try store.leaf(ofRegion: 0)
        #expect(bytes(places.0) == whole)
        #expect(events.count("healed: the bitmap block") == 1)
        spoil(places.0)
        spoil(places.1)
        #expect(throws: FSError.self) { try store.leaf(ofRegion: 0) }
        #expect(events.count("no good copy") == 1)
    }

    @Test(arguments: ["flip", "unreadable"]) func dataIsHealedOnRead(kind: String) throws {
        let extents = try extents("double")
        let whole = extents.map { bytes($0.record.replicas[0].block, Int($0.record.blocks)) }
        var blocks: UInt64 = 0
        for extent in extents {
            for index in 0..<UInt64(extent.record.blocks) where index % 3 == 0 {
                let block = extent.record.replicas[0].block + index
                if kind == "flip" {
                    spoil(block, 5000)
                } else {
                    device.makeUnreadable(at: block << 12)
                }
                blocks += 1
            }
        }
        let volume = try open()
        #expect(try read(volume, "double") == Self.content(1, 200_000))
        #expect(events.count("healed: /double, offset") == Int(blocks))
        for (index, extent) in extents.enumerated() {
            #expect(
                bytes(extent.record.replicas[0].block, Int(extent.record.blocks)) == whole[index])
        }
        #expect(volume.damage().isEmpty)
        let healed = events.count("healed")
        #expect(try read(volume, "double") == Self.content(1, 200_000))
        #expect(events.count("healed") == healed)
        try volume.close()
        try expectClean()
    }

    @Test func whatHasNoGoodCopyIsToldAndRemembered() throws {
        let extent = try #require(try extents("single").first)
        let block = extent.record.replicas.first.block + 5
        spoil(block)
        spoil(block + 1)
        spoil(block + 9)
        var volume = try open()
        let wanted = Self.content(2, 200_000)
        for _ in 0..<2 {
            #expect(throws: FSError.self) { try read(volume, "single") }
            // Every other block can be read.
            for index in 0..<48 where ![5, 6, 9 + 5].contains(index) {
                let found = try read(volume, "single", at: UInt64(index) << 12, count: 4096)
                #expect(found == Array(wanted[index << 12..<(index + 1) << 12]))
            }
            for index in [5, 6, 14] as [UInt64] {
                #expect(throws: FSError.self) {
                    try read(volume, "single", at: index << 12, count: 10)
                }
            }
        }
        #expect(events.count("damage: /single, offset 20480: block \(block)") == 1)
        #expect(counters(volume)["lost"] == 3)
        try volume.close()

        volume = try open(readOnly: true)
        var damage = volume.damage()
        #expect(damage.map(\.path) == ["/single", "/single"])
        #expect(damage.map(\.offset) == [5 << 12, 14 << 12])
        #expect(damage.map(\.byteCount) == [8192, 4096])
        #expect(damage[0].block == block && damage[0].kind == .data)
        try volume.close()
        try expectClean()

        // What was overwritten is damaged no longer, under whatever name.
        volume = try open()
        let inode = try find("single", in: volume)
        try Array("single".utf8).withView { old in
            try Array("renamed".utf8).withView {
                try volume.fileSystem.rename(old, in: .root, to: $0, in: .root, [])
            }
        }
        _ = try [UInt8](repeating: 1, count: 8192).withView {
            try volume.fileSystem.write(inode, at: 5 << 12, $0)
        }
        damage = volume.damage()
        #expect(damage.map(\.path) == ["/renamed"] && damage[0].offset == 14 << 12)
        try Array("renamed".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
        #expect(volume.damage().isEmpty)
        try volume.close()
    }

    @Test func aLostNodeIsToldAndTheRestCanBeRead() throws {
        let leaves = try leaves()
        let lost = leaves[leaves.count / 2]
        for copy in 0..<2 { spoil(lost.replicas[copy].block + 1) }
        let volume = try open()
        var failed = 0
        for index in 0..<Self.fileCount {
            do {
                #expect(try read(volume, "file-\(index)") == Self.content(index, 1500))
            } catch { failed += 1 }
        }
        #expect(failed > 0 && failed < Self.fileCount)
        let damage = volume.damage()
        #expect(damage.count == 1 && damage[0].kind == .metadata)
        #expect(damage[0].block == lost.address.block)
        try volume.close()
        let again = try open(readOnly: true)
        #expect(again.damage() == damage)
        try again.close()
    }

    /// A copy that cannot be rewritten is read around, listed, and its blocks are never used again.
    @Test func badBlocksAreNotUsedAgain() throws {
        let extent = try #require(try extents("double").first)
        let places = (0..<4).map { extent.record.replicas[0].block + $0 * 3 }
        for block in places { device.makeUnreadable(at: block << 12, untilWritten: false) }
        var volume = try open()
        #expect(try read(volume, "double") == Self.content(1, 200_000))
        #expect(events.count("cannot be rewritten") == places.count)
        #expect(counters(volume)["write"] == UInt64(places.count))
        #expect(counters(volume)["healed"] == 0)
        #expect(volume.status().state == .online)
        try volume.close()
        for round in 0..<2 {
            volume = try open()
            if round == 0 {
                try Array("double".utf8).withView { try volume.fileSystem.unlink($0, in: .root) }
            }
            let free = volume.allocator.freeBlocks
            // All that there is: none of it lies in a bad block, so every write succeeds.
            let filler = try create("filler-\(round)", in: volume)
            let piece = [UInt8](repeating: 3, count: 64 << 10)
            var position: UInt64 = 0
            while true {
                do throws(FSError) {
                    _ = try piece.withView { (view) throws(FSError) in
                        try volume.fileSystem.write(filler, at: position, view)
                    }
                    position += 64 << 10
                } catch {
                    #expect(error == .noSpace)
                    break
                }
            }
            #expect(free < 1 << 40 && volume.status().state == .online)
            for found in try volume.fileSystem.fileMap.extents(filler, 0..<(1 << 40)) {
                let start = found.record.replicas.first.block
                let end = start + UInt64(found.record.blocks)
                #expect(!places.contains { $0 >= start && $0 < end })
            }
            try Array("filler-\(round)".utf8).withView {
                try volume.fileSystem.unlink($0, in: .root)
            }
            try volume.close()
            try expectClean()
        }
    }

    /// A heal that fails leaves all as it was: no latch, and the good copy goes on being read.
    @Test(arguments: [
        SimulatedBlockDevice.Fault.Effect.fail, .loseWrite, .flipBit(4000),
    ]) func aFailedHealIsNoDisaster(effect: SimulatedBlockDevice.Fault.Effect) throws {
        let extent = try #require(try extents("double").first)
        let volume = try open()
        spoil(extent.record.replicas[0].block)
        device.inject(SimulatedBlockDevice.Fault(.write, effect, after: 1))
        for _ in 0..<3 { #expect(try read(volume, "double") == Self.content(1, 200_000)) }
        #expect(volume.status().state == .online)
        #expect(events.count("cannot be rewritten") == 1)
        // The second read healed it: it was the write that failed, not the block.
        #expect(events.count("healed") == 1)
        try volume.close()
        try expectClean()
    }
}
