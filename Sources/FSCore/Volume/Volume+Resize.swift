/// Changes the size of an open volume, beside running operations.
///
///     grow    longer device ▶ two superblocks of the new size ▶ old end copies wiped ▶ allocate
///     shrink  bar the tail ▶ move what is in it (`Volume+Evacuate`) ▶ two superblocks of the new
///             size ▶ old end copies wiped ▶ the image file cut
///
/// Two superblocks, so that both pairs say the new size before anything lies where the old end was,
/// or the old end is gone. Until then a crash brings the volume back in either size.
///
/// - Invariant: one resize at a time.
/// - Invariant: the size grows only into a device that is long enough and durably so; the device is
///   cut only when both superblocks say that nothing is behind the cut.
extension Volume {
    /// What a resize to `target` would do. Changes nothing.
    public func planResize(_ target: ResizeTarget) throws(FSError) -> ResizePlan {
        if case .maximum = target { try physical.refresh() }
        // So that what was deleted does not count.
        if !options.readOnly { try checkpoint() }
        let old = layout
        let minimum = try minimumLayout()
        let wanted: UInt64
        switch target {
        case .bytes(let bytes): wanted = bytes
        case .more(let bytes):
            wanted =
                (old.blockCount << 12).addingReportingOverflow(bytes).overflow
                ? .max : old.blockCount << 12 + bytes
        case .less(let bytes): wanted = old.blockCount << 12 - min(bytes, old.blockCount << 12)
        case .minimum: wanted = min(minimum.blockCount, old.blockCount) << 12
        case .maximum: wanted = physical.byteCount
        }
        let blocks = DiskLayout.supportedBlockCount(atMost: wanted >> 12)
        guard blocks <= DiskLayout.maximumBlocks else {
            throw .tooLarge(bytes: wanted, maximum: DiskLayout.maximumBlocks << 12)
        }
        guard blocks >= DiskLayout.minimumBlocks else {
            throw .tooSmall(bytes: wanted, minimum: DiskLayout.minimumBlocks << 12)
        }
        var plan = ResizePlan(
            oldBytes: old.blockCount << 12, newBytes: blocks << 12,
            minimumBytes: minimum.blockCount << 12, movedBytes: 0)
        guard blocks < old.blockCount else {
            plan.movedBytes = blocksComingHome(DiskLayout(blockCount: blocks)) << 12
            return plan
        }
        guard blocks >= minimum.blockCount else {
            throw .cannotShrink(bytes: blocks << 12, minimum: minimum.blockCount << 12)
        }
        let new = DiskLayout(blockCount: blocks)
        for region in new.regionCount - 1..<old.regionCount {
            plan.movedBytes += try allocator.committedRuns(inRegion: region, from: new.usableEnd)
                .reduce(0) { $0 + UInt64($1.count) << 12 }
        }
        return plan
    }

    /// Resizes the volume, and its device where that is an image file.
    ///
    /// - Parameters:
    ///   - rate: bytes a second that are moved at most; nil: as fast as it goes.
    ///   - isCancelled: asked often. Once it is true, a shrink brings back what was moved and throws
    ///     `.interrupted`, unless nothing is left to be moved; a volume that grows does so all the same.
    /// - Returns: what was done, or `.busy` if another resize is running.
    public func resize(
        _ target: ResizeTarget, rate: UInt64? = nil,
        isCancelled: @escaping () -> Bool = { false },
        progress: @escaping (ResizeProgress) -> Void = { _ in }
    ) throws(FSError) -> ResizePlan {
        try requireWritable()
        let isFirst = stateLock.withLock {
            defer { isResizing = true }
            return !isResizing
        }
        guard isFirst else { throw .busy }
        defer { stateLock.withLock { isResizing = false } }
        var plan = try planResize(target)
        let old = layout
        let new = DiskLayout(blockCount: plan.newBytes >> 12, addressLimit: old.addressLimit)
        let pace = Pace(rate: rate, total: plan.movedBytes, isCancelled, progress)
        if new.blockCount >= old.blockCount {
            let grows = new.blockCount > old.blockCount
            if grows { try grow(from: old, to: new) }
            do throws(FSError) { try bringHome(pace) } catch {
                // It has its new size; the rest can come home any time.
                guard grows, error == .interrupted else { throw error }
                plan.movedBytes = pace.doneBytes
            }
        } else {
            try shrink(from: old, to: new, pace)
        }
        return plan
    }

