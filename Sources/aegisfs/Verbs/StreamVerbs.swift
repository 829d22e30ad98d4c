/// `aegisfs send`, `receive` and `snapshot diff`: on a mounted volume through its daemon, on any other by
/// opening it. The stream goes through standard output and input.
internal import FSCore
internal import FSModules
internal import Glibc

enum StreamVerbs {
    static func send(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = StreamRequest(action: .send)
        request.snapshot = arguments.operand(1)
        request.base = arguments.value(.sendFrom)
        request.token = arguments.value(.resumeToken)
        request.isDryRun = arguments.has(.dryRun)
        guard (request.snapshot == nil) != (request.token == nil) else {
            throw .usage("send: either SNAPSHOT or --resume TOKEN")
        }
        guard request.token == nil || request.base == nil else {
            throw .usage("--resume and --from exclude each other: the token names the base")
        }
        guard request.isDryRun == true || !Terminal.isTerminal(STDOUT_FILENO) else {
            throw Failure(
                .usage, .streamToTerminal, "a stream is not written to a terminal",
                hint: "aegisfs send ... > FILE, or | aegisfs receive TARGET")
        }
        var total: UInt64 = 0
        if request.isDryRun != true, showsTotal(arguments) {
            // Costs a walk over what differs, but reads no data.
            var plan = request
            plan.isDryRun = true
            total = try perform(arguments, plan).streamBytes ?? 0
        }
        let passing = PassingBytes("send", total: total, arguments)
        defer { passing.end() }
        let document = try perform(arguments, request, passing)
        let text =
            "\(request.isDryRun == true ? "would send" : "sent") '\(document.snapshot ?? "")'"
            + (document.base.map { " upon '\($0)'" } ?? "")
            + ": \(arguments.size(document.streamBytes ?? 0)), \(document.records ?? 0) records"
        show(document, text, arguments, onOutput: request.isDryRun == true)
        return .done
    }

    static func receive(_ arguments: Arguments) throws(Failure) -> ExitCode {
        if arguments.has(.receiveStatus) { return try status(arguments) }
        guard !Terminal.isTerminal(STDIN_FILENO) else {
            throw Failure(
                .usage, .streamToTerminal, "a stream is not read from a terminal",
                hint: "aegisfs receive ... < FILE, or aegisfs send ... | aegisfs receive ...")
        }
        var request = StreamRequest(action: .receive)
        request.name = arguments.operand(1)
        var total: UInt64 = 0
        var input = stat()
        if fstat(STDIN_FILENO, &input) == 0, input.isRegular {
            total = UInt64(max(0, Int(input.st_size) - max(0, lseek(STDIN_FILENO, 0, SEEK_CUR))))
        }
        let passing = PassingBytes("receive", total: total, arguments)
        defer { passing.end() }
        let document = try perform(arguments, request, passing)
        show(
            document,
            "received '\(document.snapshot ?? "")': \(arguments.size(document.dataBytes ?? 0)) of "
                + "data, \(document.records ?? 0) records", arguments, onOutput: true)
        return .done
    }

