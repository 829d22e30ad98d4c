/// The on-disk form of the journal: records in a ring, transactions in records.
///
///     record, at a fresh 4 KiB block
///     0    magic                "AEGISJNL"
///     8    version              u32, 0
///     12   kind                 u8: 1 transactions, 2 seal; 3 reserved
///     16   internal uuid        16
///     32   incarnation          u64
///     40   position             u64   ring blocks written before it since the ring began; its
///                                     remainder by the ring's length is the record's place
///     48   first operation      u64
///     56   last operation       u64   first − 1 for a seal
///     64   durable operation    u64   all up to this one were durable when this was written
///     72   durable sequence     u64   newest superblock known to be durable
///     80   payload bytes        u32
///     84   transaction count    u32
///     88   reserved             32    for sums of data that is not in the record
///     120  sum                  u64   keyed, over header (this field 0) and payload
///     128  transactions
///
///     transaction
///     0    byte count           u32   all of it
///     4    data offset          u32   where the staged data begins
///     8    updates              u32
///     12   allocated runs       u32
///     16   freed runs           u32
///     20   staged runs          u32
///     24   inode delta          i64
///     32   promised delta       i64   blocks
///     40   operation            u64
///     48   head                 u64   that the operation is about; of none the volume's tree
///     56   referenced delta     i64   blocks
///     64   updates              tree u64, object u64, offset u64, type u8, action u8 (0 delete,
///                               1 put), value bytes u16, value
///          allocated, freed     address u64, blocks u64 each
///          staged               address u64, blocks u64, data
///
/// The sum is keyed because a record holds data of users: nobody who can only write files can make
/// bytes that pass as a record. It covers the position, so that a copy elsewhere is no record either.
internal import FSCore

enum JournalFormat {
    static let magic: UInt64 = 0x4C4E_4A53_4947_4541
    static let version: UInt32 = 0
    static let headerSize = 128
    static let sumOffset = 120
    static let transactionHeaderSize = 64
    static let updateSize = 28
    static let runSize = 16
    /// Records are at most this long, and an eighth of the ring.
    static let maximumRecordSize = 1 << 20

    /// Whole blocks that a record of this many bytes takes.
    static func blocks(_ bytes: Int) -> UInt64 {
        UInt64((bytes + DiskFormat.blockSize - 1) / DiskFormat.blockSize)
    }
}

/// The first 128 bytes of a record.
struct RecordHeader {
    var kind: JournalRecord.Kind
    var internalUUID: VolumeUUID
    var incarnation: UInt64
    var position: UInt64
    var firstOperation: UInt64
    var lastOperation: UInt64
    var durableOperation: UInt64
    var durableSequence: SuperblockSequence
    var payloadBytes: Int
    var transactionCount: UInt32

    var byteCount: Int { JournalFormat.headerSize + payloadBytes }

    /// Writes the header in front of a payload that is already in `record`, and the sum over both.
    func seal(_ record: MutableByteView, _ hash: any NameHash) {
        var writer = ByteWriter(record)
        writer.u64(JournalFormat.magic)
        writer.u32(JournalFormat.version)
        writer.u8(kind == .transactions ? 1 : 2)
        writer.reserved(3)
        internalUUID.encode(&writer)
        writer.u64(incarnation)
        writer.u64(position)
        writer.u64(firstOperation)
        writer.u64(lastOperation)
        writer.u64(durableOperation)
        writer.u64(durableSequence.rawValue)
        writer.u32(UInt32(payloadBytes))
        writer.u32(transactionCount)
        writer.reserved(32)
        writer.u64(0)
        record.store(hash.hash(record.view.slice(0, byteCount)), at: JournalFormat.sumOffset)
    }

