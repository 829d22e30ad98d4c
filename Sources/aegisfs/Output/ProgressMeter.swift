/// The arithmetic of progress: rate and remaining time from a moving window.
///
/// - Invariant: the percentage is within 0 ... 100, and reaches 100 only when everything is done.
/// - Invariant: time in which the work was paused does not count.
/// - Invariant: without at least a second of samples, or without any advance in the window, the
///   remaining time is unknown rather than wild.
struct ProgressMeter: Sendable {
    /// Long enough to smooth over a slow stretch, short enough to follow a change of speed.
    static let windowSeconds = 15.0
    private static let minimumSpanSeconds = 1.0

    private struct Sample: Sendable {
        var seconds: Double
        var done: UInt64
    }
    private(set) var done: UInt64 = 0
    /// 0: nobody knows.
    private(set) var total: UInt64 = 0
    private var samples: [Sample] = []
    private var pausedSince: Double?
    private var pausedTotal = 0.0

    /// Records how far the work is. `seconds` is a clock that never steps back.
    mutating func update(done: UInt64, total: UInt64, seconds: Double) {
        self.total = total
        self.done = total == 0 ? done : min(done, total)
        let now = activeTime(seconds)
        // Work that starts over (the next phase) says nothing about the samples before it.
        if let last = samples.last, self.done < last.done { samples.removeAll() }
        samples.append(Sample(seconds: now, done: self.done))
        // One sample from before the window stays, so that the window is always spanned.
        while samples.count > 2, samples[1].seconds <= now - Self.windowSeconds {
            samples.removeFirst()
        }
    }

    mutating func pause(seconds: Double) {
        if pausedSince == nil { pausedSince = seconds }
    }

    mutating func resume(seconds: Double) {
        guard let since = pausedSince else { return }
        pausedTotal += seconds - since
        pausedSince = nil
    }

    private func activeTime(_ seconds: Double) -> Double {
        (pausedSince ?? seconds) - pausedTotal
    }

    /// Whole percent, rounded down.
    var percent: Int {
        guard total > 0 else { return 0 }
        // A division of large numbers may round up to one.
        return done == total ? 100 : min(99, Int(Double(done) / Double(total) * 100))
    }

    /// Units a second over the window; nil if unknown.
    var rate: Double? {
        guard let first = samples.first, let last = samples.last,
            last.seconds - first.seconds >= Self.minimumSpanSeconds
        else { return nil }
        return Double(last.done - first.done) / (last.seconds - first.seconds)
    }

    /// Seconds until the end at this rate; nil if unknown.
    var remainingSeconds: UInt64? {
        guard let rate, rate > 0, total > 0 else { return nil }
        let seconds = Double(total - done) / rate
        // A year is not an estimate any more.
        return seconds < 365 * 86400 ? UInt64(seconds.rounded(.up)) : nil
    }
}