    private static func status(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let document = try perform(arguments, StreamRequest(action: .status), nil)
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "receive"))
            return .done
        }
        for partial in document.partial ?? [] {
            Terminal.output(
                "\(partial.name): record \(partial.nextRecord) is next; go on with\n"
                    + "  aegisfs send SOURCE --resume \(partial.token)\n")
        }
        if document.partial?.isEmpty != false { Terminal.output("nothing is begun\n") }
        return .done
    }

    static func difference(_ arguments: Arguments) throws(Failure) -> ExitCode {
        var request = StreamRequest(action: .diff)
        request.snapshot = arguments.operands[1]
        request.other = arguments.operand(2)
        request.head = arguments.headName(at: arguments.operands[0])
        var changes: [ChangeDocument] = []
        _ = try perform(arguments, request, nil) { changes += $0 }
        if arguments.json {
            for change in changes {
                Terminal.output(
                    JSONOutput.line(change, command: "snapshot diff", kind: "change"))
            }
            Terminal.output(
                JSONOutput.line(ChangeCounts(changes), command: "snapshot diff", kind: "summary"))
        } else {
            Terminal.output(changes.map { $0.line(arguments.size) }.joined())
        }
        return .done
    }

    private static func show(
        _ document: StreamDocument, _ text: String, _ arguments: Arguments, onOutput: Bool
    ) {
        let line =
            arguments.json
            ? JSONOutput.line(document, command: arguments.commandName, kind: "summary")
            : "\(text)\n"
        guard arguments.json || !arguments.isQuiet else { return }
        if onOutput { Terminal.output(line) } else { Terminal.error(line) }
    }

    // MARK: Where

    private static func perform(
        _ arguments: Arguments, _ request: StreamRequest, _ passing: PassingBytes? = nil,
        _ changes: ([ChangeDocument]) -> Void = { _ in }
    ) throws(Failure) -> StreamDocument {
        let path = arguments.operands[0]
        switch try Target.resolve(path) {
        case .live(let mount): return try live(mount, request, passing, changes)
        case .offline: return try offline(path, request, passing, changes)
        }
    }

    /// Whether somebody sees how much is left.
    private static func showsTotal(_ arguments: Arguments) -> Bool {
        switch arguments.progressMode {
        case .none: false
        case .plain, .json: true
        case .auto: !arguments.isQuiet && Terminal.isTerminal(STDERR_FILENO)
        }
    }

    private static func offline(
        _ path: String, _ request: StreamRequest, _ passing: PassingBytes?,
        _ changes: ([ChangeDocument]) -> Void
    ) throws(Failure) -> StreamDocument {
        let (device, volume) =
            request.action == .receive
            ? try DeviceAccess.openVolume(changing: path)
            : try DeviceAccess.openRecovered(path)
        defer { device.close() }
        let service = StreamService(volume: volume, target: path)
        let result: Result<StreamDocument, Failure>
        do throws(Failure) {
            switch request.action {
            case .send:
                result = .success(
                    try service.send(request) { (bytes) throws(FSError) in
                        Terminal.output(bytes)
                        passing?.note(bytes.count)
                    })
            case .receive:
                result = .success(
                    try service.receive(request) { (target) throws(StreamError) in
                        let count = try readInput(target)
                        passing?.note(count)
                        return count
                    })
            case .status: result = .success(try service.status())
            case .diff:
                changes(try service.difference(request, isCancelled: { false }))
                result = .success(StreamDocument())
            }
        } catch { result = .failure(error) }
        do throws(FSError) { try volume.close() } catch {
            if case .success = result { throw Failure(error, target: path) }
        }
        return try result.get()
    }

    private static func readInput(_ target: MutableByteView) throws(StreamError) -> Int {
        while true {
            let count = read(STDIN_FILENO, target.unsafeBytes.baseAddress, target.count)
            if count >= 0 { return count }
            guard errno == EINTR else { throw .file(.device(.read, errno: errno, offset: 0)) }
        }
    }

    private static func live(
        _ mount: LiveMount, _ request: StreamRequest, _ passing: PassingBytes?,
        _ changes: ([ChangeDocument]) -> Void
    ) throws(Failure) -> StreamDocument {
        var control = ControlRequest(command: .stream)
        control.stream = request
        let reply = try ControlClient.stream(
            control, to: mount,
            input: request.action == .receive
                ? { (target) in
                    let count = (try? readInput(target)) ?? 0
                    passing?.note(count)
                    return count
                } : nil,
            output: {
                Terminal.output($0)
                passing?.note($0.count)
            }, part: { changes($0.changes ?? []) })
        guard let document = reply.stream else { throw LivePath.noResult() }
        return document
    }
}

/// Shows how far a stream is, on standard error: standard output may be the stream.
private final class PassingBytes {
    private let reporter: ProgressReporter
    private let phase: String
    private let total: UInt64
    private var done: UInt64 = 0

    init(_ phase: String, total: UInt64, _ arguments: Arguments) {
        self.phase = phase
        self.total = total
        reporter = ProgressReporter(
            arguments.progressMode, command: phase, json: false, quiet: arguments.isQuiet)
    }

    func note(_ count: Int) {
        done += UInt64(count)
        reporter.update(
            ProgressReporter.Step(phase: phase, doneBytes: done, totalBytes: total))
    }
    func end() { reporter.finish() }
}
