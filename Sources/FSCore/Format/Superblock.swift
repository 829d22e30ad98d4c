/// The superblock: one block, four copies, from which everything else is reached.
///
/// Offsets in bytes; all integers little-endian; what is not named is zero.
///
///     0    magic                u64
///     8    disk version         u32
///     12   block size log2      u8     12
///     13   node size log2       u8     14
///     14   checksum kind        u8     of this block, of nodes and of bitmap blocks
///     15   name hash kind       u8     1 = SipHash-2-4
///     16   compatible           u64    feature bits
///     24   read-only compatible u64
///     32   incompatible         u64
///     40   uuid                 16     the one users see and may change
///     56   internal uuid        16     in every node header; never changes
///     72   label                64     UTF-8, zero-padded
///     136  sequence             u64    counts checkpoints; never re-used
///     144  birth epoch          u64    counts snapshots
///     152  inode ceiling        u64    every inode number in use is below it
///     160  state                u32    1 = cleanly unmounted
///     164  device count         u16    entries of the device table in use
///     166  this device          u16
///     168  written              i64 s, u32 ns
///     180  reserved             4
///     184  inode count          u64    of the default head, as the next
///     192  promised blocks      u64    by fallocate, not yet allocated
///     200  next snapshot id     u64
///     208  name hash key        16
///     224  bitmap root          16     BitmapEntry of the device map
///     240  head root            NodePointer, in 96 bytes
///     336  volume root          NodePointer, in 96 bytes
///     432  journal incarnation  u64
///     440  journal extents      u32 count, u32 reserved, 16 × (u64 address, u64 blocks)
///     704  error counters       8 × u64: read, write, flush, checksum, structure, healed, lost, other
///     768  mount lease          64 host, 16 boot id, i64 time, u32 pid, u32 reserved
///     864  device table         8 × 64: uuid 16, u64 blocks, u64 last sequence, u8 flush
///                               capability, 31 reserved
///     1376 operations           u64    operations up to this one are in the trees
///     1384 referenced blocks    u64    of the default head, held or promised
///     1392 reserved
///     1448 address limit        u64    with remaps: blocks that addresses may name; else 0
///     1456 reserved
///     1512 data copies          u8     of files that say nothing else: 1 or 2
///     1513 reserved
///     1576 compression          u8 codec, u8 level: of files and mounts that say nothing else
///     1578 reserved
///     4064 checksum             32     over bytes 0 … 4063
///
/// - Invariant: the copy for sequence *n* is in pair *n* mod 2, so a torn write never touches the
///   checkpoint before it.
/// - Invariant: the checksums of the roots make this block's own sum cover the whole volume.
public struct Superblock: Equatable, Sendable {
    public static let byteCount = DiskFormat.blockSize
    static let checksumOffset = 4064
    static let rootRoom = 96
    private static let dataCopiesOffset = 1512
    private static let compressionOffset = 1576
    public static let maximumJournalExtents = 16
    public static let maximumDevices = 8
    public static let maximumLabelLength = 63

    public var version = DiskFormat.version
    public var checksumKind = ChecksumKind.crc32c
    public var compatible: UInt64 = 0
    public var readOnlyCompatible: UInt64 = 0
    public var incompatible: UInt64 = 0
    public var uuid: VolumeUUID
    public var internalUUID: VolumeUUID
    public var label = ""
    public var sequence: SuperblockSequence
    public var birthEpoch = BirthEpoch(1)
    public var inodeCeiling: UInt64
    public var isCleanlyUnmounted = true
    public var written: Timestamp
    /// Of the default head.
    public var headCounts: TreeCounts
    public var nextSnapshotID: UInt64 = 3
    public var nameHashKey: NameHashKey
    public var bitmapRoot = BitmapEntry()
    public var headRoot: NodePointer
    public var volumeRoot: NodePointer
    public var journalIncarnation: UInt64 = 0
    public var journalExtents: [BlockRun] = []
    /// Operations up to this one are in the trees.
    public var operations: UInt64 = 0
    /// With remaps: the size up to which addresses may go; else 0.
    public var addressLimit: UInt64 = 0
    public var errorCounters = ErrorCounters()
    /// Copies of the data of files that say nothing else.
    public var dataCopies: UInt8 = 1
    public var lease: MountLease?
    /// Of files and mounts that say nothing else.
    public var compression = CompressionSetting.inherited
    public var devices: [DeviceEntry]

    /// Persistent counts of what went wrong, in the order of the disk.
    public struct ErrorCounters: Equatable, Sendable {
        public static let names = [
            "read", "write", "flush", "checksum", "structure", "healed", "lost", "other",
        ]
        public var counts = [UInt64](repeating: 0, count: names.count)
        public init() {}

