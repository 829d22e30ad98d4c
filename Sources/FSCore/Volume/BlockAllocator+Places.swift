/// Places: four free blocks that begin at a multiple of four, as a node needs them. Free space that is
/// not in places lies in *gaps*, of which only data can make use; so data may not take the last places
/// as long as there are gaps, and what is kept for those who make space is counted in places.
///
///     | . . . . | # . . # | . . # . | . . . . |     two places; gaps of 2, 2 and 1 blocks
///
/// Counted are the regions that were looked at. While they have too few places another one is looked
/// at, until there are enough or there is none.
///
/// - Invariant: `seen` is what the busy bitmaps of the loaded regions say, within `layout`.
/// - Invariant: ordinary data leaves more places than ordinary nodes must leave, and still more while there
///   are gaps, so that filling them finds places for the nodes that say so.
/// - Invariant: nodes lie in places, except when there is none. So a node that is freed makes a place.
extension BlockAllocator {
    /// Free space of the regions that were looked at.
    struct SeenSpace {
        var free = 0
        var places = 0
        /// Where the next region is that may not have been looked at, and whether there is any.
        var next: UInt64 = 0
        var isAll = false

        var placeBlocks: UInt64 { UInt64(places) * DiskFormat.blocksPerNode }
        var gapBlocks: UInt64 { UInt64(max(free - places * Int(DiskFormat.blocksPerNode), 0)) }
    }

    var floors: SpaceFloors {
        SpaceFloors(allocatableBlocks: lock.withLock { layout.allocatableBlocks })
    }

    // MARK: Counting, with the lock held

    /// A region was loaded.
    func look(at region: Region, _ number: UInt64) {
        let limit = layout.usableBlocks(inRegion: number)
        let bits = BlockBits(region.busy.bytes)
        region.places = bits.placeCount(0..<limit / 4 * 4)
        seen.places += region.places
        seen.free += limit - bits.population(below: limit)
    }

    /// A region is forgotten.
    func lookAway(from region: Region, _ number: UInt64) {
        let limit = layout.usableBlocks(inRegion: number)
        seen.places -= region.places
        seen.free -= limit - BlockBits(region.busy.bytes).population(below: limit)
        seen.next = min(seen.next, number)
        seen.isAll = false
    }

    /// Regions have another size.
    func lookAgain() {
        seen = SeenSpace()
        for (number, region) in regions { look(at: region, number) }
    }

    /// Before the blocks of a free run are taken.
    func noteTaken(_ run: BlockRun, _ region: Region) {
        let count = places(touchedBy: run, region)
        region.places -= count
        seen.places -= count
        seen.free -= Int(usablePart(run))
    }

    /// After the blocks of a run were freed.
    func noteFreed(_ run: BlockRun, _ region: Region) {
        let count = places(touchedBy: run, region)
        region.places += count
        seen.places += count
        seen.free += Int(usablePart(run))
    }

    private func places(touchedBy run: BlockRun, _ region: Region) -> Int {
        let first = Int(run.start.block % DiskLayout.regionBlocks)
        let limit = layout.usableBlocks(inRegion: run.start.block / DiskLayout.regionBlocks)
        let end = min((first + Int(run.count) + 3) / 4, limit / 4) * 4
        let start = first / 4 * 4
        return start < end ? BlockBits(region.busy.bytes).placeCount(start..<end) : 0
    }

    // MARK: Asking

    /// Whether `blocks` blocks are known to lie in places. With the lock held, which is given up while
    /// regions are loaded.
    private func hasInPlaces(_ blocks: UInt64) throws(FSError) -> Bool {
        while seen.placeBlocks < blocks {
            guard try lookFurther() else { return false }
        }
        return true
    }

    /// Loads another region; false if there is none.
    private func lookFurther() throws(FSError) -> Bool {
        while !seen.isAll {
            let number = seen.next
            guard number < layout.regionCount else {
                seen.isAll = true
                break
            }
            let isKnown = regions[number] != nil || closedRegions.contains(number)
            // One that cannot be read now is asked for again.
            if !isKnown { _ = try loadedRegion(number) }
            if seen.next == number { seen.next += 1 }
            if !isKnown { return true }
        }
        return false
    }

