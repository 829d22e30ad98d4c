/// Resident nodes by their primary address, bounded: clean pages beyond the limit are dropped,
/// least recently used first by the clock algorithm.
///
/// - Invariant: dirty and frozen pages are never dropped; their number is bounded by the
///   checkpoint's dirty limit instead.
@safe
package final class PageCache: @unchecked Sendable {
    private static let shardCount = 16

    private final class Shard {
        let lock = Mutex()
        var pages: [UInt64: Page] = [:]
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

    /// Adds a page; if another thread was first with this address, its page is the one that counts.
    @discardableResult
    func insert(_ page: Page) -> Page {
        let shard = shard(page.address.rawValue)
        return shard.lock.withLock {
            if let present = shard.pages[page.address.rawValue] { return present }
            page.isReferenced = true
            page.ringIndex = shard.ring.count
            shard.pages[page.address.rawValue] = page
            shard.ring.append(page)
            evict(shard)
            return page
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

    private func evict(_ shard: Shard) {
        var steps = 0
        while shard.ring.count > shardLimit, steps < 64 {
            steps += 1
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
