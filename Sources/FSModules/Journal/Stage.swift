/// Data that operations left to the journal: where it lies in the buffer until it is written home.
///
/// - Invariant: an entry goes only when its block on the device has the data, or when a durable
///   checkpoint no longer refers to the block.
internal import FSCore

struct Stage {
    struct Entry {
        var operation: UInt64
        /// Of the block's data in the buffer.
        var offset: UInt64
        /// The operation that released the block.
        var releasedBy = UInt64.max
    }

    private var entries: [UInt64: Entry] = [:]
    /// Offsets in order of arrival with their blocks; entries that went are skipped.
    private var order: [(offset: UInt64, block: UInt64)] = []
    private var orderHead = 0
    /// A range that holds every block of `entries`.
    private var lowest = UInt64.max
    private var highest: UInt64 = 0

    var isEmpty: Bool { entries.isEmpty }
    var byteCount: Int { entries.count * DiskFormat.blockSize }

    mutating func add(_ run: BlockRun, operation: UInt64, offset: UInt64) {
        for index in 0..<run.count {
            let block = run.start.block + index
            let place = offset + index << 12
            entries[block] = Entry(operation: operation, offset: place)
            order.append((place, block))
        }
        lowest = min(lowest, run.start.block)
        highest = max(highest, run.start.block + run.count - 1)
    }

    func entry(_ block: UInt64) -> Entry? {
        block < lowest || block > highest ? nil : entries[block]
    }

    /// Whether a block of `run` may be staged.
    func mayTouch(_ run: BlockRun) -> Bool {
        !entries.isEmpty && run.start.block <= highest && run.start.block + run.count > lowest
    }

    mutating func release(_ run: BlockRun, by operation: UInt64) {
        guard mayTouch(run) else { return }
        if run.count <= UInt64(entries.count) {
            for block in run.start.block..<run.start.block + run.count {
                entries[block]?.releasedBy = operation
            }
        } else {
            for block in entries.keys
            where block >= run.start.block && block < run.start.block + run.count {
                entries[block]?.releasedBy = operation
            }
        }
    }

    /// What must be written home of the operations up to `operation`, in no order. Blocks that were
    /// released up to `cut` are left out: the checkpoint with this cut does not refer to them.
    func toWrite(upTo operation: UInt64, cut: UInt64) -> [(block: UInt64, entry: Entry)] {
        entries.filter { $0.value.operation <= operation && $0.value.releasedBy > cut }
            .map { ($0.key, $0.value) }
    }

    /// Bytes staged by the operations behind `operation`.
    func bytes(after operation: UInt64) -> Int {
        // The youngest are at the end of the order.
        var count = 0
        for (offset, block) in order[orderHead...].reversed() {
            guard let entry = entries[block], entry.offset == offset else { continue }
            guard entry.operation > operation else { break }
            count += 1
        }
        return count * DiskFormat.blockSize
    }

    mutating func remove(_ block: UInt64, offset: UInt64) {
        if entries[block]?.offset == offset { entries[block] = nil }
        if entries.isEmpty {
            lowest = .max
            highest = 0
        }
    }

    /// Drops what was released up to `cut`, which is durable.
    mutating func dropReleased(upTo cut: UInt64) {
        for (block, entry) in entries where entry.releasedBy <= cut {
            remove(block, offset: entry.offset)
        }
    }

    /// The smallest offset that is still needed; nil if none is.
    mutating func oldestOffset() -> UInt64? {
        if orderHead > 1024, orderHead > order.count / 2 {
            order.removeFirst(orderHead)
            orderHead = 0
        }
        while orderHead < order.count {
            let (offset, block) = order[orderHead]
            if entries[block]?.offset == offset { return offset }
            orderHead += 1
        }
        order.removeAll(keepingCapacity: true)
        orderHead = 0
        return nil
    }
}
