/// A small populated volume whose nodes, superblock and bitmap can be changed at will; `seal` then
/// makes every checksum up to the superblock right again. Every image starts from the same bytes
/// and costs only what it changes.
import FSModules
import FSTestSupport

@testable import FSCore

final class SealedImage {
    static let fileCount = 48
    /// Larger than the smallest volume, so that a superblock can claim a smaller one.
    static let byteCount: UInt64 = 20 << 20

    struct Node {
        var pointer: NodePointer
        var tree: TreeKind
    }
    struct Item {
        var key: Key
        var value: [UInt8]
    }

    let device = OverlayBlockDevice(byteCount: byteCount)
    let checksum = CRC32C()
    let layout = DiskLayout(blockCount: byteCount >> 12)
    private(set) var nodes: [Node] = []
    private var original: Superblock

    // Of the image in the making.
    var superblock: Superblock
    private var pages: [Int: ByteBuffer] = [:]

    /// - Parameter withSnapshots: of nodes that a snapshot has as well, what is lost stays lost.
    init(withSnapshots: Bool = true) throws {
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        try Self.populate(volume.fileSystem)
        if withSnapshots { try Self.keep(volume) }
        try volume.close()
        original = try SuperblockStore.newest(device, modules: .standard)
        superblock = original
        try collect()
        try deepen()
        try collect()
        device.keep()
    }

    /// Back to the whole image.
    func reset() {
        device.revert()
        superblock = original
        pages.removeAll(keepingCapacity: true)
    }

    // MARK: Nodes

    private func collect() throws {
        nodes = []
        try collect(superblock.headRoot, .files)
        for root in try snapshotRoots() { try collect(root, .files) }
        try collect(superblock.volumeRoot, .volume)
    }

    /// The roots that the table of snapshots names: the volume tree has one node.
    private func snapshotRoots() throws -> [NodePointer] {
        precondition(superblock.volumeRoot.level == 0)
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        try device.read(into: buffer.bytes, at: superblock.volumeRoot.address.block << 12)
        return try (Self.items(buffer) ?? []).compactMap { item in
            guard item.key.type == .snapshot else { return nil }
            return try item.value.withView { (value) throws(FSError) in
                try SnapshotRecord(item.key, decoding: value, layout: layout).root
            }
        }
    }

    private func collect(_ pointer: NodePointer, _ tree: TreeKind) throws {
        // Snapshots and heads have most nodes together.
        if nodes.contains(where: { $0.pointer.address == pointer.address }) { return }
        nodes.append(Node(pointer: pointer, tree: tree))
        guard pointer.level > 0 else { return }
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        try device.read(into: buffer.bytes, at: pointer.address.block << 12)
        for item in Self.items(buffer) ?? [] {
            let child = try item.value.withView { (view) throws(FSError) in
                var reader = ByteReader(view, .node, at: 0)
                return try NodePointer(&reader)
            }
            try collect(child, tree)
        }
    }

    /// The bytes of a node for changing.
    func page(_ index: Int) -> ByteBuffer {
        if let page = pages[index] { return page }
        let page = ByteBuffer(count: DiskFormat.nodeSize)
        try? device.read(into: page.bytes, at: nodes[index].pointer.address.block << 12)
        pages[index] = page
        return page
    }

    /// Where the values of a node lie; nil if it is no longer one.
    private static func slots(_ page: ByteBuffer) -> [(key: Key, offset: Int, count: Int)]? {
        let count = Int(page.view.u16(130))
        guard NodePage.headerSize + count * NodePage.slotSize <= page.count else { return nil }
        var slots: [(key: Key, offset: Int, count: Int)] = []
        slots.reserveCapacity(count)
        for index in 0..<count {
            let slot = NodePage.headerSize + index * NodePage.slotSize
            let (offset, length) = (Int(page.view.u16(slot + 17)), Int(page.view.u16(slot + 19)))
            guard offset + length <= page.count else { return nil }
            slots.append((NodePage(page.bytes).key(index), offset, length))
        }
        return slots
    }

