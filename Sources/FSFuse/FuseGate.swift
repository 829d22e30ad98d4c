/// Stops the work on requests for a moment, without a lock in their way.
///
///     a thread of the loop   read ─▶ busy ─▶ closed? ─no─▶ work, reply ─▶ idle ─▶ read ...
///                                              └─yes─▶ idle, wait, again
///     whoever closes         closed ─▶ wait until all are idle ─▶ ... ─▶ open
///
/// Each side writes its own flag before it looks at the other's, in one order that all see.
///
/// - Invariant: between `close` and `open` no request is worked on.
/// - Invariant: `enter` has no cancellation point (`FuseChannel`).
internal import FSCore
internal import Glibc
internal import Synchronization

final class FuseGate: @unchecked Sendable {
    private let isClosed = Atomic<Bool>(false)
    /// Held while it is closed: a mutex, because waiting for one is no cancellation point.
    private let closing = Mutex()
    /// Guards `threads`.
    private let lock = Mutex()
    private var threads: Set<UnsafeMutablePointer<FuseThread>> = []

    func add(_ thread: UnsafeMutablePointer<FuseThread>) {
        lock.withLock { _ = threads.insert(thread) }
    }
    func remove(_ thread: UnsafeMutablePointer<FuseThread>) {
        lock.withLock { _ = threads.remove(thread) }
    }

    /// A request has been read.
    @inline(__always)
    func enter(_ thread: UnsafeMutablePointer<FuseThread>) {
        while true {
            thread.pointee.isBusy.store(true, ordering: .sequentiallyConsistent)
            if !isClosed.load(ordering: .sequentiallyConsistent) { return }
            leave(thread)
            closing.lock()
            closing.unlock()
        }
    }

    /// It has been answered.
    @inline(__always)
    func leave(_ thread: UnsafeMutablePointer<FuseThread>) {
        thread.pointee.isBusy.store(false, ordering: .releasing)
    }

    /// Returns when nothing is worked on; false, and open again, if that takes longer.
    func close(patienceMilliseconds: Int) -> Bool {
        closing.lock()
        isClosed.store(true, ordering: .sequentiallyConsistent)
        for _ in 0..<max(1, patienceMilliseconds) {
            let isQuiet = lock.withLock {
                !threads.contains {
                    $0.pointee.isBusy.load(ordering: .sequentiallyConsistent)
                }
            }
            if isQuiet { return true }
            usleep(1000)
        }
        open()
        return false
    }

    func open() {
        isClosed.store(false, ordering: .sequentiallyConsistent)
        closing.unlock()
    }
}