        /// With what was counted since. A disk may hold any number, so the sums end at the largest.
        func adding(_ more: [UInt64]) -> ErrorCounters {
            var result = self
            for (index, count) in more.enumerated() {
                let sum = counts[index].addingReportingOverflow(count)
                result.counts[index] = sum.overflow ? .max : sum.partialValue
            }
            return result
        }
    }

    /// Who has the volume mounted.
    public struct MountLease: Equatable, Sendable {
        public var host: String
        public var bootID: VolumeUUID
        public var time: Int64
        public var processID: UInt32
        public init(host: String, bootID: VolumeUUID, time: Int64, processID: UInt32) {
            self.host = host
            self.bootID = bootID
            self.time = time
            self.processID = processID
        }
    }

    /// One device of the volume.
    public struct DeviceEntry: Equatable, Sendable {
        public var uuid: VolumeUUID
        public var blockCount: UInt64
        public var lastSequence: UInt64
        /// 0 unknown, 1 flushes its cache, 2 has no volatile cache.
        public var flushCapability: UInt8
    }

    /// The size of the (only) device in blocks.
    public var blockCount: UInt64 { devices[0].blockCount }
    public var layout: DiskLayout {
        DiskLayout(blockCount: blockCount, addressLimit: addressLimit)
    }
    static let spaceOffset = 1448

    // MARK: Decoding: bytes → unverified fields → a superblock that was checked

    /// What identifies a superblock before anything else of it is trusted.
    public enum Probe: Equatable, Sendable {
        case superblock
        case noMagic
        case badChecksum
    }

    /// Looks for the magic and a right checksum.
    public static func probe(_ block: ByteView, modules: ModuleSet) -> Probe {
        guard block.count == byteCount, block.u64(0) == DiskFormat.magic else { return .noMagic }
        guard let kind = ChecksumKind(rawValue: block[14]),
            let checksum = modules.checksum(kind)
        else { return .badChecksum }
        let stored = ChecksumValue(block, checksumOffset, count: 32)
        let sum = checksum.sum(block.slice(0, checksumOffset))
        return sum == stored ? .superblock : .badChecksum
    }

