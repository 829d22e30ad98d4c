/// A run of a file's blocks: key (inode, extent, byte offset in the file, a multiple of 4096).
///
///     0  version        u8   1
///     1  kind           u8   0 data, 1 promised (fallocate: reads as zeros, holds no addresses)
///     2  codec          u8   0 = plain, else the data is encoded (`CodecKind`)
///     3  layout         u8   0 = replicas
///     4  sum kind       u8   checksum kind of the sums
///     5  replicas       u8   1 … 4; of a promise, the copies that it is for, without addresses
///     6  key id         u16  0 = plain; nonzero adds nonce and tag room of 40 bytes
///     8  blocks         u32  length in the file
///     12 stored blocks  u32  length on the device; = blocks when plain, 0 for promised
///     16 birth          u64
///     24 skip           u32  decoded blocks that lie before this part; 0 when plain
///     28 whole          u16  decoded blocks in all; 0 when plain
///     30 unused         u16  bytes of the last stored block behind the encoded ones
///     32 addresses      8 × replicas
///     …  sums           one for each 4 KiB stored, each as long as its kind says
///
/// - Invariant: a plain extent has at most `ChecksumKind.maximumPlainExtentBlocks` blocks, and each
///   replica of it lies in one region; extents of a file do not overlap.
/// - Invariant: each encoded extent is a reference to all of its stored blocks, also when it is a
///   part: what is left of one that was cut has the addresses and sums of the whole.
/// - Invariant: an encoded extent is stored in fewer blocks than it decodes to.
public struct ExtentRecord: Equatable, Sendable {
    static let headerSize = 32

    public enum Kind: UInt8, Sendable {
        case data = 0
        case promised = 1
    }

    public var kind: Kind
    public var blocks: UInt32
    public var birth: BirthEpoch
    public var replicas = ReplicaList()
    public var sumKind: ChecksumKind
    /// The sums of the stored blocks, one behind the other.
    public var sums: [UInt8] = []
    /// nil: plain.
    public var encoding: Encoding?

    /// How the data of an encoded extent lies in its stored blocks.
    public struct Encoding: Equatable, Sendable {
        public var codec: CodecKind
        public var storedBlocks: UInt32
        /// Decoded blocks before this part, and in all.
        public var skip: UInt32 = 0
        public var wholeBlocks: UInt16
        /// Of the last stored block, behind the encoded bytes.
        public var unusedBytes: UInt16

        var encodedBytes: Int { Int(storedBlocks) << 12 - Int(unusedBytes) }
    }

    /// Length on the device, in blocks; each has a sum.
    public var storedBlocks: UInt32 {
        kind == .promised ? 0 : encoding?.storedBlocks ?? blocks
    }
    /// What it holds on the device, in one of its places.
    public func storedRun(_ replica: Int) -> BlockRun {
        BlockRun(replicas[replica], UInt64(storedBlocks))
    }
    /// The blocks it counts for in its inode: those stored, or promised, all copies together; a part
    /// of an encoded extent counts for its part of them, rounded up.
    var heldBlocks: UInt64 {
        let copies = UInt64(replicas.count + promisedCopies)
        guard let encoding else { return UInt64(blocks) * copies }
        let whole = UInt64(encoding.wholeBlocks)
        return (UInt64(blocks) * UInt64(encoding.storedBlocks) + whole - 1) / whole * copies
    }
    /// How many copies a promise is for; of data 0.
    public private(set) var promisedCopies = 0

    /// A promise of space without addresses.
    init(promised blocks: UInt32, copies: Int, sumKind: ChecksumKind) {
        kind = .promised
        self.blocks = blocks
        promisedCopies = copies
        birth = BirthEpoch(0)
        self.sumKind = sumKind
    }

    init(
        blocks: UInt32, birth: BirthEpoch, replicas: ReplicaList, sumKind: ChecksumKind,
        sums: [UInt8], encoding: Encoding? = nil
    ) {
        kind = .data
        self.blocks = blocks
        self.birth = birth
        self.replicas = replicas
        self.sumKind = sumKind
        self.sums = sums
        self.encoding = encoding
    }

