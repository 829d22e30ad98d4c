/// A node cache that is smaller than what is dirty: operations still end, and what a commit planned
/// with stays where it is until it is applied.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct SmallCacheTests {
    /// No checkpoint between: up to 600 leaves become dirty in a cache of 256 nodes.
    @Test(.timeLimit(.minutes(15)), arguments: [1, 2, 3] as [UInt64])
    func manyDirtyNodes(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let device = MemoryBlockDevice(byteCount: 512 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.cacheBytes = 4 << 20
        let volume = try Volume.open(device, modules: .standard, options: options)
        // Four values to a leaf.
        var values = [[UInt8]](repeating: [], count: 2400)
        func update(_ numbers: [Int]) throws {
            let transaction = Transaction()
            for number in numbers {
                values[number] = random.bytes(3900)
                transaction.put(Self.key(number), values[number])
            }
            try volume.commit(transaction, .ordinary)
        }
        for number in values.indices { try update([number]) }
        try volume.checkpoint()
        for _ in 0..<600 {
            try update((0..<12).map { _ in random.below(values.count) })
        }
        try volume.checkpoint()
        for number in values.indices {
            let found = try volume.value(Self.key(number), of: volume.head) { $0.toArray() }
            #expect(found == values[number], "seed \(seed), item \(number)")
        }
        #expect(volume.status().cachePages <= volume.status().cacheLimitPages)
        try volume.close()
    }

    /// A reader that lost the race put a node back whose place is free by now: the next node of that
    /// place is the one that is found.
    @Test func aReservedAddressHoldsNoPage() {
        let cache = PageCache(byteLimit: 4 << 20)
        func page() -> Page {
            Page(
                buffer: ByteBuffer(count: DiskFormat.nodeSize), tree: .files,
                replicas: ReplicaList(BlockAddress(block: 512)), state: .clean)
        }
        let (stale, fresh) = (page(), page())
        #expect(cache.insert(stale) === stale)
        cache.reserve(stale.address)
        #expect(cache.find(stale.address) == nil)
        #expect(cache.insert(stale) == nil)
        cache.adopt(fresh)
        #expect(cache.find(fresh.address) === fresh)
        #expect(cache.insert(stale) === fresh)
    }

    private static func key(_ number: Int) -> Key {
        Key(1 << 40 + UInt64(number), ItemType(rawValue: 0x30), 0)
    }
}
