/// Makes an empty volume on a device.
public enum VolumeFormatter {
    public static let minimumByteCount = DiskLayout.minimumBlocks << 12
    public static let maximumByteCount = DiskLayout.maximumBlocks << 12

    /// Formats the whole device, or its first `options.byteCount` bytes.
    ///
    /// Old superblocks are zeroed first and the new ones written last, each behind a flush, so that
    /// a crash leaves either no volume or a whole one. Data that lay on the device is not wiped.
    /// Throws `.tooSmall`, `.tooLarge` or `.invalidArgument` (label) before anything is written.
    public static func format(
        _ device: any BlockDevice, modules: ModuleSet, options: FormatOptions
    ) throws(FSError) -> FormatSummary {
        let summary = try plan(
            byteCount: min(options.byteCount ?? device.byteCount, device.byteCount),
            options: options)
        let blockCount = summary.blockCount
        try wipeSuperblocks(device, blockCount: blockCount)

        let layout = DiskLayout(blockCount: blockCount)
        let internalUUID = VolumeUUID.random()
        let checksum = modules.requiredChecksum(options.checksumKind)
        let now = Timestamp.now()
        let store = BitmapStore(
            device: device, checksum: checksum, geometry: VolumeGeometry(layout),
            root: BitmapEntry(),
            errors: ErrorLog())
        let allocator = BlockAllocator(store: store)

        let sequence = SuperblockSequence(1)
        let ring = try writeRing(
            device, allocator, blocks: journalBlocks(blockCount, options), layout)
        var published = ring
        func writeRoot(_ tree: TreeKind, fill: (NodePage) -> Void) throws(FSError) -> NodePointer {
            let page = Page(
                emptyAtLevel: 0, tree: tree, uuid: internalUUID,
                replicas: try allocator.allocateNode(leaving: .nothing), sequence: sequence,
                birth: BirthEpoch(1))
            fill(page.node)
            let sum = page.node.seal(checksum)
            for index in 0..<page.replicas.count {
                try device.write(page.node.view, at: page.replicas[index].block << 12)
                published.append(BlockRun(page.replicas[index], DiskFormat.blocksPerNode))
            }
            return page.pointer(checksum.kind, checksum: sum)
        }
        let head = try writeRoot(.files) { page in
            var root = InodeRecord(
                mode: FileKind.directory.modeBits | 0o755, userID: options.rootUserID,
                groupID: options.rootGroupID, linkCount: 2, time: now)
            // The root is its own parent, as ".." of it says.
            root.parent = InodeNumber.root.rawValue
            let record = ByteBuffer(count: InodeRecord.byteCount)
            root.encode(record.bytes)
            page.put(Key(.root, .inode), record.view)
        }
        let volume = try writeRoot(.volume) { _ in }

        var superblock = Superblock(
            uuid: summary.uuid, internalUUID: internalUUID, sequence: sequence,
            inodeCeiling: InodeNumber.root.rawValue + 1, written: now, inodeCount: 1,
            nameHashKey: .random(), headRoot: head, volumeRoot: volume,
            devices: [
                Superblock.DeviceEntry(
                    uuid: .random(), blockCount: blockCount, lastSequence: sequence.rawValue,
                    flushCapability: 0)
            ])
        superblock.label = options.label
        superblock.compression = options.compression
        if case .codec = options.compression {
            superblock.incompatible |= DiskFormat.Incompatible.encodedExtents
        }
        superblock.checksumKind = options.checksumKind
        superblock.dataCopies = UInt8(options.dataCopies)
        superblock.journalExtents = ring
        if !ring.isEmpty { superblock.incompatible |= DiskFormat.Incompatible.journal }
        superblock.bitmapRoot = try allocator.persist(published: published, released: [])
        try device.flush()
        try SuperblockStore.write(superblock, to: device, modules: modules)
        try device.flush()

        return summary
    }

