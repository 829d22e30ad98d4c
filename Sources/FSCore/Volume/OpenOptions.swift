/// How to open a volume.
public struct OpenOptions: Sendable {
    /// When reads update the access time.
    public enum AccessTimePolicy: Sendable {
        /// If it is older than the modification or a day (mount(8), relatime).
        case relative
        case strict
        case none
    }
    public var readOnly = false
    /// For clean tree nodes; at least 4 MiB.
    public var cacheBytes = 192 << 20
    /// 0 = no timer: checkpoints only when asked for or when too much is dirty.
    public var checkpointIntervalMilliseconds = 5000
    /// For files that say nothing else; `inherited`: what the volume says.
    public var compression = CompressionSetting.inherited
    /// Share new data of files that say nothing else with equal data (`RecentContents`).
    public var deduplicates = false
    /// Memory for finding it: of what was written before, so much is remembered.
    public var deduplicationMemory = 32 << 20
    /// Tell the device what became free.
    public var discards = false
    public var accessTime = AccessTimePolicy.relative
    /// The most names an inode may have (EMLINK); a test lowers it.
    package var linkLimit = DiskFormat.maximumLinkCount
    /// For tests: rules that are switched off, and what happens between the freeze of a checkpoint
    /// and its first write.
    package var brokenRules: BrokenRules = []
    package var duringCheckpoint: (@Sendable () -> Void)?
    public init() {}
}
