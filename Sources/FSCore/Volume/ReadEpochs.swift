/// Keeps freed blocks from being handed out while somebody may still be reading them.
///
/// A read that leaves the tree lock to go to the device enters the current epoch before it drops
/// the lock. Blocks released before that are handed out again only when all reads of their epoch
/// and of earlier ones have left.
@safe
package final class ReadEpochs: @unchecked Sendable {
    private let lock = Mutex()
    private var current: UInt64 = 0
    private var readers: [UInt64: Int] = [:]
    private var waiting: [(epoch: UInt64, freed: Freed)] = []

    package struct Token { fileprivate let epoch: UInt64 }

    /// What can be handed out again once nobody reads it: blocks, and numbers of blocks that had
    /// moved.
    struct Freed {
        var runs: [BlockRun] = []
        var remaps: [RemapRecord] = []
        var isEmpty: Bool { runs.isEmpty && remaps.isEmpty }
    }

    package func enter() -> Token {
        lock.withLock {
            readers[current, default: 0] += 1
            return Token(epoch: current)
        }
    }

    /// Ends a read; returns blocks that nobody reads any more.
    func leave(_ token: Token) -> Freed {
        lock.withLock {
            if let count = readers[token.epoch] {
                readers[token.epoch] = count == 1 ? nil : count - 1
                if count == 1 { lock.signalAll() }
            }
            return waiting.isEmpty ? Freed() : ready()
        }
    }

    /// Hands over blocks whose release is durable; returns those that can be handed out now.
    func retire(_ freed: Freed) -> Freed {
        lock.withLock {
            waiting.append((current, freed))
            current += 1
            return ready()
        }
    }

    /// Waits until every read that began before the call has ended; false if it was cancelled.
    func drain(isCancelled: () -> Bool) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        let last = current
        current += 1
        while let oldest = readers.keys.min(), oldest <= last {
            if isCancelled() { return false }
            lock.wait(milliseconds: 100)
        }
        return true
    }

    private func ready() -> Freed {
        let oldest = readers.keys.min() ?? .max
        var result = Freed()
        while let first = waiting.first, first.epoch < oldest {
            result.runs += first.freed.runs
            result.remaps += first.freed.remaps
            waiting.removeFirst()
        }
        return result
    }
}