    static func items(_ page: ByteBuffer) -> [Item]? {
        slots(page)?.map {
            Item(key: $0.key, value: page.view.slice($0.offset, $0.count).toArray())
        }
    }

    /// Lays the items down as a checkpoint would, in the order given; what has no room is left off.
    static func store(_ items: [Item], _ page: ByteBuffer) {
        page.bytes.zero(NodePage.headerSize, page.count - NodePage.headerSize)
        var heap = page.count
        var slot = NodePage.headerSize
        var count: UInt16 = 0
        for item in items where slot + NodePage.slotSize + item.value.count <= heap {
            heap -= item.value.count
            item.value.withView { page.bytes.copy($0, at: heap) }
            page.bytes.store(item.key.object, at: slot)
            page.bytes[slot + 8] = item.key.type.rawValue
            page.bytes.store(item.key.offset, at: slot + 9)
            page.bytes.store(UInt16(heap), at: slot + 17)
            page.bytes.store(UInt16(item.value.count), at: slot + 19)
            slot += NodePage.slotSize
            count += 1
        }
        page.bytes.store(count, at: 130)
        page.bytes.store(UInt16(heap), at: 132)
        page.bytes.store(UInt16(0), at: 134)
    }

    // MARK: Sealing

    /// Writes the changed nodes with right checksums in everything that points to them, leaves
    /// first.
    ///
    /// - Parameter pointersFollow: pointers also repeat what the headers now say of level, sequence
    ///   and birth.
    func seal(pointersFollow: Bool) {
        let order = [TreeKind.files, .volume].flatMap { tree in
            (UInt8(0)...2).map { (tree, $0) }
        }
        for (tree, level) in order {
            for index in nodes.indices
            where nodes[index].tree == tree && nodes[index].pointer.level == level {
                guard let page = pages[index] else { continue }
                let sum = NodePage(page.bytes).sum(checksum)
                sum.store(page.bytes, 0, count: 32)
                let replicas = nodes[index].pointer.replicas
                for replica in 0..<replicas.count {
                    try? device.write(page.view, at: replicas[replica].block << 12)
                }
                point(to: replicas.first, page, sum, pointersFollow)
            }
        }
    }

    private func point(
        to address: BlockAddress, _ page: ByteBuffer, _ sum: ChecksumValue, _ follow: Bool
    ) {
        let node = NodePage(page.bytes)
        for root in [\Superblock.headRoot, \Superblock.volumeRoot]
        where superblock[keyPath: root].address == address {
            superblock[keyPath: root].checksum = sum
            guard follow else { continue }
            superblock[keyPath: root].level = node.level
            superblock[keyPath: root].sequence = node.sequence
            superblock[keyPath: root].birth = node.birth
        }
        for index in nodes.indices
        where nodes[index].pointer.level > 0 || nodes[index].tree == .volume {
            // A pointer that was copied elsewhere is in a page that was changed already.
            let parent = self.page(index)
            for slot in Self.slots(parent) ?? [] {
                // A child's, or a root in the table of snapshots.
                let isRoot = slot.key.type == .snapshot && slot.count == SnapshotRecord.byteCount
                guard isRoot || slot.count == 40 else { continue }
                let start = slot.offset + (isRoot ? SnapshotRecord.rootOffset : 0)
                let pointer = parent.bytes.slice(start, 40)
                guard pointer.view.u64(NodePointer.addressOffset) == address.rawValue else {
                    continue
                }
                sum.store(pointer, pointer.count - 4, count: 4)
                guard follow else { continue }
                pointer[2] = node.level
                pointer.store(node.sequence.rawValue, at: 4)
                pointer.store(node.birth.rawValue, at: 12)
            }
        }
    }

    /// Writes the superblock pair that is due; `edit` changes the encoded bytes, whose own sum is
    /// made right afterwards.
    func writeSuperblock(_ edit: (MutableByteView) -> Void = { _ in }) {
        let encoded = superblock.encoded(modules: .standard)
        edit(encoded.bytes)
        checksum.sum(encoded.view.slice(0, Superblock.checksumOffset))
            .store(encoded.bytes, Superblock.checksumOffset, count: 32)
        let places = DiskLayout.superblockPlaces(
            pair: Int(original.sequence.rawValue % 2), blockCount: layout.blockCount)
        for place in [places.front, places.end] {
            try? device.write(encoded.view, at: place << 12)
        }
    }

