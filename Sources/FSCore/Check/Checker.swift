/// Compares every structure of a volume with every other, without changing anything.
///
/// One walk over the trees in key order decodes every item, gathers for each inode what its names,
/// extents and attributes say, and marks every referenced block; then the gathered figures are
/// compared with the inode records, and the marked blocks with the allocation bitmap. Data is not
/// read: that is scrub's work.
///
/// Memory: 56 bytes for an inode and one bit for an allocated block.
public enum Checker {
    public static let maximumFindings = 1000

    /// Checks an unmounted volume. Throws only if it has no usable superblock.
    ///
    /// - Parameter isCancelled: asked often; once it is true the check ends with what it has.
    public static func check(
        _ device: any BlockDevice, modules: ModuleSet,
        isCancelled: () -> Bool = { false }, progress: (CheckProgress) -> Void = { _ in }
    ) throws(FSError) -> CheckReport {
        try check(
            device, modules: modules, limit: maximumFindings, isCancelled: isCancelled,
            progress: progress)
    }

    /// - Parameter limit: so many findings are told; the rest is counted.
    static func check(
        _ device: any BlockDevice, modules: ModuleSet, limit: Int,
        isCancelled: () -> Bool = { false }, progress: (CheckProgress) -> Void = { _ in }
    ) throws(FSError) -> CheckReport {
        let superblock = try SuperblockStore.newest(device, modules: modules)
        let layout = superblock.layout
        let store = BitmapStore(
            device: device, checksum: modules.requiredChecksum(superblock.checksumKind),
            geometry: VolumeGeometry(layout), root: superblock.bitmapRoot, errors: ErrorLog())
        var findings = superblockFindings(device, modules: modules)
        store.badCopies { description, block in
            findings.append(
                CheckFinding(
                    issue: .bitmapCopyBad, message: "\(description), block \(block)",
                    remedies: [.bitmapCopies]))
        }
        var operations: UInt64 = 0
        do throws(FSError) {
            if let contents = try journalContents(device, modules, superblock) {
                operations = contents.operationCount
                findings += journalFindings(contents, superblock)
            }
        } catch {
            findings.append(
                CheckFinding(
                    issue: .journalDamaged, message: "\(error)", remedies: [.journal]))
        }
        var report = withRun(
            device, modules, superblock, findings, limit, isCancelled, progress
        ) {
            (region) throws(FSError) in try store.leaf(ofRegion: region)
        }
        report.journaledOperations = operations
        return report
    }

    /// The trees are those of the last checkpoint; what the journal adds to them is only counted.
    private static func journalContents(
        _ device: any BlockDevice, _ modules: ModuleSet, _ superblock: Superblock
    ) throws(FSError) -> JournalContents? {
        guard let journal = try modules.journal(device, superblock) else { return nil }
        return try journal.read(
            JournalPosition(
                incarnation: superblock.journalIncarnation, operation: superblock.operations))
    }

    private static func journalFindings(
        _ contents: JournalContents, _ superblock: Superblock
    ) -> [CheckFinding] {
        var findings: [CheckFinding] = []
        if let damage = contents.damage {
            findings.append(
                CheckFinding(
                    issue: .journalDamaged, message: damage.detail, remedies: [.journal]))
        }
        if contents.newestSequence > superblock.sequence {
            findings.append(
                CheckFinding(
                    issue: .superblockLost,
                    message: "the journal names sequence \(contents.newestSequence.rawValue), the "
                        + "newest readable one is \(superblock.sequence.rawValue)",
                    remedies: [.journal]))
        }
        return findings
    }

    /// Checks a volume in use: the state of a checkpoint made now, beside running operations.
    public static func check(
        _ volume: Volume, isCancelled: () -> Bool = { false },
        progress: (CheckProgress) -> Void = { _ in }
    ) throws(FSError) -> CheckReport {
        let view = try volume.openConsistentView()
        defer { volume.leave(view.token) }
        let copies = superblockFindings(volume)
        return withRun(
            volume.device, volume.modules, view.superblock, copies, maximumFindings, isCancelled,
            progress
        ) { (region) throws(FSError) in
            guard let result = view.leaves[region] else {
                return ByteBuffer(count: DiskFormat.blockSize)
            }
            return try result.get()
        }
    }

    private static func withRun(
        _ device: any BlockDevice, _ modules: ModuleSet, _ superblock: Superblock,
        _ copies: [CheckFinding], _ limit: Int, _ isCancelled: () -> Bool,
        _ progress: (CheckProgress) -> Void,
        leaf: @escaping (UInt64) throws(FSError) -> ByteBuffer
    ) -> CheckReport {
        withoutActuallyEscaping(isCancelled) { isCancelled in
            withoutActuallyEscaping(progress) { progress in
                let run = CheckRun(device, modules, superblock, limit, isCancelled, progress, leaf)
                for finding in copies {
                    run.report(finding.issue, finding.message, finding.remedies)
                }
                run.run()
                return run.result
            }
        }
    }
}
