/// Says in the log where an older version of what was found damaged still is.
///
/// Not at once: finding that out reads snapshots, and the read that failed must not wait for it.
internal import FSCore
internal import FSModules

/// Safe to share: what changes is behind `lock`.
final class DamageAdvice: @unchecked Sendable {
    private static let delayMilliseconds = 500
    /// Of a medium that is gone for the most part no more is said.
    private static let limit = 100
    private let lock = Mutex()
    private var isWanted = false
    private var isStopping = false
    private var thread: WorkerThread?

    init(_ volume: Volume, log: @escaping @Sendable (String) -> Void) {
        thread = WorkerThread { [self] in
            var told: Set<UInt64> = []
            while wait() {
                for damage in volume.damage() where told.count < Self.limit {
                    guard damage.kind == .data, told.insert(damage.block).inserted else { continue }
                    log(Self.advice(damage, volume.snapshotStore.survivors(of: damage)))
                }
            }
        }
    }

    static func advice(_ damage: Volume.Damage, _ snapshots: [[UInt8]]) -> String {
        let place =
            "\(damage.path ?? "inode \(damage.inode)"), bytes \(damage.offset) to "
            + "\(damage.offset + damage.byteCount - 1)"
        guard !snapshots.isEmpty else {
            return "\(place): no snapshot has an intact version of them"
        }
        let names = snapshots.map { "'\(String(decoding: $0, as: UTF8.self))'" }
        return "\(place): intact in an older version in \(names.joined(separator: ", "))"
    }

    /// Something was found.
    func wake() {
        lock.withLock {
            isWanted = true
            lock.signalAll()
        }
    }

    /// False at the end.
    private func wait() -> Bool {
        lock.withLock {
            while !isWanted, !isStopping { lock.wait() }
            if !isStopping { lock.wait(milliseconds: Self.delayMilliseconds) }
            isWanted = false
            return !isStopping
        }
    }

    func stop() {
        lock.withLock {
            isStopping = true
            lock.signalAll()
        }
        thread?.join()
        thread = nil
    }
}
