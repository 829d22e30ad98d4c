/// Puts right what the check finds, without dropping anything that can be placed elsewhere.
///
///     check ──clean──▶ done
///       │ findings, each with a remedy (`Remedy`)
///       ▼
///     open for repair: bitmaps, journal, roots (`Volume.openForRepair`)
///       ▼
///     remedies (`RepairSession`) ──▶ checkpoints ──▶ check again
///
/// Second copies come first: whatever has one is read from it, and rewritten. Then what follows from
/// other structures is made anew from them: bitmaps, counts, names of inodes, deadlists. What has lost
/// its place goes to `lost+found`, as users of e2fsck(8) expect. Some damage shows only when other is
/// gone, so this goes on until a check is clean or finds the same as the one before.
///
/// - Invariant: trees change copy-on-write and by checkpoints; a crash at any time leaves a volume
///   that can be repaired again.
/// - Invariant: what cannot be repaired is left as it is.
///
/// Memory: that of the check, and up to 64 Ki findings in each round.
public enum Repairer {
    /// Of one round; what is more waits for the next.
    private static let findingLimit = 1 << 16
    private static let maximumRounds = 24

    /// Repairs an unmounted volume. Throws if there is no usable superblock, or if the device fails.
    ///
    /// - Parameter isCancelled: asked often; once it is true the repair ends with what was done.
    public static func repair(
        _ device: any BlockDevice, modules: ModuleSet, observer: (any VolumeObserver)? = nil,
        isCancelled: () -> Bool = { false }, progress: (CheckProgress) -> Void = { _ in }
    ) throws(FSError) -> RepairReport {
        var report = RepairReport()
        var treatment = Volume.JournalTreatment.replayed
        var previous: Set<String> = []
        var nodesFirst = true
        for _ in 0..<maximumRounds {
            let check = try Checker.check(
                device, modules: modules, limit: findingLimit, isCancelled: isCancelled,
                progress: progress)
            let found = Set(check.findings.map { "\($0.id) \($0.message)" })
            // If nodes cannot be repaired, the rest is done all the same.
            let isStuck = found == previous && !nodesFirst
            if found == previous { nodesFirst = false }
            previous = found
            let round = RepairRound(check, nodesFirst: nodesFirst)
            report.add(check, round.findings)
            if !check.isComplete { break }
            let remedies = round.findings.flatMap(\.remedies)
            if check.findings.isEmpty || isStuck || remedies.isEmpty {
                // Only the journal may be left: what replaying it needs is there now, or never will be.
                guard check.journaledOperations > 0, treatment != .discarded else { break }
                treatment = treatment == .kept && isStuck ? .discarded : .replayed
                if treatment == .discarded {
                    report.discardedOperations = check.journaledOperations
                    report.losses.newestOperations = true
                }
            }
            let losesRoot = remedies.contains {
                if case .emptyRoot = $0 { return true } else { return false }
            }
            if treatment == .replayed, losesRoot, check.journaledOperations > 0 {
                treatment = .kept
            }
            do throws(FSError) {
                try apply(round, device, modules, treatment, observer, &report)
            } catch {
                // The trees are not yet such that the operations can be brought into them.
                guard treatment == .replayed, check.journaledOperations > 0 else { throw error }
                treatment = .kept
                try apply(round, device, modules, treatment, observer, &report)
            }
            if treatment == .discarded { treatment = .replayed }
        }
        report.settle()
        return report
    }

    private static func apply(
        _ round: RepairRound, _ device: any BlockDevice, _ modules: ModuleSet,
        _ treatment: Volume.JournalTreatment, _ observer: (any VolumeObserver)?,
        _ report: inout RepairReport
    ) throws(FSError) {
        var leaves: [UInt64: ByteBuffer] = [:]
        for finding in round.findings {
            for remedy in finding.remedies {
                switch remedy {
                case .bitmap(let region, let bits): leaves[region] = bits
                case .journal: report.losses.newestOperations = true
                default: break
                }
            }
        }
        let volume = try Volume.openForRepair(
            device, modules: modules, leaves: leaves, journal: treatment, observer: observer)
        if let recovery = volume.recovery {
            // The check has seen the trees without these operations.
            report.replayedOperations += recovery.operations
        } else {
            let session = RepairSession(
                volume, leaked: round.leakedRegions, losses: report.losses)
            session.apply(round.findings)
            report.note(session)
        }
        try volume.closeAfterRepair(treatment)
    }
}