    // MARK: Bitmap

    /// Changes a block of the radix (its first on each level is the only one here) and makes the
    /// entries above it right again, with the counts of used blocks if `countsFollow`.
    func editBitmap(
        _ level: DiskLayout.BitmapLevel, countsFollow: Bool, _ edit: (MutableByteView) -> Void
    ) {
        let levels = DiskLayout.BitmapLevel.allCases
        var entries = Array(repeating: superblock.bitmapRoot, count: levels.count)
        let blocks = levels.map { _ in ByteBuffer(count: DiskFormat.blockSize) }
        for level in levels.reversed() {
            let index = level.rawValue
            let place = layout.bitmapPlaces(level, index: 0, slot: entries[index].liveSlot).0
            try? device.read(into: blocks[index].bytes, at: place << 12)
            if index > 0 {
                var reader = ByteReader(blocks[index].view, .bitmap, at: 0)
                if let entry = try? BitmapEntry(&reader) { entries[index - 1] = entry }
            }
        }
        edit(blocks[level.rawValue].bytes)
        for index in level.rawValue..<levels.count {
            let block = blocks[index]
            entries[index].checksum = checksum.sum(block.view).words.0
            if countsFollow { entries[index].used = Self.used(levels[index], block) }
            let places = layout.bitmapPlaces(
                levels[index], index: 0, slot: entries[index].liveSlot)
            try? device.write(block.view, at: places.0 << 12)
            try? device.write(block.view, at: places.1 << 12)
            guard index + 1 < levels.count else { break }
            var writer = ByteWriter(blocks[index + 1].bytes.slice(0, BitmapEntry.byteCount))
            entries[index].encode(&writer)
        }
        superblock.bitmapRoot = entries[levels.count - 1]
    }

    private static func used(_ level: DiskLayout.BitmapLevel, _ block: ByteBuffer) -> UInt64 {
        guard level != .leaf else { return UInt64(BlockBits(block.bytes).population) }
        var used: UInt64 = 0
        for index in 0..<Int(DiskLayout.mapFanout) {
            used += block.view.u64(index * BitmapEntry.byteCount + 8) & (1 << 40 - 1)
        }
        return used & (1 << 40 - 1)
    }

    // MARK: The whole image

