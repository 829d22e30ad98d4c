/// pthread locks as classes. Swift's `Mutex` convoys when more threads than cores contend, and
/// there is no reader-writer lock or condition variable in the standard library.
///
/// - Invariant: no lock of this file is held over device I/O or a reply to the kernel, except
///   inode locks, which a data read or write may hold, and those that say so: the share lock, that on
///   the bitmap's slots, the
///   journal's lock for writing data home, and the one that lets one flush run at a time.
internal import Glibc

/// A mutual-exclusion lock with a condition.
@safe
package final class Mutex: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe condition = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_cond_init(condition, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
    }
    deinit {
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }

    package func lock() { unsafe pthread_mutex_lock(mutex) }
    package func unlock() { unsafe pthread_mutex_unlock(mutex) }

    @inline(__always)
    package func withLock<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock()
        defer { unlock() }
        return try body()
    }
    /// Waits for `signalAll`; the caller holds the lock and re-checks its condition afterwards.
    package func wait() { unsafe pthread_cond_wait(condition, mutex) }
    /// Like `wait`, at most `milliseconds`.
    package func wait(milliseconds: Int) {
        var deadline = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &deadline)
        let nanoseconds = deadline.tv_nsec + (milliseconds % 1000) * 1_000_000
        deadline.tv_sec += milliseconds / 1000 + nanoseconds / 1_000_000_000
        deadline.tv_nsec = nanoseconds % 1_000_000_000
        unsafe pthread_cond_timedwait(condition, mutex, &deadline)
    }
    package func signalAll() { unsafe pthread_cond_broadcast(condition) }
}

/// A reader-writer lock that prefers writers (glibc's default starves them). Not recursive.
@safe
package final class ReadWriteLock: @unchecked Sendable {
    private let lock: UnsafeMutablePointer<pthread_rwlock_t>

    package init() {
        unsafe lock = .allocate(capacity: 1)
        var attributes = pthread_rwlockattr_t()
        unsafe pthread_rwlockattr_init(&attributes)
        // PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
        unsafe pthread_rwlockattr_setkind_np(&attributes, 2)
        unsafe pthread_rwlock_init(lock, &attributes)
        unsafe pthread_rwlockattr_destroy(&attributes)
    }
    deinit {
        unsafe pthread_rwlock_destroy(lock)
        unsafe lock.deallocate()
    }

    package func lockShared() { unsafe pthread_rwlock_rdlock(lock) }
    package func lockExclusive() { unsafe pthread_rwlock_wrlock(lock) }
    package func unlock() { unsafe pthread_rwlock_unlock(lock) }

    @inline(__always)
    package func shared<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lockShared()
        defer { unlock() }
        return try body()
    }
    @inline(__always)
    package func exclusive<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lockExclusive()
        defer { unlock() }
        return try body()
    }
}
