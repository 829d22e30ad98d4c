/// `aegisfs resize`: another size for a volume, mounted or not.
internal import FSCore
internal import FSModules

/// What a resize did or would do, as JSON shows it and the control socket carries it.
struct ResizeDocument: Codable, Sendable {
    var isDryRun: Bool
    var oldBytes: UInt64
    var newBytes: UInt64
    /// The smallest size that is possible now.
    var minimumBytes: UInt64
    /// Copied from one place to another.
    var movedBytes: UInt64

    init(_ plan: ResizePlan, isDryRun: Bool) {
        self.isDryRun = isDryRun
        oldBytes = plan.oldBytes
        newBytes = plan.newBytes
        minimumBytes = plan.minimumBytes
        movedBytes = plan.movedBytes
    }
}

/// A SIZE of `resize`, with the words and signs that only it knows.
struct ResizeSize: Codable, Sendable {
    enum Kind: String, Codable, Sendable { case bytes, more, less, minimum, maximum }
    var kind: Kind
    var bytes: UInt64

    init(_ text: String) throws(Failure) {
        func parse(_ text: Substring) throws(Failure) -> UInt64 {
            try SizeParser.parse(String(text), option: "SIZE")
        }
        switch text {
        case "max": (kind, bytes) = (.maximum, 0)
        case "min": (kind, bytes) = (.minimum, 0)
        case _ where text.hasPrefix("+"): (kind, bytes) = (.more, try parse(text.dropFirst()))
        case _ where text.hasPrefix("-"): (kind, bytes) = (.less, try parse(text.dropFirst()))
        default: (kind, bytes) = (.bytes, try parse(text[...]))
        }
    }

    var target: ResizeTarget {
        switch kind {
        case .bytes: .bytes(bytes)
        case .more: .more(bytes)
        case .less: .less(bytes)
        case .minimum: .minimum
        case .maximum: .maximum
        }
    }
}

extension ProgressReporter.Step {
    init(_ progress: ResizeProgress) {
        self.init(
            phase: "moving", doneBytes: progress.doneBytes, totalBytes: progress.totalBytes)
    }
}

enum ResizeVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let size = try ResizeSize(arguments.operands[1])
        let rate: UInt64?
        if let text = arguments.value(.rate) {
            rate = try SizeParser.parse(text, option: "--rate")
        } else {
            rate = nil
        }
        let work: any ResizeWork
        switch try Target.resolve(path) {
        case .live(let mount): work = LiveResize(mount: mount, size: size, rate: rate)
        case .offline:
            work = try OfflineResize(
                path, size: size, rate: rate, readOnly: arguments.has(.dryRun))
        }
        defer { work.close() }
        let plan = try work.plan()
        if arguments.has(.dryRun) {
            show(plan, arguments)
            return .done
        }
        if plan.newBytes < plan.oldBytes { try confirm(plan, arguments) }
        let reporter = ProgressReporter(
            arguments.progressMode, command: "resize", json: arguments.json,
            quiet: arguments.isQuiet)
        let interruption = Interruption(arguments) {
            guard work.cancel() else {
                if !arguments.isQuiet, !arguments.json {
                    Terminal.notice("cancelling; another signal does not wait for it")
                }
                return nil
            }
            return "not waited for: what was moved is brought back, or \(path) has its new size "
                + "already; 'aegisfs status' tells"
        }
        let result: ResizeDocument
        do throws(Failure) { result = try work.resize { reporter.update($0) } } catch {
            interruption.end()
            guard error.id == .interrupted else { throw error }
            throw Failure(
                .interrupted, .interrupted,
                "cancelled \(reporter.cancellationNote()): \(path) has its old size")
        }
        interruption.end()
        reporter.finish()
        show(result, arguments)
        return .done
    }

    private static func confirm(_ plan: ResizeDocument, _ arguments: Arguments) throws(Failure) {
        guard !arguments.has(.yes) else { return }
        let path = arguments.operands[0]
        let what =
            "\(path) shrinks from \(arguments.size(plan.oldBytes)) to "
            + "\(arguments.size(plan.newBytes)); \(arguments.size(plan.movedBytes)) will be moved"
        switch Terminal.confirm(what + ". Go on?") {
        case true?: return
        case false?, nil:
            throw Failure(
                .needsConfirmation, .shrinkUnconfirmed, "\(what); nothing was changed",
                hint: "--yes goes ahead, --dry-run only tells")
        }
    }

    private static func show(_ document: ResizeDocument, _ arguments: Arguments) {
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "resize", kind: "summary"))
            return
        }
        guard !arguments.isQuiet else { return }
        let path = arguments.operands[0]
        var text = "\(path): "
        if document.newBytes == document.oldBytes {
            text += "\(arguments.size(document.newBytes)), unchanged"
        } else {
            text += document.isDryRun ? "would go from " : "from "
            text += "\(arguments.size(document.oldBytes)) to \(arguments.size(document.newBytes))"
        }
        if document.movedBytes > 0 {
            text += document.isDryRun ? ", moving " : ", moved "
            text += arguments.size(document.movedBytes)
        }
        text += "; the smallest possible is \(arguments.size(document.minimumBytes))"
        Terminal.output(text + "\n")
    }
}

