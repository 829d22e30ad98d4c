/// The scrubs of a mounted volume: one at a time, on a thread of its own; begun by a request, by the
/// volume's interval, or because the last daemon was ended in the middle of one.
///
///     idle ──start, interval, interrupted──▶ running ──pause──▶ paused ──resume──▶ running
///                                              │ └─cancel─▶ cancelled       └─cancel─▶ cancelled
///                                              └─▶ finished, failed
///
/// - Invariant: after `stop` no thread of the service runs, and a scrub that was running goes on
///   with the next mount.
public import FSCore

public final class ScrubService: @unchecked Sendable {
    /// Why a request was refused.
    public enum Refusal: Error, Equatable, Sendable {
        /// One is running or paused.
        case isOpen
        /// None is running, or none is paused.
        case isNotOpen
        case failed(FSError)
    }

    private let volume: Volume
    private let log: @Sendable (String) -> Void
    private let lock = Mutex()

    // Guarded by the lock, on which is also waited.
    private var command = Scrubber.Command.goOn
    private var isStopping = false
    private var next: (options: Scrubber.Options, interrupted: ScrubRecord?)?
    private var isRunning = false
    /// Whether `latest` is what runs, and no more the one before.
    private var hasBegun = false
    private var latest: ScrubRecord?
    private var failure: FSError?
    private var thread: WorkerThread?

    /// How often the interval is looked at.
    private static let lookMilliseconds = 2000

    public init(_ volume: Volume, log: @escaping @Sendable (String) -> Void) {
        self.volume = volume
        self.log = log
        latest = ScrubRecord.last(in: volume)
        if let latest, latest.state == .running, volume.isWritable { next = (.init(), latest) }
        thread = WorkerThread { [self] in work() }
    }

    /// Ends the thread; what runs is left for the next mount.
    public func stop() {
        lock.withLock {
            isStopping = true
            lock.signalAll()
        }
        thread?.join()
        thread = nil
    }

    /// The scrub that runs, or the last one.
    public var current: ScrubRecord? { lock.withLock { latest } }

    // MARK: Requests

    public func start(_ options: Scrubber.Options) throws(Refusal) {
        try lock.withLock { () throws(Refusal) in
            guard !isRunning, next == nil, latest?.state != .paused else { throw .isOpen }
            begin(options, nil)
        }
    }

    public func pause() throws(Refusal) { try tell(.pause) }

    public func cancel() throws(Refusal) {
        let paused = try lock.withLock { () throws(Refusal) -> ScrubRecord? in
            if isRunning || next != nil { return nil }
            guard let latest, latest.state == .paused else { throw .isNotOpen }
            return latest
        }
        guard let paused else { return try tell(.cancel) }
        do throws(FSError) {
            let cancelled = try ScrubRecord.cancel(paused, in: volume)
            lock.withLock { latest = cancelled }
        } catch { throw .failed(error) }
    }

    public func resume() throws(Refusal) {
        try lock.withLock { () throws(Refusal) in
            guard !isRunning, next == nil, let latest, latest.isOpen else { throw .isNotOpen }
            begin(.init(), latest)
        }
    }

    /// Waits for the end of what runs; calls `progress` now and then.
    ///
    /// - Parameter isCancelled: nobody waits any more: the scrub is cancelled.
    public func wait(
        isCancelled: () -> Bool, progress: (ScrubRecord) -> Void
    ) throws(FSError) -> ScrubRecord? {
        while true {
            let (record, isBusy, failure) = lock.withLock {
                if isRunning || next != nil { lock.wait(milliseconds: 200) }
                return (latest, isRunning || next != nil, self.failure)
            }
            if let record, record.isOpen { progress(record) }
            guard isBusy else {
                if let failure { throw failure }
                return record
            }
            if isCancelled() {
                lock.withLock { if command == .goOn { command = .cancel } }
            }
        }
    }

    /// Waits until what was started is the current scrub.
    public func waitForBeginning() throws(FSError) {
        try lock.withLock { () throws(FSError) in
            while (isRunning && !hasBegun || next != nil) && !isStopping {
                lock.wait(milliseconds: 20)
            }
            if let failure { throw failure }
        }
    }

    private func begin(_ options: Scrubber.Options, _ interrupted: ScrubRecord?) {
        command = .goOn
        failure = nil
        hasBegun = false
        next = (options, interrupted)
        lock.signalAll()
    }

    private func tell(_ command: Scrubber.Command) throws(Refusal) {
        try lock.withLock { () throws(Refusal) in
            guard isRunning || next != nil else { throw .isNotOpen }
            self.command = command
            while (isRunning || next != nil) && !isStopping { lock.wait(milliseconds: 200) }
        }
    }

    // MARK: The thread

    private func work() {
        while true {
            let isDue = lock.withLock { !isStopping && next == nil } && isDue()
            let job = lock.withLock { () -> (Scrubber.Options, ScrubRecord?)? in
                if isDue, next == nil { begin(.init(), nil) }
                if next == nil, !isStopping { lock.wait(milliseconds: Self.lookMilliseconds) }
                guard !isStopping, let job = next else { return nil }
                next = nil
                isRunning = true
                return job
            }
            if let job { run(job.0, job.1) }
            if lock.withLock({ isStopping }) { return }
        }
    }

    private func run(_ options: Scrubber.Options, _ interrupted: ScrubRecord?) {
        var outcome: Result<ScrubRecord, FSError>
        do throws(FSError) {
            outcome = .success(
                try Scrubber.run(
                    volume, options, continuing: interrupted,
                    command: { [self] in
                        lock.withLock { isStopping ? .leave : command }
                    },
                    progress: { record in
                        lock.withLock {
                            latest = record
                            hasBegun = true
                        }
                    }))
        } catch { outcome = .failure(error) }
        lock.withLock {
            switch outcome {
            case .success(let record): latest = record
            case .failure(let error):
                failure = error
                log("scrub: \(error)")
            }
            isRunning = false
            lock.signalAll()
        }
        if case .success(let record) = outcome, record.state == .finished {
            log(
                "scrub: \(record.found) bad copies found, \(record.healed) healed, "
                    + "\(record.lost) blocks lost")
        }
    }

    /// Whether the volume's interval has passed since the last whole scrub ended, however it did.
    private func isDue() -> Bool {
        guard volume.isWritable,
            let interval = try? volume.setting(Property.scrubInterval.settingNumber ?? 0),
            interval > 0
        else { return false }
        guard lock.withLock({ latest?.isOpen != true }) else { return false }
        let records =
            [ScrubRecord.last(in: volume)].compactMap(\.self)
            + ScrubRecord.history(in: volume)
        // One that was cancelled counts, too: else it would begin anew at once.
        let last = records.filter(\.isWhole).map(\.ended).max() ?? 0
        return Timestamp.now().seconds >= last &+ Int64(clamping: interval)
    }
}
