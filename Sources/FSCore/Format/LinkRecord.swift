/// Names of an inode beyond the one in its record: key (inode, link, parent ‖ page), so that every
/// inode has all its paths.
///
/// The offset is the parent's number (48 bits) and a page number (16 bits); a value is a version
/// byte and 1 to 256 name cookies of 8 bytes, in no order.
package struct LinkRecord {
    static let maximumCookies = 256

    static func offset(parent: InodeNumber, page: UInt64) -> UInt64 { parent.rawValue << 16 | page }

    package static func cookies(_ value: ByteView, inode: UInt64) throws(FSError) -> [UInt64] {
        var reader = ByteReader(value, .link, at: inode)
        try reader.require(try reader.u8() == 1, "record version")
        try reader.require(
            reader.remaining > 0 && reader.remaining % 8 == 0
                && reader.remaining / 8 <= maximumCookies, "length of a link record")
        var cookies: [UInt64] = []
        while reader.remaining > 0 { cookies.append(try reader.u64()) }
        return cookies
    }

    static func encode(_ cookies: [UInt64]) -> [UInt8] {
        var record: [UInt8] = [1]
        for cookie in cookies {
            record.append(littleEndian: cookie)
        }
        return record
    }
}