    /// Decodes a block that `probe` called a superblock. Versions and features that this program
    /// does not know are reported before anything that they might have changed is read.
    public init(decoding block: ByteView, at location: UInt64) throws(FSError) {
        var reader = ByteReader(block, .superblock, at: location)
        _ = try reader.u64()
        version = try reader.u32()
        guard version == DiskFormat.version else {
            throw .unknownVersion(found: version, known: DiskFormat.version)
        }
        try reader.require(try reader.u8() == DiskFormat.blockShift, "block size")
        try reader.require(try reader.u8() == 14, "node size")
        guard let kind = ChecksumKind(rawValue: try reader.u8()) else {
            throw reader.corrupt("checksum kind")
        }
        checksumKind = kind
        try reader.require(try reader.u8() == 1, "name hash kind")
        compatible = try reader.u64()
        readOnlyCompatible = try reader.u64()
        incompatible = try reader.u64()
        let unknown = incompatible & ~DiskFormat.Incompatible.known
        guard unknown == 0 else { throw .unknownFeatures(.incompatible, bits: unknown) }
        uuid = try VolumeUUID(&reader)
        internalUUID = try VolumeUUID(&reader)
        label = try reader.text(64)
        sequence = SuperblockSequence(try reader.u64())
        birthEpoch = BirthEpoch(try reader.u64())
        try reader.require(sequence.rawValue > 0 && sequence.rawValue < 1 << 62, "sequence")
        try reader.require(birthEpoch.rawValue > 0 && birthEpoch.rawValue < 1 << 62, "birth epoch")
        inodeCeiling = try reader.u64()
        try reader.require(
            inodeCeiling > InodeNumber.root.rawValue && inodeCeiling <= InodeNumber.limit,
            "inode ceiling")
        let state = try reader.u32()
        try reader.require(state & ~1 == 0, "state")
        isCleanlyUnmounted = state & 1 != 0
        let deviceCount = Int(try reader.u16())
        try reader.require(deviceCount == 1, "device count \(deviceCount)")
        try reader.require(try reader.u16() == 0, "device index")
        let seconds = try reader.i64()
        let nanoseconds = try reader.u32()
        try reader.require(nanoseconds < 1_000_000_000, "time of writing")
        written = Timestamp(seconds: seconds, nanoseconds: nanoseconds)
        try reader.reserved(4)
        headCounts = TreeCounts(inodes: try reader.u64(), promised: try reader.u64())
        nextSnapshotID = try reader.u64()
        nameHashKey = NameHashKey(try reader.u64(), try reader.u64())
        bitmapRoot = try BitmapEntry(&reader)
        headRoot = try Self.root(&reader)
        volumeRoot = try Self.root(&reader)
        journalIncarnation = try reader.u64()
        let extentCount = Int(try reader.u32())
        try reader.require(extentCount <= Self.maximumJournalExtents, "journal extents")
        try reader.reserved(4)
        for index in 0..<Self.maximumJournalExtents {
            let run = BlockRun(BlockAddress(rawValue: try reader.u64()), try reader.u64())
            if index < extentCount { journalExtents.append(run) }
        }
        for index in errorCounters.counts.indices { errorCounters.counts[index] = try reader.u64() }
        let host = try reader.text(64)
        let bootID = try VolumeUUID(&reader)
        let time = try reader.i64()
        let processID = try reader.u32()
        try reader.reserved(4)
        if !host.isEmpty {
            lease = MountLease(host: host, bootID: bootID, time: time, processID: processID)
        }
        devices = []
        for index in 0..<Self.maximumDevices {
            let entry = DeviceEntry(
                uuid: try VolumeUUID(&reader), blockCount: try reader.u64(),
                lastSequence: try reader.u64(), flushCapability: try reader.u8())
            try reader.reserved(31)
            if index < deviceCount { devices.append(entry) }
        }
        operations = try reader.u64()
        try reader.require(operations < 1 << 62, "operations")
        try reader.require(journalIncarnation < 1 << 62, "journal incarnation")
        headCounts.referenced = try reader.u64()
        try reader.reserved(Self.spaceOffset - reader.offset)
        addressLimit = try reader.u64()
        try reader.reserved(Self.dataCopiesOffset - reader.offset)
        dataCopies = try reader.u8()
        try reader.require(
            dataCopies >= 1 && dataCopies <= DiskFormat.maximumDataCopies, "data copies")
        try reader.reserved(Self.compressionOffset - reader.offset)
        compression = try CompressionSetting(&reader)
        try reader.reserved(Self.checksumOffset - reader.offset)
        try reader.require(
            DiskLayout.isSupported(blockCount),
            "device size of \(blockCount) blocks")
        let hasRemaps = incompatible & DiskFormat.Incompatible.remap != 0
        try reader.require(
            hasRemaps
                ? addressLimit >= blockCount && DiskLayout.isSupported(addressLimit)
                : addressLimit == 0, "limit of addresses")
        let layout = self.layout
        for root in [headRoot, volumeRoot] {
            try root.validate(layout, reader)
            try reader.require(root.checksumKind == checksumKind, "checksum kind of a root")
            try reader.require(root.sequence <= sequence, "root from the future")
            try reader.require(root.birth <= birthEpoch, "root born in the future")
        }
        try reader.require(
            journalExtents.isEmpty == (incompatible & DiskFormat.Incompatible.journal == 0),
            "journal extents and feature bit")
        for (index, run) in journalExtents.enumerated() {
            try reader.require(
                layout.isAllocatable(run) && run.start.block + run.count <= layout.usableEnd,
                "journal extent")
            for other in journalExtents[..<index] {
                try reader.require(
                    run.start + run.count <= other.start || other.start + other.count <= run.start,
                    "journal extents overlap")
            }
        }
        try reader.require(
            journalExtents.isEmpty || JournalGeometry.isSupported(journalExtents),
            "size of the journal")
        try reader.require(headCounts.areSane(layout), "counts of the default head")
        try reader.require(headCounts.inodes < inodeCeiling, "inode count")
        try reader.require(
            nextSnapshotID > SnapshotRecord.firstID
                && nextSnapshotID < SnapshotRecord.ids.upperBound,
            "next snapshot id")
    }

    private static func root(_ reader: inout ByteReader) throws(FSError) -> NodePointer {
        let start = reader.offset
        let pointer = try NodePointer(&reader)
        try reader.reserved(rootRoom - (reader.offset - start))
        return pointer
    }