/// What one round is about. If the table of snapshots contradicts itself, nothing is done that takes it
/// for right: whatever seems unused may be a snapshot's. While nodes are missing, other findings are mostly consequences of that,
/// which go away with it: a name without an inode must not be removed because the inode is in a node
/// that is put back. So nodes come first, in rounds of their own.
private struct RepairRound {
    var findings: [CheckFinding]
    var leakedRegions: [UInt64: ByteBuffer]

    init(_ check: CheckReport, nodesFirst: Bool) {
        leakedRegions = check.leakedRegions
        var all = check.findings
        if all.contains(where: \.isContradiction) { all.removeAll(where: \.dependsOnSnapshots) }
        let nodes = all.filter { finding in
            finding.remedies.contains { $0.step == .nodes }
        }
        guard nodesFirst, nodes.contains(where: \.isOfMissingNode) else {
            findings = all
            return
        }
        findings = all.filter { finding in
            finding.remedies.contains { remedy in
                if case .bitmap = remedy { true } else { remedy.step == .nodes }
            }
        }
    }
}

extension CheckFinding {
    /// Of the table of snapshots, and nobody knows which of its records is wrong.
    fileprivate var isContradiction: Bool {
        remedies.isEmpty && (issue == .snapshotTreeWrong || issue == .snapshotRecordBad)
    }

    fileprivate var dependsOnSnapshots: Bool {
        switch issue {
        case .deadlistWrong, .deadlistRecordBad, .segmentRecordBad, .blockLeaked,
            .blockUsedTwice, .remapUnreferenced, .shareCountWrong, .headCountsWrong:
            true
        default: false
        }
    }

    fileprivate var isOfMissingNode: Bool {
        remedies.contains { remedy in
            switch remedy {
            case .dropNode, .emptyRoot, .moveNodes: true
            default: false
            }
        }
    }
}

/// What a repair found and did.
public struct RepairReport: Sendable {
    public struct Item: Sendable {
        public var finding: CheckFinding
        /// What was done about it, one clause; nil if nothing can be done.
        public var action: String?
        /// The last check did not find it any more.
        public var isRepaired = false
        /// Why what was tried failed.
        public var failure: String?
    }

    /// In the order in which they were found; consequences come later.
    public private(set) var items: [Item] = []
    /// Findings beyond those in `items`.
    public private(set) var omittedItems: UInt64 = 0
    /// The check after the last change.
    public private(set) var check = CheckReport()
    public internal(set) var replayedOperations: UInt64 = 0
    /// Operations of the journal that could not be brought into the trees.
    public internal(set) var discardedOperations: UInt64 = 0
    /// Inodes that got a name in lost+found.
    public private(set) var salvagedInodes: UInt64 = 0
    /// Items found in nodes to which nothing led any more.
    public private(set) var salvagedItems: UInt64 = 0
    public internal(set) var losses = RepairLosses()
    private var known: Set<String> = []
    private var isFirstCheck = true
    private var failures: [String: String] = [:]

    /// Something was wrong.
    public var foundDamage: Bool { !items.isEmpty || omittedItems > 0 }
    /// All of it was put right.
    public var isRepaired: Bool { check.isClean }

    /// - Parameter found: those findings that a round is about.
    mutating func add(_ check: CheckReport, _ found: [CheckFinding]) {
        self.check = check
        self.check.leakedRegions = [:]
        defer { isFirstCheck = false }
        for finding in found {
            // Nothing is freed while a repair runs or replays the journal: this is what it leaves.
            if finding.issue == .blockLeaked, !isFirstCheck { continue }
            guard known.insert("\(finding.id) \(finding.message)").inserted else { continue }
            guard items.count < 10 * Checker.maximumFindings else {
                omittedItems += 1
                continue
            }
            var item = Item(finding: finding, action: finding.remedies.first?.summary)
            // Bitmaps need not be kept.
            item.finding.remedies = []
            items.append(item)
        }
        omittedItems += check.omittedFindings
    }

    mutating func note(_ session: RepairSession) {
        salvagedInodes += session.salvagedInodes
        salvagedItems += session.salvagedItems
        losses = session.losses
        for (finding, error) in session.failures { failures[finding] = error }
    }

    mutating func settle() {
        check.remedies = []
        let left = Set(check.findings.map { "\($0.id) \($0.message)" })
        for index in items.indices {
            let name = "\(items[index].finding.id) \(items[index].finding.message)"
            items[index].isRepaired = check.isComplete && !left.contains(name)
            if !items[index].isRepaired { items[index].failure = failures[name] }
        }
    }
}

extension CheckReport {
    /// Of all findings.
    fileprivate var remedies: [Remedy] {
        get { findings.flatMap(\.remedies) }
        set { for index in findings.indices { findings[index].remedies = newValue } }
    }
}
