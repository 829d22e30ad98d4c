/// The place of the journal on the device: up to sixteen extents that count as one row of blocks.
///
/// - Invariant: a record lies within one extent, so that it is written with one call.
internal import FSCore

struct JournalRing {
    let device: any BlockDevice
    let extents: [BlockRun]
    let blockCount: UInt64

    init(_ device: any BlockDevice, _ extents: [BlockRun]) {
        self.device = device
        self.extents = extents
        blockCount = extents.reduce(0) { $0 + $1.count }
    }

    var recordLimit: Int {
        min(JournalFormat.maximumRecordSize, Int(blockCount) * DiskFormat.blockSize / 8)
    }

    /// Where a block of the ring lies, and how many follow it in the same extent, itself included.
    func locate(_ block: UInt64) -> (offset: UInt64, contiguous: UInt64) {
        var rest = block
        for extent in extents {
            if rest < extent.count {
                return ((extent.start.block + rest) << 12, extent.count - rest)
            }
            rest -= extent.count
        }
        preconditionFailure("a block behind the end of the ring")
    }

    /// The first position from `position` on at which `blocks` lie in one extent.
    func place(_ blocks: UInt64, from position: UInt64) -> UInt64 {
        var position = position
        // Every extent can hold a record (`JournalGeometry`).
        for _ in 0...extents.count {
            let contiguous = locate(position % blockCount).contiguous
            if contiguous >= blocks { return position }
            position += contiguous
        }
        preconditionFailure("no extent of the ring holds a record of \(blocks) blocks")
    }

    func write(_ record: ByteView, at position: UInt64) throws(FSError) {
        try device.write(record, at: locate(position % blockCount).offset)
    }
}

/// Reads a ring through a window, block by block where the device refuses more.
struct JournalRingWindow {
    private let ring: JournalRing
    /// So many blocks are read at once, if nobody asks for more.
    private let ahead: UInt64
    private var buffer = ByteBuffer(count: 0)
    private var first: UInt64 = 0
    private var count: UInt64 = 0
    /// Blocks that the device has refused.
    private(set) var unreadable: Set<UInt64> = []

    /// For somebody who knows where the records are.
    init(_ ring: JournalRing) {
        self.ring = ring
        ahead = 1
    }

    /// For a reader of the whole ring, front to back. A small ring is read in small pieces: memory
    /// that is used for the first time costs more than the calls.
    init(scanning ring: JournalRing) {
        self.ring = ring
        ahead = min(max(ring.blockCount / 8, 64), 1024)
    }

    /// `blocks` blocks from ring block `block` on, which must lie in one extent; at most 1 MiB.
    /// What cannot be read is zeros.
    mutating func view(_ block: UInt64, _ blocks: UInt64) -> ByteView {
        if block < first || block + blocks > first + count { load(block, atLeast: blocks) }
        return buffer.view.slice(
            Int(block - first) * DiskFormat.blockSize, Int(blocks) * DiskFormat.blockSize)
    }

    private mutating func load(_ block: UInt64, atLeast blocks: UInt64) {
        let (offset, contiguous) = ring.locate(block)
        first = block
        count = min(contiguous, max(blocks, ahead))
        let size = Int(count) * DiskFormat.blockSize
        if buffer.count < size { buffer = ByteBuffer(count: size) }
        let target = buffer.bytes.slice(0, size)
        do throws(FSError) {
            try ring.device.read(into: target, at: offset)
        } catch {
            for index in 0..<Int(count) {
                let part = target.slice(index * DiskFormat.blockSize, DiskFormat.blockSize)
                do throws(FSError) {
                    try ring.device.read(into: part, at: offset + UInt64(index << 12))
                } catch {
                    part.zeroAll()
                    unreadable.insert(block + UInt64(index))
                }
            }
        }
    }
}
