/// Turns bytes from a device into a node page that may be trusted, or says what is wrong with them.
///
/// The checksum says that the bytes are those that were written; this says that a node of this
/// place could have been written at all, so that a crafted image can neither trap nor loop: levels
/// fall strictly, keys stay in the parent's range, births do not exceed the pointer's.
package struct NodeValidator {
    let geometry: VolumeGeometry
    let internalUUID: VolumeUUID
    /// Of the whole volume: pointers to nodes all have the same size.
    let checksumKind: ChecksumKind

    static let outOfRange = "keys outside of the parent's range"

    /// What the parent states of a child.
    package struct Expectation: Equatable {
        package var pointer: NodePointer
        package var tree: TreeKind
        /// Keys of the child are in `lower ..< upper`; nil is no bound.
        package var lower: Key?
        package var upper: Key?

        package init(pointer: NodePointer, tree: TreeKind, lower: Key?, upper: Key?) {
            self.pointer = pointer
            self.tree = tree
            self.lower = lower
            self.upper = upper
        }

        /// What a node, which was validated, states of its child at `index`.
        package func child(_ node: NodePage, _ index: Int) throws(FSError) -> Expectation {
            var reader = ByteReader(node.value(index), .node, at: pointer.address.block << 12)
            return Expectation(
                pointer: try NodePointer(&reader), tree: tree,
                lower: index > 0 ? node.key(index) : lower,
                upper: index + 1 < node.count ? node.key(index + 1) : upper)
        }
    }

    /// Checks header, slots, heap and, of an inner node, every child pointer.
    func validate(_ page: NodePage, _ expected: Expectation) throws(FSError) {
        let view = page.view
        let location = expected.pointer.address.block << 12
        let reader = ByteReader(view, .node, at: location)
        try reader.require(view.u32(32) == NodePage.magic, "no node magic")
        try reader.require(view[36] == NodePage.version, "node version \(view[36])")
        try reader.require(page.level == expected.pointer.level, "level \(page.level)")
        try reader.require(view.u16(38) == 0, "reserved bytes are not zero")
        var uuidReader = ByteReader(view.slice(40, 16), .node, at: location)
        try reader.require(try VolumeUUID(&uuidReader) == internalUUID, "node of another volume")
        try reader.require(page.address == expected.pointer.address, "node of another place")
        try reader.require(page.kind == expected.tree, "node of another kind of tree")
        try reader.require(page.sequence == expected.pointer.sequence, "sequence differs")
        try reader.require(page.birth == expected.pointer.birth, "birth differs")
        try reader.require(view.slice(88, 42).isAllZero, "encrypted node")
        try reader.require(view.slice(136, 24).isAllZero, "reserved bytes are not zero")

        let count = page.count
        let heapStart = Int(view.u16(132))
        let garbage = Int(view.u16(134))
        let slotsEnd = NodePage.headerSize + count * NodePage.slotSize
        try reader.require(
            slotsEnd <= heapStart && heapStart <= DiskFormat.nodeSize, "slots run into the heap")
        // Sealed pages are compact, so the values must tile the heap: no two can overlap.
        try reader.require(garbage == 0, "garbage in a sealed node")
        var total = 0
        var previous: Key?
        for index in 0..<count {
            let slot = NodePage.headerSize + index * NodePage.slotSize
            let offset = Int(view.u16(slot + 17))
            let length = Int(view.u16(slot + 19))
            try reader.require(length <= DiskFormat.maximumValueSize, "value of \(length) bytes")
            try reader.require(
                offset >= heapStart && offset + length <= DiskFormat.nodeSize,
                "value outside of the heap")
            total += length
            let key = page.key(index)
            if let previous { try reader.require(previous < key, "keys out of order") }
            previous = key
        }
        try reader.require(total == DiskFormat.nodeSize - heapStart, "values do not fill the heap")
        try tile(page, reader)
        try reader.require(
            page.isWithin(expected.lower, expected.upper), Self.outOfRange)
        if page.level > 0 {
            let layout = geometry.layout
            try reader.require(count > 0, "inner node without children")
            for index in 0..<count {
                _ = try child(page, index, expected.pointer, layout, reader)
            }
        }
    }

    /// That no byte of the heap belongs to two values.
    private func tile(_ page: NodePage, _ reader: ByteReader) throws(FSError) {
        // Values are usually laid down in order of insertion; an index sort decides every case.
        let view = page.view
        var starts: [UInt32] = []
        starts.reserveCapacity(page.count)
        for index in 0..<page.count {
            let slot = NodePage.headerSize + index * NodePage.slotSize
            let length = UInt32(view.u16(slot + 19))
            if length > 0 { starts.append(UInt32(view.u16(slot + 17)) << 16 | length) }
        }
        starts.sort()
        var end = UInt32(view.u16(132))
        for item in starts {
            try reader.require(item >> 16 == end, "values overlap")
            end += item & 0xFFFF
        }
    }

    /// Decodes and checks the child pointer at `index` of an inner node.
    func child(
        _ page: NodePage, _ index: Int, _ parent: NodePointer, _ layout: DiskLayout,
        _ outer: ByteReader
    ) throws(FSError) -> NodePointer {
        var reader = ByteReader(page.value(index), .node, at: outer.location)
        let pointer = try NodePointer(&reader)
        try reader.require(reader.remaining == 0, "bytes behind a child pointer")
        try pointer.validate(layout, reader)
        try reader.require(pointer.checksumKind == checksumKind, "checksum kind of a pointer")
        try reader.require(pointer.level + 1 == parent.level, "level of a child pointer")
        try reader.require(pointer.birth <= parent.birth, "child born after its parent")
        try reader.require(pointer.sequence <= parent.sequence, "child written after its parent")
        return pointer
    }
}