    /// Whether there is more than what must be kept. True also if the bitmap cannot be read: who
    /// allocates hears of it.
    func hasRoom(beyond kept: KeptSpace) -> Bool {
        freeBlocks > kept.blocks
            && lock.withLock {
                (try? hasInPlaces(kept.inPlaces + DiskFormat.blocksPerNode)) ?? true
            }
    }

    /// Whether the nodes that say what is in the gaps would find places: those of any small operation,
    /// and of one that fills many gaps.
    func canFillGaps(leaving kept: KeptSpace) -> Bool {
        lock.withLock {
            let change = Self.smallChange + min(seen.gapBlocks / 8, Self.largeChange)
            return (try? hasInPlaces(kept.inPlaces + change)) ?? true
        }
    }
    private static let smallChange: UInt64 = 96
    private static let largeChange: UInt64 = 256

    /// How many blocks data may take out of places: `now`, and when there is no gap left. With the lock
    /// held, which is given up while regions are loaded.
    func spareBlocks(leaving kept: KeptSpace) throws(FSError) -> (now: UInt64, atMost: UInt64) {
        while true {
            let wanted = kept.inPlacesIfPossible + seen.gapBlocks / 8
            let have = seen.placeBlocks
            if have >= wanted + DiskFormat.blocksPerNode { return (have - wanted, have - wanted) }
            guard try lookFurther() else {
                return (0, have - min(have, kept.inPlaces))
            }
        }
    }

    // MARK: Taking

    /// Free blocks outside of places, from `start` on around the device. With the lock held. All
    /// regions have been looked at.
    func searchGap(_ want: UInt64, from start: UInt64) throws(FSError) -> BlockRun? {
        let count = layout.regionCount
        let startRegion = min(start / DiskLayout.regionBlocks, count - 1)
        for step in 0...count {
            let number = (startRegion + step) % count
            guard let region = regions[number] else { continue }
            guard region.free > region.places * Int(DiskFormat.blocksPerNode) else { continue }
            let gap = BlockBits(region.busy.bytes).firstGap(
                Int(want), from: step == 0 ? Int(start % DiskLayout.regionBlocks) : 0,
                limit: layout.usableBlocks(inRegion: number))
            guard let gap else { continue }
            let run = BlockRun(
                BlockAddress(block: number * DiskLayout.regionBlocks + UInt64(gap.lowerBound)),
                UInt64(gap.count))
            take(run)
            return run
        }
        return nil
    }

    /// One run for each replica of a node, far apart.
    func allocateNode(leaving kept: KeptSpace) throws(FSError) -> ReplicaList {
        var replicas = ReplicaList()
        for index in 0..<DiskFormat.nodeReplicas {
            do throws(FSError) {
                let run = try lock.withLock { () throws(FSError) in
                    try takePlace(from: nodeCursors[index], leaving: kept)
                }
                guard let run else { throw .noSpace }
                lock.withLock { nodeCursors[index] = run.start.block + run.count }
                replicas.append(run.start)
            } catch {
                cancel(replicas)
                throw error
            }
        }
        return replicas
    }

    func cancel(_ replicas: ReplicaList) {
        for index in 0..<replicas.count {
            cancel(BlockRun(replicas[index], DiskFormat.blocksPerNode))
        }
    }

    /// With the lock held, which is given up while regions are loaded.
    private func takePlace(
        from start: UInt64, leaving kept: KeptSpace
    ) throws(FSError) -> BlockRun? {
        let size = DiskFormat.blocksPerNode
        let free = layout.allocatableBlocks - min(busyBlocks, layout.allocatableBlocks)
        guard free >= kept.blocks + size else { return nil }
        if kept.inPlaces > 0, !brokenRules.contains(.dataTakesLastPlaces),
            try !hasInPlaces(kept.inPlaces + size)
        {
            return nil
        }
        let count = layout.regionCount
        let startRegion = min(start / DiskLayout.regionBlocks, count - 1)
        for step in 0...count {
            let number = (startRegion + step) % count
            guard let region = try loadedRegion(number), region.places > 0 else { continue }
            let place = BlockBits(region.busy.bytes).firstPlace(
                from: step == 0 ? Int(start % DiskLayout.regionBlocks) : 0,
                limit: layout.usableBlocks(inRegion: number))
            guard let place else { continue }
            let run = BlockRun(
                BlockAddress(block: number * DiskLayout.regionBlocks + UInt64(place)), size)
            take(run)
            return run
        }
        return try search(size, atLeast: size, from: start)
    }
}

