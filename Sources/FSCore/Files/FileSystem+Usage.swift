/// What files cost: where each extent lies, and what a set of files holds of the device.

/// A run of a file's data as `extents` shows it.
public struct FileExtent: Sendable {
    /// Bytes of the file.
    public var offset: UInt64
    public var length: UInt64
    /// Bytes on the device in each place; 0 of a promise.
    public var stored: UInt64
    /// Where they begin, in bytes of the device.
    public var places: [UInt64]
    /// nil: stored as it is.
    public var codec: CodecKind?
    public var isPromised: Bool
    /// The most references that any block of it has; 0 of a promise.
    public var references: UInt32
    /// A snapshot has it, too.
    public var isInSnapshot: Bool
}

/// What a set of files holds.
public struct SpaceUsage: Sendable {
    public var files: UInt64 = 0
    /// Data of the files: what is neither a hole nor promised.
    public var logicalBytes: UInt64 = 0
    /// On the device in blocks of files, all copies; what several of the files refer to is counted
    /// once.
    public var storedBytes: UInt64 = 0
    /// Of it, what would be freed if all of the files were deleted.
    public var exclusiveBytes: UInt64 = 0
    /// Of it, what only snapshots would keep.
    public var snapshotBytes: UInt64 = 0
    /// Of the logical bytes, those that are encoded, and what is stored for them.
    public var encodedBytes: UInt64 = 0
    public var encodedStoredBytes: UInt64 = 0
    /// False if it was cancelled.
    public var isComplete = true
}

extension FileSystem {
    /// The first `limit` extents of a file that end behind `offset`.
    public func extents(
        of inode: InodeNumber, from offset: UInt64, limit: Int
    ) throws(FSError) -> [FileExtent] {
        try locks.shared(inode) { () throws(FSError) in
            let record = try record(of: inode)
            guard record.kind == .regular else { throw .invalidArgument }
            let epoch = try snapshotEpoch()
            var result: [FileExtent] = []
            for extent in try fileMap.extents(inode, offset >> 12..<1 << 52, limit: limit) {
                var references: UInt32 = extent.record.kind == .data ? 1 : 0
                for index in 0..<extent.record.replicas.count {
                    for share in try volume.shares(of: extent.record.storedRun(index)) {
                        references = max(references, share.references)
                    }
                }
                result.append(
                    FileExtent(
                        offset: extent.block << 12, length: UInt64(extent.record.blocks) << 12,
                        stored: UInt64(extent.record.storedBlocks) << 12,
                        places: (0..<extent.record.replicas.count).map {
                            extent.record.replicas[$0].block << 12
                        },
                        codec: extent.record.encoding?.codec,
                        isPromised: extent.record.kind == .promised, references: references,
                        isInSnapshot: extent.record.kind == .data && extent.record.birth <= epoch))
            }
            return result
        }
    }

    /// What the files at and below `roots` hold. Files that change meanwhile count as they were
    /// when they were looked at.
    ///
    /// Memory: some 40 bytes for a file, and for a reference to shared blocks.
    public func usage(
        of roots: [InodeNumber], isCancelled: () -> Bool = { false }
    ) throws(FSError) -> SpaceUsage {
        var usage = SpaceUsage()
        var shared: [Edge] = []
        let epoch = try snapshotEpoch()
        for inode in try regularFiles(below: roots) {
            if isCancelled() {
                usage.isComplete = false
                break
            }
            do throws(FSError) {
                let record = try record(of: inode)
                usage.files += 1
                if record.content == .inline { usage.logicalBytes += record.size }
                try add(inode, to: &usage, &shared, epoch)
            } catch .stale { continue }
        }
        try settle(shared, &usage)
        return usage
    }

    /// What was born until then a snapshot has, too, and keeps when a file drops it.
    func snapshotEpoch() throws(FSError) -> BirthEpoch {
        if isReadOnly { return BirthEpoch(.max) }
        return try volume.reading { tree.parentEpoch }
    }

    /// Where a reference to shared blocks begins or ends.
    private struct Edge {
        var at: UInt64
        /// 1 or -1.
        var references: Int64
        /// The same for references that a snapshot has, too.
        var kept: Int64
    }

    private func add(
        _ inode: InodeNumber, to usage: inout SpaceUsage, _ shared: inout [Edge],
        _ epoch: BirthEpoch
    ) throws(FSError) {
        var block: UInt64 = 0
        let limit = 512
        while true {
            let found = try locks.shared(inode) { () throws(FSError) in
                try fileMap.extents(inode, block..<1 << 52, limit: limit)
            }
            for extent in found where extent.record.kind == .data && extent.block >= block {
                let length = UInt64(extent.record.blocks) << 12
                let isKept = extent.record.birth <= epoch
                usage.logicalBytes += length
                if extent.record.encoding != nil {
                    usage.encodedBytes += length
                    usage.encodedStoredBytes += extent.record.heldBlocks << 12
                }
                for index in 0..<extent.record.replicas.count {
                    let run = extent.record.storedRun(index)
                    if try volume.shares(of: run).isEmpty {
                        usage.storedBytes += run.count << 12
                        usage.exclusiveBytes += isKept ? 0 : run.count << 12
                        usage.snapshotBytes += isKept ? run.count << 12 : 0
                    } else {
                        let start = run.start.rawValue
                        shared.append(Edge(at: start, references: 1, kept: isKept ? 1 : 0))
                        shared.append(
                            Edge(at: start + run.count, references: -1, kept: isKept ? -1 : 0))
                    }
                }
            }
            guard found.count == limit, let last = found.last else { return }
            block = last.end
        }
    }

    /// Counts blocks with several references once; if all of these were met, as exclusive, or as what
    /// only snapshots keep.
    private func settle(_ shared: [Edge], _ usage: inout SpaceUsage) throws(FSError) {
        var met: Int64 = 0
        var kept: Int64 = 0
        var position: UInt64 = 0
        for edge in shared.sorted(by: { $0.at < $1.at }) {
            if met > 0, edge.at > position {
                let run = BlockRun(BlockAddress(rawValue: position), edge.at - position)
                let shares = try volume.shares(of: run)
                try Volume.forEachRun(position..<edge.at, shares) { (part, references) in
                    let bytes = UInt64(part.count) << 12
                    usage.storedBytes += bytes
                    guard met >= Int64(references) else { return }
                    if kept == 0 {
                        usage.exclusiveBytes += bytes
                    } else {
                        usage.snapshotBytes += bytes
                    }
                }
            }
            met += edge.references
            kept += edge.kept
            position = edge.at
        }
    }
}
