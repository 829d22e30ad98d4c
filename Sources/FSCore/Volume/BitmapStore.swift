/// The allocation bitmap on disk: reads and verifies the blocks of the fixed radix, and writes
/// changed ones to their idle slots (`DiskLayout` says where, `BitmapEntry` what a parent knows).
///
/// - Invariant: a block is written to the slot that the durable superblock does not refer to, so a
///   crash leaves the old radix whole.
/// - Invariant: a copy is healed only while its slot is still the live one.
/// - Invariant: only a checkpoint calls `store` and `writeMaps`, and one runs at a time.
@safe
final class BitmapStore: @unchecked Sendable {
    private let device: any BlockDevice
    private let checksum: any Checksum
    private let errors: ErrorLog
    /// Nil: bad copies are left as they are.
    private let health: MediumHealth?
    private let geometry: VolumeGeometry
    var layout: DiskLayout { geometry.layout }

    private let lock = Mutex()
    /// Held while a block is written to a slot, by a checkpoint or to heal it: a slot that was read a
    /// while ago may be about to get other contents.
    private let slotLock = Mutex()
    private var maps: [Place: Map] = [:]
    private var isBeingRebuilt = false
    /// Of the state that the next superblock will name.
    private(set) var root: BitmapEntry

    private struct Place: Hashable {
        var level: DiskLayout.BitmapLevel
        var index: UInt64
        var parent: Place? {
            guard let level = DiskLayout.BitmapLevel(rawValue: level.rawValue + 1) else {
                return nil
            }
            return Place(level: level, index: index / DiskLayout.mapFanout)
        }
    }
    private final class Map {
        var entries: [BitmapEntry]
        var isDirty = false
        init(entries: [BitmapEntry]) { self.entries = entries }
    }

    init(
        device: any BlockDevice, checksum: any Checksum, geometry: VolumeGeometry,
        root: BitmapEntry, errors: ErrorLog, health: MediumHealth? = nil
    ) {
        self.health = health
        self.device = device
        self.checksum = checksum
        self.geometry = geometry
        self.root = root
        self.errors = errors
    }

    // MARK: Reading

    /// What the radix knows of `region`.
    func entry(ofRegion region: UInt64) throws(FSError) -> BitmapEntry {
        try entry(of: Place(level: .leaf, index: region))
    }

    private func entry(of place: Place) throws(FSError) -> BitmapEntry {
        guard let parent = place.parent else { return lock.withLock { root } }
        let map = try map(at: parent)
        return lock.withLock { map.entries[Int(place.index % DiskLayout.mapFanout)] }
    }

    private func map(at place: Place) throws(FSError) -> Map {
        if let map = lock.withLock({ maps[place] }) { return map }
        let entry = try entry(of: place)
        let loaded: Map
        if entry.isWritten {
            do throws(FSError) {
                loaded = try readMap(place, entry)
            } catch {
                guard lock.withLock({ isBeingRebuilt }) else { throw error }
                loaded = Map(entries: Self.emptyMap)
            }
        } else {
            loaded = Map(entries: Self.emptyMap)
        }
        return lock.withLock {
            if let first = maps[place] { return first }
            maps[place] = loaded
            return loaded
        }
    }

    private static let emptyMap = [BitmapEntry](
        repeating: BitmapEntry(), count: Int(DiskLayout.mapFanout))

    private func readMap(_ place: Place, _ entry: BitmapEntry) throws(FSError) -> Map {
        let block = try read(place.level, index: place.index, entry)
        var reader = ByteReader(block.view, .bitmap, at: place.index)
        var entries: [BitmapEntry] = []
        var used: UInt64 = 0
        for _ in 0..<DiskLayout.mapFanout {
            let child = try BitmapEntry(&reader)
            used += child.used
            entries.append(child)
        }
        try reader.require(used == entry.used, "used blocks of a map do not add up")
        return Map(entries: entries)
    }

    /// From now on a map that cannot be read is one without entries: every region below it that has
    /// allocated blocks is about to be stored.
    func beginRebuild() { lock.withLock { isBeingRebuilt = true } }

