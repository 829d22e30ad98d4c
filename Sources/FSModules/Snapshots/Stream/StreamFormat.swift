/// The stream of `send` and `receive` (`docs/STREAM.md`): records, each with its number and a sum.
///
///     0    magic        u32   "ASTR"
///     4    version      u8    1
///     5    type         u8    `StreamRecord.Kind`
///     6    reserved     2
///     8    length       u32   of the payload, at most 1 MiB + 64 KiB
///     12   reserved     4
///     16   number       u64   0, 1, 2 …
///     24   stream       u64   the same in all records of a stream
///     32   sum          u64   XXH3 of the record with zeros here
///     40   payload
///
/// - Invariant: a payload is read only after its length was found possible and its sum right.
public import FSCore

public enum StreamError: Error, Equatable, Sendable {
    /// A record is not what was written, or what no sender writes.
    case damaged(record: UInt64, String)
    /// The stream ends before its last record.
    case cut(record: UInt64)
    case notAStream
    case unknownVersion(UInt8)
    /// No snapshot here is the one upon which the stream was made.
    case wrongBase(VolumeUUID)
    /// The stream begins in the middle of what was not begun here, or behind it.
    case wrongPlace(first: UInt64, expected: UInt64)
    case alreadyReceived(name: [UInt8])
    /// There is a snapshot or head of this name already.
    case nameTaken([UInt8])
    /// Another receive of the same snapshot is running.
    case isRunning
    case file(FSError)
}

struct StreamRecord {
    static let magic: UInt32 = 0x5254_5341
    static let version: UInt8 = 1
    static let headerSize = 40
    static let maximumPayload = (1 << 20) + (64 << 10)
    /// Data in one record.
    static let maximumData: UInt64 = 1 << 20

    enum Kind: UInt8, CaseIterable {
        case begin = 1
        case inode, detach, attach, settle
        case content, hole, promise, data, attribute, attributeRemoval, record
        case end

        /// Records come in the order of their phases.
        var phase: Int {
            switch self {
            case .begin: 0
            case .inode: 1
            case .detach: 2
            case .attach: 3
            case .settle: 4
            case .content, .hole, .promise, .data, .attribute, .attributeRemoval, .record: 5
            case .end: 6
            }
        }
    }

    var kind: Kind
    var number: UInt64
    var stream: UInt64
    var payload: [UInt8]

    /// Header and payload, with the sum.
    func encoded() -> ByteBuffer {
        let buffer = ByteBuffer(count: Self.headerSize + payload.count)
        var writer = ByteWriter(buffer.bytes)
        writer.u32(Self.magic)
        writer.u8(Self.version)
        writer.u8(kind.rawValue)
        writer.reserved(2)
        writer.u32(UInt32(payload.count))
        writer.reserved(4)
        writer.u64(number)
        writer.u64(stream)
        writer.u64(0)
        payload.withView { writer.bytes($0) }
        buffer.bytes.store(XXH3().sum(buffer.view).words.0, at: 32)
        return buffer
    }
}

/// Reads records one by one; the bytes come from `source`, which fills what it can and returns 0 only
/// at the end.
struct StreamReader {
    typealias Source = (MutableByteView) throws(StreamError) -> Int
    private let source: Source
    private var stream: UInt64?
    private(set) var next: UInt64 = 0
    private var phase = 0
    /// Off only where a test shows that it would be noticed.
    var verifies = true

    init(_ source: @escaping Source) { self.source = source }

    /// The numbers go on at `number`, as the first record says.
    mutating func skip(to number: UInt64) { next = number }

