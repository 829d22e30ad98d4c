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
    /// Takes the oldest place, so that nodes of one window lie in order. Throws `.corrupt` if a change
    /// takes more than its plan said: then a node is not what it was when the plan was made.
    func take() throws(FSError) -> ReplicaList {
        let place = lock.withLock { places.isEmpty ? nil : places.removeFirst() }
        guard let place else {
            throw .corrupt(Corruption(.node, at: 0, "a change takes more nodes than were planned"))
        }
        return place
    }
}
