/// Places for new nodes, allocated ahead of the tree lock so that a change under it cannot fail.
@safe
final class NodePool: @unchecked Sendable {
    /// How many places are kept when space is plenty.
    static let target = 64

    private let lock = Mutex()
    private var places: [ReplicaList] = []

    var count: Int { lock.withLock { places.count } }
    /// Takes what is beyond `limit` out, the newest first.
    func surplus(over limit: Int) -> [ReplicaList] {
        lock.withLock {
            let surplus = places.count > limit ? Array(places[limit...]) : []
            places.removeLast(surplus.count)
            return surplus
        }
    }
    func put(_ place: ReplicaList) { lock.withLock { places.append(place) } }
    /// Takes the oldest place, so that nodes of one window lie in order.
    func take() -> ReplicaList {
        lock.withLock {
            precondition(!places.isEmpty, "a commit took more places than it planned")
            return places.removeFirst()
        }
    }
}