    /// Decodes what looks like a header; throws if it is none. The sum is still to be checked.
    init(_ view: ByteView, at location: UInt64) throws(FSError) {
        var reader = ByteReader(view, .journal, at: location)
        try reader.require(try reader.u64() == JournalFormat.magic, "no record")
        try reader.require(try reader.u32() == JournalFormat.version, "version")
        switch try reader.u8() {
        case 1: kind = .transactions
        case 2: kind = .seal
        default: throw reader.corrupt("kind of record")
        }
        try reader.reserved(3)
        internalUUID = try VolumeUUID(&reader)
        incarnation = try reader.u64()
        position = try reader.u64()
        firstOperation = try reader.u64()
        lastOperation = try reader.u64()
        durableOperation = try reader.u64()
        durableSequence = SuperblockSequence(try reader.u64())
        payloadBytes = Int(try reader.u32())
        transactionCount = try reader.u32()
        let limit: UInt64 = 1 << 62
        try reader.require(
            incarnation < limit && position < limit && firstOperation > 0 && lastOperation < limit
                && durableOperation < limit && durableSequence.rawValue < limit,
            "a counter is out of range")
        try reader.require(
            payloadBytes <= JournalFormat.maximumRecordSize - JournalFormat.headerSize,
            "length of record")
        switch kind {
        case .transactions:
            try reader.require(
                lastOperation >= firstOperation
                    && lastOperation - firstOperation + 1 == UInt64(transactionCount),
                "operations of record")
        case .seal:
            try reader.require(
                lastOperation == firstOperation - 1 && payloadBytes == 0 && transactionCount == 0,
                "operations of seal")
        }
    }

    init(
        kind: JournalRecord.Kind, internalUUID: VolumeUUID, incarnation: UInt64, position: UInt64,
        firstOperation: UInt64, lastOperation: UInt64, durableOperation: UInt64,
        durableSequence: SuperblockSequence, payloadBytes: Int
    ) {
        self.kind = kind
        self.internalUUID = internalUUID
        self.incarnation = incarnation
        self.position = position
        self.firstOperation = firstOperation
        self.lastOperation = lastOperation
        self.durableOperation = durableOperation
        self.durableSequence = durableSequence
        self.payloadBytes = payloadBytes
        transactionCount = UInt32(lastOperation + 1 - firstOperation)
    }
}

/// Encodes and decodes transactions.
enum TransactionCoder {
    static func size(_ transaction: Transaction) -> Int {
        var size = JournalFormat.transactionHeaderSize + transaction.data.count
        for update in transaction.updates {
            size += JournalFormat.updateSize + (update.value?.count ?? 0)
        }
        return size + JournalFormat.runSize
            * (transaction.published.count + transaction.released.count + transaction.staged.count)
    }

    /// Encodes into memory of exactly `size` bytes. `staged` hears where each staged run's data
    /// came to lie.
    static func encode(
        _ transaction: Transaction, operation: UInt64, into target: MutableByteView,
        staged: (BlockRun, Int) -> Void
    ) {
        var writer = ByteWriter(target)
        let stagedSize = transaction.staged.count * JournalFormat.runSize + transaction.data.count
        writer.u32(UInt32(target.count))
        writer.u32(UInt32(target.count - stagedSize))
        writer.u32(UInt32(transaction.updates.count))
        writer.u32(UInt32(transaction.published.count))
        writer.u32(UInt32(transaction.released.count))
        writer.u32(UInt32(transaction.staged.count))
        writer.i64(transaction.inodeDelta)
        writer.i64(transaction.promisedDelta)
        writer.u64(operation)
        writer.u64(transaction.tree.rawValue)
        writer.i64(transaction.referencedDelta)
        transaction.bytes.withView { bytes in
            for update in transaction.updates {
                writer.u64(update.tree.rawValue)
                writer.u64(update.key.object)
                writer.u64(update.key.offset)
                writer.u8(update.key.type.rawValue)
                writer.u8(update.value == nil ? 0 : 1)
                writer.u16(UInt16(update.value?.count ?? 0))
                if let range = update.value {
                    writer.bytes(bytes.slice(range.lowerBound, range.count))
                }
            }
        }
        func put(_ run: BlockRun) {
            writer.u64(run.start.rawValue)
            writer.u64(run.count)
        }
        for run in transaction.published { put(run) }
        for run in transaction.released { put(run) }
        transaction.data.withView { data in
            for part in transaction.staged {
                put(part.run)
                staged(part.run, writer.offset)
                writer.bytes(data.slice(part.start, Int(part.run.count) * DiskFormat.blockSize))
            }
        }
    }

    /// Makes an encoded transaction, of which the staged data was left out, one without such.
    static func strip(_ target: MutableByteView) {
        target.store(target.view.u32(4), at: 0)
        target.store(UInt32(0), at: 20)
    }