    /// The bits of `region` as the last checkpoint left them: a set bit is an allocated block.
    /// Fixed blocks and blocks beyond the end are never set.
    func leaf(ofRegion region: UInt64) throws(FSError) -> ByteBuffer {
        let entry = try entry(ofRegion: region)
        guard entry.isWritten else { return ByteBuffer(count: DiskFormat.blockSize) }
        let block = try read(.leaf, index: region, entry)
        let bits = BlockBits(block.bytes)
        let reader = ByteReader(block.view, .bitmap, at: region)
        try reader.require(UInt64(bits.population) == entry.used, "used blocks do not add up")
        for run in layout.fixedRuns(inRegion: region) {
            try reader.require(
                bits.isClear(run.start, run.count), "a fixed block is marked allocated")
        }
        return block
    }

    private func read(
        _ level: DiskLayout.BitmapLevel, index: UInt64, _ entry: BitmapEntry
    ) throws(FSError) -> ByteBuffer {
        let block = ByteBuffer(count: DiskFormat.blockSize)
        let places = layout.bitmapPlaces(level, index: index, slot: entry.liveSlot)
        var failure: FSError?
        var bad: [UInt64] = []
        for place in [places.0, places.1] {
            do throws(FSError) {
                try device.read(into: block.bytes, at: place << 12)
                guard checksum.sum(block.view).words.0 == entry.checksum else {
                    throw .corrupt(Corruption(.bitmap, at: place << 12, "checksum mismatch"))
                }
                heal(level, index, entry, block.view, over: bad)
                return block
            } catch {
                errors.record(error)
                bad.append(place << 12)
                failure = failure ?? error
            }
        }
        lose(level, index, places.0)
        throw failure ?? .corrupt(Corruption(.bitmap, at: places.0 << 12, "unreadable"))
    }

    /// The bad copies of blocks that have a good one, for a volume that is not in use.
    func badCopies(_ body: (_ description: String, _ block: UInt64) -> Void) {
        let block = ByteBuffer(count: DiskFormat.blockSize)
        for level in DiskLayout.BitmapLevel.allCases.reversed() {
            for index in 0..<layout.bitmapBlockCount(level) {
                guard let entry = try? entry(of: Place(level: level, index: index)),
                    entry.isWritten
                else { continue }
                let places = layout.bitmapPlaces(level, index: index, slot: entry.liveSlot)
                let bad = [places.0, places.1].filter { place in
                    (try? device.read(into: block.bytes, at: place << 12)) == nil
                        || checksum.sum(block.view).words.0 != entry.checksum
                }
                if bad.count == 1 { body("\(level) \(index)", bad[0]) }
            }
        }
    }

    /// Looks at both copies of every written block, from the top down.
    func examine(heals: Bool, _ tally: inout ExaminationTally, isCancelled: () -> Bool) {
        for level in DiskLayout.BitmapLevel.allCases.reversed() {
            for index in 0..<layout.bitmapBlockCount(level) {
                if isCancelled() { return }
                let place = Place(level: level, index: index)
                // Loads what is above it, which must not happen under the lock on the slots.
                guard let entry = try? entry(of: place), entry.isWritten else { continue }
                slotLock.withLock { examine(place, heals: heals, &tally) }
            }
        }
    }

    private func examine(_ place: Place, heals: Bool, _ tally: inout ExaminationTally) {
        guard let entry = try? entry(of: place), entry.isWritten else { return }
        let places = layout.bitmapPlaces(place.level, index: place.index, slot: entry.liveSlot)
        let good = ByteBuffer(count: DiskFormat.blockSize)
        let block = ByteBuffer(count: DiskFormat.blockSize)
        var hasGood = false
        var bad: [UInt64] = []
        for offset in [places.0 << 12, places.1 << 12] {
            tally.bytes += UInt64(DiskFormat.blockSize)
            do throws(FSError) {
                try device.readMedium(into: block.bytes, at: offset)
                guard checksum.sum(block.view).words.0 == entry.checksum else {
                    throw .corrupt(Corruption(.bitmap, at: offset, "checksum mismatch"))
                }
                good.bytes.copy(block.view)
                hasGood = true
            } catch {
                if heals { errors.record(error) }
                bad.append(offset)
            }
        }
        tally.found += UInt64(bad.count)
        if hasGood, heals, let health {
            tally.healed +=
                health.heal(good.view, over: bad) {
                    "the bitmap block (\(place.level) \(place.index))"
                }.healed
        } else if !hasGood {
            tally.lose(BlockAddress(block: places.0))
            if heals { lose(place.level, place.index, places.0) }
        }
    }

