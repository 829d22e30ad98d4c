/// `aegisfs check` and `fsck.aegisfs`: the checker's findings, from an unmounted device or through
/// the daemon of a mounted one.
internal import FSCore
internal import FSModules

/// What a check found, as JSON shows it and the control socket carries it.
struct CheckDocument: Codable, Sendable {
    struct Finding: Codable, Sendable {
        var id: String
        var severity: String
        var message: String
    }
    var isClean: Bool
    /// False if the check was cancelled before its end.
    var isComplete: Bool
    var inodes: UInt64
    var directories: UInt64
    var files: UInt64
    var nodes: UInt64
    var dataBlocks: UInt64
    /// Of a volume that was not unmounted cleanly: not part of what was checked.
    var journaledOperations: UInt64
    /// Places that reads and scrubs have found to have no good copy, as `status` lists them; data is not
    /// read by a check, so they are no findings of its own.
    var listedDamage: UInt64
    var omittedFindings: UInt64
    var findings: [Finding]

    init(_ report: CheckReport) {
        isClean = report.isClean
        isComplete = report.isComplete
        inodes = report.inodes
        directories = report.directories
        files = report.files
        nodes = report.nodes
        dataBlocks = report.dataBlocks
        journaledOperations = report.journaledOperations
        listedDamage = report.listedDamage
        omittedFindings = report.omittedFindings
        findings = report.findings.map {
            Finding(
                id: $0.id, severity: $0.severity.rawValue,
                message: "\($0.issue.summary): \($0.message)")
        }
    }
}

extension ProgressReporter.Step {
    init(_ progress: CheckProgress) {
        self.init(
            phase: "check, \(progress.phase)", doneBytes: progress.done << 12,
            totalBytes: progress.total << 12)
    }
}

enum CheckVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        if arguments.has(.repair) { return try RepairVerb.run(arguments) }
        for option in [OptionSpec.yes, .dryRun] where arguments.has(option) {
            throw Failure(.usage, .usage, "--\(option.name) is for --repair")
        }
        let reporter = ProgressReporter(
            arguments.progressMode, command: "check", json: arguments.json,
            quiet: arguments.isQuiet)
        let interruption = interruption(arguments, reporter)
        let document = try check(arguments.operands[0], reporter)
        interruption.end()
        reporter.finish()
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "check", kind: "summary"))
        } else {
            show(document, arguments.operands[0], reporter, isQuiet: arguments.isQuiet)
        }
        return document.isClean ? .done : .damaged
    }

    static func runFsck(_ arguments: Arguments) throws(Failure) -> ExitCode {
        if arguments.has(.fsckVersion) {
            Terminal.output("fsck.aegisfs \(Program.version)\n")
            return .done
        }
        let mayRepair = [OptionSpec.automatic, .preen, .assumeYes].contains { arguments.has($0) }
        if mayRepair, !arguments.has(.assumeNo) { return try RepairVerb.runAutomatic(arguments) }
        let path = arguments.operands[0]
        let reporter = ProgressReporter(.none, command: "check", json: false, quiet: true)
        let interruption = interruption(arguments, reporter)
        let document = try check(path, reporter)
        interruption.end()
        show(document, path, reporter, isQuiet: false)
        guard document.isComplete else { return .interrupted }
        return document.isClean ? .done : .damaged
    }

    /// Findings come at the end, so a check that was cancelled can tell only how far it was.
    private static func interruption(
        _ arguments: Arguments, _ reporter: ProgressReporter
    ) -> Interruption {
        Interruption(arguments) {
            "cancelled \(reporter.cancellationNote()): whether \(arguments.operands[0]) is clean "
                + "is not known; nothing was changed"
        }
    }

    private static func check(
        _ path: String, _ reporter: ProgressReporter
    ) throws(Failure) -> CheckDocument {
        switch try Target.resolve(path) {
        case .live(let mount):
            let reply = try ControlClient.send(ControlRequest(command: .check), to: mount) {
                reporter.update($0)
            }
            guard let document = reply.check else {
                throw Failure(.failed, .badRequest, "the daemon answered without a result")
            }
            return document
        case .offline:
            let held = try DeviceAccess.open(path, .readOnly, notice: Terminal.notice)
            defer { held.close() }
            do throws(FSError) {
                return CheckDocument(
                    try Checker.check(
                        held.device, modules: .standard,
                        progress: { reporter.update(ProgressReporter.Step($0)) }))
            } catch { throw Failure(error, target: path) }
        }
    }

    private static func show(
        _ document: CheckDocument, _ path: String, _ reporter: ProgressReporter, isQuiet: Bool
    ) {
        if !document.isComplete {
            // What did not finish is said first, and even to who wants errors only.
            Terminal.notice(
                "\(path): cancelled \(reporter.cancellationNote()), because it was unmounted; "
                    + (document.findings.isEmpty
                        ? "no errors in the part that was checked"
                        : "these were found in the part that was checked")
                    + " [\(MessageID.interrupted.rawValue)]")
        }
        for finding in document.findings {
            Terminal.output("\(finding.id) \(finding.severity): \(finding.message)\n")
        }
        if document.omittedFindings > 0 {
            Terminal.output("... and \(document.omittedFindings) more findings\n")
        }
        guard !isQuiet, document.isComplete else { return }
        let contents =
            "\(document.inodes) inodes, of these \(document.files) files and "
            + "\(document.directories) directories; \(document.nodes) nodes, "
            + SizeFormatter.string(document.dataBlocks << 12) + " of data"
        let found = UInt64(document.findings.count) + document.omittedFindings
        let verdict =
            document.isClean
            ? "clean (all structures; the data of files is verified when it is read)"
            : (found == 1 ? "1 finding" : "\(found) findings")
                + "; 'aegisfs explain ID' tells more"
        let journal =
            document.journaledOperations == 0
            ? ""
            : "  the last checkpoint was checked; \(document.journaledOperations) operations after it "
                + "are in the journal, and the next mount brings them back\n"
        let damage =
            document.listedDamage == 0
            ? ""
            : "  \(document.listedDamage) places without a good copy are on the volume's list: "
                + "'aegisfs status' names the files\n"
        Terminal.output("\(path): \(verdict)\n  \(contents)\n\(damage)\(journal)")
    }
}
