/// One scrub as the volume remembers it: record 0 of the module `scrub` is the current or last one, the
/// others are those before it.
///
///     0   state        u8    1 running, 2 paused, 3 finished, 4 cancelled, 5 failed
///     1   reserved     7
///     8   number       u64   of the scrub, from 1
///     16  started      i64   seconds since 1970
///     24  ended        i64   the same; 0: not yet
///     32  active       u64   seconds, without those in which it was paused
///     40  done         u64   bytes
///     48  total        u64   bytes, an estimate
///     56  found        u64   bad copies
///     64  healed       u64
///     72  lost         u64   blocks without a good copy
///     80  rate limit   u64   bytes per second; 0 none
///     88  tree         u64   whose items are looked at; 0 none yet
///     96  key object   u64   where in it
///     104 key offset   u64
///     112 key type     u8
///     113 reserved     7
///     120 path         UTF-8; empty: the whole volume
///
/// - Invariant: a scrub whose record says "running" and that nobody runs was interrupted, and goes on
///   where the record says.
public import FSCore

public struct ScrubRecord: Equatable, Sendable {
    public enum State: UInt8, Sendable {
        case running = 1
        case paused = 2
        case finished = 3
        case cancelled = 4
        case failed = 5
    }
    static let headerSize = 120
    /// So many scrubs before the last one are remembered.
    static let historyCount: UInt64 = 16
    public static let maximumPathBytes = 3000

    public var state = State.running
    public var number: UInt64
    public var started: Int64
    public var ended: Int64 = 0
    public var activeSeconds: UInt64 = 0
    public var doneBytes: UInt64 = 0
    public var totalBytes: UInt64 = 0
    public var found: UInt64 = 0
    public var healed: UInt64 = 0
    public var lost: UInt64 = 0
    public var rateLimit: UInt64 = 0
    var tree: UInt64 = 0
    var position = Key.minimum
    public var path = ""
    /// Then nothing is stored, this neither.
    public var isDryRun = false

    public var isWhole: Bool { path.isEmpty }
    /// It is not at its end.
    public var isOpen: Bool { state == .running || state == .paused }

    init(number: UInt64, started: Int64) {
        self.number = number
        self.started = started
    }

    init?(_ payload: [UInt8]) {
        guard payload.count >= Self.headerSize,
            payload.count <= Self.headerSize + Self.maximumPathBytes,
            let state = State(rawValue: payload[0])
        else { return nil }
        self.state = state
        func word(_ offset: Int) -> UInt64 { payload.withView { $0.u64(offset) } }
        number = word(8)
        started = Int64(bitPattern: word(16))
        ended = Int64(bitPattern: word(24))
        (activeSeconds, doneBytes, totalBytes) = (word(32), word(40), word(48))
        (found, healed, lost, rateLimit) = (word(56), word(64), word(72), word(80))
        tree = word(88)
        position = Key(word(96), ItemType(rawValue: payload[112]), word(104))
        guard let path = String(validating: payload[Self.headerSize...], as: UTF8.self) else {
            return nil
        }
        self.path = path
        doneBytes = min(doneBytes, totalBytes)
    }

    func encoded() -> [UInt8] {
        var payload: [UInt8] = [state.rawValue, 0, 0, 0, 0, 0, 0, 0]
        for word in [
            number, UInt64(bitPattern: started), UInt64(bitPattern: ended), activeSeconds,
            doneBytes,
            totalBytes, found, healed, lost, rateLimit, tree, position.object, position.offset,
        ] {
            payload.append(littleEndian: word)
        }
        payload += [position.type.rawValue, 0, 0, 0, 0, 0, 0, 0]
        return payload + Array(path.utf8)
    }

    // MARK: In the volume

    /// The current or last scrub; nil if there was none.
    public static func last(in volume: Volume) -> ScrubRecord? {
        ((try? volume.moduleRecord(.scrub, 0)) ?? nil).flatMap(ScrubRecord.init)
    }

    /// Scrubs before the last one, the newest first.
    public static func history(in volume: Volume) -> [ScrubRecord] {
        let records = (try? volume.moduleRecords(.scrub, limit: 64)) ?? []
        return records.filter { $0.number != 0 }.compactMap { ScrubRecord($0.payload) }
            .sorted { $0.number > $1.number }
    }

    func store(in volume: Volume) throws(FSError) {
        try volume.setModuleRecord(.scrub, 0, encoded())
    }

    /// Keeps one that was interrupted from going on by itself.
    public static func pause(
        _ record: ScrubRecord, in volume: Volume
    ) throws(FSError) -> ScrubRecord {
        var record = record
        record.state = .paused
        try record.store(in: volume)
        return record
    }

    /// Ends one that nobody runs.
    public static func cancel(
        _ record: ScrubRecord, in volume: Volume
    ) throws(FSError) -> ScrubRecord {
        var record = record
        record.state = .cancelled
        record.ended = Timestamp.now().seconds
        try record.store(in: volume)
        return record
    }

    /// Makes room for the next one.
    func archive(in volume: Volume) throws(FSError) {
        try volume.setModuleRecord(.scrub, 1 + number % Self.historyCount, encoded())
    }
}
