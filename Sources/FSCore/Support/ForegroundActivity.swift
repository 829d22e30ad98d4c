/// Whether somebody uses a volume: who serves requests notes each, work in the background looks and
/// makes way.
///
/// - Invariant: noting a use costs one load of a word that is written only after somebody has looked.
internal import Synchronization

public final class ForegroundActivity: Sendable {
    private let isNoted = Atomic<Bool>(false)

    /// A request has come.
    public func note() {
        if !isNoted.load(ordering: .relaxed) { isNoted.store(true, ordering: .relaxed) }
    }

    /// Whether one has come since the last call.
    package func look() -> Bool { isNoted.exchange(false, ordering: .relaxed) }
}
