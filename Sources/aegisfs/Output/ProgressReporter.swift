/// Shows the progress of long work: a line that is redrawn on a terminal, a line every ten seconds
/// otherwise, or JSON objects.
///
/// Used by one thread at a time, except `cancellationNote`, which a signal's thread calls.
internal import FSCore
internal import Glibc

/// Safe to share: all state is behind `lock`.
final class ProgressReporter: @unchecked Sendable {
    enum Mode: String, CaseIterable, Sendable { case auto, plain, json, none }

    /// What one step of work says: how many bytes of which phase are done.
    struct Step: Codable, Sendable {
        var phase: String
        var doneBytes: UInt64
        /// 0: nobody knows.
        var totalBytes: UInt64
        /// Of work that looks for damage: bad copies, those healed, blocks lost.
        var found: UInt64?
        var healed: UInt64?
        var lost: UInt64?
    }

    /// A step with what the meter makes of it, as JSON shows it.
    private struct Document: Encodable {
        var phase: String
        var doneBytes: UInt64
        var totalBytes: UInt64
        /// Bytes per second.
        var rateBps: UInt64?
        var etaSeconds: UInt64?
        var found: UInt64?
        var healed: UInt64?
        var lost: UInt64?
    }

    private enum Display: Sendable { case terminal, plain, jsonOnError, jsonOnOutput, none }
    private static let redrawSeconds = 0.1
    private static let jsonSeconds = 1.0
    private static let plainSeconds = 10.0

    private let command: String
    private let display: Display
    /// Who asked for JSON gets the last step, too, however short the work was.
    private let showsEnd: Bool
    private let lock = Mutex()
    private var meter = ProgressMeter()
    private var phase = ""
    private var latest: Step?
    private var lastShown: Double
    private var isLineOpen = false

    init(_ mode: Mode, command: String, json: Bool, quiet: Bool) {
        self.command = command
        lastShown = Self.now()
        showsEnd = mode == .json
        display =
            switch mode {
            case .none: .none
            case .json: json ? .jsonOnOutput : .jsonOnError
            case .plain: .plain
            case .auto where json: .jsonOnOutput
            case .auto where quiet: .none
            case .auto: Terminal.isTerminal(STDERR_FILENO) ? .terminal : .plain
            }
    }

    func update(_ step: Step) {
        lock.withLock {
            latest = step
            if step.phase != phase {
                meter = ProgressMeter()
                phase = step.phase
            }
            let now = Self.now()
            meter.update(done: step.doneBytes, total: step.totalBytes, seconds: now)
            let interval: Double? =
                switch display {
                case .none: nil
                case .terminal: Self.redrawSeconds
                case .jsonOnError, .jsonOnOutput: Self.jsonSeconds
                case .plain: Self.plainSeconds
                }
            guard let interval, now - lastShown >= interval else { return }
            lastShown = now
            show()
        }
    }

    /// Clears the line on the terminal, so that results start on a clean one; or tells the last step.
    func finish() {
        lock.withLock {
            clear()
            if showsEnd, !phase.isEmpty { show() }
        }
    }

    /// How far the work was when it was cancelled: `31 % of phase`.
    func cancellationNote() -> String {
        lock.withLock {
            clear()
            if phase.isEmpty { return "before it began" }
            return meter.total == 0
                ? "at \(SizeFormatter.string(meter.done)) of \(phase)"
                : "at \(meter.percent) % of \(phase)"
        }
    }

    private func show() {
        switch display {
        case .none: break
        case .terminal:
            Terminal.error("\r\u{1B}[K" + line.prefix(max(Terminal.width - 1, 20)))
            isLineOpen = true
        case .plain: Terminal.error(line + "\n")
        case .jsonOnError: Terminal.error(json)
        case .jsonOnOutput: Terminal.output(json)
        }
    }

    private func clear() {
        if isLineOpen { Terminal.error("\r\u{1B}[K") }
        isLineOpen = false
    }

    private var line: String {
        let rate = meter.rate.map { SizeFormatter.string(UInt64($0)) + "/s" } ?? "rate unknown"
        if meter.total == 0 { return "\(phase): \(SizeFormatter.string(meter.done)), \(rate)" }
        let left = meter.remainingSeconds.map(TimeFormatter.duration) ?? "unknown"
        return "\(phase): \(meter.percent) %, \(SizeFormatter.string(meter.done)) of "
            + "\(SizeFormatter.string(meter.total)), \(rate), ETA \(left)" + findings
    }

    private var findings: String {
        guard let found = latest?.found, found > 0 else { return "" }
        return ", \(found) found, \(latest?.healed ?? 0) healed, \(latest?.lost ?? 0) lost"
    }

    private var json: String {
        JSONOutput.line(
            Document(
                phase: phase, doneBytes: meter.done, totalBytes: meter.total,
                rateBps: meter.rate.map { UInt64($0) }, etaSeconds: meter.remainingSeconds,
                found: latest?.found, healed: latest?.healed, lost: latest?.lost),
            command: command, kind: "progress")
    }

    private static func now() -> Double { Double(monotonicNanoseconds()) / 1e9 }
}