    private static func populate(_ fs: FileSystem) throws {
        func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
        let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
        for index in 0..<fileCount {
            let made = try bytes("name-\(index)").withView { try fs.create($0, in: .root, file) }
            let content = [UInt8](repeating: UInt8(index), count: index * 70)
            _ = try content.withView { try fs.write(made.inode, at: 0, $0) }
            if index % 5 == 0 {
                let value = [UInt8](repeating: 7, count: index * 110)
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
            fs.release(made.inode, count: 1)
        }
        let directory = try bytes("dir").withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o755))
        }
        for index in 0..<12 {
            _ = try bytes("inner-\(index)").withView {
                try fs.create($0, in: directory.inode, file)
            }
        }
        let large = try bytes("large").withView { try fs.create($0, in: .root, file) }
        let content = [UInt8](repeating: 9, count: 300_000)
        _ = try content.withView { try fs.write(large.inode, at: 0, $0) }
        let sparse = try bytes("sparse").withView { try fs.create($0, in: .root, file) }
        for index in 0..<20 {
            _ = try content.withView {
                try fs.write(sparse.inode, at: UInt64(index) << 20, $0.slice(0, 5000))
            }
        }
        for codec in CodecKind.allCases {
            let encoded = try bytes("\(codec)").withView { try fs.create($0, in: .root, file) }
            try fs.setProperty(.compression, of: encoded.inode, "\(codec):2")
            let text = Payload(.text, seed: UInt64(codec.rawValue), count: 160_000).bytes
            _ = try text.withView { try fs.write(encoded.inode, at: 0, $0) }
            _ = try content.withView {
                try fs.write(encoded.inode, at: 40_000, $0.slice(0, 20_000))
            }
            _ = try fs.copyRange(
                from: encoded.inode, at: 0, to: large.inode, at: UInt64(codec.rawValue) << 20,
                count: 160_000)
            fs.release(encoded.inode, count: 1)
        }
        try fs.allocate(sparse.inode, at: 50 << 20, count: 100_000, [])
        try fs.setProperty(.copies, of: large.inode, "2")
        _ = try content.withView { try fs.write(large.inode, at: 400_000, $0) }
        try fs.allocate(large.inode, at: 800_000, count: 50_000, [])
        try fs.setProperty(.scrubInterval, of: .root, "30d")
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

    /// Two snapshots, a clone, a deleted one that a clone keeps from going, and what they hold.
    private static func keep(_ volume: Volume) throws {
        let store = volume.snapshotStore
        let fs = volume.fileSystem
        func label(_ name: String) -> SnapshotLabel { SnapshotLabel(name: Array(name.utf8)) }
        func change(_ salt: UInt8) throws {
            for name in ["name-3", "large", "sparse"] {
                let found = try Array(name.utf8).withView { try fs.lookup($0, in: .root) }
                _ = try [UInt8](repeating: salt, count: 9000).withView {
                    try fs.write(found.inode, at: UInt64(salt) << 13, $0)
                }
                fs.release(found.inode, count: 1)
            }
        }
        for (number, name) in ["first", "gone", "second"].enumerated() {
            try store.create(label(name))
            try change(UInt8(number) + 1)
        }
        try store.clone(Array("gone".utf8), as: label("work"))
        try store.relabel(Array("first".utf8)) { $0.holds = [Array("backup".utf8)] }
        try store.delete([Array("gone".utf8)])
        try store.sweep()
    }

    /// Puts two nodes between the root of the head tree and its leaves: three levels, as only a
    /// large volume has by itself.
    private func deepen() throws {
        let root = page(0)
        let node = NodePage(root.bytes)
        let (address, sequence, birth) = (node.address, node.sequence, node.birth)
        let items = Self.items(root) ?? []
        precondition(superblock.headRoot.level == 1 && items.count >= 4)
        var halves: [NodePointer] = []
        editBitmap(.leaf, countsFollow: true) { bytes in
            let bits = BlockBits(bytes)
            var candidate: UInt64 = 512
            func place() -> BlockAddress {
                while true {
                    candidate += DiskFormat.blocksPerNode
                    let run = BlockRun(
                        BlockAddress(block: candidate), DiskFormat.blocksPerNode)
                    guard layout.isAllocatable(run),
                        bits.isClear(Int(candidate), Int(run.count))
                    else { continue }
                    bits.set(Int(candidate), Int(run.count))
                    return run.start
                }
            }
            for part in [items[..<(items.count / 2)], items[(items.count / 2)...]] {
                let page = ByteBuffer(count: DiskFormat.nodeSize)
                var pointer = superblock.headRoot
                pointer.replicas = ReplicaList(place(), place())
                let node = NodePage(page.bytes)
                node.initialize(level: 1, tree: .files, uuid: superblock.internalUUID)
                node.address = pointer.address
                node.sequence = pointer.sequence
                node.birth = pointer.birth
                Self.store(Array(part), page)
                pages[nodes.count] = page
                nodes.append(Node(pointer: pointer, tree: .files))
                halves.append(pointer)
            }
        }
        node.initialize(level: 2, tree: .files, uuid: superblock.internalUUID)
        node.address = address
        node.sequence = sequence
        node.birth = birth
        let encoded = ByteBuffer(count: halves[0].byteCount)
        let pointers = zip(halves, [items[0].key, items[items.count / 2].key]).map { half, key in
            var writer = ByteWriter(encoded.bytes)
            half.encode(&writer)
            return Item(key: key, value: encoded.view.toArray())
        }
        Self.store(pointers, root)
        superblock.headRoot.level = 2
        nodes[0].pointer.level = 2
        seal(pointersFollow: false)
        writeSuperblock()
        original = superblock
        pages.removeAll()
    }
}
