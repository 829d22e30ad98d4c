/// The threads that take requests by io_uring, beside libfuse's own: FORGET, INTERRUPT and whatever came
/// before the rings were ready still come by `/dev/fuse`.
///
///     INIT read ─▶ prepare ─▶ INIT answered ─▶ begin ─▶ serving ─▶ loop has ended ─▶ stop
///                     └─ no ring to be had: INIT is answered without, and all comes by /dev/fuse
///
/// The kernel has a queue for each processor and puts a request into that of the caller's. It takes
/// whichever entry became idle last, so a caller that waits for each answer meets one thread, warm, on
/// its own processor: no other one is woken, which in a virtual machine costs more than the request.
///
/// - Invariant: every possible processor has a ring before the kernel hears of rings: it would wait for
///   the missing one with all requests.
/// - Invariant: a queue gets another thread when all of it work, up to a limit, so that a request that
///   waits for the device or a lock holds up no other.
internal import CURing
internal import FSCore
internal import Glibc
internal import Synchronization

final class FuseRings: @unchecked Sendable {
    /// One processor's.
    private final class Queue: Sendable {
        /// Threads that wait for a request.
        let idle = Atomic<Int>(0)
        let threads = Atomic<Int>(0)
    }

    private enum State { case preparing, serving, stopping }

    private let device: Int32
    private let work: @Sendable (FuseRing, MutableByteView) -> Void
    private let queues: [Queue]
    private let maximumThreads: Int
    private let isStopping = Atomic<Bool>(false)
    /// Guards everything below.
    private let lock = Mutex()
    private var state = State.preparing
    private var threads: [WorkerThread] = []
    private var preparedCount = 0
    private var failedCount = 0
    private var endedCount = 0

    /// Beyond, a thread for each processor that might once be there is too much.
    private static let maximumProcessors = 64
    private static let totalThreads = 64

    /// - Parameters:
    ///   - device: the descriptor of the mount.
    ///   - work: answers a request.
    /// - Returns: rings that are ready to begin; nil if the kernel or a limit refuses one.
    static func prepare(
        device: Int32, work: @escaping @Sendable (FuseRing, MutableByteView) -> Void
    ) -> FuseRings? {
        guard let count = possibleProcessors(), count <= maximumProcessors else { return nil }
        let rings = FuseRings(device, count, work)
        rings.lock.withLock {
            for queue in 0..<count { rings.start(queue) }
            while rings.preparedCount + rings.failedCount < count { rings.lock.wait() }
        }
        guard rings.failedCount == 0 else {
            rings.stop()
            return nil
        }
        return rings
    }

    private init(
        _ device: Int32, _ count: Int,
        _ work: @escaping @Sendable (FuseRing, MutableByteView) -> Void
    ) {
        self.device = device
        self.work = work
        queues = (0..<count).map { _ in Queue() }
        maximumThreads = max(4, Self.totalThreads / count)
    }

    /// How many queues the kernel has: one for each processor that could be there. nil if their numbers
    /// have gaps.
    private static func possibleProcessors() -> Int? {
        guard let file = fopen("/sys/devices/system/cpu/possible", "r") else { return nil }
        defer { fclose(file) }
        var text = [CChar](repeating: 0, count: 64)
        guard fgets(&text, Int32(text.count), file) != nil else { return nil }
        let bytes = text.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
        let bounds = String(decoding: bytes, as: UTF8.self).split(separator: "-").map { Int($0) }
        switch bounds.count {
        case 1: return bounds[0] == 0 ? 1 : nil
        case 2: return bounds[0] == 0 ? bounds[1].map { $0 + 1 } : nil
        default: return nil
        }
    }

    /// The kernel has the reply to INIT.
    func begin() {
        lock.withLock {
            state = .serving
            lock.signalAll()
        }
    }

    /// Ends all threads, each after the request that it works on.
    func stop() {
        isStopping.store(true, ordering: .relaxed)
        let ended = lock.withLock {
            state = .stopping
            lock.signalAll()
            // A signal that comes just before a thread waits is lost, so repeat it.
            while endedCount < threads.count {
                threads.forEach { $0.signal(WakeUpSignal.number) }
                lock.wait(milliseconds: 20)
            }
            return threads
        }
        ended.forEach { $0.join() }
    }

    /// Under `lock`.
    private func start(_ index: Int) {
        queues[index].threads.add(1, ordering: .relaxed)
        threads.append(
            WorkerThread { [self] in
                serve(index)
                lock.withLock {
                    endedCount += 1
                    lock.signalAll()
                }
            })
    }

    private func serve(_ index: Int) {
        WakeUpSignal.letIn()
        stay(on: index)
        let made = FuseRing(device: device, queue: index)
        let mayServe = lock.withLock {
            if made == nil { failedCount += 1 } else { preparedCount += 1 }
            lock.signalAll()
            while state == .preparing { lock.wait() }
            return state == .serving
        }
        guard let ring = made, mayServe else { return }
        let queue = queues[index]
        queue.idle.add(1, ordering: .relaxed)
        while let message = ring.next({ isStopping.load(ordering: .relaxed) }) {
            if queue.idle.subtract(1, ordering: .relaxed).newValue == 0 { grow(index) }
            work(ring, message)
            queue.idle.add(1, ordering: .relaxed)
        }
        queue.idle.subtract(1, ordering: .relaxed)
    }

    /// All threads of a queue work.
    private func grow(_ index: Int) {
        guard queues[index].threads.load(ordering: .relaxed) < maximumThreads else { return }
        lock.withLock {
            guard state == .serving,
                queues[index].threads.load(ordering: .relaxed) < maximumThreads
            else { return }
            start(index)
        }
    }

    /// Keeps the calling thread on a processor; where that is not allowed, it goes where it likes.
    private func stay(on processor: Int) {
        var mask = UInt64(1) << processor
        withUnsafeBytes(of: &mask) { bytes in
            _ = sched_setaffinity(
                0, UInt(bytes.count), bytes.baseAddress?.assumingMemoryBound(to: cpu_set_t.self))
        }
    }
}
