/// Hostile images: bytes of nodes, superblocks and bitmap blocks are changed and every checksum up
/// to the superblock made right again, so that only validation stands between the bytes and the
/// program. Each image is opened, walked, changed, closed and checked. Any error is fine; a trap, a
/// hang or runaway memory is not.
///
/// The seed of the image that is being tried stands in the file named at the start, in case the
/// process does not live to tell. `AEGISFS_TEST_HOSTILE_IMAGES` and `AEGISFS_TEST_SEED` set number and seed.
import FSModules
import FSTestSupport
import Foundation
import Testing

@testable import FSCore

@Suite struct HostileImageTests {
    @Test func hostileImagesNeverTrap() throws {
        let environment = ProcessInfo.processInfo.environment
        let images = Int(environment["AEGISFS_TEST_HOSTILE_IMAGES"] ?? "") ?? 5000
        let first = UInt64(environment["AEGISFS_TEST_SEED"] ?? "") ?? 1
        let current = FileManager.default.temporaryDirectory
            .appendingPathComponent("aegisfs-hostile-\(ProcessInfo.processInfo.processIdentifier)")
        print("hostile images: the current seed is in \(current.path)")
        defer { try? FileManager.default.removeItem(at: current) }

        let image = try SealedImage()
        var opened = 0
        for seed in first..<first + UInt64(images) {
            try? "\(seed)".write(to: current, atomically: false, encoding: .utf8)
            var random = SeededRandom(seed: seed)
            let device = image.mutated(&random)
            let start = monotonicNanoseconds()
            if use(device, &random) { opened += 1 }
            let milliseconds = (monotonicNanoseconds() - start) / 1_000_000
            #expect(milliseconds < 10_000, "seed \(seed) took \(milliseconds) ms")
        }
        // A mutation that is always refused at once would test nothing behind the first check.
        #expect(opened > images / 10)
        print("hostile images: \(images) tried, \(opened) could be opened")
    }

    /// Opens, walks, changes, closes and checks; true if the volume could be opened.
    private func use(_ device: SimulatedBlockDevice, _ random: inout SeededRandom) -> Bool {
        _ = Inspector.superblocks(device, modules: .standard)
        _ = try? Inspector.tree(device, modules: .standard, depth: 8)
        _ = try? Checker.check(device, modules: .standard)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.cacheBytes = 4 << 20
        guard let volume = try? Volume.open(device, modules: .standard, options: options) else {
            return false
        }
        let fs = volume.fileSystem
        var budget = 400
        walk(fs, .root, depth: 0, &budget)
        change(fs, &random)
        _ = try? volume.checkpoint()
        _ = try? Checker.check(volume)
        _ = try? volume.close()
        return true
    }

    private func walk(_ fs: FileSystem, _ directory: InodeNumber, depth: Int, _ budget: inout Int) {
        guard depth < 40, budget > 0 else { return }
        var found: [(InodeNumber, FileKind)] = []
        try? fs.readDirectory(directory, after: 0, withAttributes: true) { entry, attributes in
            guard found.count < 200 else { return false }
            if entry.cookie > 2, attributes != nil { found.append((entry.inode, entry.kind)) }
            return true
        }
        let buffer = ByteBuffer(count: 65536)
        for (inode, _) in found where budget > 0 {
            budget -= 1
            let attributes = try? fs.attributes(of: inode)
            _ = try? fs.read(inode, at: 0, into: buffer.bytes)
            if let size = attributes?.size, size > 65536 {
                _ = try? fs.read(inode, at: size - 65536, into: buffer.bytes)
            }
            _ = try? fs.symbolicLinkTarget(of: inode)
            _ = try? fs.nextData(inode, from: 0)
            _ = try? fs.nextHole(inode, from: 0)
            if let names = try? fs.extendedAttributeNames(of: inode) {
                for name in names.split(separator: 0) {
                    _ = try? Array(name).withView { try fs.extendedAttribute($0, of: inode) }
                }
            }
            if attributes?.kind == .directory { walk(fs, inode, depth: depth + 1, &budget) }
            fs.release(inode, count: 1)
        }
    }

