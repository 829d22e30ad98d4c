/// `aegisfs check --repair`: what is wrong is put right, on a volume that nobody uses.
///
/// What would be done is found out by doing it on a device in memory; so the plan that is shown, and
/// `--dry-run`, cannot say anything else than what happens.
internal import FSCore
internal import FSModules

/// What a repair found and did, as JSON shows it.
struct RepairDocument: Encodable, Sendable {
    struct Finding: Encodable, Sendable {
        var id: String
        var severity: String
        var message: String
        /// Null: nothing can be done about it.
        var action: String?
        var isRepaired: Bool
        /// Why the action failed.
        var failure: String?
    }
    var isDryRun: Bool
    var foundDamage: Bool
    /// A check afterwards is clean.
    var isRepaired: Bool
    var replayedOperations: UInt64
    /// Operations in the journal that were given up.
    var discardedOperations: UInt64
    /// Inodes that got a name in lost+found.
    var salvagedInodes: UInt64
    /// Items put back from nodes that had lost their place.
    var salvagedItems: UInt64
    var omittedFindings: UInt64
    var findings: [Finding]

    init(_ report: RepairReport, isDryRun: Bool) {
        self.isDryRun = isDryRun
        foundDamage = report.foundDamage
        isRepaired = report.isRepaired
        replayedOperations = report.replayedOperations
        discardedOperations = report.discardedOperations
        salvagedInodes = report.salvagedInodes
        salvagedItems = report.salvagedItems
        omittedFindings = report.omittedItems
        findings = report.items.map {
            Finding(
                id: $0.finding.id, severity: $0.finding.severity.rawValue,
                message: "\($0.finding.issue.summary): \($0.finding.message)", action: $0.action,
                isRepaired: $0.isRepaired, failure: $0.failure)
        }
    }
}

enum RepairVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let isDryRun = arguments.has(.dryRun)
        let reporter = ProgressReporter(
            arguments.progressMode, command: "check", json: arguments.json,
            quiet: arguments.isQuiet)
        let held = try open(path, isDryRun || !arguments.has(.yes) ? .readOnly : .readWrite)
        if isDryRun || !arguments.has(.yes) {
            let plan: RepairDocument
            do {
                defer { held.close() }
                plan = try repair(
                    ScratchBlockDevice(held.device), path, reporter, isDryRun: true)
            }
            guard !isDryRun, plan.foundDamage else {
                reporter.finish()
                show(plan, arguments)
                return plan.foundDamage ? .damaged : .done
            }
            try confirm(plan, arguments)
            let again = try open(path, .readWrite)
            defer { again.close() }
            return try change(again, arguments, reporter)
        }
        defer { held.close() }
        return try change(held, arguments, reporter)
    }

    /// For fsck(8): without a question.
    static func runAutomatic(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let held = try open(arguments.operands[0], .readWrite)
        defer { held.close() }
        return try change(
            held, arguments,
            ProgressReporter(.none, command: "check", json: false, quiet: true))
    }

    private static func open(
        _ path: String, _ access: FileBlockDevice.Access
    ) throws(Failure) -> HeldDevice {
        if case .live = try Target.resolve(path) {
            throw Failure(
                .busy, .locked, "\(path) is mounted: it cannot be repaired while it is used",
                hint: "unmount it first: aegisfs umount \(path)")
        }
        return try DeviceAccess.open(path, access, notice: Terminal.notice)
    }

    private static func change(
        _ held: HeldDevice, _ arguments: Arguments, _ reporter: ProgressReporter
    ) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let interruption = Interruption(arguments) {
            "cancelled \(reporter.cancellationNote()): \(path) can be repaired again; what was "
                + "repaired stays so"
        }
        let document = try repair(held.device, path, reporter, isDryRun: false)
        interruption.end()
        reporter.finish()
        show(document, arguments)
        guard document.isRepaired else { return .damaged }
        return document.foundDamage ? .repaired : .done
    }

    private static func repair(
        _ device: any BlockDevice, _ path: String, _ reporter: ProgressReporter, isDryRun: Bool
    ) throws(Failure) -> RepairDocument {
        do throws(FSError) {
            return RepairDocument(
                try Repairer.repair(
                    device, modules: .standard,
                    progress: { reporter.update(ProgressReporter.Step($0)) }),
                isDryRun: isDryRun)
        } catch { throw Failure(error, target: path) }
    }

    private static func confirm(_ plan: RepairDocument, _ arguments: Arguments) throws(Failure) {
        if !arguments.json { show(plan, arguments) }
        let path = arguments.operands[0]
        let count = plan.findings.count
        let what = "\(path) would be changed because of \(count) finding\(count == 1 ? "" : "s")"
        if Terminal.confirm("\(what). Go on?") == true { return }
        throw Failure(
            .needsConfirmation, .repairUnconfirmed, "\(what); nothing was changed",
            hint: "--yes goes ahead, --dry-run only tells")
    }

    private static func show(_ document: RepairDocument, _ arguments: Arguments) {
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "check", kind: "summary"))
            return
        }
        let path = arguments.operands[0]
        for finding in document.findings {
            let outcome =
                if finding.isRepaired, document.isDryRun {
                    "would be repaired: \(finding.action ?? "by what else is done")"
                } else if finding.isRepaired {
                    "repaired: \(finding.action ?? "by what else was done")"
                } else if finding.action == nil {
                    "not repaired: nothing can be done about it"
                } else {
                    "not repaired" + (finding.failure.map { ": \($0)" } ?? "")
                }
            Terminal.output("\(finding.id) \(finding.severity): \(finding.message)\n")
            Terminal.output("  \(outcome)\n")
        }
        if document.omittedFindings > 0 {
            Terminal.output("... and \(document.omittedFindings) more findings\n")
        }
        guard !arguments.isQuiet else { return }
        let (done, given) = document.isDryRun ? ("would be", "would be") : ("were", "were")
        if document.replayedOperations > 0 {
            Terminal.output(
                "\(document.replayedOperations) operations \(done) brought back from the journal\n")
        }
        if document.discardedOperations > 0 {
            Terminal.output(
                "\(document.discardedOperations) operations in the journal \(given) given up\n")
        }
        if document.salvagedItems > 0 {
            Terminal.output(
                "\(document.salvagedItems) items of lost nodes \(done) found and put back\n")
        }
        if document.salvagedInodes > 0 {
            Terminal.output(
                "\(document.salvagedInodes) files \(done) given a name in lost+found\n")
        }
        Terminal.output("\(path): \(verdict(document))\n")
    }

    private static func verdict(_ document: RepairDocument) -> String {
        if !document.foundDamage { return "clean" }
        if document.isDryRun {
            return document.isRepaired
                ? "can be repaired; nothing was changed"
                : "can be repaired in part only; nothing was changed"
        }
        return document.isRepaired
            ? "repaired, and clean now"
            : "repaired in part; what is left is listed above, 'aegisfs explain ID' tells more"
    }
}