    private func lose(_ level: DiskLayout.BitmapLevel, _ index: UInt64, _ block: UInt64) {
        health?.lose(
            DamageRecord(.bitmap, at: BlockAddress(block: block), blocks: 1, object: index)
        ) {
            "the bitmap block (\(level) \(index)) at block \(block) has no good copy; nothing is "
                + "allocated there any more"
        }
    }

    private func heal(
        _ level: DiskLayout.BitmapLevel, _ index: UInt64, _ entry: BitmapEntry, _ good: ByteView,
        over places: [UInt64]
    ) {
        guard let health, !places.isEmpty else { return }
        slotLock.withLock {
            guard let now = try? self.entry(of: Place(level: level, index: index)), now == entry
            else { return }
            health.heal(good, over: places) { "the bitmap block (\(level) \(index))" }
        }
    }

    // MARK: Writing, by a checkpoint

    /// Writes the bits of a region and updates its entry in memory.
    func store(region: UInt64, _ bits: ByteBuffer) throws(FSError) {
        let view = BlockBits(bits.bytes)
        var changed = try entry(ofRegion: region)
        changed.used = UInt64(view.population)
        changed.largestRunLog2 = Self.log2(view.longestClearRun)
        try write(Place(level: .leaf, index: region), bits.view, changed)
    }

    /// Writes the changed map blocks from the bottom up; afterwards `root` covers everything.
    func writeMaps() throws(FSError) {
        for level in [DiskLayout.BitmapLevel.zone, .group, .device] {
            let dirty = lock.withLock {
                maps.filter { $0.key.level == level && $0.value.isDirty }
            }
            for (place, map) in dirty {
                let block = ByteBuffer(count: DiskFormat.blockSize)
                var changed = try entry(of: place)
                changed.used = 0
                changed.largestRunLog2 = 0
                changed.hasShares = false
                changed.hasRemaps = false
                var writer = ByteWriter(block.bytes)
                for entry in map.entries {
                    entry.encode(&writer)
                    changed.used += entry.used
                    changed.largestRunLog2 = max(changed.largestRunLog2, entry.largestRunLog2)
                    changed.hasShares = changed.hasShares || entry.hasShares
                    changed.hasRemaps = changed.hasRemaps || entry.hasRemaps
                }
                try write(place, block.view, changed)
                map.isDirty = false
            }
        }
    }

    /// Forgets what lies behind `regions` regions, where nothing is allocated any more: if they ever
    /// come back, they were never written.
    func truncate(toRegions regions: UInt64, of all: UInt64) throws(FSError) {
        for level in [DiskLayout.BitmapLevel.leaf, .zone, .group] {
            func blocks(_ regions: UInt64) -> UInt64 {
                (regions + level.leaves - 1) / level.leaves
            }
            for index in blocks(regions)..<max(blocks(all), blocks(regions)) {
                let place = Place(level: level, index: index)
                guard try entry(of: place) != BitmapEntry(), let parent = place.parent else {
                    continue
                }
                let map = try map(at: parent)
                lock.withLock {
                    map.entries[Int(index % DiskLayout.mapFanout)] = BitmapEntry()
                    map.isDirty = true
                    maps[place] = nil
                }
            }
        }
    }

    private func write(
        _ place: Place, _ bytes: ByteView, _ changed: BitmapEntry
    ) throws(FSError) {
        var entry = changed
        entry.liveSlot = entry.isWritten ? 1 - entry.liveSlot : 0
        entry.isWritten = true
        entry.checksum = checksum.sum(bytes).words.0
        let places = layout.bitmapPlaces(place.level, index: place.index, slot: entry.liveSlot)
        let map = try place.parent.map { (parent) throws(FSError) in try self.map(at: parent) }
        try slotLock.withLock { () throws(FSError) in
            try device.write(bytes, at: places.0 << 12)
            try device.write(bytes, at: places.1 << 12)
            lock.withLock {
                guard let map else {
                    root = entry
                    return
                }
                map.entries[Int(place.index % DiskLayout.mapFanout)] = entry
                map.isDirty = true
            }
        }
    }

    private static func log2(_ run: Int) -> UInt8 {
        run == 0 ? 0 : UInt8(Int.bitWidth - 1 - run.leadingZeroBitCount)
    }
}
