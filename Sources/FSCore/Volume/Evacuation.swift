/// What happens in the tail of a volume that is being shrunk, while its blocks are copied: which of
/// them were released since, and so must not be moved. Guarded by the tree lock.
final class Evacuation {
    /// The first block of the tail.
    let boundary: UInt64
    private var released: [UInt64: ByteBuffer] = [:]

    init(boundary: UInt64) { self.boundary = boundary }

    func noteReleased(_ run: BlockRun) {
        guard run.blocks.upperBound > boundary else { return }
        let region = run.start.block / DiskLayout.regionBlocks
        let bits = released[region] ?? ByteBuffer(count: DiskFormat.blockSize)
        released[region] = bits
        BlockBits(bits.bytes).set(
            Int(run.start.block % DiskLayout.regionBlocks), Int(run.count))
    }

    /// Whether a block of a range, which lies in one region, was released.
    func hasReleased(_ range: Range<UInt64>) -> Bool {
        guard let bits = released[range.lowerBound / DiskLayout.regionBlocks] else { return false }
        return !BlockBits(bits.bytes).isClear(
            Int(range.lowerBound % DiskLayout.regionBlocks), range.count)
    }

    /// Begins anew, before a checkpoint that will know everything so far.
    func forget() { released = [:] }
}
