/// `aegisfs scrub`: reads and verifies every copy of everything, and heals what it can; in the daemon of
/// a mount, or here on an unmounted volume.
internal import FSCore
internal import FSModules

/// A scrub, as JSON shows it and the control socket carries it.
struct ScrubDocument: Codable, Sendable {
    /// `running`, `paused`, `finished`, `cancelled`, `failed`
    var state: String
    var number: UInt64
    /// Empty for the whole volume.
    var path: String
    var startedAt: String
    var endedAt: String?
    var activeSeconds: UInt64
    var doneBytes: UInt64
    var totalBytes: UInt64
    var rateLimitBps: UInt64
    var found: UInt64
    var healed: UInt64
    var lost: UInt64
    var isDryRun: Bool
    private var startedSeconds: Int64
    private var endedSeconds: Int64

    init(_ record: ScrubRecord) {
        state = "\(record.state)"
        number = record.number
        path = record.path
        startedSeconds = record.started
        endedSeconds = record.ended
        startedAt = TimeFormatter.utc(record.started)
        endedAt = record.ended == 0 ? nil : TimeFormatter.utc(record.ended)
        activeSeconds = record.activeSeconds
        doneBytes = record.doneBytes
        totalBytes = record.totalBytes
        rateLimitBps = record.rateLimit
        found = record.found
        healed = record.healed
        lost = record.lost
        isDryRun = record.isDryRun
    }

    /// A scrub that is not at its end says so; damage that could not be healed is left.
    var exitCode: ExitCode {
        if state == "failed" { return .failed }
        if lost > 0 || found > healed { return .damaged }
        if state == "cancelled" { return .damaged }
        return found > 0 ? .repaired : .done
    }

    private var what: String { path.isEmpty ? "" : " of \(path)" }
    private var percent: Int {
        totalBytes == 0 ? 0 : min(100, Int(Double(doneBytes) / Double(totalBytes) * 100))
    }
    private var findings: String {
        found == 0
            ? "no errors"
            : "\(found) bad copies found, \(healed) healed, \(lost) blocks without a good copy"
    }

    /// One line, as `status` has it.
    var summary: String {
        let started = TimeFormatter.local(startedSeconds)
        let ended = TimeFormatter.local(endedSeconds)
        switch state {
        case "running":
            return
                "scrub\(what) in progress since \(started), \(percent) % done, \(findings) so far"
        case "paused": return "scrub\(what) paused at \(percent) %, \(findings) so far"
        case "cancelled":
            return
                "scrub\(what) cancelled at \(percent) % on \(ended): \(findings) in the part that "
                + "was checked"
        case "failed": return "scrub\(what) failed at \(percent) % on \(ended), \(findings) so far"
        default:
            return "scrub\(what) finished on \(ended) after "
                + "\(TimeFormatter.duration(activeSeconds)): \(findings)"
        }
    }
}

/// What a client asks of the scrubs of a mount.
struct ScrubRequest: Codable, Sendable {
    enum Action: String, Codable, Sendable, CaseIterable {
        case start, status, pause, resume, cancel
    }
    var action: Action
    var path: String?
    var rateBps: UInt64?
    var isDryRun: Bool?
    /// The answer comes at once, not at the end.
    var isBackground: Bool?
}

extension ProgressReporter.Step {
    init(_ record: ScrubRecord) {
        self.init(
            phase: "scrub", doneBytes: record.doneBytes, totalBytes: record.totalBytes,
            found: record.found, healed: record.healed, lost: record.lost)
    }
}

