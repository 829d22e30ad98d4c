/// How large a journal is, and what its extents must be like.
public enum JournalGeometry {
    public static let minimumBlocks: UInt64 = 512
    public static let maximumBlocks: UInt64 = 1 << 18
    /// Every extent can hold a record.
    static let minimumExtentBlocks: UInt64 = 256

    /// 1/64 of the volume, 4 to 256 MiB; on small volumes not more than an eighth, at least 2 MiB.
    public static func defaultBlocks(volumeBlocks: UInt64) -> UInt64 {
        let wanted = min(max(volumeBlocks / 64, 1024), 65536)
        return max(min(wanted, volumeBlocks / 8), minimumBlocks)
    }

    static func isSupported(_ extents: [BlockRun]) -> Bool {
        let total = extents.reduce(0 as UInt64) { $0 + $1.count }
        return total >= minimumBlocks && total <= maximumBlocks
            && extents.allSatisfy { $0.count >= minimumExtentBlocks }
    }
}