    mutating func read() throws(StreamError) -> StreamRecord {
        let header = ByteBuffer(count: StreamRecord.headerSize)
        let found = try fill(header.bytes)
        if found == 0 || found < header.count { throw ending(found, header.view) }
        let view = header.view
        guard view.u32(0) == StreamRecord.magic else {
            throw next == 0 ? .notAStream : bad("no record begins here")
        }
        guard view[4] == StreamRecord.version else {
            throw next == 0 ? .unknownVersion(view[4]) : bad("version")
        }
        let length = Int(view.u32(8))
        guard length <= StreamRecord.maximumPayload else { throw bad("a length of \(length)") }
        let whole = ByteBuffer(count: header.count + length)
        whole.bytes.copy(view)
        guard try fill(whole.bytes.slice(header.count, length)) == length else {
            throw .cut(record: next)
        }
        whole.bytes.store(UInt64(0), at: 32)
        guard !verifies || XXH3().sum(whole.view).words.0 == view.u64(32) else {
            throw bad("its sum is wrong")
        }
        guard view.u16(6) == 0, view.u32(12) == 0 else { throw bad("reserved bytes") }
        guard let kind = StreamRecord.Kind(rawValue: view[5]) else { throw bad("its type") }
        guard view.u64(16) == next else {
            throw bad("it has the number \(view.u64(16))")
        }
        guard (kind == .begin) == (stream == nil), kind.phase >= phase,
            kind.phase > phase || phase != 4
        else { throw bad("a record of type \(kind.rawValue) does not belong here") }
        guard stream == nil || stream == view.u64(24) else { throw bad("it is of another stream") }
        stream = view.u64(24)
        phase = kind.phase
        next += 1
        return StreamRecord(
            kind: kind, number: next - 1, stream: view.u64(24),
            payload: whole.view.slice(header.count, length).toArray())
    }

    private func bad(_ detail: String) -> StreamError { .damaged(record: next, detail) }

    private func ending(_ count: Int, _ view: ByteView) -> StreamError {
        guard next == 0 else { return .cut(record: next) }
        return count >= 4 && view.u32(0) == StreamRecord.magic ? .cut(record: 0) : .notAStream
    }

    private func fill(_ target: MutableByteView) throws(StreamError) -> Int {
        var done = 0
        while done < target.count {
            let count = try source(target.slice(done, target.count - done))
            if count == 0 { break }
            done += count
        }
        return done
    }
}

/// The first record: what the stream makes of what.
struct StreamBegin: Equatable {
    var snapshot: VolumeUUID
    var base: VolumeUUID?
    /// The number of the record that follows.
    var first: UInt64
    /// All inode numbers are below.
    var inodeBound: UInt64
    var created: Timestamp
    /// Name, description and tags.
    var label: SnapshotLabel

    var payload: [UInt8] {
        var bytes: [UInt8] = []
        for uuid in [snapshot, base ?? .none] {
            bytes.append(littleEndian: uuid.high)
            bytes.append(littleEndian: uuid.low)
        }
        bytes.append(littleEndian: first)
        bytes.append(littleEndian: inodeBound)
        bytes.append(littleEndian: created.seconds)
        bytes.append(littleEndian: created.nanoseconds)
        return bytes + (label.encoded() ?? [])
    }

    init(
        snapshot: VolumeUUID, base: VolumeUUID?, first: UInt64, inodeBound: UInt64,
        created: Timestamp, label: SnapshotLabel
    ) {
        self.snapshot = snapshot
        self.base = base
        self.first = first
        self.inodeBound = inodeBound
        self.created = created
        self.label = SnapshotLabel(name: label.name)
        self.label.description = label.description
        self.label.tags = label.tags
    }

    init(_ payload: ByteView) throws(FSError) {
        var reader = ByteReader(payload, .snapshot, at: 0)
        func uuid() throws(FSError) -> VolumeUUID {
            VolumeUUID(high: try reader.u64(), low: try reader.u64())
        }
        let snapshot = try uuid()
        let base = VolumeUUID.present(try uuid())
        let first = try reader.u64()
        let bound = try reader.u64()
        let created = Timestamp(seconds: try reader.i64(), nanoseconds: try reader.u32())
        try reader.require(snapshot != .none && snapshot != base, "uuid")
        try reader.require(first >= 1, "number of the first record")
        try reader.require(
            bound > InodeNumber.root.rawValue && bound <= FileSystem.receivedInodeLimit,
            "bound of the inode numbers")
        try reader.require(created.nanoseconds < 1_000_000_000, "time of creation")
        let label = try SnapshotLabel(
            SnapshotLabel.key(0), decoding: try reader.bytes(reader.remaining))
        self.init(
            snapshot: snapshot, base: base, first: first, inodeBound: bound, created: created,
            label: label)
    }
}