enum ScrubVerb {
    private struct Summary: Encodable {
        var target: String
        var scrub: ScrubDocument?
        var history: [ScrubDocument]?
    }

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let target = arguments.operands[0]
        let request = try request(arguments)
        switch try Target.resolve(target) {
        case .live(let mount): return try live(mount, target, request, arguments)
        case .offline: return try offline(target, request, arguments)
        }
    }

    private static func request(_ arguments: Arguments) throws(Failure) -> ScrubRequest {
        let actions: [(OptionSpec, ScrubRequest.Action)] = [
            (.scrubStatus, .status), (.pause, .pause), (.resume, .resume), (.cancel, .cancel),
        ].filter { arguments.has($0.0) }
        guard actions.count <= 1 else {
            throw .usage("\(actions[0].0.name) and \(actions[1].0.name) exclude each other")
        }
        var request = ScrubRequest(action: actions.first?.1 ?? .start)
        let starts = [OptionSpec.scrubPath, .scrubRate, .dryRun].filter { arguments.has($0) }
        if let first = starts.first, request.action != .start {
            throw .usage("\(actions[0].0.name) and \(first.name) exclude each other")
        }
        if arguments.has(.background), request.action != .start, request.action != .resume {
            throw .usage("\(actions[0].0.name) and --background exclude each other")
        }
        request.path = try arguments.value(.scrubPath).map(path)
        request.rateBps = try arguments.value(.scrubRate).map { (text) throws(Failure) in
            let rate = try SizeParser.parse(text, option: "--rate")
            guard rate > 0 else { throw .usage("--rate: 0 would never end") }
            return rate
        }
        request.isDryRun = arguments.has(.dryRun)
        request.isBackground = arguments.has(.background)
        return request
    }

    private static func path(_ text: String) throws(Failure) -> String {
        guard !text.isEmpty else { throw .usage("--path: empty") }
        guard text.utf8.count <= ScrubRecord.maximumPathBytes else {
            throw .usage("--path: longer than \(ScrubRecord.maximumPathBytes) bytes")
        }
        return text.hasPrefix("/") ? text : "/" + text
    }

    // MARK: On a mount

    private static func live(
        _ mount: LiveMount, _ target: String, _ request: ScrubRequest, _ arguments: Arguments
    ) throws(Failure) -> ExitCode {
        let reporter = ProgressReporter(
            arguments.progressMode, command: "scrub", json: arguments.json,
            quiet: arguments.isQuiet)
        let isWork = request.action == .start || request.action == .resume
        // The daemon cancels a scrub when the connection of who waits for it ends.
        let interruption =
            isWork && request.isBackground != true
            ? Interruption(arguments) {
                "cancelled \(reporter.cancellationNote()); 'aegisfs scrub \(target) --status' "
                    + "tells what was found"
            } : nil
        let reply = try ControlClient.send(
            ControlRequest(command: .scrub, scrub: request), to: mount
        ) { reporter.update($0) }
        interruption?.end()
        reporter.finish()
        show(reply.scrub, reply.history ?? [], target, request, arguments)
        // Told to do something else than to look, it was done.
        guard isWork, request.isBackground != true || request.action == .status else {
            return .done
        }
        return reply.scrub?.exitCode ?? .done
    }

    // MARK: On an unmounted volume

    private static func offline(
        _ target: String, _ request: ScrubRequest, _ arguments: Arguments
    ) throws(Failure) -> ExitCode {
        guard request.isBackground != true else {
            throw Failure(
                .failed, .scrubRefused, "\(target) is not mounted: there is no daemon to scrub it",
                hint: "mount it, or leave --background out")
        }
        let isReading = request.action == .status || request.isDryRun == true
        let (device, volume) =
            isReading
            ? try DeviceAccess.openVolume(reading: target)
            : try DeviceAccess.openVolume(changing: target)
        defer { device.close() }
        let outcome: Result<ScrubDocument?, Failure>
        do throws(Failure) {
            outcome = .success(try perform(request, volume, target, arguments))
        } catch { outcome = .failure(error) }
        let history = ScrubRecord.history(in: volume).map { ScrubDocument($0) }
        do throws(FSError) { try volume.close() } catch {
            if case .success = outcome { throw Failure(error, target: target) }
        }
        let document = try outcome.get()
        show(document, history, target, request, arguments)
        guard request.action == .start || request.action == .resume else { return .done }
        return document?.exitCode ?? .done
    }

    private static func perform(
        _ request: ScrubRequest, _ volume: Volume, _ target: String, _ arguments: Arguments
    ) throws(Failure) -> ScrubDocument? {
        let last = ScrubRecord.last(in: volume)
        switch request.action {
        case .status: return last.map { ScrubDocument($0) }
        case .pause, .cancel:
            guard let last, last.isOpen else { throw ScrubVerb.notOpen(target) }
            do throws(FSError) {
                let ended =
                    request.action == .pause
                    ? try ScrubRecord.pause(last, in: volume)
                    : try ScrubRecord.cancel(last, in: volume)
                return ScrubDocument(ended)
            } catch { throw Failure(error, target: target) }
        case .start where last?.state == .paused: throw isOpen(target)
        case .resume where last?.isOpen != true: throw notOpen(target)
        case .start, .resume: break
        }
        let reporter = ProgressReporter(
            arguments.progressMode, command: "scrub", json: arguments.json,
            quiet: arguments.isQuiet)
        let interruption = Interruption(arguments) {
            "cancelled \(reporter.cancellationNote()); 'aegisfs scrub \(target) --resume' goes on"
        }
        defer {
            interruption.end()
            reporter.finish()
        }
        do throws(FSError) {
            let record = try Scrubber.run(
                volume, Scrubber.Options(request),
                continuing: request.action == .resume ? last : nil, command: { .goOn },
                progress: { reporter.update(ProgressReporter.Step($0)) })
            return ScrubDocument(record)
        } catch { throw scrubFailure(error, request, target) }
    }

    // MARK: Messages

    static func isOpen(_ target: String) -> Failure {
        Failure(
            .busy, .scrubRefused, "a scrub of \(target) is running or paused",
            hint: "'aegisfs scrub \(target) --status' tells how far it is; --resume and --cancel "
                + "go on with it or end it")
    }
    static func notOpen(_ target: String) -> Failure {
        Failure(.failed, .scrubRefused, "no scrub of \(target) is running or paused")
    }
    static func scrubFailure(
        _ error: FSError, _ request: ScrubRequest, _ target: String
    ) -> Failure {
        switch error {
        case .noSuchEntry, .notDirectory:
            Failure(
                .notFound, .targetMissing, "\(target) has no \(request.path ?? "/")",
                hint: "--path names a file or directory from the volume's root on, without '..'")
        default: Failure(error, target: target)
        }
    }

    private static func show(
        _ document: ScrubDocument?, _ history: [ScrubDocument], _ target: String,
        _ request: ScrubRequest, _ arguments: Arguments
    ) {
        if arguments.json {
            Terminal.output(
                JSONOutput.line(
                    Summary(
                        target: target, scrub: document,
                        history: request.action == .status ? history : nil),
                    command: "scrub", kind: "summary"))
            return
        }
        guard !arguments.isQuiet else { return }
        Terminal.output("\(target): \(document?.summary ?? "no scrub is recorded on the volume")\n")
        if request.action == .status {
            for old in history { Terminal.output("  before: \(old.summary)\n") }
        }
        if let document, document.isDryRun {
            Terminal.output(
                request.isDryRun == true
                    ? "  a dry run: nothing was changed\n"
                    : "  the volume is only read here: nothing was healed, and nothing is recorded\n"
            )
        } else if let document, document.lost > 0 {
            Terminal.output("  'aegisfs status \(target)' lists the files\n")
        }
    }
}

