/// `inspect snapshots`: the table, and what the deadlists hold.
extension Inspector {
    /// The table of snapshots and heads, and what their deadlists hold.
    public static func snapshots(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        var nodes: [Value] = []
        var segments: [Value] = []
        var held: [UInt64: (entries: UInt64, blocks: UInt64)] = [:]
        try reader.items(.minimum ... .maximum, of: .volume) { (key, value) throws(FSError) in
            do throws(FSError) {
                switch key.type {
                case .snapshot:
                    nodes.append(
                        describe(try SnapshotRecord(key, decoding: value, layout: reader.layout)))
                case .snapshotLabel:
                    let label = try SnapshotLabel(key, decoding: value)
                    nodes.append(
                        .record([
                            ("label_of", .number(key.offset)),
                            ("name", .text(String(decoding: label.name, as: UTF8.self))),
                            ("holds", .number(UInt64(label.holds.count))),
                            ("tags", .number(UInt64(label.tags.count))),
                        ]))
                case .segment:
                    segments.append(
                        .record([
                            ("segment", .number(key.offset)),
                            ("owner", .number(try SegmentRecord(key, decoding: value).owner)),
                        ]))
                case .deadlist:
                    let entry = try DeadlistRecord(key, decoding: value, layout: reader.layout)
                    held[entry.segment, default: (0, 0)].entries += 1
                    held[entry.segment, default: (0, 0)].blocks += entry.run.count
                default: break
                }
            } catch {
                nodes.append(
                    .record([("key", .text(text(key))), ("error", .text("\(error)"))]))
            }
        }
        return .record([
            ("next_id", .number(reader.superblock.nextSnapshotID)),
            ("birth_epoch", .number(reader.superblock.birthEpoch.rawValue)),
            ("nodes", .list(nodes)), ("adopted_segments", .list(segments)),
            (
                "deadlists",
                .list(
                    held.sorted { $0.key < $1.key }.map {
                        .record([
                            ("segment", .number($0.key)), ("entries", .number($0.value.entries)),
                            ("blocks", .number($0.value.blocks)),
                        ])
                    })
            ),
        ])
    }

    private static func describe(_ record: SnapshotRecord) -> Value {
        .record([
            ("id", .number(record.id)),
            ("kind", .text(record.kind == .head ? "head" : "snapshot")),
            ("deleted", .flag(record.isDeleted)), ("automatic", .flag(record.isAutomatic)),
            ("parent", .number(record.parent)), ("epoch", .number(record.epoch.rawValue)),
            ("head", .number(record.head.rawValue)),
            ("received_as", .text(record.received?.description ?? "-")),
            ("base", .text(record.base?.description ?? "-")),
            ("root_block", .number(record.root?.address.block ?? 0)),
            ("inodes", .number(record.counts.inodes)),
            ("referenced_blocks", .number(record.counts.referenced)),
        ])
    }
}
