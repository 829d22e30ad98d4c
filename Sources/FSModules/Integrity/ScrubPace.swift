/// When a scrub may read: not faster than it was told to, and out of the way of whoever uses the volume.
///
/// Work is done in turns: a piece of the device, or some nodes. While nobody uses the volume, turns follow
/// each other at once, on several threads. While somebody does, there is one at a time, and after it a
/// rest of `restFactor` times as long as it took. So a scrub has a small part of a device's time, however
/// fast that is, and always gets on: what it costs others does not depend on a number of bytes a second
/// that would be right for one device only.
///
/// - Invariant: the volume counts as used until `quietNanoseconds` after the last request.
/// - Invariant: nobody holds the lock while working.
internal import FSCore

@safe
final class ScrubPace: @unchecked Sendable {
    private static let quietNanoseconds: UInt64 = 250_000_000
    private static let restFactor: UInt64 = 5

    /// 0: none.
    private let bytesPerSecond: UInt64
    private let activity: ForegroundActivity
    private let lock = Mutex()

    // Guarded by the lock.
    /// When the bytes taken so far may all have been read.
    private var due = monotonicNanoseconds()
    private var running = 0
    private var restUntil: UInt64 = 0
    private var lastUse: UInt64?

    init(bytesPerSecond: UInt64, _ activity: ForegroundActivity) {
        self.bytesPerSecond = bytesPerSecond
        self.activity = activity
    }

    /// Whether somebody uses the volume.
    var isBusy: Bool { lock.withLock { look(monotonicNanoseconds()) } }

    /// Waits for a turn and does `work`; false, without having done it, if the scrub is to end.
    func turn<E: Error>(
        _ bytes: UInt64, _ command: () -> Scrubber.Command, _ work: () throws(E) -> Void
    ) throws(E) -> Bool {
        guard begin(bytes, command) else { return false }
        let start = monotonicNanoseconds()
        defer { end(start) }
        try work()
        return true
    }

    /// Bytes were read of which nobody knew before; the next turns wait for them.
    func charge(_ bytes: UInt64) { lock.withLock { _ = take(bytes) } }

    private func begin(_ bytes: UInt64, _ command: () -> Scrubber.Command) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        let due = take(bytes)
        while command() == .goOn {
            let now = monotonicNanoseconds()
            let isBusy = look(now)
            if now >= due, !isBusy || running == 0 && now >= restUntil {
                running += 1
                return true
            }
            let left = max(due, isBusy ? restUntil : 0)
            let milliseconds = left > now ? (left - now) / 1_000_000 + 1 : 100
            lock.wait(milliseconds: Int(min(milliseconds, 100)))
        }
        return false
    }

    private func end(_ start: UInt64) {
        lock.withLock {
            let now = monotonicNanoseconds()
            running -= 1
            if look(now) { restUntil = now + (now - start) * Self.restFactor }
            lock.signalAll()
        }
    }

    /// When these bytes, and all before them, may have been read. With the lock held.
    private func take(_ bytes: UInt64) -> UInt64 {
        guard bytesPerSecond > 0 else { return 0 }
        due = max(due, monotonicNanoseconds())
        due += UInt64(Double(bytes) / Double(bytesPerSecond) * 1e9)
        return due
    }

    /// With the lock held.
    private func look(_ now: UInt64) -> Bool {
        if activity.look() { lastUse = now }
        return lastUse.map { now < $0 + Self.quietNanoseconds } ?? false
    }
}