extension Scrubber.Options {
    init(_ request: ScrubRequest) {
        self.init()
        path = request.path.map { $0 == "/" ? "" : $0 } ?? ""
        isDryRun = request.isDryRun ?? false
        rateLimit = request.rateBps ?? 0
    }
}

// MARK: In the daemon

extension ScrubService {
    /// Carries out a client's request.
    func perform(
        _ request: ScrubRequest, target: String, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ScrubDocument? {
        do throws(Refusal) {
            switch request.action {
            case .status: break
            case .start: try start(Scrubber.Options(request))
            case .resume: try resume()
            case .pause: try pause()
            case .cancel: try cancel()
            }
        } catch {
            switch error {
            case .isOpen: throw ScrubVerb.isOpen(target)
            case .isNotOpen: throw ScrubVerb.notOpen(target)
            case .failed(let error): throw Failure(error, target: target)
            }
        }
        let isWork = request.action == .start || request.action == .resume
        guard isWork else { return current.map { ScrubDocument($0) } }
        do throws(FSError) {
            if request.isBackground == true {
                try waitForBeginning()
                return current.map { ScrubDocument($0) }
            }
            let record = try wait(
                isCancelled: isCancelled, progress: { progress(ProgressReporter.Step($0)) })
            return record.map { ScrubDocument($0) }
        } catch { throw ScrubVerb.scrubFailure(error, request, target) }
    }
}