    private func change(_ fs: FileSystem, _ random: inout SeededRandom) {
        let names = (0..<12).map { "name-\($0)" } + SealedImage.names
        let bytes = random.bytes(9000)
        for _ in 0..<30 {
            let name = Array(random.pick(names).utf8)
            let other = Array(random.pick(names).utf8)
            let choice = random.below(9)
            name.withView { name in
                let found = try? fs.lookup(name, in: .root)
                let inode = found?.inode ?? .root
                defer { if found != nil { fs.release(inode, count: 1) } }
                switch choice {
                case 0:
                    let new = NewInode(mode: FileKind.regular.modeBits | 0o644)
                    if let made = try? fs.create(name, in: .root, new) {
                        fs.release(made.inode, count: 1)
                    }
                case 1: try? fs.unlink(name, in: .root)
                case 2: try? fs.removeDirectory(name, in: .root)
                case 3:
                    let offset = UInt64(random.below(100_000))
                    _ = try? bytes.withView { try fs.write(inode, at: offset, $0) }
                case 4:
                    var changes = AttributeChanges()
                    changes.size = UInt64(random.below(50_000))
                    _ = try? fs.setAttributes(of: inode, changes)
                case 5:
                    try? other.withView { try fs.rename(name, in: .root, to: $0, in: .root, []) }
                case 6:
                    _ = try? bytes.withView { value in
                        try fs.setExtendedAttribute(
                            Array("user.x".utf8).withView { $0 }, of: inode, value.slice(0, 100),
                            .createOrReplace)
                    }
                case 7: try? fs.allocate(inode, at: 0, count: 40_000, .punchHole.union(.keepSize))
                default:
                    if let made = try? other.withView({ try fs.link(inode, as: $0, in: .root) }) {
                        fs.release(made.inode, count: 1)
                    }
                }
            }
        }
    }
}

/// A populated volume and all its nodes, with the way from each to the superblock.
private final class SealedImage {
    static let names = ["a", "b", "dir", "link", "small", "large", "sparse", "fifo"]

    private struct Node {
        var pointer: NodePointer
        var tree: TreeID
        /// The parent's index in `nodes` and the slot in it; nil for roots.
        var parent: (node: Int, slot: Int)?
    }
    private let base: SimulatedBlockDevice
    private let superblock: Superblock
    private var nodes: [Node] = []
    private let checksum = CRC32C()

