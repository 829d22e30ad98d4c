/// The names of one directory that share a 56-bit hash, usually one: key (directory, directory
/// entry, hash).
///
///     0  version   u8   1
///     1  count     u8   1 … 15
///     2  entries, each:
///        inode u64 · kind u8 (d_type) · ordinal u8 (1 … 15) · name length u8 (1 … 255) · name
///
/// A readdir cookie is hash ‖ ordinal (60 bits, positive). The ordinal is stored, so that a cookie
/// stays valid while other names with the same hash come and go.
///
/// - Invariant: ordinals and names of an item are distinct; entries are in order of their ordinals.
package struct DirectoryRecord {
    static let maximumEntries = 15
    static let headerSize = 2
    static let entryHeaderSize = 11

    /// The largest hash; 0 is left to the cookies of "." and "..".
    static let hashMask: UInt64 = (1 << 56) - 1

    package struct Entry {
        package var inode: InodeNumber
        package var kind: FileKind
        package var ordinal: UInt8
        package var name: ByteView
    }

    static func cookie(hash: UInt64, ordinal: UInt8) -> UInt64 { hash << 4 | UInt64(ordinal) }

    /// Calls `body` with each entry in order until it returns false. Throws if the record is not
    /// one that could have been written.
    package static func forEach(
        _ value: ByteView, directory: UInt64, _ body: (Entry) throws(FSError) -> Bool
    ) throws(FSError) {
        var reader = ByteReader(value, .directory, at: directory)
        try reader.require(try reader.u8() == 1, "record version")
        let count = Int(try reader.u8())
        try reader.require(count >= 1 && count <= maximumEntries, "\(count) entries in a record")
        var lastOrdinal: UInt8 = 0
        for _ in 0..<count {
            let inode = try reader.u64()
            try reader.require(inode > 0 && inode < InodeNumber.limit, "inode number \(inode)")
            guard let kind = FileKind(rawValue: try reader.u8()) else {
                throw reader.corrupt("kind of an entry")
            }
            let ordinal = try reader.u8()
            try reader.require(ordinal > lastOrdinal && ordinal <= 15, "ordinal \(ordinal)")
            lastOrdinal = ordinal
            let length = Int(try reader.u8())
            try reader.require(length > 0, "empty name")
            let name = try reader.bytes(length)
            try reader.require(
                DirectoryRecord.isValid(name: name), "name with '/' or NUL, or . or ..")
            let entry = Entry(inode: InodeNumber(inode), kind: kind, ordinal: ordinal, name: name)
            if try !body(entry) { return }
        }
        try reader.require(reader.remaining == 0, "bytes behind the last entry")
    }

    /// The entry with this name. Its `name` is borrowed from `value`.
    package static func find(
        _ name: ByteView, in value: ByteView, directory: UInt64
    ) throws(FSError) -> Entry? {
        var found: Entry?
        try forEach(value, directory: directory) { (entry) throws(FSError) in
            if entry.name.equals(name) {
                found = entry
                return false
            }
            return true
        }
        return found
    }

    /// The record with one more entry, and that entry's ordinal; nil when all ordinals are taken or
    /// the item would be too long.
    static func adding(
        name: ByteView, inode: InodeNumber, kind: FileKind, to value: ByteView?, directory: UInt64
    ) throws(FSError) -> (record: [UInt8], ordinal: UInt8)? {
        var used: UInt16 = 1
        var length = headerSize + entryHeaderSize + name.count
        if let value {
            try forEach(value, directory: directory) { (entry) throws(FSError) in
                used |= 1 << entry.ordinal
                return true
            }
            length += value.count - headerSize
        }
        let ordinal = UInt8((~used).trailingZeroBitCount)
        guard ordinal <= 15, length <= DiskFormat.maximumValueSize else { return nil }
        var record: [UInt8] = [1, 0]
        record.reserveCapacity(length)
        let new = Entry(inode: inode, kind: kind, ordinal: ordinal, name: name)
        var isPlaced = false
        if let value {
            try forEach(value, directory: directory) { (entry) throws(FSError) in
                if !isPlaced, entry.ordinal > ordinal {
                    append(new, to: &record)
                    isPlaced = true
                }
                append(entry, to: &record)
                return true
            }
        }
        if !isPlaced { append(new, to: &record) }
        return (record, ordinal)
    }

    /// The record without `name`; empty when that was the last entry.
    static func removing(
        name: ByteView, from value: ByteView, directory: UInt64
    ) throws(FSError) -> [UInt8] {
        var record: [UInt8] = [1, 0]
        try forEach(value, directory: directory) { (entry) throws(FSError) in
            if !entry.name.equals(name) { append(entry, to: &record) }
            return true
        }
        return record[1] == 0 ? [] : record
    }

    /// The record with `name` pointing to another inode; its cookie stays.
    static func replacing(
        name: ByteView, inode: InodeNumber, kind: FileKind, in value: ByteView, directory: UInt64
    ) throws(FSError) -> [UInt8] {
        var record: [UInt8] = [1, 0]
        try forEach(value, directory: directory) { (entry) throws(FSError) in
            var entry = entry
            if entry.name.equals(name) {
                entry.inode = inode
                entry.kind = kind
            }
            append(entry, to: &record)
            return true
        }
        return record
    }

    /// The record with entries changed, and without those for which `body` returns false; empty when
    /// none is left.
    static func rewriting(
        _ value: ByteView, directory: UInt64, _ body: (inout Entry) -> Bool
    ) throws(FSError) -> [UInt8] {
        var record: [UInt8] = [1, 0]
        try forEach(value, directory: directory) { (entry) throws(FSError) in
            var entry = entry
            if body(&entry) { append(entry, to: &record) }
            return true
        }
        return record[1] == 0 ? [] : record
    }

    private static func append(_ entry: Entry, to record: inout [UInt8]) {
        record[1] += 1
        record.append(littleEndian: entry.inode.rawValue)
        record.append(entry.kind.rawValue)
        record.append(entry.ordinal)
        record.append(UInt8(entry.name.count))
        record.append(entry.name)
    }

    /// Whether a name may stand in a directory: 1 to 255 bytes, no '/' and no NUL, not "." or "..".
    package static func isValid(name: ByteView) -> Bool {
        guard name.count >= 1, name.count <= DiskFormat.maximumNameLength else { return false }
        if name[0] == 0x2E, name.count == 1 || (name.count == 2 && name[1] == 0x2E) { return false }
        return unsafe !name.unsafeBytes.contains { $0 == 0 || $0 == 0x2F }
    }
}