    /// The block as it goes to disk, checksum included.
    public func encoded(modules: ModuleSet) -> ByteBuffer {
        let buffer = ByteBuffer(count: Self.byteCount)
        var writer = ByteWriter(buffer.bytes)
        writer.u64(DiskFormat.magic)
        writer.u32(version)
        writer.u8(UInt8(DiskFormat.blockShift))
        writer.u8(14)
        writer.u8(checksumKind.rawValue)
        writer.u8(1)
        writer.u64(compatible)
        writer.u64(readOnlyCompatible)
        writer.u64(incompatible)
        uuid.encode(&writer)
        internalUUID.encode(&writer)
        writer.text(label, room: 64)
        writer.u64(sequence.rawValue)
        writer.u64(birthEpoch.rawValue)
        writer.u64(inodeCeiling)
        writer.u32(isCleanlyUnmounted ? 1 : 0)
        writer.u16(UInt16(devices.count))
        writer.u16(0)
        writer.i64(written.seconds)
        writer.u32(written.nanoseconds)
        writer.reserved(4)
        writer.u64(headCounts.inodes)
        writer.u64(headCounts.promised)
        writer.u64(nextSnapshotID)
        writer.u64(nameHashKey.words.0)
        writer.u64(nameHashKey.words.1)
        bitmapRoot.encode(&writer)
        for root in [headRoot, volumeRoot] {
            let start = writer.offset
            root.encode(&writer)
            writer.reserved(Self.rootRoom - (writer.offset - start))
        }
        writer.u64(journalIncarnation)
        writer.u32(UInt32(journalExtents.count))
        writer.reserved(4)
        for index in 0..<Self.maximumJournalExtents {
            let run = index < journalExtents.count ? journalExtents[index] : BlockRun(.none, 0)
            writer.u64(run.start.rawValue)
            writer.u64(run.count)
        }
        for count in errorCounters.counts { writer.u64(count) }
        writer.text(lease?.host ?? "", room: 64)
        (lease?.bootID ?? VolumeUUID(high: 0, low: 0)).encode(&writer)
        writer.i64(lease?.time ?? 0)
        writer.u32(lease?.processID ?? 0)
        writer.reserved(4)
        for index in 0..<Self.maximumDevices {
            guard index < devices.count else {
                writer.reserved(64)
                continue
            }
            let entry = devices[index]
            entry.uuid.encode(&writer)
            writer.u64(entry.blockCount)
            writer.u64(entry.lastSequence)
            writer.u8(entry.flushCapability)
            writer.reserved(31)
        }
        writer.u64(operations)
        writer.u64(headCounts.referenced)
        writer.reserved(Self.spaceOffset - writer.offset)
        writer.u64(addressLimit)
        writer.reserved(Self.dataCopiesOffset - writer.offset)
        writer.u8(dataCopies)
        writer.reserved(Self.compressionOffset - writer.offset)
        compression.encode(&writer)
        writer.reserved(Self.checksumOffset - writer.offset)
        let checksum = modules.requiredChecksum(checksumKind)
        checksum.sum(buffer.view.slice(0, Self.checksumOffset))
            .store(buffer.bytes, Self.checksumOffset, count: 32)
        return buffer
    }

    public init(
        uuid: VolumeUUID, internalUUID: VolumeUUID, sequence: SuperblockSequence,
        inodeCeiling: UInt64, written: Timestamp, inodeCount: UInt64, nameHashKey: NameHashKey,
        headRoot: NodePointer, volumeRoot: NodePointer, devices: [DeviceEntry]
    ) {
        self.uuid = uuid
        self.internalUUID = internalUUID
        self.sequence = sequence
        self.inodeCeiling = inodeCeiling
        self.written = written
        headCounts = TreeCounts(inodes: inodeCount)
        self.nameHashKey = nameHashKey
        self.headRoot = headRoot
        self.volumeRoot = volumeRoot
        self.devices = devices
    }
}

extension VolumeUUID {
    package init(_ reader: inout ByteReader) throws(FSError) {
        // Stored in the byte order of the text form.
        self.init(high: try reader.u64().byteSwapped, low: try reader.u64().byteSwapped)
    }
    package func encode(_ writer: inout ByteWriter) {
        writer.u64(high.byteSwapped)
        writer.u64(low.byteSwapped)
    }
}

extension ByteReader {
    /// A zero-padded text field of `room` bytes; what is not UTF-8 is shown as replacement characters.
    mutating func text(_ room: Int) throws(FSError) -> String {
        let bytes = try bytes(room)
        let text = bytes.toArray().prefix { $0 != 0 }
        return String(decoding: text, as: UTF8.self)
    }
}

extension ByteWriter {
    /// The counterpart of `ByteReader.text`; what does not fit is cut at a character.
    mutating func text(_ text: String, room: Int) {
        var bytes: [UInt8] = []
        for character in text {
            let next = Array(String(character).utf8)
            guard bytes.count + next.count < room else { break }
            bytes += next
        }
        for byte in bytes { u8(byte) }
        reserved(room - bytes.count)
    }
}