    static func byteCount(_ view: ByteView) -> Int { Int(view.u32(0)) }
    /// The number of the operation whose transaction begins at `offset`; 0 behind the end.
    static func operation(_ view: ByteView, at offset: Int) -> UInt64 {
        view.count - offset >= JournalFormat.transactionHeaderSize ? view.u64(offset + 40) : 0
    }
    static func dataOffset(_ view: ByteView) -> Int { Int(view.u32(4)) }

    /// Decodes one transaction, of a record whose sum was right but whose maker may be hostile.
    static func decode(
        _ reader: inout ByteReader, _ layout: DiskLayout, into transaction: Transaction
    ) throws(FSError) -> UInt64 {
        transaction.removeAll()
        let start = reader.offset
        let counts = try header(&reader)
        transaction.inodeDelta = try reader.i64()
        transaction.promisedDelta = try reader.i64()
        let bound = Int64(1) << 56
        try reader.require(
            abs(clamped: transaction.inodeDelta) < bound
                && abs(clamped: transaction.promisedDelta) < bound, "change of a count")
        let operation = try reader.u64()
        transaction.tree = TreeID(try reader.u64())
        try reader.require(transaction.tree.rawValue > 0, "tree 0")
        transaction.referencedDelta = try reader.i64()
        try reader.require(abs(clamped: transaction.referencedDelta) < bound, "change of a count")
        for _ in 0..<counts.updates {
            let tree = TreeID(try reader.u64())
            try reader.require(tree.rawValue > 0, "tree 0")
            let object = try reader.u64()
            let offset = try reader.u64()
            let key = Key(object, ItemType(rawValue: try reader.u8()), offset)
            let action = try reader.u8()
            let count = Int(try reader.u16())
            try reader.require(action < 2 && (action == 1 || count == 0), "action of an update")
            try reader.require(count <= DiskFormat.maximumValueSize, "length of a value")
            let value = try reader.bytes(count)
            transaction.replayUpdate(tree, key, action == 1 ? value : nil)
        }
        for _ in 0..<counts.allocated { transaction.publish(try run(&reader, layout)) }
        for _ in 0..<counts.freed {
            transaction.release(try run(&reader, layout))
        }
        try reader.require(reader.offset - start == counts.dataOffset, "place of staged data")
        for _ in 0..<counts.staged {
            let place = try run(&reader, layout)
            try reader.require(place.count <= 256, "length of staged data")
            transaction.stage(place, try reader.bytes(Int(place.count) * DiskFormat.blockSize))
        }
        try reader.require(reader.offset - start == counts.bytes, "length of a transaction")
        return operation
    }

    /// The blocks that a transaction allocated, and its operation; skips the rest of it.
    static func allocated(
        _ reader: inout ByteReader, _ layout: DiskLayout,
        _ body: (BlockRun) throws(FSError) -> Void
    ) throws(FSError) -> UInt64 {
        let start = reader.offset
        let counts = try header(&reader)
        _ = try reader.bytes(16)
        let operation = try reader.u64()
        _ = try reader.bytes(16)
        for _ in 0..<counts.updates {
            _ = try reader.bytes(26)
            _ = try reader.bytes(Int(try reader.u16()))
        }
        for _ in 0..<counts.allocated { try body(try run(&reader, layout)) }
        let rest = counts.bytes - (reader.offset - start)
        _ = try reader.bytes(rest)
        return operation
    }

    private static func header(
        _ reader: inout ByteReader
    ) throws(FSError) -> (
        bytes: Int, dataOffset: Int, updates: UInt32, allocated: UInt32, freed: UInt32,
        staged: UInt32
    ) {
        let bytes = Int(try reader.u32())
        let dataOffset = Int(try reader.u32())
        return (
            bytes, dataOffset, try reader.u32(), try reader.u32(), try reader.u32(),
            try reader.u32()
        )
    }

    private static func run(
        _ reader: inout ByteReader, _ layout: DiskLayout
    ) throws(FSError) -> BlockRun {
        let run = BlockRun(BlockAddress(rawValue: try reader.u64()), try reader.u64())
        try reader.require(layout.isAllocatable(run), "blocks \(run.start.block)+\(run.count)")
        return run
    }

    private static func abs(clamped value: Int64) -> Int64 {
        value == .min ? .max : Swift.abs(value)
    }
}
