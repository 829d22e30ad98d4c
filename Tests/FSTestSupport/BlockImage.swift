/// The contents of a device as a value: copies share their blocks, so that a crash test can keep
/// hundreds of states of one device.
internal import FSCore

struct BlockImage: Sendable {
    static let blockSize = 4096
    typealias Block = [UInt8]

    /// Blocks that are not here read as zero.
    private(set) var blocks: [UInt64: Block] = [:]

    subscript(_ number: UInt64) -> Block {
        get { blocks[number] ?? Self.zeroBlock }
        set { blocks[number] = newValue }
    }

    static let zeroBlock = Block(repeating: 0, count: blockSize)

    func read(into target: MutableByteView, at offset: UInt64) {
        for index in 0..<target.count / Self.blockSize {
            let place = target.slice(index * Self.blockSize, Self.blockSize)
            if let block = blocks[offset / UInt64(Self.blockSize) + UInt64(index)] {
                block.withView { place.copy($0) }
            } else {
                place.zeroAll()
            }
        }
    }

    mutating func apply(_ write: DeviceWrite) {
        for (index, block) in write.blocks.enumerated() {
            blocks[write.firstBlock + UInt64(index)] = block
        }
    }

    /// Applies the sectors of a write for which `keeps` says so; what becomes of the others,
    /// `lost` decides.
    mutating func apply(
        _ write: DeviceWrite, sectorSize: Int, random: inout SeededRandom, lost: LostSectors
    ) {
        for (index, new) in write.blocks.enumerated() {
            let number = write.firstBlock + UInt64(index)
            var block = self[number]
            for start in stride(from: 0, to: Self.blockSize, by: sectorSize) {
                let range = start..<start + sectorSize
                if random.chance(1, in: 2) {
                    block.replaceSubrange(range, with: new[range])
                    continue
                }
                switch lost.choose(&random) {
                case .old: break
                case .zero: for position in range { block[position] = 0 }
                default: block.replaceSubrange(range, with: random.bytes(sectorSize))
                }
            }
            blocks[number] = block
        }
    }
}

/// One write as the device saw it.
struct DeviceWrite: Sendable {
    var firstBlock: UInt64
    var blocks: [BlockImage.Block]

    init(_ source: ByteView, at offset: UInt64) {
        firstBlock = offset / UInt64(BlockImage.blockSize)
        blocks = stride(from: 0, to: source.count, by: BlockImage.blockSize).map {
            source.slice($0, BlockImage.blockSize).toArray()
        }
    }
}

/// What a crash leaves in sectors of a write that was under way and did not get there.
public enum LostSectors: CaseIterable, Sendable {
    case old, zero, garbage
    /// Each sector as chance has it.
    case any

    func choose(_ random: inout SeededRandom) -> LostSectors {
        self == .any ? random.pick([.old, .zero, .garbage]) : self
    }
}
