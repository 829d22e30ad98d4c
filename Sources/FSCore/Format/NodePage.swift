/// A tree node as its 16 KiB page: the on-disk form is the in-memory form.
///
///     0    checksum          32   copy of the pointer's, for salvage; not part of the sum, but compared
///     32   magic             u32  "AGND"
///     36   version           u8   1
///     37   level             u8   0 = leaf
///     38   reserved          u16
///     40   internal uuid     16
///     56   address           u64  of the first replica
///     64   tree kind         u64  1 volume, 2 files
///     72   sequence          u64
///     80   birth             u64
///     88   nonce             24   reserved for encryption
///     112  tag               16   reserved for encryption
///     128  key id            u16  0 = plain
///     130  item count        u16
///     132  heap start        u16  values lie in heap start ..< 16384
///     134  garbage           u16  dead bytes inside the heap
///     136  reserved          24
///     160  slots             21 each, in key order: object u64, type u8, offset u64,
///                            value offset u16, value length u16
///          free room
///     …    heap, growing down
///
/// `NodePage` is a thin typed view: it owns nothing, and it trusts its bytes. Bytes from a disk
/// become a `NodePage` only after `NodeValidator` has accepted them.
///
/// - Invariant: keys ascend strictly; slots and heap do not meet; values do not overlap;
///   `garbage` is exactly the heap bytes that no slot refers to.
package struct NodePage {
    static let magic: UInt32 = 0x444E_4741
    static let version: UInt8 = 1
    static let headerSize = 160
    static let slotSize = 21
    static let checksummedFrom = 32
    /// Room for slots and values.
    static let capacity = DiskFormat.nodeSize - headerSize

    package let bytes: MutableByteView
    @inline(__always) init(_ bytes: MutableByteView) { self.bytes = bytes }
    @inline(__always) var view: ByteView { bytes.view }

    // MARK: Header

    var level: UInt8 { view[37] }
    package var isLeaf: Bool { level == 0 }
    var address: BlockAddress {
        get { BlockAddress(rawValue: view.u64(56)) }
        nonmutating set { bytes.store(newValue.rawValue, at: 56) }
    }
    var kind: TreeKind? { TreeKind(rawValue: view.u64(64)) }
    var sequence: SuperblockSequence {
        get { SuperblockSequence(view.u64(72)) }
        nonmutating set { bytes.store(newValue.rawValue, at: 72) }
    }
    var birth: BirthEpoch {
        get { BirthEpoch(view.u64(80)) }
        nonmutating set { bytes.store(newValue.rawValue, at: 80) }
    }
    @inline(__always) package var count: Int { Int(view.u16(130)) }
    private var heapStart: Int {
        get { Int(view.u16(132)) }
        nonmutating set { bytes.store(UInt16(newValue), at: 132) }
    }
    private var garbage: Int {
        get { Int(view.u16(134)) }
        nonmutating set { bytes.store(UInt16(newValue), at: 134) }
    }

    /// Makes the page an empty node.
    func initialize(level: UInt8, tree: TreeKind, uuid: VolumeUUID) {
        bytes.zeroAll()
        bytes.store(Self.magic, at: 32)
        bytes[36] = Self.version
        bytes[37] = level
        var writer = ByteWriter(bytes.slice(40, 16))
        uuid.encode(&writer)
        bytes.store(tree.rawValue, at: 64)
        heapStart = DiskFormat.nodeSize
    }

    // MARK: Reading

    @inline(__always) private func slot(_ index: Int) -> Int {
        Self.headerSize + index * Self.slotSize
    }

    @inline(__always)
    package func key(_ index: Int) -> Key {
        let at = slot(index)
        return Key(view.u64(at), ItemType(rawValue: view[at + 8]), view.u64(at + 9))
    }
    @inline(__always)
    package func value(_ index: Int) -> ByteView { mutableValue(index).view }
    @inline(__always)
    func mutableValue(_ index: Int) -> MutableByteView {
        let at = slot(index)
        return bytes.slice(Int(view.u16(at + 17)), Int(view.u16(at + 19)))
    }
    @inline(__always) private func valueLength(_ index: Int) -> Int {
        Int(view.u16(slot(index) + 19))
    }

    /// The first index whose key is not less than `key`.
    package func lowerBound(_ key: Key) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) >> 1
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
    /// The index of `key`, if it is there.
    package func find(_ key: Key) -> Int? {
        let index = lowerBound(key)
        return index < count && self.key(index) == key ? index : nil
    }
    /// In an inner node: the child whose range holds `key`. The first child also takes keys below
    /// its own.
    package func childIndex(for key: Key) -> Int {
        let index = lowerBound(key)
        if index < count, self.key(index) == key { return index }
        return max(index - 1, 0)
    }

    /// Whether all keys lie in `lower ..< upper`; nil is no bound. Ranges of different slots do not
    /// meet, so a node that is within two of them has been reached by a crafted pointer.
    func isWithin(_ lower: Key?, _ upper: Key?) -> Bool {
        guard count > 0 else { return lower == nil && upper == nil }
        if let lower, key(0) < lower { return false }
        if let upper, upper <= key(count - 1) { return false }
        return true
    }

    /// Bytes an item of this value length takes.
    static func itemSize(_ valueLength: Int) -> Int { slotSize + valueLength }
    /// Free bytes, counting what a compaction would win.
    var freeBytes: Int {
        heapStart - Self.headerSize - count * Self.slotSize + garbage
    }
    var usedBytes: Int { Self.capacity - freeBytes }

    // MARK: Changing

    /// Inserts or replaces. The caller has made sure that it fits (`freeBytes`).
    func put(_ key: Key, _ value: ByteView) {
        let index = lowerBound(key)
        if index < count, self.key(index) == key {
            replace(index, value)
        } else {
            insert(index, key, value)
        }
    }

    func insert(_ index: Int, _ key: Key, _ value: ByteView) {
        let end = slot(count)
        if heapStart - end < Self.itemSize(value.count) { compact() }
        let start = slot(index)
        bytes.move(from: start, to: start + Self.slotSize, count: slot(count) - start)
        bytes.store(key.object, at: start)
        bytes[start + 8] = key.type.rawValue
        bytes.store(key.offset, at: start + 9)
        bytes.store(UInt16(count + 1), at: 130)
        place(value, inSlot: start)
    }

    private func place(_ value: ByteView, inSlot start: Int) {
        let offset = heapStart - value.count
        bytes.copy(value, at: offset)
        heapStart = offset
        bytes.store(UInt16(offset), at: start + 17)
        bytes.store(UInt16(value.count), at: start + 19)
    }

    func replace(_ index: Int, _ value: ByteView) {
        let start = slot(index)
        let length = valueLength(index)
        if length == value.count {
            bytes.copy(value, at: Int(view.u16(start + 17)))
            return
        }
        garbage += length
        bytes.store(UInt16(0), at: start + 19)
        if heapStart - slot(count) < value.count { compact() }
        place(value, inSlot: start)
    }

    func remove(_ index: Int) {
        let start = slot(index)
        garbage += valueLength(index)
        bytes.move(
            from: start + Self.slotSize, to: start, count: slot(count) - start - Self.slotSize)
        bytes.store(UInt16(count - 1), at: 130)
        if count == 0 {
            heapStart = DiskFormat.nodeSize
            garbage = 0
        }
    }

    /// Removes the items from `index` on.
    func truncate(to index: Int) {
        for dead in index..<count { garbage += valueLength(dead) }
        bytes.store(UInt16(index), at: 130)
        compact()
    }

    /// Appends copies of `source`'s items `range`; they must sort behind this page's and fit.
    func append(_ source: NodePage, _ range: Range<Int>) {
        for index in range { insert(count, source.key(index), source.value(index)) }
    }

    /// Changes the key of an item without changing its place in the order.
    func setKey(_ index: Int, _ key: Key) {
        let start = slot(index)
        bytes.store(key.object, at: start)
        bytes[start + 8] = key.type.rawValue
        bytes.store(key.offset, at: start + 9)
    }

    /// Closes the gaps in the heap.
    private func compact() {
        guard garbage > 0 else { return }
        let copy = ByteBuffer(copying: view)
        var end = DiskFormat.nodeSize
        for index in 0..<count {
            let start = slot(index)
            let length = valueLength(index)
            end -= length
            bytes.copy(copy.view.slice(Int(copy.view.u16(start + 17)), length), at: end)
            bytes.store(UInt16(end), at: start + 17)
        }
        heapStart = end
        garbage = 0
    }

    /// What goes to disk carries no old bytes: the free room is zeroed and the sum stored.
    func seal(_ checksum: any Checksum) -> ChecksumValue {
        compact()
        let end = slot(count)
        bytes.zero(end, heapStart - end)
        let sum = self.sum(checksum)
        sum.store(bytes, 0, count: 32)
        return sum
    }

    /// Whether every byte is what the pointer's sum says, with the copy of it that no sum covers.
    func has(_ sum: ChecksumValue, by checksum: any Checksum) -> Bool {
        ChecksumValue(view, 0, count: 32) == sum && self.sum(checksum) == sum
    }

    func sum(_ checksum: any Checksum) -> ChecksumValue {
        checksum.sum(view.slice(Self.checksummedFrom, DiskFormat.nodeSize - Self.checksummedFrom))
    }
}
