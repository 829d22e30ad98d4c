/// What `status` says of a volume's snapshots.
internal import FSCore
internal import FSModules

struct SnapshotStatus: Codable, Sendable {
    var snapshots: UInt64
    /// Deleted ones whose space is still to come back, and how much at least.
    var deleted: UInt64
    var pendingBytes: UInt64
    var isSweeping: Bool

    /// Nil without any.
    init?(of volume: Volume) {
        let store = volume.snapshotStore
        snapshots = UInt64(store.snapshotCount)
        deleted = UInt64(store.deletedCount)
        isSweeping = store.isSweeping
        pendingBytes =
            deleted > 0 || isSweeping ? ((try? store.blocksToGive().blocks) ?? 0) << 12 : 0
        if snapshots == 0, deleted == 0, pendingBytes == 0 { return nil }
    }

    func summary(_ arguments: Arguments) -> String {
        guard deleted > 0 || pendingBytes > 0 else { return "\(snapshots)" }
        return "\(snapshots); \(deleted) deleted ones still give back "
            + "\(arguments.size(pendingBytes))\(isSweeping ? ", just now" : "")"
    }
}

extension StatusDocument {
    /// Damaged places for which snapshots are looked into.
    private static let advisedDamage = 20

    /// Adds what is known of snapshots, and which of them has what is damaged.
    mutating func addSnapshots(of volume: Volume) {
        snapshots = SnapshotStatus(of: volume)
        guard snapshots != nil, !damage.isEmpty else { return }
        for place in volume.damage().prefix(Self.advisedDamage) {
            guard let index = damage.firstIndex(where: { $0.block == place.block }) else {
                continue
            }
            damage[index].intactIn = volume.snapshotStore.survivors(of: place).map {
                String(decoding: $0, as: UTF8.self)
            }
        }
    }
}

extension StatusDocument.Damage {
    /// Where an older version is, for people.
    var advice: String {
        guard let intactIn else { return "" }
        return intactIn.isEmpty
            ? "; no snapshot has an intact version"
            : "; intact in an older version in '\(intactIn.joined(separator: "', '"))'"
    }
}