/// One resize, wherever the volume is open.
private protocol ResizeWork: AnyObject, Sendable {
    func plan() throws(Failure) -> ResizeDocument
    func resize(
        _ progress: @escaping (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ResizeDocument
    /// Has it end early, if it still can: it says so itself. True if it was told before.
    func cancel() -> Bool
    func close()
}

/// Safe to share: what changes is behind `lock`.
private final class LiveResize: ResizeWork, @unchecked Sendable {
    private let mount: LiveMount
    private let size: ResizeSize
    private let rate: UInt64?
    private let lock = Mutex()
    private var channel: LineChannel?
    private var isCancelled = false

    init(mount: LiveMount, size: ResizeSize, rate: UInt64?) {
        self.mount = mount
        self.size = size
        self.rate = rate
    }

    func plan() throws(Failure) -> ResizeDocument { try ask(isDryRun: true) { _ in } }
    func resize(
        _ progress: @escaping (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ResizeDocument { try ask(isDryRun: false, progress) }
    func cancel() -> Bool {
        lock.withLock {
            defer { isCancelled = true }
            if !isCancelled { askToCancel() }
            return isCancelled
        }
    }
    func close() {}

    private func connected(_ channel: LineChannel) {
        lock.withLock {
            self.channel = channel
            if isCancelled { askToCancel() }
        }
    }

    /// With the lock held.
    private func askToCancel() { _ = channel?.writeLine(ControlRequest(command: .cancel)) }

    private func ask(
        isDryRun: Bool, _ progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ResizeDocument {
        let request = ControlRequest(
            command: .resize, size: size, rateBps: rate, isDryRun: isDryRun)
        let reply = try ControlClient.send(
            request, to: mount, progress: progress, connected: isDryRun ? { _ in } : connected)
        guard let document = reply.resize else {
            throw Failure(.failed, .badRequest, "the daemon answered without a result")
        }
        return document
    }
}

/// Safe to share: what changes is behind `lock`.
private final class OfflineResize: ResizeWork, @unchecked Sendable {
    private let path: String
    private let size: ResizeSize
    private let rate: UInt64?
    private let held: HeldDevice
    private let volume: Volume
    private let lock = Mutex()
    private var isCancelled = false

    init(_ path: String, size: ResizeSize, rate: UInt64?, readOnly: Bool) throws(Failure) {
        self.path = path
        self.size = size
        self.rate = rate
        if readOnly {
            (held, volume) = try DeviceAccess.openVolume(reading: path)
            return
        }
        held = try DeviceAccess.open(path, .readWrite, notice: Terminal.notice)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        do throws(FSError) {
            volume = try Volume.open(held.device, modules: .standard, options: options)
        } catch {
            held.close()
            throw Failure(error, target: path)
        }
    }

    func plan() throws(Failure) -> ResizeDocument {
        do throws(FSError) {
            return ResizeDocument(try volume.planResize(size.target), isDryRun: true)
        } catch { throw Failure(error, target: path) }
    }

    func resize(
        _ progress: @escaping (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ResizeDocument {
        do throws(FSError) {
            let plan = try volume.resize(
                size.target, rate: rate,
                isCancelled: { [self] in lock.withLock { isCancelled } },
                progress: { progress(ProgressReporter.Step($0)) })
            try volume.close()
            return ResizeDocument(plan, isDryRun: false)
        } catch {
            try? volume.close()
            throw Failure(error, target: path)
        }
    }

    func cancel() -> Bool {
        lock.withLock {
            defer { isCancelled = true }
            return isCancelled
        }
    }

    func close() {
        try? volume.close()
        held.close()
    }
}
