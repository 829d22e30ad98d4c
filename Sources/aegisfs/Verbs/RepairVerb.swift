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
    /// What could not be brought back. Bytes are at most so many; inodes are those that are lost with
    /// their names.
    struct Lost: Codable {
        struct Item: Codable {
            /// `file`, `directory`, `data`, `zeros`, `record` or `attribute`.
            var kind: String
            /// Null: no name is left.
            var path: String?
            var inode: UInt64
            var bytes: UInt64
        }
        var isEmpty: Bool
        var files: UInt64
        var directories: UInt64
        var namelessInodes: UInt64
        var damagedFiles: UInt64
        var bytes: UInt64
        var records: UInt64
        var attributes: UInt64
        /// Operations that only the damaged journal or superblock knew of.
        var newestOperations: Bool
        /// Nodes are lost in which there may have been snapshots.
        var perhapsSnapshots: Bool
        var omittedItems: UInt64
        var items: [Item]

        init(_ losses: RepairLosses) {
            isEmpty = losses.isEmpty
            files = losses.count(.file)
            directories = losses.count(.directory)
            namelessInodes = losses.namelessInodes
            damagedFiles = losses.count(.data) + losses.count(.zeros)
            bytes = losses.byteCount
            records = losses.count(.record)
            attributes = losses.count(.attribute)
            newestOperations = losses.newestOperations
            perhapsSnapshots = losses.perhapsSnapshots
            omittedItems = losses.omittedItems
            items = losses.items.map {
                Item(kind: $0.kind.rawValue, path: $0.path, inode: $0.inode, bytes: $0.byteCount)
            }
        }
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
    var lost: Lost
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
        lost = Lost(report.losses)
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
            return exitCode(try change(again, arguments, reporter))
        }
        defer { held.close() }
        return exitCode(try change(held, arguments, reporter))
    }

    /// For fsck(8): without a question. Its codes are about what is wrong with the volume, and with one
    /// that has lost something, but is repaired, nothing is: a boot goes on.
    static func runAutomatic(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let held = try open(arguments.operands[0], .readWrite)
        defer { held.close() }
        let document = try change(
            held, arguments,
            ProgressReporter(.none, command: "check", json: false, quiet: true))
        return !document.isRepaired ? .damaged : document.foundDamage ? .repaired : .done
    }

    private static func exitCode(_ document: RepairDocument) -> ExitCode {
        guard document.isRepaired, document.lost.isEmpty else { return .damaged }
        return document.foundDamage ? .repaired : .done
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
    ) throws(Failure) -> RepairDocument {
        let path = arguments.operands[0]
        let interruption = Interruption(arguments) {
            "cancelled \(reporter.cancellationNote()): \(path) can be repaired again; what was "
                + "repaired stays so"
        }
        let document = try repair(held.device, path, reporter, isDryRun: false)
        interruption.end()
        reporter.finish()
        show(document, arguments)
        return document
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
        show(document.lost, isDryRun: document.isDryRun)
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

    /// Who wants errors only wants these as well.
    private static func show(_ lost: RepairDocument.Lost, isDryRun: Bool) {
        let word = isDryRun ? "would be lost" : "lost"
        for item in lost.items {
            let name = item.path ?? "inode \(item.inode)"
            let what =
                switch RepairLosses.Kind(rawValue: item.kind) {
                case .file: "\(name)"
                case .directory: "\(name), a directory"
                case .data:
                    "up to \(SizeFormatter.string(item.bytes)) of \(name), which cannot be read until "
                        + "they are written anew"
                case .zeros:
                    "up to \(SizeFormatter.string(item.bytes)) of \(name), which READ AS ZEROS: there "
                        + "was no room to mark them"
                case .record: "owner, permissions and times of \(name), which are made up"
                case .attribute: "an attribute of \(name)"
                case nil: name
                }
            Terminal.output("\(word): \(what)\n")
        }
        if lost.omittedItems > 0 { Terminal.output("\(word): \(lost.omittedItems) more\n") }
        if lost.namelessInodes > 0 {
            Terminal.output(
                "\(word): \(lost.namelessInodes) files or directories with their names\n")
        }
        if lost.perhapsSnapshots {
            Terminal.output(
                "\(word): perhaps snapshots; 'aegisfs snapshot list' shows those that are left\n")
        }
        if lost.newestOperations {
            Terminal.output("\(word): the newest operations, which the trees did not have yet\n")
        }
    }

    private static func verdict(_ document: RepairDocument) -> String {
        if !document.foundDamage { return "clean" }
        let outcome =
            if document.isDryRun {
                document.isRepaired
                    ? "can be repaired; nothing was changed"
                    : "can be repaired in part only; nothing was changed"
            } else {
                document.isRepaired
                    ? "repaired, and clean now"
                    : "repaired in part; what is left is listed above, 'aegisfs explain ID' tells more"
            }
        return outcome + (summary(document.lost).map { "; " + $0 } ?? "; nothing is lost")
    }

    /// Nil: nothing is lost.
    private static func summary(_ lost: RepairDocument.Lost) -> String? {
        if lost.isEmpty { return nil }
        let counts = [
            (lost.files, "file", "files"), (lost.directories, "directory", "directories"),
            (lost.namelessInodes, "inode without a name", "inodes without a name"),
            (lost.records, "record of an inode", "records of inodes"),
            (lost.attributes, "file's attributes", "files' attributes"),
        ]
        var parts = counts.filter { $0.0 > 0 }.map { "\($0.0) \($0.0 == 1 ? $0.1 : $0.2)" }
        if lost.damagedFiles > 0 {
            parts.append(
                "up to \(SizeFormatter.string(lost.bytes)) of "
                    + "\(lost.damagedFiles) file\(lost.damagedFiles == 1 ? "" : "s")")
        }
        if lost.perhapsSnapshots { parts.append("perhaps snapshots") }
        if lost.newestOperations { parts.append("the newest operations") }
        return "lost: " + parts.joined(separator: ", ")
    }
}
