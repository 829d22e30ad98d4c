/// Who may use how much of the free space, and the places for nodes that are held ahead of need.
extension Volume {
    /// Blocks that an allocation of this class must leave free.
    func floor(_ space: SpaceClass, dirtyPages: Int) -> UInt64 {
        let floors = allocator.floors
        // Changing a node again in the next window takes a new place while the old is still held.
        let again = UInt64(dirtyPages) * DiskFormat.blocksPerNode * UInt64(DiskFormat.nodeReplicas)
        switch space {
        case .ordinary: return floors.slop + floors.emergency + min(again, floors.slop)
        case .freeing: return floors.emergency
        case .emergency: return 0
        }
    }

    /// So much free space that a few places held ahead of need do not matter: 256 MiB.
    static let plentyBlocks: UInt64 = 65536

    func refillPool(
        to needed: Int, _ space: SpaceClass, dirtyPages: Int
    ) throws(FSError) {
        // More than needed when space is plenty, so that most commits find the pool filled.
        let keep = floor(space, dirtyPages: dirtyPages)
        let plenty = allocator.freeBlocks > keep + Self.plentyBlocks
        let target = plenty ? max(needed, NodePool.target) + NodePool.target / 2 : needed
        var places: [ReplicaList] = []
        defer { treeLock.exclusive { for place in places { stock(place) } } }
        while pool.count + places.count < target {
            places.append(try allocator.allocateNode(keeping: keep))
        }
    }

    /// Adds a place to the pool. Under the exclusive tree lock.
    func stock(_ place: ReplicaList) {
        guard !allocator.isBarred(place) else { return allocator.cancel(place) }
        cache.reserve(place.first)
        pool.put(place)
    }

    /// Allocates blocks for data; the caller publishes or cancels them.
    func allocateData(
        _ want: UInt64, goal: BlockAddress?, _ space: SpaceClass, promised: Bool
    ) throws(FSError) -> BlockRun {
        let (dirty, promisedBlocks) = treeLock.shared {
            (window.dirty.count, window.promisedBlocks)
        }
        // Promised blocks are kept for those they were promised to.
        let keep =
            floor(promised ? .freeing : space, dirtyPages: dirty)
            + (promised ? 0 : promisedBlocks)
        return try allocator.allocateData(want, goal: goal, keeping: keep)
    }
}
