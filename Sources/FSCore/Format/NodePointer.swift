/// Points to a tree node: from an item of an inner node, or a root from the superblock.
///
///     0  replicas        u8    1 … 4
///     1  checksum kind   u8
///     2  level           u8    of the node pointed to; 0 is a leaf
///     3  reserved        u8
///     4  sequence        u64   superblock sequence of the checkpoint that wrote the node
///     12 birth           u64   birth epoch of this version of the node
///     20 addresses       8 × replicas
///     …  checksum        as long as its kind says (4 … 32)
///
/// - Invariant: the addresses differ, and each is an allocatable run of `DiskFormat.blocksPerNode`.
public struct NodePointer: Equatable, Sendable {
    public var level: UInt8
    public var sequence: SuperblockSequence
    public var birth: BirthEpoch
    public var replicas: ReplicaList
    public var checksumKind: ChecksumKind
    public var checksum: ChecksumValue

    /// Where the sequence lies inside an encoded pointer.
    static let sequenceOffset = 4
    /// Where the birth lies inside an encoded pointer.
    static let birthOffset = 12
    /// Where the first address lies inside an encoded pointer.
    static let addressOffset = 20
    static let maximumByteCount = 20 + 8 * DiskFormat.maximumReplicas + 32

    /// The primary address, by which the node cache knows the node.
    public var address: BlockAddress { replicas.first }

    public init(
        level: UInt8, sequence: SuperblockSequence, birth: BirthEpoch, replicas: ReplicaList,
        checksumKind: ChecksumKind, checksum: ChecksumValue = .zero
    ) {
        self.level = level
        self.sequence = sequence
        self.birth = birth
        self.replicas = replicas
        self.checksumKind = checksumKind
        self.checksum = checksum
    }

    public var byteCount: Int { 20 + 8 * replicas.count + checksumKind.byteCount }

    package init(_ reader: inout ByteReader) throws(FSError) {
        let count = Int(try reader.u8())
        try reader.require(
            count >= 1 && count <= DiskFormat.maximumReplicas, "replica count \(count)")
        guard let kind = ChecksumKind(rawValue: try reader.u8()) else {
            throw reader.corrupt("unknown checksum kind of a pointer")
        }
        checksumKind = kind
        level = try reader.u8()
        try reader.reserved(1)
        sequence = SuperblockSequence(try reader.u64())
        birth = BirthEpoch(try reader.u64())
        replicas = try ReplicaList(&reader, count: count)
        let sum = try reader.bytes(kind.byteCount)
        checksum = ChecksumValue(sum, 0, count: kind.byteCount)
    }

    package func encode(_ writer: inout ByteWriter) {
        writer.u8(UInt8(replicas.count))
        writer.u8(checksumKind.rawValue)
        writer.u8(level)
        writer.reserved(1)
        writer.u64(sequence.rawValue)
        writer.u64(birth.rawValue)
        for index in 0..<replicas.count { writer.u64(replicas[index].rawValue) }
        let place = writer.offset
        writer.reserved(checksumKind.byteCount)
        checksum.store(writer.target, place, count: checksumKind.byteCount)
    }

    /// That the pointer is one this volume can have written: its addresses lie where nodes may lie.
    package func validate(_ layout: DiskLayout, _ reader: ByteReader) throws(FSError) {
        try reader.require(level <= DiskFormat.maximumNodeLevel, "level \(level)")
        // A changed node gets as many places as every other: its pointer must not change its size.
        try reader.require(replicas.count == DiskFormat.nodeReplicas, "\(replicas.count) replicas")
        for index in 0..<replicas.count {
            let run = BlockRun(replicas[index], DiskFormat.blocksPerNode)
            try reader.require(
                layout.isAllocatable(run), "pointer to block \(replicas[index].block)")
            for other in 0..<index {
                try reader.require(
                    replicas[other] != replicas[index], "two replicas at one address")
            }
        }
    }
}

/// One to four places that hold the same bytes, stored without a heap allocation.
public struct ReplicaList: Equatable, Sendable {
    private var places: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    public private(set) var count = 0

    public init() {}
    public init(_ first: BlockAddress) { append(first) }
    public init(_ first: BlockAddress, _ second: BlockAddress) {
        append(first)
        append(second)
    }

    package init(_ reader: inout ByteReader, count: Int) throws(FSError) {
        for _ in 0..<count { append(BlockAddress(rawValue: try reader.u64())) }
    }

    public var first: BlockAddress { BlockAddress(rawValue: places.0) }

    public subscript(_ index: Int) -> BlockAddress {
        get {
            precondition(index >= 0 && index < count)
            switch index {
            case 0: return BlockAddress(rawValue: places.0)
            case 1: return BlockAddress(rawValue: places.1)
            case 2: return BlockAddress(rawValue: places.2)
            default: return BlockAddress(rawValue: places.3)
            }
        }
        set {
            precondition(index >= 0 && index < count)
            switch index {
            case 0: places.0 = newValue.rawValue
            case 1: places.1 = newValue.rawValue
            case 2: places.2 = newValue.rawValue
            default: places.3 = newValue.rawValue
            }
        }
    }

    public mutating func append(_ address: BlockAddress) {
        precondition(count < DiskFormat.maximumReplicas)
        count += 1
        self[count - 1] = address
    }

    /// Every place moved by `blocks`.
    public func advanced(by blocks: UInt64) -> ReplicaList {
        var result = self
        for index in 0..<count { result[index] = self[index] + blocks }
        return result
    }

    public static func == (a: Self, b: Self) -> Bool { a.count == b.count && a.places == b.places }
}
