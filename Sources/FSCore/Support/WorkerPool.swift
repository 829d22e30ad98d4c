/// Threads that help with work that falls into pieces, as encoding the parts of a large write.
///
/// They are started at the first such work, one less than there are processors and at most seven, and
/// end with the pool.
///
/// - Invariant: whoever brings work does it, too, and pieces wait for nothing: it ends even if no helper
///   ever comes.
internal import Glibc

package final class WorkerPool: @unchecked Sendable {
    private static let maximumHelpers = 7

    /// One call of `forEach`; what changes is guarded by the queue's lock.
    private final class Job {
        let count: Int
        let body: @Sendable (Int) -> Void
        var started = 0
        var ended = 0

        init(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
            self.count = count
            self.body = body
        }
    }

    private final class Queue: @unchecked Sendable {
        let lock = Mutex()
        /// Jobs with pieces that nobody has started.
        var jobs: [Job] = []
        var isEnding = false

        /// Does pieces of a job until all are started; the caller holds the lock.
        func work(on job: Job) {
            while job.started < job.count {
                let piece = job.started
                job.started += 1
                if job.started == job.count { jobs.removeAll { $0 === job } }
                lock.unlock()
                job.body(piece)
                lock.lock()
                job.ended += 1
                if job.ended == job.count { lock.signalAll() }
            }
        }

        func help() {
            lock.withLock {
                while !isEnding {
                    if let job = jobs.first { work(on: job) } else { lock.wait() }
                }
            }
        }
    }

    private let queue = Queue()
    /// Guarded by the queue's lock.
    private var helpers: [WorkerThread] = []
    private let helperCount = min(sysconf(Int32(_SC_NPROCESSORS_ONLN)) - 1, maximumHelpers)

    package init() {}
    deinit {
        queue.lock.withLock {
            queue.isEnding = true
            queue.lock.signalAll()
        }
        for helper in helpers { helper.join() }
    }

    /// Calls `body` with each number below `count` once, on several threads at the same time, and
    /// returns when all calls have.
    package func forEach(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        guard count > 1, helperCount > 0 else {
            for piece in 0..<count { body(piece) }
            return
        }
        let job = Job(count, body)
        queue.lock.withLock {
            while helpers.count < helperCount {
                helpers.append(WorkerThread { [queue] in queue.help() })
            }
            queue.jobs.append(job)
            queue.lock.signalAll()
            queue.work(on: job)
            while job.ended < count { queue.lock.wait() }
        }
    }
}
