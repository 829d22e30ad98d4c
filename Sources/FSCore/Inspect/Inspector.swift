/// Shows what lies on a device, decoding as much as can be decoded of a damaged volume. Never
/// writes. Every function returns a tree of names and values that the program prints or turns
/// into JSON.
public enum Inspector {
    public indirect enum Value: Sendable {
        case text(String)
        case number(UInt64)
        case signed(Int64)
        case flag(Bool)
        case list([Value])
        case record([(String, Value)])
    }

    // MARK: Superblocks

    /// All copies of the superblock, each decoded or with what is wrong with it.
    public static func superblocks(_ device: any BlockDevice, modules: ModuleSet) -> Value {
        .list(
            SuperblockStore.readAll(device, modules: modules).map { copy in
                var fields: [(String, Value)] = [
                    ("block", .number(copy.block)), ("pair", .number(UInt64(copy.pair))),
                ]
                switch copy.result {
                case .success(let superblock): fields += describe(superblock)
                case .failure(let error): fields.append(("error", .text("\(error)")))
                }
                return .record(fields)
            })
    }

    private static func describe(_ superblock: Superblock) -> [(String, Value)] {
        var fields: [(String, Value)] = [
            ("disk_version", .number(UInt64(superblock.version))),
            ("uuid", .text("\(superblock.uuid)")),
            ("internal_uuid", .text("\(superblock.internalUUID)")),
            ("label", .text(superblock.label)),
            ("sequence", .number(superblock.sequence.rawValue)),
            ("birth_epoch", .number(superblock.birthEpoch.rawValue)),
            ("checksum", .text(superblock.checksumKind.name)),
            ("compatible_features", .number(superblock.compatible)),
            ("readonly_compatible_features", .number(superblock.readOnlyCompatible)),
            ("incompatible_features", .number(superblock.incompatible)),
            ("blocks", .number(superblock.blockCount)),
            ("used_blocks", .number(superblock.bitmapRoot.used)),
            ("promised_blocks", .number(superblock.headCounts.promised)),
            ("referenced_blocks", .number(superblock.headCounts.referenced)),
            ("inodes", .number(superblock.headCounts.inodes)),
            ("inode_ceiling", .number(superblock.inodeCeiling)),
            ("compression", .text("\(superblock.compression)")),
            ("cleanly_unmounted", .flag(superblock.isCleanlyUnmounted)),
            ("written_seconds", .signed(superblock.written.seconds)),
            ("operations", .number(superblock.operations)),
            ("journal_incarnation", .number(superblock.journalIncarnation)),
            (
                "journal_extents",
                .list(
                    superblock.journalExtents.map {
                        .text("\($0.start.block)+\($0.count)")
                    })
            ),
            ("head_root", describe(superblock.headRoot)),
            ("volume_root", describe(superblock.volumeRoot)),
        ]
        let errors = zip(Superblock.ErrorCounters.names, superblock.errorCounters.counts)
        fields.append(("errors", .record(errors.map { ($0, .number($1)) })))
        return fields
    }

    private static func describe(_ pointer: NodePointer) -> Value {
        .record([
            ("level", .number(UInt64(pointer.level))),
            (
                "blocks",
                .list((0..<pointer.replicas.count).map { .number(pointer.replicas[$0].block) })
            ),
            ("sequence", .number(pointer.sequence.rawValue)),
            ("birth", .number(pointer.birth.rawValue)),
            ("checksum", .text(String(pointer.checksum.words.0, radix: 16))),
        ])
    }

    // MARK: Journal

