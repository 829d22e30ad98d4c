/// A small volume of which every place that holds something is known, to be damaged at will.
import FSModules
import FSTestSupport

@testable import FSCore

final class DamagedImage {
    /// Blocks that are copies of each other, or the only one.
    struct Unit {
        enum Kind: Hashable { case superblock, bitmap, node, data }
        var kind: Kind
        /// First block of each copy.
        var copies: [UInt64]
        var blocks: UInt64 = 1
    }
    enum Damage: CaseIterable { case flip, zero, swap, stale, torn }

    static let byteCount: UInt64 = 24 << 20
    let device = OverlayBlockDevice(byteCount: byteCount)
    private(set) var units: [Unit] = []
    private(set) var contents: [String: [UInt8]] = [:]
    /// The image as it was some checkpoints ago.
    private var earlier = OverlayBlockDevice(byteCount: byteCount)

    init(_ format: FormatOptions) throws {
        var format = format
        format.journalByteCount = 2 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var random = SeededRandom(seed: 5)
        let volume = try Self.open(device)
        for index in 0..<48 {
            let size = random.pick([300, 1900, 5000, 20_000, 60_000])
            try write("file-\(index)", random.bytes(size), copies: "\(1 + index % 2)", in: volume)
        }
        try volume.checkpoint()
        earlier = OverlayBlockDevice(copying: device)
        for index in stride(from: 0, to: 48, by: 3) {
            try write("file-\(index)", random.bytes(9000), copies: "2", in: volume)
        }
        try volume.checkpoint()
        for index in 48..<60 {
            try write("file-\(index)", random.bytes(2500), copies: "1", in: volume)
        }
        try volume.close()
        try collect()
        device.keep()
    }

    static func open(_ device: any BlockDevice, readOnly: Bool = false) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.readOnly = readOnly
        options.cacheBytes = 4 << 20
        return try Volume.open(device, modules: .standard, options: options)
    }

    private func write(
        _ name: String, _ bytes: [UInt8], copies: String, in volume: Volume
    ) throws {
        let fs = volume.fileSystem
        let found = try Array(name.utf8).withView { name in
            try (try? fs.lookup(name, in: .root))
                ?? fs.create(name, in: .root, NewInode(mode: 0o100644))
        }
        try fs.setProperty(.copies, of: found.inode, copies)
        _ = try bytes.withView { try fs.write(found.inode, at: 0, $0) }
        fs.release(found.inode, count: 1)
        var whole = contents[name] ?? []
        whole.replaceSubrange(0..<min(bytes.count, whole.count), with: bytes)
        contents[name] = whole
    }

    // MARK: What is where

    private func collect() throws {
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        for pair in 0...1 {
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: superblock.blockCount)
            units.append(Unit(kind: .superblock, copies: [places.front, places.end]))
        }
        var entry = superblock.bitmapRoot
        for level in DiskLayout.BitmapLevel.allCases.reversed() {
            let places = superblock.layout.bitmapPlaces(level, index: 0, slot: entry.liveSlot)
            units.append(Unit(kind: .bitmap, copies: [places.0, places.1]))
            let block = ByteBuffer(count: 4096)
            try device.read(into: block.bytes, at: places.0 << 12)
            var reader = ByteReader(block.view, .bitmap, at: 0)
            if level != .leaf { entry = try BitmapEntry(&reader) }
        }
        let volume = try Self.open(device, readOnly: true)
        defer { try? volume.close() }
        let view = volume.openDurableView()
        defer { volume.close(view) }
        for tree in view.trees { try collect(tree.root, volume) }
        var seen: Set<UInt64> = []
        var tally = ExaminationTally()
        for tree in view.trees {
            _ = try volume.examine(
                tree, from: .minimum, through: .maximum,
                WalkBudget(nodes: .max, blocks: .max), heals: false, &tally
            ) { extent in
                for index in 0..<UInt64(extent.record.storedBlocks) {
                    let copies = (0..<extent.record.replicas.count).map {
                        extent.record.replicas[$0].block + index
                    }
                    if seen.insert(copies[0]).inserted {
                        units.append(Unit(kind: .data, copies: copies))
                    }
                }
            }
        }
    }

    private func collect(_ pointer: NodePointer, _ volume: Volume) throws {
        units.append(
            Unit(
                kind: .node,
                copies: (0..<pointer.replicas.count).map { pointer.replicas[$0].block },
                blocks: DiskFormat.blocksPerNode))
        guard pointer.level > 0 else { return }
        let page = ByteBuffer(count: DiskFormat.nodeSize)
        try device.read(into: page.bytes, at: pointer.address.block << 12)
        let node = NodePage(page.bytes)
        for index in 0..<node.count {
            var reader = ByteReader(node.value(index), .node, at: 0)
            try collect(try NodePointer(&reader), volume)
        }
    }

    // MARK: Damage

    func reset() { device.revert() }

    /// Damages one block of one copy of some units, each once; returns those that differ now from
    /// what they were.
    func damage(_ count: Int, _ random: inout SeededRandom) throws -> [Unit] {
        var damaged: [Unit] = []
        var touched: Set<UInt64> = []
        while damaged.count < count {
            let unit = random.pick(units)
            guard touched.insert(unit.copies[0]).inserted else { continue }
            let copy = random.below(unit.copies.count)
            let block = unit.copies[copy] + UInt64(random.below(Int(unit.blocks)))
            let whole = try bytes(block, of: device)
            var changed = whole
            switch random.pick(Damage.allCases) {
            case .flip:
                let bit = random.below(4096 * 8)
                changed[bit / 8] ^= 1 << UInt8(bit % 8)
            case .zero: changed = [UInt8](repeating: 0, count: 4096)
            case .swap:
                // What belongs elsewhere: a misdirected write.
                let other = random.pick(units)
                changed = try bytes(other.copies[0], of: device)
            case .stale: changed = try bytes(block, of: earlier)
            case .torn:
                let sectors = random.integer(in: 1...7) * 512
                changed.replaceSubrange(sectors..., with: try bytes(block, of: earlier)[sectors...])
            }
            // Free space behind the items of a node, and holes between fields, are all covered by
            // sums: whatever changed must be found.
            guard changed != whole else { continue }
            try changed.withView { try device.write($0, at: block << 12) }
            damaged.append(unit)
        }
        return damaged
    }

    /// Every copy of a unit is gone.
    func destroy(_ unit: Unit) throws {
        let junk = ByteBuffer(count: Int(unit.blocks) << 12)
        for index in 0..<junk.count { junk.bytes[index] = 0xA5 }
        for block in unit.copies { try device.write(junk.view, at: block << 12) }
    }

    private func bytes(_ block: UInt64, of device: OverlayBlockDevice) throws -> [UInt8] {
        let buffer = ByteBuffer(count: 4096)
        try device.read(into: buffer.bytes, at: block << 12)
        return buffer.view.toArray()
    }
}