/// Space that stays free for those who need it to make space (`docs/DESIGN.md`, three floors).
///
/// Ordinary writes stop at the slop, deletes and truncates at the emergency floor; checkpoints and
/// the clean-up of orphans may use everything.
struct SpaceFloors: Sendable {
    let slop: UInt64
    let emergency: UInt64
    /// The same, in places: for nodes of deletes, for other nodes, and for data. Data leaves more than
    /// the nodes need that say where it is.
    private let placesForFreeing: UInt64
    private let placesForNodes: UInt64
    private let placesForData: UInt64

    /// Beyond this size of a volume it does not matter in which pieces the floors lie: 64 GiB.
    private static let largestInPlaces: UInt64 = 1 << 24

    init(allocatableBlocks total: UInt64) {
        slop = Self.slop(total)
        emergency = Self.emergency(total)
        let counted = min(total, Self.largestInPlaces)
        placesForFreeing = Self.emergency(counted)
        placesForNodes = Self.slop(counted) / 4 * 3 + placesForFreeing
        placesForData = Self.slop(counted) + placesForFreeing
    }

    // max(1/64, 16 MiB) and max(1/1024, 8 MiB), scaled down on small volumes.
    private static func slop(_ total: UInt64) -> UInt64 { min(max(total / 64, 4096), total / 16) }
    private static func emergency(_ total: UInt64) -> UInt64 {
        min(max(total / 1024, 2048), total / 32)
    }

    /// How much of a file fits into so many blocks, each block in all its copies and with its sum in both
    /// copies of a node.
    static func fileBlocks(in blocks: UInt64, copies: Int, _ kind: ChecksumKind) -> UInt64 {
        let whole = UInt64(DiskFormat.blockSize)
        let cost = UInt64(copies) * whole + UInt64(DiskFormat.nodeReplicas * kind.byteCount)
        return blocks / cost * whole + blocks % cost * whole / cost
    }

    /// What the sums of so many blocks, which are in so many copies, will take when they are written.
    static func sumBlocks(of blocks: UInt64, copies: Int, _ kind: ChecksumKind) -> UInt64 {
        let sums = UInt64(DiskFormat.nodeReplicas * kind.byteCount)
        return (blocks / UInt64(copies) * sums + 4095) / 4096
    }

    /// What an allocation must leave free.
    ///
    /// - Parameter forNodes: blocks that nodes may need again before those they have now are free.
    func kept(by space: SpaceClass, forNodes: UInt64) -> KeptSpace {
        let nodes = min(forNodes, slop)
        let forData = placesForData + min(nodes, placesForData)
        switch space {
        case .ordinary:
            return KeptSpace(
                blocks: slop + emergency + nodes, inPlaces: placesForNodes,
                inPlacesIfPossible: forData)
        case .freeing:
            return KeptSpace(
                blocks: emergency, inPlaces: placesForFreeing, inPlacesIfPossible: forData)
        case .emergency:
            return KeptSpace(blocks: 0, inPlaces: 0, inPlacesIfPossible: forData)
        }
    }
}

/// What an allocation must leave free.
struct KeptSpace: Sendable {
    var blocks: UInt64
    /// So many of them in places.
    var inPlaces: UInt64
    /// Data also leaves these, as long as there are gaps.
    var inPlacesIfPossible: UInt64

    /// So many more for those they were promised to, who shall not have to make do with gaps.
    mutating func promise(_ count: UInt64) {
        blocks += count
        if inPlacesIfPossible > 0 { inPlacesIfPossible += min(count, Self.largestPromise) }
    }
    /// 1 GiB: more is not looked for.
    private static let largestPromise: UInt64 = 1 << 18

    static let nothing = KeptSpace(blocks: 0, inPlaces: 0, inPlacesIfPossible: 0)
}

/// Who asks for space.
package enum SpaceClass: Sendable {
    case ordinary
    /// Deletes and truncates.
    case freeing
    /// Checkpoints and orphans.
    case emergency
}
