/// What is done to a sealed image: bytes as bit rot or stale data would have them, and structures as
/// somebody would have them who knows the format.
import FSModules
import FSTestSupport

@testable import FSCore

extension SealedImage {
    private enum Mutation: CaseIterable {
        case scrambleHeader, scrambleSlots, scrambleValues, setField
        case copyPointer, mixPointers, swapRoots
        case swapValues, copyItem, editKey, copyLeaf
        case editVolumeItem
        case aliasExtent, addReplica, editEncoding, scrambleEncoded
        case scrambleBitmap, freeNodes, fillBitmap
    }

    /// Makes the next image: a few mutations, everything sealed.
    func mutate(_ random: inout SeededRandom) {
        reset()
        for _ in 0..<random.weighted([(5, 1), (2, 2), (1, 3), (1, 0)]) {
            apply(random.pick(Mutation.allCases), &random)
        }
        seal(pointersFollow: random.chance(1, in: 2))
        let isSuperblockHostile = random.chance(1, in: 6)
        writeSuperblock { bytes in
            if isSuperblockHostile { Self.editSuperblock(bytes, &random) }
        }
    }

    private func apply(_ mutation: Mutation, _ random: inout SeededRandom) {
        switch mutation {
        case .scrambleHeader:
            Self.scramble(anyPage(&random).bytes.slice(32, NodePage.headerSize - 32), &random)
        case .scrambleSlots:
            let page = anyPage(&random)
            let room = (page.count - NodePage.headerSize) / NodePage.slotSize
            let count = min(Int(page.view.u16(130)), room)
            guard count > 0 else { return }
            let slots = page.bytes.slice(NodePage.headerSize, count * NodePage.slotSize)
            Self.scramble(slots, &random)
        case .scrambleValues:
            let page = anyPage(&random)
            let start = Int(page.view.u16(132))
            guard start < page.count else { return }
            Self.scramble(page.bytes.slice(start, page.count - start), &random)
        case .setField: setField(&random)
        case .copyPointer: copyPointer(&random)
        case .mixPointers: mixPointers(&random)
        case .swapRoots: swapRoots(&random)
        case .swapValues: swapValues(&random)
        case .copyItem: copyItem(&random)
        case .editKey: editKey(&random)
        case .copyLeaf:
            // Everything but the header's own place, so that the copy is a node of its place.
            let (source, target) = (page(leaf(&random)), page(leaf(&random)))
            target.bytes.copy(source.view.slice(128, source.count - 128), at: 128)
        case .editVolumeItem: editVolumeItem(&random)
        case .aliasExtent: aliasExtent(&random)
        case .addReplica: addReplica(&random)
        case .editEncoding: editEncoding(&random)
        case .scrambleEncoded: scrambleEncoded(&random)
        case .scrambleBitmap:
            let level = random.pick(DiskLayout.BitmapLevel.allCases)
            editBitmap(level, countsFollow: random.chance(3, in: 4)) {
                Self.scramble($0.slice(0, level == .leaf ? 640 : 64), &random)
            }
        case .freeNodes: freeNodes(&random)
        case .fillBitmap:
            editBitmap(.leaf, countsFollow: true) { bytes in
                let bits = BlockBits(bytes)
                let end = Int(layout.blockCount - DiskLayout.endReserve)
                var block = random.integer(in: 128...end)
                while block < end {
                    if layout.isAllocatable(BlockRun(BlockAddress(block: UInt64(block)), 1)) {
                        bits.set(block, 1)
                    }
                    block += 1
                }
            }
        }
    }

    // MARK: Choices

    private func anyPage(_ random: inout SeededRandom) -> ByteBuffer {
        page(random.below(nodes.count))
    }
    private func leaf(_ random: inout SeededRandom) -> Int {
        random.pick(nodes.indices.filter { nodes[$0].pointer.level == 0 })
    }
    private func innerNode(_ random: inout SeededRandom) -> Int {
        random.pick(nodes.indices.filter { nodes[$0].pointer.level > 0 })
    }

