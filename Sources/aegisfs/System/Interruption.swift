/// SIGINT, SIGTERM and SIGHUP during long work in the foreground: a thread waits for them, cleans
/// up, says how far the work was, and ends the process; or it tells the work to end, which then says how
/// it ended.
///
/// - Invariant: clean-up and `end` exclude each other, so that a result that was reported as done
///   is never taken back.
internal import FSCore
internal import Glibc

/// Safe to share: `cleanUp` is behind `lock`, the rest never changes.
final class Interruption: @unchecked Sendable {
    private let lock = Mutex()
    private var cleanUp: (@Sendable () -> String?)?

    /// Begins to watch. Before any other thread is started, so that all inherit the blocked signals.
    ///
    /// - Parameter cleanUp: undoes what must not stay, and says what was interrupted; nil if the work was
    ///   told to end. Then the process goes on, and the next signal asks again.
    init(_ arguments: Arguments, cleanUp: @escaping @Sendable () -> String?) {
        self.cleanUp = cleanUp
        let (json, command) = (arguments.json, arguments.commandName)
        let status = arguments.command.status(.interrupted)
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, number) }
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        // Ends with the process; nobody waits for it.
        _ = WorkerThread { [self, signals] in
            var signals = signals
            var number: Int32 = 0
            var message: String?
            while message == nil {
                while sigwait(&signals, &number) != 0 {}
                lock.lock()
                message = if let cleanUp = self.cleanUp { cleanUp() } else { "interrupted" }
                if message == nil { lock.unlock() }
            }
            Failure(.interrupted, .interrupted, message ?? "").report(command: command, json: json)
            // Without exit handlers: the working thread is still in the middle of something.
            _exit(status)
        }
    }

    /// The work is done: a signal from now on only ends the process.
    func end() { lock.withLock { cleanUp = nil } }
}
