/// Which snapshots have an intact version of what is damaged in a file.
///
/// - Invariant: intact means read just now, every block with the right sum; not that it is what was lost: a
///   snapshot that shares the damaged blocks has them damaged, too, so what it has is an older version.
public import FSCore

extension Snapshots {
    /// Snapshots that are looked at, the newest first, and versions that are named.
    private static let lookedAt = 200
    private static let named = 3
    /// Of a damaged place that is read.
    private static let readBytes: UInt64 = 1 << 20

    /// The newest snapshots that have data of their own where a file is damaged, which can be read; empty
    /// for damage of anything but data. Costs a look into each of up to 200 snapshots.
    public func survivors(of damage: Volume.Damage) -> [[UInt8]] {
        guard damage.kind == .data, damage.byteCount > 0 else { return [] }
        var damaged: Set<UInt64> = []
        for record in volume.listedDamage() { damaged.insert(record.place.block) }
        let nodes = allNodes().filter { $0.record.kind == .snapshot && $0.label != nil }
            .sorted { $0.record.id > $1.record.id }
        var found: [[UInt8]] = []
        for node in nodes.prefix(Self.lookedAt) where found.count < Self.named {
            guard let name = node.label?.name, let id = try? pin(name) else { continue }
            defer { unpin(id) }
            if (try? hasIntact(damage, node, damaged)) == true { found.append(name) }
        }
        return found
    }

    private func hasIntact(
        _ damage: Volume.Damage, _ node: Node, _ damaged: Set<UInt64>
    ) throws(FSError) -> Bool {
        let record = try durableRecord(node)
        guard let root = record.root else { return false }
        let files = try volume.files(ofRoot: root, record)
        let inode = InodeNumber(damage.inode)
        let attributes = try files.attributes(of: inode)
        guard attributes.kind == .regular, attributes.linkCount > 0,
            damage.offset < attributes.size
        else { return false }
        let end = min(
            damage.offset + min(damage.byteCount, Self.readBytes), attributes.size)
        let extents = try files.extents(of: inode, from: damage.offset, limit: 512)
            .filter { $0.offset < end && !$0.places.isEmpty }
        // A file so small that it lies in the tree has no extents.
        guard !extents.isEmpty || attributes.blocks512 == 0 else { return false }
        for extent in extents {
            let first = (extent.places.first ?? 0) >> 12
            let isPlain = extent.codec == nil
            let start = isPlain ? (max(extent.offset, damage.offset) - extent.offset) >> 12 : 0
            let last =
                isPlain
                ? (min(extent.offset + extent.length, end) - 1 - extent.offset) >> 12
                : (extent.stored >> 12) - 1
            guard start <= last, !(start...last).contains(where: { damaged.contains(first + $0) })
            else { return false }
        }
        let buffer = ByteBuffer(count: 256 << 10)
        var position = damage.offset
        while position < end {
            let length = min(UInt64(buffer.count), end - position)
            let count = try files.read(
                inode, at: position, into: buffer.bytes.slice(0, Int(length)))
            guard count > 0 else { return false }
            position += UInt64(count)
        }
        return true
    }
}