    /// The records of the journal in the order of the ring, whatever state it is in.
    public static func journal(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> Value {
        let superblock = try SuperblockStore.newest(device, modules: modules)
        guard let journal = try modules.journal(device, superblock) else {
            return .record([("journal", .text("none"))])
        }
        let contents = try journal.read(
            JournalPosition(
                incarnation: superblock.journalIncarnation, operation: superblock.operations))
        var damaged: [Value] = []
        let records = journal.records { block, error in
            damaged.append(
                .record([("ring_block", .number(block)), ("error", .text("\(error)"))]))
        }
        var fields: [(String, Value)] = [
            ("bytes", .number(journal.status.ringBytes)),
            ("incarnation", .number(superblock.journalIncarnation)),
            ("operations_in_trees", .number(superblock.operations)),
            ("operations_to_replay", .number(contents.operationCount)),
            ("durable_operation", .number(contents.durableOperation)),
        ]
        if let damage = contents.damage { fields.append(("damage", .text(damage.detail))) }
        fields.append(
            (
                "records",
                .list(
                    records.map { record in
                        .record([
                            ("ring_block", .number(record.ringBlock)),
                            (
                                "kind",
                                .text(record.kind == .seal ? "seal" : "transactions")
                            ),
                            ("incarnation", .number(record.incarnation)),
                            ("first_operation", .number(record.firstOperation)),
                            ("last_operation", .number(record.lastOperation)),
                            ("durable_operation", .number(record.durableOperation)),
                            ("durable_sequence", .number(record.durableSequence.rawValue)),
                            ("bytes", .number(UInt64(record.byteCount))),
                        ])
                    })
            ))
        fields.append(("damaged", .list(damaged)))
        return .record(fields)
    }

    // MARK: Trees and nodes

    /// The head tree and the volume tree, `depth` levels deep (1 = the roots).
    public static func tree(
        _ device: any BlockDevice, modules: ModuleSet, depth: Int
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        func describe(_ expected: NodeValidator.Expectation, _ depth: Int) -> Value {
            var fields: [(String, Value)] = [
                ("level", .number(UInt64(expected.pointer.level))),
                ("block", .number(expected.pointer.address.block)),
                ("sequence", .number(expected.pointer.sequence.rawValue)),
            ]
            do throws(FSError) {
                let page = try reader.nodes.read(expected)
                fields.append(("items", .number(UInt64(page.node.count))))
                fields.append(("free_bytes", .number(UInt64(page.node.freeBytes))))
                if page.node.count > 0 {
                    fields.append(("first_key", .text(text(page.node.key(0)))))
                    fields.append(("last_key", .text(text(page.node.key(page.node.count - 1)))))
                }
                if depth > 1, page.level > 0 {
                    fields.append(
                        (
                            "children",
                            .list(
                                reader.children(of: page, expected).map { describe($0, depth - 1) })
                        ))
                }
            } catch { fields.append(("error", .text("\(error)"))) }
            return .record(fields)
        }
        return .record([
            ("head", describe(reader.root(.files), depth)),
            ("volume", describe(reader.root(.volume), depth)),
        ])
    }

    /// The node at a block: header and every item, also of a node that fails its checks.
    public static func node(
        _ device: any BlockDevice, modules: ModuleSet, block: UInt64
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        let last = device.byteCount >> 12
        guard last >= DiskFormat.blocksPerNode, block <= last - DiskFormat.blocksPerNode else {
            throw .invalidArgument
        }
        try device.read(into: buffer.bytes, at: block << 12)
        let page = NodePage(buffer.bytes)
        let view = buffer.view
        let stored = ChecksumValue(view, 0, count: 32)
        var fields: [(String, Value)] = [
            ("magic_right", .flag(view.u32(32) == NodePage.magic)),
            ("checksum_right", .flag(page.sum(reader.nodes.checksum) == stored)),
            ("level", .number(UInt64(page.level))),
            ("address", .number(page.address.block)),
            ("tree", .number(page.view.u64(64))),
            ("sequence", .number(page.sequence.rawValue)),
            ("birth", .number(page.birth.rawValue)),
            ("items", .number(UInt64(page.count))),
        ]
        // The node's own word is taken for what its parent would have said.
        let claimed = NodePointer(
            level: page.level, sequence: page.sequence, birth: page.birth,
            replicas: ReplicaList(page.address), checksumKind: reader.nodes.checksum.kind,
            checksum: stored)
        do throws(FSError) {
            try reader.nodes.validator.validate(
                page,
                NodeValidator.Expectation(
                    pointer: claimed, tree: page.kind ?? .files, lower: nil, upper: nil))
        } catch {
            fields.append(("error", .text("\(error)")))
            return .record(fields)
        }
        fields.append(
            (
                "contents",
                .list(
                    (0..<page.count).map { index in
                        .record([
                            ("key", .text(text(page.key(index)))),
                            ("bytes", .number(UInt64(page.value(index).count))),
                            (
                                "value",
                                describe(page.key(index), page.value(index), page.level, reader)
                            ),
                        ])
                    })
            ))
        return .record(fields)
    }

    static func text(_ key: Key) -> String {
        let type =
            switch key.type {
            case .inode: "inode"
            case .inlineData: "inline"
            case .attribute: "attribute"
            case .link: "link"
            case .directoryEntry: "entry"
            case .extent: "extent"
            case .orphan: "orphan"
            case .share: "share"
            default: "type-\(key.type.rawValue)"
            }
        return "\(key.object) \(type) \(key.offset)"
    }

    private static func describe(
        _ key: Key, _ value: ByteView, _ level: UInt8, _ reader: VolumeReader
    ) -> Value {
        do throws(FSError) {
            if level > 0 {
                var bytes = ByteReader(value, .node, at: 0)
                return describe(try NodePointer(&bytes))
            }
            switch key.type {
            case .inode:
                return describe(try InodeRecord(decoding: value, inode: key.object))
            case .extent:
                return describe(
                    key.offset,
                    try ExtentRecord(decoding: value, inode: key.object, layout: reader.layout))
            case .directoryEntry:
                var names: [Value] = []
                try DirectoryRecord.forEach(value, directory: key.object) {
                    (entry) throws(FSError) in
                    names.append(
                        .record([
                            ("name", .text(shown(entry.name))),
                            ("inode", .number(entry.inode.rawValue)),
                            ("ordinal", .number(UInt64(entry.ordinal))),
                        ]))
                    return true
                }
                return .list(names)
            case .attribute where key.offset & 0xFF == 0:
                let record = try AttributeRecord(decoding: value, inode: key.object)
                return .record([
                    ("name", .text(shown(record.name))),
                    ("value_bytes", .number(UInt64(record.valueLength))),
                ])
            case .link:
                return .list(try LinkRecord.cookies(value, inode: key.object).map { .number($0) })
            default:
                return .text("\(value.count) bytes")
            }
        } catch { return .text("\(error)") }
    }

    private static func shown(_ name: ByteView) -> String {
        String(decoding: name.toArray(), as: UTF8.self)
    }

    // MARK: Inodes

    /// One inode's record.
    public static func inode(
        _ device: any BlockDevice, modules: ModuleSet, _ inode: InodeNumber
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        return describe(try reader.record(inode))
    }

    private static func describe(_ record: InodeRecord) -> Value {
        func time(_ time: Timestamp) -> Value {
            .record([
                ("seconds", .signed(time.seconds)),
                ("nanoseconds", .number(UInt64(time.nanoseconds))),
            ])
        }
        return .record([
            ("kind", .text("\(record.kind)")),
            ("mode", .text("0" + String(record.mode & ModeBits.permissions, radix: 8))),
            ("uid", .number(UInt64(record.userID))), ("gid", .number(UInt64(record.groupID))),
            ("links", .number(UInt64(record.linkCount))),
            ("size", .number(record.size)), ("blocks", .number(record.blocks)),
            ("content", .text("\(record.content)")),
            ("flags", .number(UInt64(record.flags))),
            ("project", .number(UInt64(record.projectID))),
            ("device", .text("\(record.device.major):\(record.device.minor)")),
            ("change_sequence", .number(record.changeSequence)),
            ("atime", time(record.accessTime)), ("mtime", time(record.modificationTime)),
            ("ctime", time(record.changeTime)), ("btime", time(record.birthTime)),
            ("compression", .text("\(record.compression)")),
            ("parent", .number(record.parent)), ("name_cookie", .number(record.nameCookie)),
        ])
    }

    /// The extents of one inode.
    public static func extents(
        _ device: any BlockDevice, modules: ModuleSet, _ inode: InodeNumber
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        _ = try reader.record(inode)
        var extents: [Value] = []
        try reader.items(Key(inode, .extent, 0)...Key(inode, .extent, .max)) {
            (key, value) throws(FSError) in
            extents.append(
                describe(
                    key.offset,
                    try ExtentRecord(decoding: value, inode: key.object, layout: reader.layout)))
        }
        return .list(extents)
    }

    private static func describe(_ offset: UInt64, _ extent: ExtentRecord) -> Value {
        var fields: [(String, Value)] = [
            ("offset_bytes", .number(offset)), ("blocks", .number(UInt64(extent.blocks))),
            ("kind", .text("\(extent.kind)")), ("birth", .number(extent.birth.rawValue)),
            (
                "device_blocks",
                .list((0..<extent.replicas.count).map { .number(extent.replicas[$0].block) })
            ),
        ]
        if let encoding = extent.encoding {
            fields += [
                ("codec", .text(encoding.codec.name)),
                ("stored_blocks", .number(UInt64(encoding.storedBlocks))),
                ("encoded_bytes", .number(UInt64(encoding.encodedBytes))),
                ("skip_blocks", .number(UInt64(encoding.skip))),
                ("whole_blocks", .number(UInt64(encoding.wholeBlocks))),
            ]
        }
        return .record(fields)
    }

    /// The inode that a path (from the root, parts separated by '/') leads to; symbolic links are
    /// not followed.
    public static func path(
        _ device: any BlockDevice, modules: ModuleSet, _ path: String
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        let hash = modules.nameHash(reader.superblock.nameHashKey)
        var inode = InodeNumber.root
        for part in Array(path.utf8).split(separator: 0x2F) {
            let name = Array(part)
            guard try reader.record(inode).isDirectory else { throw .notDirectory }
            var next: InodeNumber?
            let place = max(name.withView { hash.hash($0) } & DirectoryRecord.hashMask, 1)
            let key = Key(inode, .directoryEntry, place)
            try reader.items(key...key) { (key, value) throws(FSError) in
                next = try name.withView { (name) throws(FSError) in
                    try DirectoryRecord.find(name, in: value, directory: key.object)?.inode
                }
            }
            guard let next else { throw .noSuchEntry }
            inode = next
        }
        return .record([
            ("inode", .number(inode.rawValue)), ("record", describe(try reader.record(inode))),
        ])
    }

    // MARK: Bitmap

    /// What the bitmap radix says of every region that has allocated blocks.
    public static func bitmap(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        let store = BitmapStore(
            device: device, checksum: reader.nodes.checksum,
            geometry: VolumeGeometry(reader.layout),
            root: reader.superblock.bitmapRoot, errors: ErrorLog())
        var regions: [Value] = []
        for region in 0..<reader.layout.regionCount {
            var fields: [(String, Value)] = [
                ("region", .number(region)),
                ("first_block", .number(region * DiskLayout.regionBlocks)),
            ]
            do throws(FSError) {
                let entry = try store.entry(ofRegion: region)
                guard entry.isWritten else { continue }
                fields += [
                    ("used_blocks", .number(entry.used)),
                    ("largest_run_log2", .number(UInt64(entry.largestRunLog2))),
                    ("live_slot", .number(UInt64(entry.liveSlot))),
                ]
                _ = try store.leaf(ofRegion: region)
            } catch { fields.append(("error", .text("\(error)"))) }
            regions.append(.record(fields))
        }
        return .record([
            ("used_blocks", .number(reader.superblock.bitmapRoot.used)),
            ("allocatable_blocks", .number(reader.layout.allocatableBlocks)),
            ("regions", .list(regions)),
        ])
    }
}

/// Reads the last checkpoint of a volume without opening it.
struct VolumeReader {
    let superblock: Superblock
    let layout: DiskLayout
    let nodes: NodeStore