    /// What formatting a device of `byteCount` bytes will make; throws as `format` does.
    public static func plan(
        byteCount: UInt64, options: FormatOptions
    ) throws(FSError) -> FormatSummary {
        let blockCount = DiskLayout.supportedBlockCount(atMost: byteCount >> 12)
        guard blockCount >= DiskLayout.minimumBlocks else {
            throw .tooSmall(bytes: byteCount, minimum: minimumByteCount)
        }
        guard blockCount <= DiskLayout.maximumBlocks else {
            throw .tooLarge(bytes: byteCount, maximum: maximumByteCount)
        }
        guard options.label.utf8.count <= Superblock.maximumLabelLength,
            !options.label.utf8.contains(0),
            (1...DiskFormat.maximumDataCopies).contains(options.dataCopies)
        else { throw .invalidArgument }
        let total = DiskLayout(blockCount: blockCount).allocatableBlocks
        let journal = journalBlocks(blockCount, options)
        if journal != 0 {
            let largest = min(JournalGeometry.maximumBlocks, blockCount / 4)
            guard journal >= JournalGeometry.minimumBlocks, journal <= largest else {
                throw .journalSize(
                    bytes: journal << 12, minimum: JournalGeometry.minimumBlocks << 12,
                    maximum: largest << 12)
            }
        }
        let floors = SpaceFloors(allocatableBlocks: total)
        let roots = 2 * DiskFormat.blocksPerNode * UInt64(DiskFormat.nodeReplicas)
        return FormatSummary(
            uuid: options.uuid ?? .random(), label: options.label, byteCount: blockCount << 12,
            blockCount: blockCount, journalBlocks: journal, checksumKind: options.checksumKind,
            dataCopies: options.dataCopies,
            availableBlocks: SpaceFloors.fileBlocks(
                in: total - roots - journal - floors.slop - floors.emergency,
                copies: options.dataCopies, options.checksumKind))
    }

    private static func journalBlocks(_ volumeBlocks: UInt64, _ options: FormatOptions) -> UInt64 {
        guard let bytes = options.journalByteCount else {
            return JournalGeometry.defaultBlocks(volumeBlocks: volumeBlocks)
        }
        return bytes >> 12
    }

    /// Allocates the journal's ring and fills it with zeros, so that no old record is found in it
    /// and no later write to it has to find room on the host.
    private static func writeRing(
        _ device: any BlockDevice, _ allocator: BlockAllocator, blocks: UInt64, _ layout: DiskLayout
    ) throws(FSError) -> [BlockRun] {
        var extents: [BlockRun] = []
        var rest = blocks
        var goal = BlockAddress(block: layout.journalGoal(blocks))
        while rest >= JournalGeometry.minimumExtentBlocks {
            let run = try allocator.allocateData(rest, goal: goal, leaving: .nothing)
            extents.append(run)
            rest -= run.count
            goal = run.start + run.count
        }
        let zeros = ByteBuffer(count: 1 << 20)
        for run in extents {
            var done: UInt64 = 0
            while done < run.count {
                let count = min(run.count - done, UInt64(zeros.count >> 12))
                try device.write(
                    zeros.view.slice(0, Int(count) << 12), at: (run.start.block + done) << 12)
                done += count
            }
        }
        return extents
    }

    /// Zeroes the four places of this size, and the boot area in which other filesystems have
    /// their signatures is left to the caller.
    private static func wipeSuperblocks(
        _ device: any BlockDevice, blockCount: UInt64
    ) throws(FSError) {
        let zeros = ByteBuffer(count: DiskFormat.blockSize)
        var places: Set<UInt64> = []
        for size in [blockCount, DiskLayout.supportedBlockCount(atMost: device.byteCount >> 12)] {
            for pair in 0...1 {
                let (front, end) = DiskLayout.superblockPlaces(pair: pair, blockCount: size)
                places.formUnion([front, end])
            }
        }
        for place in places.sorted() { try device.write(zeros.view, at: place << 12) }
        try device.flush()
    }
}

/// How to format.
public struct FormatOptions: Sendable {
    /// Up to 63 bytes of UTF-8.
    public var label = ""
    /// nil makes a random one.
    public var uuid: VolumeUUID?
    /// nil takes the whole device.
    public var byteCount: UInt64?
    /// Size of the journal; nil = by the volume's size, 0 = none: then every fsync is a checkpoint.
    public var journalByteCount: UInt64?
    /// For files and mounts that say nothing else.
    public var compression = CompressionSetting.inherited
    /// Of everything on the volume; cannot be changed later.
    public var checksumKind = ChecksumKind.crc32c
    /// Copies of the data of files that say nothing else: 1 or 2.
    public var dataCopies = 1
    /// Owner of the root directory.
    public var rootUserID: UInt32 = 0
    public var rootGroupID: UInt32 = 0
    public init() {}
}

/// What came out of formatting.
public struct FormatSummary: Sendable {
    public var uuid: VolumeUUID
    public var label: String
    public var byteCount: UInt64
    public var blockCount: UInt64
    public var journalBlocks: UInt64
    public var checksumKind: ChecksumKind
    public var dataCopies: Int
    /// Free to ordinary writes.
    public var availableBlocks: UInt64
}