    init() throws {
        base = SimulatedBlockDevice(byteCount: 16 << 20)
        _ = try VolumeFormatter.format(base, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(base, modules: .standard, options: options)
        try Self.populate(volume.fileSystem)
        try volume.close()
        superblock = try SuperblockStore.newest(base, modules: .standard)
        collect(superblock.headRoot, .head, nil)
        collect(superblock.volumeRoot, .volume, nil)
    }

    private static func populate(_ fs: FileSystem) throws {
        func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
        let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
        for index in 0..<150 {
            let made = try bytes("name-\(index)").withView { try fs.create($0, in: .root, file) }
            let content = [UInt8](repeating: UInt8(index), count: index * 40)
            _ = try content.withView { try fs.write(made.inode, at: 0, $0) }
            if index % 5 == 0 {
                let value = [UInt8](repeating: 7, count: index * 30)
                try value.withView { value in
                    try bytes("user.attribute").withView {
                        try fs.setExtendedAttribute($0, of: made.inode, value, .createOrReplace)
                    }
                }
            }
            if index % 7 == 0 {
                _ = try bytes("link-\(index)").withView {
                    try fs.link(made.inode, as: $0, in: .root)
                }
            }
        }
        let directory = try bytes("dir").withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o755))
        }
        for index in 0..<60 {
            _ = try bytes("inner-\(index)").withView {
                try fs.create($0, in: directory.inode, file)
            }
        }
        let large = try bytes("large").withView { try fs.create($0, in: .root, file) }
        let content = [UInt8](repeating: 9, count: 1_500_000)
        _ = try content.withView { try fs.write(large.inode, at: 0, $0) }
        let sparse = try bytes("sparse").withView { try fs.create($0, in: .root, file) }
        for index in 0..<40 {
            _ = try content.withView {
                try fs.write(sparse.inode, at: UInt64(index) << 20, $0.slice(0, 5000))
            }
        }
        try fs.allocate(sparse.inode, at: 50 << 20, count: 100_000, [])
        _ = try bytes("link").withView { name in
            try bytes("target/of/the/link").withView {
                try fs.createSymbolicLink(name, in: .root, target: $0, userID: 0, groupID: 0)
            }
        }
        // An orphan: unlinked while it is held.
        let orphan = try bytes("orphan").withView { try fs.create($0, in: .root, file) }
        _ = try content.withView { try fs.write(orphan.inode, at: 0, $0.slice(0, 20_000)) }
        try bytes("orphan").withView { try fs.unlink($0, in: .root) }
    }

    private func collect(_ pointer: NodePointer, _ tree: TreeID, _ parent: (node: Int, slot: Int)?)
    {
        let index = nodes.count
        nodes.append(Node(pointer: pointer, tree: tree, parent: parent))
        guard pointer.level > 0 else { return }
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        guard (try? base.read(into: buffer.bytes, at: pointer.address.block << 12)) != nil else {
            return
        }
        let page = NodePage(buffer.bytes)
        for slot in 0..<page.count {
            var reader = ByteReader(page.value(slot), .node, at: 0)
            if let child = try? NodePointer(&reader) { collect(child, tree, (index, slot)) }
        }
    }

    /// A copy of the image with something hostile in it and all checksums right.
    func mutated(_ random: inout SeededRandom) -> SimulatedBlockDevice {
        let device = base.copy()
        var superblock = self.superblock
        switch random.below(10) {
        case 0: break
        case 1: mutateBitmap(device, &superblock, &random)
        default: mutateNode(device, &superblock, &random)
        }
        let encoded = superblock.encoded(modules: .standard)
        if random.chance(1, in: 8) {
            scramble(encoded.bytes.slice(8, 1400), &random)
            checksum.sum(encoded.view.slice(0, Superblock.checksumOffset))
                .store(encoded.bytes, Superblock.checksumOffset, count: 32)
        }
        let places = DiskLayout.superblockPlaces(
            pair: Int(superblock.sequence.rawValue % 2), blockCount: superblock.blockCount)
        for place in [places.front, places.end] {
            device.overwrite(encoded.view.toArray(), at: place << 12)
        }
        return device
    }

    /// Changes a few places, the way bit rot, stale data or malice would.
    private func scramble(_ bytes: MutableByteView, _ random: inout SeededRandom) {
        for _ in 0..<random.integer(in: 1...4) {
            let at = random.below(bytes.count)
            switch random.below(6) {
            case 0: bytes[at] = UInt8(random.below(256))
            case 1: bytes[at] ^= 1 << UInt8(random.below(8))
            case 2:
                for index in at..<min(at + 8, bytes.count) { bytes[index] = 0xFF }
            case 3:
                for index in at..<min(at + 8, bytes.count) { bytes[index] = 0 }
            case 4:
                let from = random.below(bytes.count)
                let count = min(random.integer(in: 1...64), bytes.count - max(at, from))
                bytes.move(from: from, to: at, count: count)
            default: bytes[at] = bytes[at] &+ 1
            }
        }
    }

    private func mutateNode(
        _ device: SimulatedBlockDevice, _ superblock: inout Superblock, _ random: inout SeededRandom
    ) {
        var index = random.below(nodes.count)
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        read(device, index, buffer)
        let page = NodePage(buffer.bytes)
        let values = Int(page.view.u16(132))
        switch random.below(4) {
        case 0: scramble(buffer.bytes.slice(32, NodePage.headerSize - 32), &random)
        case 1 where page.count > 0:
            scramble(
                buffer.bytes.slice(NodePage.headerSize, page.count * NodePage.slotSize), &random)
        default:
            if values < DiskFormat.nodeSize {
                scramble(buffer.bytes.slice(values, DiskFormat.nodeSize - values), &random)
            }
        }
        // Make the sums right again, from here up to the superblock.
        while true {
            let sum = NodePage(buffer.bytes).sum(checksum)
            sum.store(buffer.bytes, 0, count: 32)
            let node = nodes[index]
            for replica in 0..<node.pointer.replicas.count {
                device.overwrite(
                    buffer.view.toArray(), at: node.pointer.replicas[replica].block << 12)
            }
            guard let parent = node.parent else {
                if node.tree == .head {
                    superblock.headRoot.checksum = sum
                } else {
                    superblock.volumeRoot.checksum = sum
                }
                return
            }
            read(device, parent.node, buffer)
            let above = NodePage(buffer.bytes)
            guard parent.slot < above.count else { return }
            let value = above.mutableValue(parent.slot)
            if value.count >= 4 { sum.store(value, value.count - 4, count: 4) }
            index = parent.node
        }
    }

    private func read(_ device: SimulatedBlockDevice, _ index: Int, _ buffer: ByteBuffer) {
        let place = nodes[index].pointer.address.block << 12
        device.bytes(at: place, count: DiskFormat.nodeSize).withView { buffer.bytes.copy($0) }
    }

    /// Changes one block of the radix and makes the entries above it right again.
    private func mutateBitmap(
        _ device: SimulatedBlockDevice, _ superblock: inout Superblock, _ random: inout SeededRandom
    ) {
        let layout = DiskLayout(blockCount: superblock.blockCount)
        let levels = DiskLayout.BitmapLevel.allCases
        let target = random.below(levels.count)
        // One region, so there is one block of each level; entries are read from the top down.
        var entries: [BitmapEntry] = Array(repeating: superblock.bitmapRoot, count: levels.count)
        for level in stride(from: levels.count - 1, to: 0, by: -1) {
            let block = bytes(device, layout, levels[level], entries[level])
            block.withView { view in
                var reader = ByteReader(view, .bitmap, at: 0)
                if let entry = try? BitmapEntry(&reader) { entries[level - 1] = entry }
            }
        }
        var block = bytes(device, layout, levels[target], entries[target])
        let buffer = ByteBuffer(count: block.count)
        block.withView { buffer.bytes.copy($0) }
        scramble(buffer.bytes.slice(0, target == 0 ? 600 : 64), &random)
        for level in target..<levels.count {
            entries[level].checksum = checksum.sum(buffer.view).words.0
            if level == 0, random.chance(1, in: 2) {
                entries[level].used = UInt64(BlockBits(buffer.bytes).population)
            }
            let places = layout.bitmapPlaces(levels[level], index: 0, slot: entries[level].liveSlot)
            device.overwrite(buffer.view.toArray(), at: places.0 << 12)
            device.overwrite(buffer.view.toArray(), at: places.1 << 12)
            guard level + 1 < levels.count else {
                superblock.bitmapRoot = entries[level]
                return
            }
            block = bytes(device, layout, levels[level + 1], entries[level + 1])
            block.withView { buffer.bytes.copy($0) }
            var writer = ByteWriter(buffer.bytes.slice(0, 16))
            entries[level].encode(&writer)
        }
    }

    private func bytes(
        _ device: SimulatedBlockDevice, _ layout: DiskLayout, _ level: DiskLayout.BitmapLevel,
        _ entry: BitmapEntry
    ) -> [UInt8] {
        let places = layout.bitmapPlaces(level, index: 0, slot: entry.liveSlot)
        return device.bytes(at: places.0 << 12, count: DiskFormat.blockSize)
    }
}
