/// Reads untrusted bytes front to back. Every read checks that enough bytes are left and throws
/// `FSError.corrupt` naming the structure, so that hostile bytes can never trap.
package struct ByteReader {
    package let view: ByteView
    package private(set) var offset = 0
    let structure: Corruption.Structure
    let location: UInt64

    package init(_ view: ByteView, _ structure: Corruption.Structure, at location: UInt64) {
        self.view = view
        self.structure = structure
        self.location = location
    }

    package var remaining: Int { view.count - offset }

    package func corrupt(_ detail: String) -> FSError {
        .corrupt(Corruption(structure, at: location, detail))
    }

    package func require(_ condition: Bool, _ detail: @autoclosure () -> String) throws(FSError) {
        if !condition { throw corrupt(detail()) }
    }

    private mutating func advance(_ count: Int) throws(FSError) -> Int {
        guard count >= 0, remaining >= count else { throw corrupt("record is cut short") }
        defer { offset += count }
        return offset
    }
    package mutating func u8() throws(FSError) -> UInt8 { view[try advance(1)] }
    package mutating func u16() throws(FSError) -> UInt16 { view.u16(try advance(2)) }
    package mutating func u32() throws(FSError) -> UInt32 { view.u32(try advance(4)) }
    package mutating func u64() throws(FSError) -> UInt64 { view.u64(try advance(8)) }
    package mutating func i64() throws(FSError) -> Int64 { view.i64(try advance(8)) }
    package mutating func bytes(_ count: Int) throws(FSError) -> ByteView {
        view.slice(try advance(count), count)
    }
    /// Reserved room must be zero, so that a later meaning is never mistaken.
    package mutating func reserved(_ count: Int) throws(FSError) {
        let room = try bytes(count)
        try require(room.isAllZero, "reserved bytes are not zero")
    }
}

/// Writes a record front to back into memory that the caller sized; the counterpart of
/// `ByteReader`. Running over the end is a programming error and traps.
package struct ByteWriter {
    package let target: MutableByteView
    package private(set) var offset = 0

    package init(_ target: MutableByteView) { self.target = target }

    package mutating func u8(_ value: UInt8) { target[offset] = value; offset += 1 }
    package mutating func u16(_ value: UInt16) { target.store(value, at: offset); offset += 2 }
    package mutating func u32(_ value: UInt32) { target.store(value, at: offset); offset += 4 }
    package mutating func u64(_ value: UInt64) { target.store(value, at: offset); offset += 8 }
    package mutating func i64(_ value: Int64) { target.store(value, at: offset); offset += 8 }
    package mutating func bytes(_ source: ByteView) {
        target.copy(source, at: offset)
        offset += source.count
    }
    package mutating func reserved(_ count: Int) {
        target.zero(offset, count)
        offset += count
    }
}
