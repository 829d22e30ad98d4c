/// What snapshots keep of a volume's space, for whoever has none left.
internal import FSCore
internal import FSModules

struct HeldSpace {
    /// Snapshots that may be deleted, those first that give back most; at most `limit`.
    private(set) var names: [String] = []
    private static let limit = 5

    /// Nil if there is none, or what they keep cannot be read.
    init?(of volume: Volume) {
        let now = Timestamp.now().seconds
        guard let all = try? volume.snapshotStore.figures() else { return nil }
        let held = all.filter {
            guard $0.record.kind == .snapshot, let label = $0.label else { return false }
            return label.holds.isEmpty && label.protectedUntil <= now
        }
        // The sort is stable by age: of those that free nothing alone, the oldest come first.
        let sorted = held.enumerated().sorted {
            let (one, other) = ($0.element.uniqueBlocks ?? 0, $1.element.uniqueBlocks ?? 0)
            return one != other ? one > other : $0.offset < $1.offset
        }
        names = sorted.prefix(Self.limit).compactMap { $0.element.label }.map {
            String(decoding: $0.name, as: UTF8.self)
        }
        if names.isEmpty { return nil }
    }

    /// What to do.
    func advice(_ target: String) -> String {
        "drop snapshots: "
            + names.map { "'aegisfs snapshot delete \(target) \($0)'" }.joined(separator: ", ")
    }
}

extension StatusDocument {
    /// Adds that nothing, or hardly anything, more can be written, and which snapshots to drop.
    mutating func addFullness(of volume: Volume) {
        guard space.availableBytes <= space.totalBytes / 256,
            state == "online" || state == "not mounted"
        else { return }
        let held = HeldSpace(of: volume)
        add(
            "full", "The volume is full" + (held == nil ? "." : ", and snapshots keep space."),
            "Delete files, or enlarge it with 'aegisfs resize'"
                + (held.map { ", or \($0.advice(mountpoint ?? device))." } ?? "."),
            MessageID.volumeFull.rawValue, isDamage: false)
    }
}
