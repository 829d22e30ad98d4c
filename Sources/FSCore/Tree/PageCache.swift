/// Resident nodes by their primary address, bounded: clean pages beyond the limit are dropped,
/// least recently used first by the clock algorithm.
///
/// - Invariant: dirty and frozen pages are never dropped; their number is bounded by the
///   checkpoint's dirty limit instead.
/// - Invariant: pages are dropped under the shared tree lock, never while a commit holds the
///   exclusive one: what it planned with stays resident until it is applied.
/// - Invariant: a reserved address, one that waits for its new node, holds no page.
@safe
package final class PageCache: @unchecked Sendable {
    private static let shardCount = 16

    private final class Shard {
        let lock = Mutex()
        var pages: [UInt64: Page] = [:]
        var reserved: Set<UInt64> = []
        /// The clock: every cached page in some order.
        var ring: [Page] = []
        var hand = 0
        var hits: UInt64 = 0
        var misses: UInt64 = 0
    }
    private let shards: [Shard]
    private let shardLimit: Int
    package let limitPages: Int

    init(byteLimit: Int) {
        limitPages = max(byteLimit / DiskFormat.nodeSize, 256)
        shardLimit = limitPages / Self.shardCount
        shards = (0..<Self.shardCount).map { _ in Shard() }
    }

    @inline(__always)
    private func shard(_ address: UInt64) -> Shard {
        // Node addresses are multiples of four blocks as a rule: mix before taking bits.
        shards[Int((address &* 0x9E37_79B9_7F4A_7C15) >> 60)]
    }

    func find(_ address: BlockAddress) -> Page? {
        let shard = shard(address.rawValue)
        return shard.lock.withLock {
            guard let page = shard.pages[address.rawValue] else {
                shard.misses &+= 1
                return nil
            }
            shard.hits &+= 1
            page.isReferenced = true
            return page
        }
    }

    /// Adds a page that was read; if another thread was first with this address, its page is the one
    /// that counts. Nil if the address is reserved: then a crafted volume refers to free space.
    func insert(_ page: Page) -> Page? {
        let shard = shard(page.address.rawValue)
        return shard.lock.withLock {
            if let present = shard.pages[page.address.rawValue] { return present }
            guard !shard.reserved.contains(page.address.rawValue) else { return nil }
            add(page, shard)
            // One round at most: whatever was looked up since the last one stays, and so does the
            // page itself, even when dirty pages alone exceed the limit.
            evict(shard, steps: min(shard.ring.count, 64))
            return page
        }
    }

    /// Adds a page that has its place from the pool; drops none.
    func adopt(_ page: Page) {
        let shard = shard(page.address.rawValue)
        shard.lock.withLock {
            shard.reserved.remove(page.address.rawValue)
            add(page, shard)
        }
    }

    private func add(_ page: Page, _ shard: Shard) {
        page.isReferenced = true
        page.ringIndex = shard.ring.count
        shard.pages[page.address.rawValue] = page
        shard.ring.append(page)
    }

    /// Keeps an address for a new node. A page that is still here was read before its place became
    /// free, or the volume is crafted and has a node in free space.
    func reserve(_ address: BlockAddress) {
        let shard = shard(address.rawValue)
        shard.lock.withLock {
            if let page = shard.pages[address.rawValue] { drop(page, shard) }
            shard.reserved.insert(address.rawValue)
        }
    }

    func cancelReservation(_ address: BlockAddress) {
        let shard = shard(address.rawValue)
        shard.lock.withLock { _ = shard.reserved.remove(address.rawValue) }
    }

    /// Back to the limit, as far as pages are clean. Under the shared tree lock.
    func trim() {
        for shard in shards {
            shard.lock.withLock { evict(shard, steps: 2 * shard.ring.count) }
        }
    }

    func remove(_ page: Page) {
        let shard = shard(page.address.rawValue)
        shard.lock.withLock {
            if shard.pages[page.address.rawValue] === page { drop(page, shard) }
        }
    }

    private func drop(_ page: Page, _ shard: Shard) {
        shard.pages[page.address.rawValue] = nil
        let last = shard.ring.removeLast()
        if last !== page {
            shard.ring[page.ringIndex] = last
            last.ringIndex = page.ringIndex
        }
        page.ringIndex = -1
    }

    private func evict(_ shard: Shard, steps: Int) {
        var rest = steps
        while shard.ring.count > shardLimit, rest > 0 {
            rest -= 1
            if shard.hand >= shard.ring.count { shard.hand = 0 }
            let page = shard.ring[shard.hand]
            if page.isReferenced || page.state != .clean {
                page.isReferenced = false
                shard.hand += 1
            } else {
                drop(page, shard)
            }
        }
    }

    struct Statistics {
        var pages = 0
        var hits: UInt64 = 0
        var misses: UInt64 = 0
    }
    func statistics() -> Statistics {
        var result = Statistics()
        for shard in shards {
            shard.lock.withLock {
                result.pages += shard.ring.count
                result.hits += shard.hits
                result.misses += shard.misses
            }
        }
        return result
    }
}
