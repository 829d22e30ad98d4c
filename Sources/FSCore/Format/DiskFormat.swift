/// The constants of the on-disk format. `docs/FORMAT.md` draws every record; `FormatTests` pins
/// sizes, offsets and fingerprints.
public enum DiskFormat {
    /// "AEGISFS" and a zero byte.
    public static let magic: UInt64 = 0x0053_4653_4947_4541
    /// Read by this and every later program; what comes after it is told by feature bits
    /// (`docs/FORMAT.md`, versions). 0 was in development, and no program reads it any more.
    public static let version: UInt32 = 1

    public static let blockSize = 4096
    public static let blockShift = 12
    /// A tree node: four blocks.
    public static let nodeSize = 16384
    public static let blocksPerNode: UInt64 = 4
    /// Every node is written to this many places.
    public static let nodeReplicas = 2
    public static let maximumReplicas = 4
    /// Of a node; a tree over the largest device has five or six levels.
    public static let maximumNodeLevel: UInt8 = 15
    /// The longest value of an item, in bytes.
    public static let maximumValueSize = 4000

    public static let maximumNameLength = 255
    public static let maximumSymbolicLinkLength = 4095
    public static let maximumAttributeSize = 65536
    /// Files up to this size live in the tree, not in blocks of their own.
    public static let maximumInlineSize = 2048
    /// An encoded extent holds at most this much of a file: 128 KiB, aligned in the file when written.
    public static let maximumEncodedBlocks: UInt64 = 32
    /// Copies of a file's data.
    public static let maximumDataCopies = 2
    /// The largest file offset, as of ext4 and xfs: 2⁶³ − 1, rounded down to a block.
    public static let maximumFileSize: UInt64 = UInt64(Int64.max) & ~UInt64(4095)
    /// EMLINK beyond this.
    public static let maximumLinkCount: UInt32 = 1 << 31

    /// Bits of the compatible set: a program that does not know one may still read and write.
    public enum Compatible {
        public static let known: UInt64 = 0
    }
    /// Bits of the read-only compatible set: a program that does not know one may still read.
    public enum ReadOnlyCompatible {
        public static let known: UInt64 = 0
    }
    /// Bits of the incompatible set: a program that does not know one must not open the volume.
    public enum Incompatible {
        /// There is a journal, which may hold what the trees lack.
        public static let journal: UInt64 = 1 << 0
        /// There are snapshots, or were: blocks may be held by deadlists.
        public static let snapshots: UInt64 = 1 << 1
        /// Extents may be encoded.
        public static let encodedExtents: UInt64 = 1 << 2
        /// Blocks may have been moved: there are remaps, and addresses up to the limit of addresses.
        public static let remap: UInt64 = 1 << 3
        public static let known = journal | snapshots | encodedExtents | remap
    }
}

/// Rounds up to whole blocks.
@inlinable
package func blocks(covering bytes: UInt64) -> UInt64 {
    bytes >> 12 + (bytes & 4095 == 0 ? 0 : 1)
}
