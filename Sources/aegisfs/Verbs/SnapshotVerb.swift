/// `aegisfs snapshot`: on a mounted volume through its daemon, on any other by opening it.
internal import CLinux
internal import FSCore
internal import FSModules
internal import Glibc

enum SnapshotVerb {
    static func create(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = SnapshotRequest(action: .create, names: [arguments.operands[1]])
        request.head = arguments.headName(at: arguments.operands[0])
        request.description = arguments.value(.snapshotDescription)
        request.tags = arguments.values(.snapshotTag)
        return try done(arguments, try perform(arguments, request))
    }

    static func list(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let document = try perform(arguments, SnapshotRequest(action: .list))
        if arguments.json { return try done(arguments, document) }
        var table = TextTable([
            ("name", .left), ("kind", .left), ("created", .left), ("referenced", .right),
            ("unique", .right), ("frees with older", .right), ("parent", .left), ("kept", .left),
        ])
        func size(_ bytes: UInt64?) -> String { bytes.map(arguments.size) ?? "-" }
        let lines =
            arguments.has(.snapshotTree)
            ? tree(document.snapshots) : document.snapshots.map { ($0, 0) }
        for (entry, depth) in lines {
            table.add([
                String(repeating: "  ", count: depth) + entry.title, entry.kind, entry.created,
                size(entry.referencedBytes),
                size(entry.uniqueBytes), size(entry.freesWithOlderBytes),
                entry.parent.map(Quoting.name) ?? "-",
                entry.keeping ?? "-",
            ])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        if !arguments.has(.noHeader), let text = document.totals?.returning(arguments) {
            Terminal.output("\(text)\n")
        }
        return .done
    }

    /// Each entry behind the one from which it goes on, with its depth: a line of one child each is not
    /// indented, so that only branches are.
    private static func tree(
        _ entries: [SnapshotDocument.Entry]
    ) -> [(SnapshotDocument.Entry, Int)] {
        let names = Set(entries.map(\.name))
        let children = Dictionary(grouping: entries.filter { names.contains($0.parent ?? "") }) {
            $0.parent ?? ""
        }
        var lines: [(SnapshotDocument.Entry, Int)] = []
        var open = entries.filter { !names.contains($0.parent ?? "") }.reversed().map { ($0, 0) }
        while let (entry, depth) = open.popLast() {
            lines.append((entry, depth))
            let next = children[entry.name] ?? []
            for child in next.reversed() { open.append((child, depth + (next.count > 1 ? 1 : 0))) }
        }
        return lines
    }

    static func stats(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let document = try perform(arguments, SnapshotRequest(action: .stats))
        guard !arguments.json, let totals = document.totals else {
            return try done(arguments, document)
        }
        Terminal.output(
            "\(totals.snapshots) snapshots, \(totals.heads) heads; "
                + "\(arguments.size(totals.uniqueBytes)) in one snapshot only\n"
                + (totals.returning(arguments).map { "\($0)\n" } ?? ""))
        return .done
    }

    static func delete(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let names = Array(arguments.operands.dropFirst())
        guard !names.isEmpty else { throw .usage("snapshot delete: NAME is missing") }
        var request = SnapshotRequest(action: .delete, names: names)
        request.rateBps = try arguments.value(.sweepRate).map { (text) throws(Failure) in
            try SizeParser.parse(text, option: "--rate")
        }
        let code = try confirmed(arguments, &request) { plan in
            "delete " + plan.snapshots.map(\.title).joined(separator: ", ")
                + freed(plan, arguments)
        }
        if arguments.has(.waitForSpace), !arguments.has(.dryRun) { try wait(arguments) }
        return code
    }

    private static func freed(_ plan: SnapshotDocument, _ arguments: Arguments) -> String {
        guard let bytes = plan.freesBytes else { return "" }
        return " (gives back \(plan.freesIsComplete == false ? "at least " : "")"
            + "\(arguments.size(bytes)))"
    }

    /// Returns when the space of what was deleted is back. Ended early, only the waiting ends.
    private static func wait(_ arguments: Arguments) throws(Failure) {
        let reporter = ProgressReporter(
            arguments.progressMode, command: "snapshot delete", json: arguments.json,
            quiet: arguments.isQuiet)
        defer { reporter.finish() }
        var first: UInt64?
        while true {
            guard let totals = try perform(arguments, SnapshotRequest(action: .stats)).totals,
                totals.isSweeping
            else { return }
            let before = first ?? totals.givenBytes
            first = before
            let done = totals.givenBytes - min(before, totals.givenBytes)
            reporter.update(
                ProgressReporter.Step(
                    phase: "giving back space", doneBytes: done,
                    totalBytes: done + totals.pendingBytes))
            sleep(milliseconds: 100)
        }
    }

    static func prune(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = SnapshotRequest(action: .prune)
        var retention = Retention()
        for (option, period) in OptionSpec.retention {
            guard let text = arguments.value(option) else { continue }
            guard let count = Int(text), (0...1_000_000).contains(count) else {
                throw .usage("\(option.name): '\(text)' is no number of snapshots")
            }
            retention.keep[period.rawValue] = count
        }
        request.freeBytes = try arguments.value(.freeSize).map { (text) throws(Failure) in
            try SizeParser.parse(text, option: "--free")
        }
        guard request.freeBytes != nil || retention.keep.values.contains(where: { $0 > 0 }) else {
            throw .usage(
                "snapshot prune: nothing says what to keep",
                hint: "--keep-daily 7 --keep-weekly 4, or --free 20G")
        }
        request.retention = retention
        let plan = try perform(arguments, request)
        let names = plan.snapshots.map(\.name)
        if !arguments.json, !arguments.isQuiet {
            for verdict in plan.verdicts ?? [] {
                Terminal.output(
                    "\(verdict.isKept ? "keep" : "drop")  \(verdict.created)  \(Quoting.name(verdict.name))  "
                        + "(\(verdict.reasons.joined(separator: ", ")))\n")
            }
        }
        let sentence = "delete \(names.count) snapshots\(freed(plan, arguments))"
        if !arguments.isQuiet, let shortfall = shortfall(plan, request, arguments) {
            Terminal.notice(shortfall)
        }
        if arguments.has(.dryRun) || names.isEmpty {
            if arguments.json { return try done(arguments, plan) }
            if !arguments.isQuiet { Terminal.output("would \(sentence)\n") }
            return .done
        }
        if !arguments.has(.yes) {
            guard let answer = Terminal.confirm("\(sentence)?") else {
                throw Failure(
                    .needsConfirmation, .unconfirmed, "would \(sentence)",
                    hint: "--yes goes ahead without a question")
            }
            guard answer else {
                throw Failure(.needsConfirmation, .unconfirmed, "nothing was changed")
            }
        }
        // A request has a bounded length.
        for start in stride(from: 0, to: names.count, by: 100) {
            let part = names[start..<min(start + 100, names.count)]
            _ = try perform(arguments, SnapshotRequest(action: .delete, names: Array(part)))
        }
        var result = plan
        result.isDryRun = false
        return arguments.json ? try done(arguments, result) : .done
    }

    /// What is missing to what was asked for; nil if nothing is.
    private static func shortfall(
        _ plan: SnapshotDocument, _ request: SnapshotRequest, _ arguments: Arguments
    ) -> String? {
        guard let wanted = request.freeBytes, let freed = plan.freesBytes, freed < wanted else {
            return nil
        }
        return "\(arguments.size(wanted)) cannot be reached: "
            + "\(plan.freesIsComplete == false ? "at least " : "")\(arguments.size(freed)) come back, "
            + "and no other snapshot that may go frees anything"
    }

    static func rollback(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let name = arguments.operands[1]
        var request = SnapshotRequest(action: .rollback, names: [name])
        request.head = arguments.headName(at: arguments.operands[0])
        let what =
            arguments.value(.ofHead).map { "\(Quoting.name($0)) of \(arguments.operands[0])" }
            ?? arguments.operands[0]
        return try confirmed(arguments, &request) { _ in
            "take \(what) back to \(Quoting.name(name)), keeping what it is as a snapshot"
        }
    }

    static func rename(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = SnapshotRequest(action: .rename, names: [arguments.operands[1]])
        request.newName = arguments.operands[2]
        return try done(arguments, try perform(arguments, request))
    }

    static func clone(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = SnapshotRequest(action: .clone, names: [arguments.operands[1]])
        request.newName = arguments.operands[2]
        return try done(arguments, try perform(arguments, request))
    }

    static func hold(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try keep(arguments, .hold)
    }
    static func release(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try keep(arguments, .release)
    }
    private static func keep(
        _ arguments: Arguments, _ action: SnapshotRequest.Action
    ) throws(Failure) -> ExitCode {
        var request = SnapshotRequest(action: action, names: [arguments.operands[1]])
        request.tag = arguments.operand(2)
        return try done(arguments, try perform(arguments, request))
    }

    static func protect(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let text = arguments.value(.protectUntil), let until = TimeFormatter.parseUTC(text)
        else {
            throw .usage(
                "snapshot protect: --until DATE is missing or no date",
                hint: "2031-12-31 or 2031-12-31T23:00:00Z")
        }
        guard until > Timestamp.now().seconds else {
            throw .usage("snapshot protect: \(text) is over; nothing was changed")
        }
        let name = arguments.operands[1]
        if !arguments.has(.yes),
            Terminal.confirm(
                "protect \(Quoting.name(name)) until \(TimeFormatter.utc(until))? Nobody can "
                    + "withdraw that, and what it holds does not come back before") == false
        {
            throw Failure(.needsConfirmation, .unconfirmed, "nothing was changed")
        }
        var request = SnapshotRequest(action: .protect, names: [name])
        request.until = until
        return try done(arguments, try perform(arguments, request))
    }

    // MARK: Parts

    /// Shows the plan, asks, and goes ahead.
    private static func confirmed(
        _ arguments: Arguments, _ request: inout SnapshotRequest,
        _ sentence: (SnapshotDocument) -> String
    ) throws(Failure) -> ExitCode {
        // Making the plan costs a look at all deadlists; who has said yes does not see it.
        if arguments.has(.yes), !arguments.has(.dryRun) {
            return try done(arguments, try perform(arguments, request))
        }
        request.dryRun = true
        let plan = try perform(arguments, request)
        if arguments.has(.dryRun) {
            if !arguments.json { Terminal.output("would \(sentence(plan))\n") }
            return arguments.json ? try done(arguments, plan) : .done
        }
        switch Terminal.confirm("\(sentence(plan))?") {
        case true?: break
        case false?:
            throw Failure(.needsConfirmation, .unconfirmed, "nothing was changed")
        case nil:
            throw Failure(
                .needsConfirmation, .unconfirmed, "would \(sentence(plan))",
                hint: "--yes goes ahead without a question")
        }
        request.dryRun = nil
        return try done(arguments, try perform(arguments, request))
    }

    private static func done(
        _ arguments: Arguments, _ document: SnapshotDocument
    ) throws(Failure) -> ExitCode {
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "snapshot"))
        } else if let kept = document.kept, !arguments.isQuiet, !document.isDryRun {
            Terminal.notice("what it was is kept as '\(kept)'")
        }
        return .done
    }

    static func perform(
        _ arguments: Arguments, _ request: SnapshotRequest, on target: String? = nil
    ) throws(Failure) -> SnapshotDocument {
        let path = target ?? arguments.operands[0]
        switch try Target.resolve(path) {
        case .live(let mount):
            let isMoment = request.action == .create || request.action == .rollback
            if isMoment, !arguments.has(.noSync),
                let directory = Descriptor.open(
                    mount.record.mountpoint, O_RDONLY | O_DIRECTORY)
            {
                // What the kernel still has in its cache belongs to the moment, too.
                syncfs(directory.raw)
            }
            let reply = try ControlClient.send(
                ControlRequest(command: .snapshot, snapshot: request), to: mount)
            guard let document = reply.snapshot else {
                throw Failure(.failed, .badRequest, "the daemon answered without a result")
            }
            return document
        case .offline:
            let isReading = [.list, .stats, .prune, .history].contains(request.action)
            let (device, volume) =
                isReading || request.dryRun == true
                ? try DeviceAccess.openRecovered(path)
                : try DeviceAccess.openVolume(changing: path)
            defer { device.close() }
            let result: Result<SnapshotDocument, Failure>
            do throws(Failure) {
                result = .success(
                    try SnapshotService(volume: volume, target: path).perform(request))
            } catch { result = .failure(error) }
            do throws(FSError) {
                // Nobody else will give back the space before the next mount.
                if request.action == .delete, !isReading, request.dryRun != true {
                    try volume.snapshotStore.sweep()
                }
                try volume.close()
            } catch {
                throw Failure(error, target: path)
            }
            return try result.get()
        }
    }
}
