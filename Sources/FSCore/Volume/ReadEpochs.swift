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
    private var waiting: [(epoch: UInt64, runs: [BlockRun])] = []

    package struct Token { fileprivate let epoch: UInt64 }

    package func enter() -> Token {
        lock.withLock {
            readers[current, default: 0] += 1
            return Token(epoch: current)
        }
    }

    /// Ends a read; returns blocks that nobody reads any more.
    package func leave(_ token: Token) -> [BlockRun] {
        lock.withLock {
            if let count = readers[token.epoch] {
                readers[token.epoch] = count == 1 ? nil : count - 1
            }
            return waiting.isEmpty ? [] : ready()
        }
    }

    /// Hands over blocks whose release is durable; returns those that can be handed out now.
    func retire(_ runs: [BlockRun]) -> [BlockRun] {
        lock.withLock {
            waiting.append((current, runs))
            current += 1
            return ready()
        }
    }

    private func ready() -> [BlockRun] {
        let oldest = readers.keys.min() ?? .max
        var result: [BlockRun] = []
        while let first = waiting.first, first.epoch < oldest {
            result += first.runs
            waiting.removeFirst()
        }
        return result
    }
}
