/// What people call a snapshot or a head, and what keeps it: key (0, snapshot label, id) in the
/// volume tree.
///
///     0    version            u8   1
///     1    name length        u8   1 … 255
///     2    tags               u8
///     3    holds              u8
///     4    description length u16
///     6    reserved           2
///     8    protected until    i64  seconds since 1970; 0: not
///     16   name
///     …    description
///     …    tags               each: key length u8, value length u16, key, value
///     …    holds              each: length u8, bytes
///
/// - Invariant: the whole is at most 4000 bytes.
public struct SnapshotLabel: Equatable, Sendable {
    static let headerSize = 16

    /// A valid file name.
    public var name: [UInt8]
    public var description: [UInt8] = []
    /// In the order of their keys.
    public var tags: [Tag] = []
    public var holds: [[UInt8]] = []
    public var protectedUntil: Int64 = 0

    public struct Tag: Equatable, Sendable {
        public var key: [UInt8]
        public var value: [UInt8]
        public init(key: [UInt8], value: [UInt8]) {
            self.key = key
            self.value = value
        }
    }

    public init(name: [UInt8]) { self.name = name }

    package static func key(_ id: UInt64) -> Key { Key(0, .snapshotLabel, id) }

    package init(_ key: Key, decoding value: ByteView) throws(FSError) {
        var reader = ByteReader(value, .snapshot, at: key.offset)
        try reader.require(try reader.u8() == 1, "record version")
        let nameLength = Int(try reader.u8())
        let tagCount = try reader.u8()
        let holdCount = try reader.u8()
        let descriptionLength = Int(try reader.u16())
        try reader.reserved(2)
        protectedUntil = try reader.i64()
        let name = try reader.bytes(nameLength)
        try reader.require(Self.isValid(name: name), "name")
        self.name = name.toArray()
        description = try reader.bytes(descriptionLength).toArray()
        for _ in 0..<tagCount {
            let keyLength = Int(try reader.u8())
            let valueLength = Int(try reader.u16())
            let key = try reader.bytes(keyLength).toArray()
            tags.append(Tag(key: key, value: try reader.bytes(valueLength).toArray()))
        }
        for _ in 0..<holdCount { holds.append(try reader.bytes(Int(try reader.u8())).toArray()) }
        try reader.require(reader.remaining == 0 && key.object == 0, "length of a label")
    }

    /// Nil if it does not fit.
    package func encoded() -> [UInt8]? {
        guard name.withView({ Self.isValid(name: $0) }), tags.count <= 255, holds.count <= 255,
            description.count <= DiskFormat.maximumValueSize,
            tags.allSatisfy({ $0.key.count <= 255 && $0.value.count <= 4000 }),
            holds.allSatisfy({ $0.count <= 255 })
        else { return nil }
        var record: [UInt8] = [1, UInt8(name.count), UInt8(tags.count), UInt8(holds.count)]
        record.append(littleEndian: UInt16(description.count))
        record += [0, 0]
        record.append(littleEndian: UInt64(bitPattern: protectedUntil))
        record += name
        record += description
        for tag in tags {
            record.append(UInt8(tag.key.count))
            record.append(littleEndian: UInt16(tag.value.count))
            record += tag.key
            record += tag.value
        }
        for hold in holds {
            record.append(UInt8(hold.count))
            record += hold
        }
        return record.count <= DiskFormat.maximumValueSize ? record : nil
    }

    /// Names are what a file's may be, so that `.snapshots/NAME` can show them.
    package static func isValid(name: ByteView) -> Bool {
        name.count >= 1 && name.count <= DiskFormat.maximumNameLength
            && DirectoryRecord.isValid(name: name)
    }
}
