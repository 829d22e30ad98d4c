/// What `aegisfs status` shows of an open volume.
public struct VolumeStatus: Sendable {
    public enum State: Sendable, Equatable {
        case online
        case readOnly
        /// Writing ended after an error, which is told.
        case latched(String)
    }
    /// What latched it.
    public var failure: FSError?
    public var uuid: VolumeUUID
    public var label: String
    public var state: State
    public var diskVersion: UInt32
    public var byteCount: UInt64
    public var statistics: VolumeStatistics
    public var superblockSequence: UInt64
    public var birthEpoch: UInt64
    public var compatibleFeatures: UInt64
    public var readOnlyCompatibleFeatures: UInt64
    public var incompatibleFeatures: UInt64
    /// Names of what the volume was made with.
    public var featureNames: [String]
    public var inodeCount: UInt64
    public var cachePages: Int
    public var dirtyPages: Int
    public var cacheLimitPages: Int
    public var cacheHits: UInt64
    public var cacheMisses: UInt64
    /// Since the volume was opened.
    public var checkpoints: UInt64
    public var lastCheckpointMilliseconds: Double
    /// Of the last 64 checkpoints.
    public var longestCheckpointMilliseconds: Double
    public var deviceUse: DeviceUse
    /// nil: there is none.
    public var journal: JournalStatus?
    /// What opening brought back.
    public var recovery: Volume.Recovery?
    public var orphans: UInt64
    /// As it was found when the volume was opened.
    public var cleanlyUnmounted: Bool
    /// Places without a good copy, and the files that have them.
    public var damage: [Volume.Damage]
    /// Blocks that the medium does not keep, in order; nothing new is put there.
    public var badBlocks: [BlockRun]
    /// Persistent counters.
    public var errors: [(name: String, count: UInt64)]
}

extension Volume {
    public func status() -> VolumeStatus {
        let (dirty, inodes) = treeLock.shared { (window.dirty.count, head.counts.inodes) }
        let cached = cache.statistics()
        let counters = initialErrors.adding(errors.current)
        let statistics = fileSystem.statistics()
        let damage = self.damage()
        let badBlocks = allocator.badRuns
        let orphans = UInt64(fileSystem.orphans.count)
        return stateLock.withLock {
            let shown: VolumeStatus.State =
                switch state {
                case .online: .online
                case .readOnly, .closed: .readOnly
                case .latched(let why): .latched(why)
                }
            return VolumeStatus(
                failure: failure, uuid: superblock.uuid, label: superblock.label, state: shown,
                diskVersion: superblock.version, byteCount: superblock.blockCount << 12,
                statistics: statistics, superblockSequence: superblock.sequence.rawValue,
                birthEpoch: superblock.birthEpoch.rawValue,
                compatibleFeatures: superblock.compatible,
                readOnlyCompatibleFeatures: superblock.readOnlyCompatible,
                incompatibleFeatures: superblock.incompatible,
                featureNames: [checksumKind.name, "siphash-2-4 names"]
                    + (defaultDataCopies == 1 ? [] : ["\(defaultDataCopies) data copies"])
                    + (journal == nil ? [] : ["journal"])
                    + (compression.inodeFlags == InodeFlags.compressed
                        ? ["compression \(compression)"] : []),
                inodeCount: inodes,
                cachePages: cached.pages, dirtyPages: dirty, cacheLimitPages: cache.limitPages,
                cacheHits: cached.hits, cacheMisses: cached.misses,
                checkpoints: progress.count,
                lastCheckpointMilliseconds: progress.lastMilliseconds,
                longestCheckpointMilliseconds: progress.recentMilliseconds.max() ?? 0,
                deviceUse: device.counters.current,
                journal: journal?.status, recovery: recovery, orphans: orphans,
                cleanlyUnmounted: wasCleanlyUnmounted, damage: damage,
                badBlocks: badBlocks,
                errors: zip(Superblock.ErrorCounters.names, counters.counts).map {
                    (name: $0, count: $1)
                })
        }
    }
}