    /// Numbers at which arithmetic and comparisons break, and places where something else lies.
    private func extreme(_ random: inout SeededRandom) -> UInt64 {
        let around = UInt64(truncatingIfNeeded: random.integer(in: -2...2))
        switch random.below(4) {
        case 0: return random.pick([0, .max, 1 << 63, UInt64(random.below(256))]) &+ around
        case 1: return 1 << UInt64(random.below(64)) &+ around
        case 2: return nodes[random.below(nodes.count)].pointer.address.block
        default:
            return random.pick([
                16, 64, 127, 128, 3840, 3856, 4096, layout.blockCount, layout.blockCount - 32,
            ]) &+ around
        }
    }

    /// Changes a few places, the way bit rot, stale data or malice would.
    private static func scramble(_ bytes: MutableByteView, _ random: inout SeededRandom) {
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

    private static func store(_ value: UInt64, width: Int, _ bytes: MutableByteView, _ at: Int) {
        for index in 0..<width where at + index < bytes.count {
            bytes[at + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
    }

    /// Changes the items of a node; keys are put in order again, mostly.
    private func editItems(
        _ index: Int, _ random: inout SeededRandom,
        _ edit: (inout [Item], inout SeededRandom) -> Void
    ) {
        let page = page(index)
        guard var items = Self.items(page) else { return }
        edit(&items, &random)
        if random.chance(15, in: 16) { items.sort { $0.key < $1.key } }
        Self.store(items, page)
    }

    // MARK: Values and keys

    /// An extreme number in the middle of a record.
    private func setField(_ random: inout SeededRandom) { setField(in: leaf(&random), &random) }

    /// The table of snapshots, deadlists, counts of shared blocks and the rest of the volume tree.
    private func editVolumeItem(_ random: inout SeededRandom) {
        let leaves = nodes.indices.filter {
            nodes[$0].tree == .volume && nodes[$0].pointer.level == 0
        }
        for _ in 0..<random.integer(in: 1...3) { setField(in: random.pick(leaves), &random) }
    }

    private func setField(in leaf: Int, _ random: inout SeededRandom) {
        editItems(leaf, &random) { items, random in
            guard !items.isEmpty else { return }
            let index = random.below(items.count)
            let width = random.pick([1, 2, 4, 8, 8])
            guard items[index].value.count >= width else { return }
            var at = random.below(min(items[index].value.count - width + 1, 168))
            if random.chance(3, in: 4) { at -= at % width }
            let value = extreme(&random)
            for byte in 0..<width {
                items[index].value[at + byte] = UInt8(
                    truncatingIfNeeded: value >> UInt64(8 * byte))
            }
        }
    }

    /// Two values change places, or one stands at both; of the same type, mostly.
    private func swapValues(_ random: inout SeededRandom) {
        let (a, b) = (leaf(&random), leaf(&random))
        guard let first = Self.items(page(a)), let second = Self.items(page(b)), !first.isEmpty
        else { return }
        let i = random.below(first.count)
        let isAnyType = random.chance(1, in: 4)
        let choices = second.indices.filter {
            isAnyType || second[$0].key.type == first[i].key.type
        }
        guard !choices.isEmpty else { return }
        let j = random.pick(choices)
        let isSwap = random.chance(1, in: 2)
        editItems(b, &random) { items, _ in items[j].value = first[i].value }
        if isSwap {
            editItems(a, &random) { items, _ in
                if i < items.count { items[i].value = second[j].value }
            }
        }
    }

    /// An item stands in another leaf too, or again in its own, under a key that fits there, mostly.
    private func copyItem(_ random: inout SeededRandom) {
        guard let items = Self.items(page(leaf(&random))), !items.isEmpty else { return }
        var copies: [Item] = []
        for _ in 0..<random.integer(in: 1...4) { copies.append(random.pick(items)) }
        editItems(leaf(&random), &random) { items, random in
            for var copy in copies {
                if let near = items.isEmpty ? nil : random.pick(items).key {
                    switch random.below(4) {
                    case 0: break
                    case 1: copy.key.object = near.object
                    case 2: copy.key = near.next ?? near
                    default:
                        copy.key.object = near.object
                        copy.key.offset &+= UInt64(random.integer(in: 1...3)) << 12
                    }
                }
                // Room for it, if the node is full.
                if random.chance(1, in: 2), items.count > 1 {
                    items.remove(at: random.below(items.count))
                }
                items.append(copy)
            }
        }
    }

    private func editKey(_ random: inout SeededRandom) {
        let index = random.chance(1, in: 4) ? innerNode(&random) : leaf(&random)
        editItems(index, &random) { items, random in
            guard !items.isEmpty else { return }
            let at = random.below(items.count)
            switch random.below(4) {
            case 0: items[at].key.object = extreme(&random)
            case 1:
                let types: [UInt8] = [
                    0, 8, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x49, 0x50, 0x51, 0x58,
                    0x60, 0x64, 0x68, 0xFF,
                ]
                items[at].key = Key(
                    items[at].key.object, ItemType(rawValue: random.pick(types)),
                    items[at].key.offset)
            case 2: items[at].key.offset = extreme(&random)
            default: items.remove(at: at)
            }
        }
    }

    // MARK: Pointers

    /// A node is reached from two slots, of the same node, of another, or of a leaf of the volume
    /// tree that is made an inner node.
    private func copyPointer(_ random: inout SeededRandom) {
        guard let items = Self.items(page(innerNode(&random))), !items.isEmpty else { return }
        let copy = random.pick(items)
        if random.chance(1, in: 6) {
            guard let root = nodes.indices.last(where: { nodes[$0].tree == .volume }) else {
                return
            }
            let page = page(root)
            page.bytes[37] = copy.value.count > 2 ? copy.value[2] &+ 1 : 1
            superblock.volumeRoot.level = page.bytes[37]
            Self.store([copy], page)
            return
        }
        editItems(innerNode(&random), &random) { items, random in
            guard !items.isEmpty else { return }
            let at = random.below(items.count)
            switch random.below(3) {
            case 0: items[at].value = copy.value
            case 1: items[at] = copy
            default: items.append(Item(key: items[at].key.next ?? copy.key, value: copy.value))
            }
        }
    }

    /// A pointer whose copies lie where another node does, or on top of each other.
    private func mixPointers(_ random: inout SeededRandom) {
        let other = nodes[random.below(nodes.count)].pointer
        let from = random.below(2)
        let to = random.below(2)
        let shift = random.pick([0, 0, 0, 1, 3, 4])
        editItems(innerNode(&random), &random) { items, random in
            guard !items.isEmpty else { return }
            let at = random.below(items.count)
            guard items[at].value.count == 40 else { return }
            let address = other.replicas[from].rawValue &+ UInt64(shift)
            for byte in 0..<8 {
                items[at].value[20 + 8 * to + byte] = UInt8(
                    truncatingIfNeeded: address >> UInt64(8 * byte))
            }
        }
    }

    private func swapRoots(_ random: inout SeededRandom) {
        switch random.below(4) {
        case 0:
            let head = superblock.headRoot
            superblock.headRoot = superblock.volumeRoot
            superblock.volumeRoot = head
        case 1: superblock.volumeRoot = superblock.headRoot
        case 2: superblock.volumeRoot = nodes[random.below(nodes.count)].pointer
        default: superblock.headRoot = nodes[random.below(nodes.count)].pointer
        }
        guard random.chance(1, in: 2) else { return }
        // The node also says that it is of that tree.
        for (root, tree) in [
            (superblock.headRoot, TreeKind.files), (superblock.volumeRoot, TreeKind.volume),
        ] {
            if let index = nodes.firstIndex(where: { $0.pointer.address == root.address }) {
                page(index).bytes.store(tree.rawValue, at: 64)
            }
        }
    }

    // MARK: Blocks that belong to two

    /// An extent that lies on a node, on another extent, or where nothing may.
    private func aliasExtent(_ random: inout SeededRandom) {
        let target = extreme(&random)
        editExtent(&random) { value in
            for byte in 0..<8 {
                value[32 + byte] = UInt8(truncatingIfNeeded: target >> UInt64(8 * byte))
            }
        }
    }

    /// An extent that has its blocks twice.
    private func addReplica(_ random: inout SeededRandom) {
        editExtent(&random) { value in
            value[5] += 1
            value.insert(contentsOf: value[32..<40], at: 40)
        }
    }

    /// An encoded extent that says something else of what it decodes to.
    private func editEncoding(_ random: inout SeededRandom) {
        // Codec; blocks; skip; whole; unused.
        let field = random.pick([2, 8, 24, 28, 30])
        let value = UInt8(random.weighted([(3, random.below(34)), (1, random.below(256))]))
        editExtent(&random, isEncoded: true) { $0[field] = value }
    }

    /// Encoded bytes that were changed, with the right sum.
    private func scrambleEncoded(_ random: inout SeededRandom) {
        var fork = random.fork()
        editExtent(&random, isEncoded: true) { value in
            guard value.count >= 44 else { return }
            let place = value.withView { $0.u64(32) } << 12
            let block = ByteBuffer(count: DiskFormat.blockSize)
            guard (try? device.read(into: block.bytes, at: place)) != nil else { return }
            Self.scramble(block.bytes.slice(0, fork.pick([16, 200, 4096])), &fork)
            try? device.write(block.view, at: place)
            value.withUnsafeMutableBytes { buffer in
                let target = MutableByteView(base: buffer.baseAddress!, count: buffer.count)
                checksum.sum(block.view).store(target, 40, count: 4)
            }
        }
    }

    private func editExtent(
        _ random: inout SeededRandom, isEncoded: Bool = false, _ edit: (inout [UInt8]) -> Void
    ) {
        let leaves = nodes.indices.filter { index in
            nodes[index].pointer.level == 0
                && Self.items(page(index))?.contains { $0.key.type == .extent } == true
        }
        guard !leaves.isEmpty else { return }
        editItems(random.pick(leaves), &random) { items, random in
            let extents = items.indices.filter {
                items[$0].key.type == .extent && items[$0].value.count >= 40
                    && (!isEncoded || items[$0].value[2] != 0)
            }
            guard !extents.isEmpty else { return }
            edit(&items[random.pick(extents)].value)
        }
    }

    /// Nodes that the bitmap calls free, so that they are handed out while they are in use.
    private func freeNodes(_ random: inout SeededRandom) {
        let chance = random.pick([1, 4, 16])
        editBitmap(.leaf, countsFollow: true) { bytes in
            let bits = BlockBits(bytes)
            for node in nodes where random.chance(chance, in: 16) {
                for replica in 0..<node.pointer.replicas.count {
                    let start = Int(node.pointer.replicas[replica].block)
                    bits.clear(start, Int(DiskFormat.blocksPerNode))
                }
            }
        }
    }

    // MARK: Superblock

    /// Where the integers of a superblock lie: offset and width.
    private static let superblockFields: [(offset: Int, width: Int)] = {
        let plain: [Int: [Int]] = [
            1: [12, 13, 14, 15, 237, 238, 239, 896], 2: [164, 166], 4: [8, 160, 176, 440, 856],
            5: [232],
            8: [
                16, 24, 32, 136, 144, 152, 168, 184, 192, 200, 208, 224, 432, 448, 456, 848, 880,
                888, 1448,
            ],
        ]
        var fields: [(offset: Int, width: Int)] = []
        for width in plain.keys.sorted() {
            for offset in plain[width] ?? [] { fields.append((offset, width)) }
        }
        for root in [240, 336] {
            for offset in 0..<3 { fields.append((root + offset, 1)) }
            for offset in [4, 12, 20, 28] { fields.append((root + offset, 8)) }
        }
        // The error counters.
        for index in 0..<8 { fields.append((704 + 8 * index, 8)) }
        return fields
    }()

    private static let superblockExtremes: [UInt64] = [
        0, 1, 2, 3, .max, .max - 1, 1 << 63, 1 << 62, 1 << 62 - 1, 1 << 48, 1 << 48 - 1,
        1 << 48 - 2, 1 << 40 - 1, 1 << 32, 4096, 4097, 5119, 5120, 5121, 1 << 39,
    ]

    private static func editSuperblock(_ bytes: MutableByteView, _ random: inout SeededRandom) {
        guard random.chance(3, in: 4) else {
            scramble(bytes.slice(8, 1400), &random)
            return
        }
        for _ in 0..<random.integer(in: 1...3) {
            let (offset, width) = random.pick(superblockFields)
            store(random.pick(superblockExtremes), width: width, bytes, offset)
        }
    }
}