    /// The smallest volume that could hold what there is, with the floors of its size and what says
    /// where the rest of today's has moved.
    private func minimumLayout() throws(FSError) -> DiskLayout {
        // A plan may be asked for while the size changes.
        let current = layout
        // Runs from each region on: each of them needs an entry if the region goes. Those before are
        // as many as the gaps into which they may have to be cut.
        var runs = [UInt64](repeating: 0, count: Int(current.regionCount) + 1)
        var blocks = runs
        var places = runs
        for region in (0..<current.regionCount).reversed() {
            let own = try allocator.committedRuns(inRegion: region, from: 0)
            runs[Int(region)] = runs[Int(region) + 1] + UInt64(own.count)
            blocks[Int(region)] =
                blocks[Int(region) + 1] + own.reduce(0) { $0 + UInt64($1.count) }
        }
        for region in 0..<current.regionCount {
            places[Int(region) + 1] =
                try places[Int(region)] + allocator.committedPlaces(inRegion: region)
        }
        let promised = treeLock.shared { window.promisedBlocks }
        let (used, journalEnd) = stateLock.withLock {
            (
                superblock.bitmapRoot.used,
                superblock.journalExtents.map { $0.start.block + $0.count }.max() ?? 0
            )
        }
        func upkeep(_ end: UInt64) throws(FSError) -> UInt64 {
            let region = end / DiskLayout.regionBlocks
            guard region < current.regionCount else { return 0 }
            let tail = try allocator.committedRuns(inRegion: region, from: end)
            let moved = runs[Int(region) + 1] + UInt64(tail.count)
            guard moved > 0 else { return 0 }
            let inTail = blocks[Int(region) + 1] + tail.reduce(0) { $0 + UInt64($1.count) }
            // A checkpoint may have made more runs in the tail since all were counted.
            let before = runs[0] - min(moved, runs[0])
            return Self.upkeepBlocks(entries: moved + min(inTail, before + region + 1))
        }
        func inPlaces(_ end: UInt64) throws(FSError) -> UInt64 {
            let region = end / DiskLayout.regionBlocks
            guard region < current.regionCount else { return .max }
            return try
                (places[Int(region)]
                + allocator.committedPlaces(inRegion: region, below: end))
                * DiskFormat.blocksPerNode
        }
        func fits(_ blocks: UInt64) throws(FSError) -> Bool {
            guard DiskLayout.isSupported(blocks) else { return false }
            let layout = DiskLayout(blockCount: blocks)
            let kept = SpaceFloors(allocatableBlocks: layout.allocatableBlocks)
                .kept(by: .ordinary, forNodes: 0)
            guard layout.usableEnd >= journalEnd else { return false }
            let entries = try upkeep(layout.usableEnd)
            let places = try inPlaces(layout.usableEnd)
            return layout.allocatableBlocks >= used + promised + kept.blocks + entries
                && places >= kept.inPlaces + entries
        }
        // Only sizes whose last region is too small lie between one that fits and one that does not.
        var low = DiskLayout.minimumBlocks
        var high = DiskLayout.maximumBlocks
        while low < high {
            let middle = (low + high) / 2
            let candidate = max(
                DiskLayout.supportedBlockCount(atMost: middle), DiskLayout.minimumBlocks)
            if try fits(candidate) { high = min(candidate, middle) } else { low = middle + 1 }
        }
        // What there is fits into what there is, also when its places are fewer than they should be.
        return DiskLayout(
            blockCount: min(DiskLayout.supportedBlockCount(atMost: high), current.blockCount))
    }