    init(_ device: any BlockDevice, _ modules: ModuleSet) throws(FSError) {
        superblock = try SuperblockStore.newest(device, modules: modules)
        layout = superblock.layout
        // The nodes of the volume tree are never moved.
        let remaps = RemapTable()
        nodes = NodeStore(
            device: RemappedBlockDevice(device, remaps),
            checksum: modules.requiredChecksum(superblock.checksumKind),
            geometry: VolumeGeometry(layout), internalUUID: superblock.internalUUID,
            cache: PageCache(byteLimit: 0),
            errors: ErrorLog())
        let layout = layout
        guard superblock.incompatible & DiskFormat.Incompatible.remap != 0 else { return }
        // Of a damaged volume as many as can be read.
        try? items(Key(0, .remap, 0)...Key(0, .remap, .max), of: .volume) {
            (key, value) throws(FSError) in
            _ = remaps.insert(try RemapRecord(key, decoding: value, layout: layout))
        }
    }

    func root(_ tree: TreeKind) -> NodeValidator.Expectation {
        NodeValidator.Expectation(
            pointer: tree == .files ? superblock.headRoot : superblock.volumeRoot, tree: tree,
            lower: nil, upper: nil)
    }

    func children(
        of page: Page, _ expected: NodeValidator.Expectation
    ) -> [NodeValidator.Expectation] {
        (0..<page.node.count).compactMap { index in
            var bytes = ByteReader(page.node.value(index), .node, at: page.address.block << 12)
            guard let pointer = try? NodePointer(&bytes) else { return nil }
            return NodeValidator.Expectation(
                pointer: pointer, tree: expected.tree,
                lower: index > 0 ? page.node.key(index) : expected.lower,
                upper: index + 1 < page.node.count ? page.node.key(index + 1) : expected.upper)
        }
    }

    /// Calls `body` with a tree's items of a range, in order.
    func items(
        _ range: ClosedRange<Key>, of tree: TreeKind = .files,
        _ body: (Key, ByteView) throws(FSError) -> Void
    ) throws(FSError) {
        func visit(_ expected: NodeValidator.Expectation) throws(FSError) {
            if let lower = expected.lower, range.upperBound < lower { return }
            if let upper = expected.upper, upper <= range.lowerBound { return }
            let page = try nodes.read(expected)
            if page.level == 0 {
                for index in 0..<page.node.count where range.contains(page.node.key(index)) {
                    try body(page.node.key(index), page.node.value(index))
                }
            } else {
                for child in children(of: page, expected) { try visit(child) }
            }
        }
        try visit(root(tree))
    }

    func record(_ inode: InodeNumber) throws(FSError) -> InodeRecord {
        var record: InodeRecord?
        let key = Key(inode, .inode)
        try items(key...key) { (key, value) throws(FSError) in
            record = try InodeRecord(decoding: value, inode: key.object)
        }
        guard let record else { throw .stale }
        return record
    }
}