    package init(
        decoding value: ByteView, inode: UInt64, layout: DiskLayout
    ) throws(FSError) {
        var reader = ByteReader(value, .extent, at: inode)
        try reader.require(try reader.u8() == 1, "record version")
        guard let kind = Kind(rawValue: try reader.u8()) else { throw reader.corrupt("kind") }
        self.kind = kind
        let codec = try reader.u8()
        try reader.require(try reader.u8() == 0, "unknown layout")
        guard let sumKind = ChecksumKind(rawValue: try reader.u8()) else {
            throw reader.corrupt("sum kind")
        }
        self.sumKind = sumKind
        let count = Int(try reader.u8())
        try reader.require(try reader.u16() == 0, "unknown key id")
        blocks = try reader.u32()
        let stored = try reader.u32()
        birth = BirthEpoch(try reader.u64())
        let skip = try reader.u32()
        let (whole, unused) = (try reader.u16(), try reader.u16())
        try reader.require(blocks > 0, "no blocks")
        if codec != 0 {
            guard let codec = CodecKind(rawValue: codec) else { throw reader.corrupt("codec") }
            try reader.require(kind == .data, "encoded promise")
            try reader.require(
                whole >= 2 && UInt64(whole) <= DiskFormat.maximumEncodedBlocks && stored >= 1
                    && stored < whole && blocks <= whole && skip <= UInt32(whole) - blocks
                    && unused < DiskFormat.blockSize, "encoded extent of \(blocks) blocks")
            encoding = Encoding(
                codec: codec, storedBlocks: stored, skip: skip, wholeBlocks: whole,
                unusedBytes: unused)
        } else {
            try reader.require(skip == 0 && whole == 0 && unused == 0, "plain extent with a part")
        }
        switch kind {
        case .promised:
            try reader.require(stored == 0, "promised extent with addresses")
            try reader.require(
                count >= 1 && count <= DiskFormat.maximumDataCopies, "copies of a promise")
            promisedCopies = count
            try reader.require(birth.rawValue == 0, "promised extent with a birth")
            try reader.require(UInt64(blocks) <= layout.blockCount, "promise of \(blocks) blocks")
        case .data:
            try reader.require(count >= 1 && count <= DiskFormat.maximumReplicas, "replica count")
            try reader.require(
                UInt64(blocks) <= sumKind.maximumPlainExtentBlocks && stored == storedBlocks,
                "extent of \(blocks) blocks")
            try reader.require(birth.rawValue > 0, "no birth")
            replicas = try ReplicaList(&reader, count: count)
            for index in 0..<count {
                try reader.require(
                    layout.isAllocatable(storedRun(index)),
                    "extent at block \(replicas[index].block)")
                for other in 0..<index {
                    let distance =
                        max(replicas[index], replicas[other]).rawValue
                        - min(replicas[index], replicas[other]).rawValue
                    try reader.require(distance >= UInt64(stored), "two replicas in one place")
                }
            }
            sums = try reader.bytes(Int(stored) * sumKind.byteCount).toArray()
        }
        try reader.require(reader.remaining == 0, "bytes behind the record")
    }

    package func encoded() -> [UInt8] {
        var record = [UInt8](repeating: 0, count: Self.headerSize + 8 * replicas.count)
        unsafe record.withUnsafeMutableBytes { buffer in
            var writer = unsafe ByteWriter(
                MutableByteView(base: buffer.baseAddress!, count: buffer.count))
            writer.u8(1)
            writer.u8(kind.rawValue)
            writer.u8(encoding?.codec.rawValue ?? 0)
            writer.u8(0)
            writer.u8(sumKind.rawValue)
            writer.u8(UInt8(replicas.count + promisedCopies))
            writer.u16(0)
            writer.u32(blocks)
            writer.u32(storedBlocks)
            writer.u64(birth.rawValue)
            writer.u32(encoding?.skip ?? 0)
            writer.u16(encoding?.wholeBlocks ?? 0)
            writer.u16(encoding?.unusedBytes ?? 0)
            for index in 0..<replicas.count { writer.u64(replicas[index].rawValue) }
        }
        record.append(contentsOf: sums)
        return record
    }

    /// The sum of stored block `index`.
    func sum(_ index: Int) -> ChecksumValue {
        let width = sumKind.byteCount
        return sums.withView { (view) in ChecksumValue(view, index * width, count: width) }
    }

    /// The part `first ..< first + count` of this extent, in blocks; of an encoded one with the
    /// stored blocks of the whole.
    func part(_ first: UInt32, _ count: UInt32) -> ExtentRecord {
        var part = self
        part.blocks = count
        if encoding != nil {
            part.encoding?.skip += first
        } else if kind == .data {
            let width = sumKind.byteCount
            part.replicas = replicas.advanced(by: UInt64(first))
            part.sums = Array(sums[Int(first) * width..<Int(first + count) * width])
        }
        return part
    }

    /// Whether `next`, which begins where this one ends in the file, can join it in one item.
    func canJoin(_ next: ExtentRecord) -> Bool {
        guard kind == next.kind, sumKind == next.sumKind, birth == next.birth, encoding == nil,
            next.encoding == nil
        else { return false }
        if kind == .promised {
            return promisedCopies == next.promisedCopies
                && UInt64(blocks) + UInt64(next.blocks) < 1 << 31
        }
        return UInt64(blocks) + UInt64(next.blocks) <= sumKind.maximumPlainExtentBlocks
            && replicas.advanced(by: UInt64(blocks)) == next.replicas
            // A run never crosses a region, whose fixed front lies between.
            && (0..<replicas.count).allSatisfy {
                replicas[$0].block / DiskLayout.regionBlocks
                    == next.replicas[$0].block / DiskLayout.regionBlocks
            }
    }

    mutating func join(_ next: ExtentRecord) {
        blocks += next.blocks
        sums.append(contentsOf: next.sums)
    }
}