    /// Blocks of the nodes of the volume tree in which entries of moved runs stand, old and new ones
    /// of one checkpoint, where a run may have been cut to fit into a gap.
    private static func upkeepBlocks(entries: UInt64) -> UInt64 {
        let entriesInANode = UInt64(NodePage.capacity / NodePage.itemSize(RemapRecord.byteCount))
        let nodes = 12 + 4 * entries / entriesInANode
        return nodes * DiskFormat.blocksPerNode * UInt64(DiskFormat.nodeReplicas)
    }

    // MARK: Grow

    private func grow(from old: DiskLayout, to new: DiskLayout) throws(FSError) {
        if new.blockCount << 12 > physical.byteCount {
            try physical.resize(to: new.blockCount << 12)
        }
        try writeSize(old, new)
        geometry.change(to: new)
        allocator.resized(from: old)
        try allocator.setUsable(new)
    }

    /// Makes a new size durable in both superblock pairs, and wipes the copies at the old end.
    func writeSize(_ old: DiskLayout, _ new: DiskLayout) throws(FSError) {
        for _ in 0...1 {
            try checkpoint(force: true) {
                $0.devices[0].blockCount = new.blockCount
                if usesRemaps { $0.addressLimit = max($0.addressLimit, new.addressLimit) }
            }
        }
        let kept = (0...1).map {
            DiskLayout.superblockPlaces(pair: $0, blockCount: new.blockCount).end
        }
        let zeros = ByteBuffer(count: DiskFormat.blockSize)
        for pair in 0...1 {
            let place = DiskLayout.superblockPlaces(pair: pair, blockCount: old.blockCount).end
            if !kept.contains(place) { try physical.write(zeros.view, at: place << 12) }
        }
        try physical.flush()
    }
}

/// What size a volume shall have.
public enum ResizeTarget: Equatable, Sendable {
    case bytes(UInt64)
    case more(UInt64)
    case less(UInt64)
    case minimum
    /// All of the device; of an image file, its length.
    case maximum
}

/// What a resize does.
public struct ResizePlan: Equatable, Sendable {
    public var oldBytes: UInt64
    /// Rounded down to a size that a volume can have.
    public var newBytes: UInt64
    /// The smallest size that is possible now.
    public var minimumBytes: UInt64
    /// To be copied from one place to another.
    public var movedBytes: UInt64
}

/// How far a resize is.
public struct ResizeProgress: Sendable {
    public var doneBytes: UInt64
    public var totalBytes: UInt64
}

/// Tells how far moving is, holds it back to a rate, and asks whether it shall end.
final class Pace {
    private let rate: UInt64?
    private let isCancelled: () -> Bool
    private let progress: (ResizeProgress) -> Void
    private let start = monotonicNanoseconds()
    private let lock = Mutex()
    private var total: UInt64
    private var done: UInt64 = 0

    init(
        rate: UInt64?, total: UInt64, _ isCancelled: @escaping () -> Bool,
        _ progress: @escaping (ResizeProgress) -> Void
    ) {
        self.rate = rate
        self.total = total
        self.isCancelled = isCancelled
        self.progress = progress
    }

    var hasEnded: Bool { isCancelled() }
    var doneBytes: UInt64 { done }

    /// So many bytes more were moved.
    func advance(_ bytes: UInt64) {
        done += bytes
        total = max(total, done)
        progress(ResizeProgress(doneBytes: done, totalBytes: total))
        guard let rate, rate > 0 else { return }
        while !isCancelled() {
            let due = Double(done) / Double(rate) * 1000
            let elapsed = Double(monotonicNanoseconds() - start) / 1e6
            guard due > elapsed else { return }
            wait(milliseconds: min(Int(due - elapsed) + 1, 100))
        }
    }

    func wait(milliseconds: Int) { lock.withLock { lock.wait(milliseconds: milliseconds) } }
}
