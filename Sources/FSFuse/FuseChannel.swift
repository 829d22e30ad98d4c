/// The way of every message between the kernel and libfuse: our own read and writev on the
/// `/dev/fuse` descriptor (`fuse_session_custom_io`), and io_uring where the kernel has it switched on
/// (`FuseRings`), whose requests are handed to libfuse as if they had been read.
///
/// It closes the gap between the kernel's protocol and libfuse 3.14: the INIT reply turns on
/// what libfuse cannot negotiate, requests that libfuse would reject are rewritten into ones
/// that it knows, and what it drops is noted for the callback (`FuseRequestMessage`).
///
/// libfuse answers a request on the thread that read it, so the notes belong to the thread.
///
/// - Invariant: only `FuseChannel` reads or writes the descriptor.
/// - Invariant: between `read` and its return there is no second cancellation point: the loop
///   ends its idle threads by cancelling them there, and no request may be lost half read.
internal import CFuse3
internal import FSCore
internal import Glibc
internal import Synchronization

final class FuseChannel: Sendable {
    let head: FuseHead
    let tags = FuseTags()
    let gate = FuseGate()
    /// What is below `.snapshots`; nil if the mount does not show it.
    let snapshots: FuseSnapshotNodes?
    private let activity: ForegroundActivity
    /// Use the kernel's writeback cache.
    let writeback: Bool
    /// As in `FuseMountOptions`.
    private let usesRings: Bool?
    private let log: @Sendable (String) -> Void
    /// Called once, on a thread of the loop, when the kernel has taken the INIT reply.
    private let whenReady: @Sendable () -> Void
    private let threadKey: pthread_key_t
    /// `FuseFeatures` in force; zero before INIT was answered, constant afterwards.
    private let features = Atomic<UInt64>(0)
    private let refused = RefusedWrites()
    /// The address of the session; zero before `attach`.
    private let session = Atomic<UInt>(0)
    /// nil where all requests come by `/dev/fuse`.
    private let rings = RingsInUse()

    init(
        fileSystem: FileSystem, snapshots: (any SnapshotNamespace)?, writeback: Bool,
        usesRings: Bool?, log: @escaping @Sendable (String) -> Void,
        whenReady: @escaping @Sendable () -> Void
    ) {
        head = FuseHead(fileSystem, tags)
        let tags = tags
        self.snapshots = snapshots.map { FuseSnapshotNodes($0, tags) }
        activity = fileSystem.activity
        self.writeback = writeback
        self.usesRings = usesRings
        self.log = log
        self.whenReady = whenReady
        var key = pthread_key_t()
        let status = pthread_key_create(&key) { FuseThread.destroy($0) }
        precondition(status == 0, "no thread-specific key is left")
        threadKey = key
    }

    deinit { pthread_key_delete(threadKey) }

    /// Puts this channel under a mounted session, which has it as its user data.
    func attach(to session: OpaquePointer) {
        var io = fuse_custom_io()
        io.read = { descriptor, buffer, capacity, userdata in
            guard let buffer, let userdata else { return -1 }
            return Unmanaged<FuseChannel>.fromOpaque(userdata)._withUnsafeGuaranteedRef {
                $0.receive(descriptor, buffer, capacity)
            }
        }
        io.writev = { descriptor, parts, count, userdata in
            guard let parts, let userdata else { return -1 }
            return Unmanaged<FuseChannel>.fromOpaque(userdata)._withUnsafeGuaranteedRef {
                $0.send(parts, Int(count), descriptor)
            }
        }
        let status = fuse_session_custom_io(session, &io, fuse_session_fd(session))
        precondition(status == 0, "libfuse refused a descriptor of its own")
        self.session.store(UInt(bitPattern: session), ordering: .relaxed)
        // The kernel lets a program run by the mode that it has cached, and does not ask again
        // after a write, fallocate or copy that makes us take set-user-id away.
        head.files.whenUnprivileged = { [weak self] inode in
            guard let self else { return }
            forgetAttributes(of: head.nodeID(of: inode))
        }
        head.files.isMember = { ProcessGroups.contain($1, process: $0.process) }
    }

    /// Has the kernel ask for an inode's attributes again, which it did not expect to change. Nothing is
    /// said about pages, for which it would have to wait.
    func forgetAttributes(of nodeID: UInt64) {
        guard let session = OpaquePointer(bitPattern: session.load(ordering: .relaxed)) else {
            return
        }
        fuse_lowlevel_notify_inval_inode(session, nodeID, -1, 0)
    }

    /// Has the kernel drop the pages of a file that it changed although nobody may, after it was told so.
    func forgetContents(of nodeID: UInt64) { refused.add(nodeID) }

    /// - Parameter withSession: lends the session for a notification.
    func notify(by withSession: @escaping RefusedWrites.Lender) {
        refused.lock.withLock { refused.withSession = withSession }
    }

    /// Node ids whose pages are to be dropped, by a thread that answers no requests: the kernel waits for
    /// pages until those who use them were answered, and a ring's answer goes out with its thread's next
    /// wait.
    final class RefusedWrites: @unchecked Sendable {
        typealias Lender = @Sendable (_ body: (OpaquePointer) -> Void) -> Void
        fileprivate let lock = Mutex()
        fileprivate var withSession: Lender?
        private var nodeIDs: Set<UInt64> = []
        private var thread: WorkerThread?
        private var isWorking = false

        fileprivate func add(_ nodeID: UInt64) {
            lock.withLock {
                nodeIDs.insert(nodeID)
                guard !isWorking, let withSession else { return }
                isWorking = true
                // It has found nothing more to do.
                thread?.join()
                thread = WorkerThread { [self] in
                    withSession { session in
                        while let next = takeOne() {
                            fuse_lowlevel_notify_inval_inode(session, next, 0, 0)
                        }
                    }
                }
            }
        }

        private func takeOne() -> UInt64? {
            lock.withLock {
                let one = nodeIDs.popFirst()
                if one == nil { isWorking = false }
                return one
            }
        }
    }

    /// What belongs to the calling thread of the loop.
    @inline(__always)
    var thread: UnsafeMutablePointer<FuseThread> {
        if let known = pthread_getspecific(threadKey) {
            return known.assumingMemoryBound(to: FuseThread.self)
        }
        let thread = FuseThread.make(gate)
        pthread_setspecific(threadKey, thread)
        return thread
    }

    /// Tells about an error of the medium; others are the caller's own business.
    func report(_ error: FSError, in operation: StaticString, on nodeID: UInt64) {
        guard FuseErrno.isWorthLogging(error) else { return }
        log("\(operation) of inode \(FuseNodeID.inode(nodeID).rawValue): \(error)")
    }

    /// Whether requests come by io_uring.
    var hasRings: Bool { rings.lock.withLock { rings.value != nil } }

    /// Ends the threads of the rings; nothing comes by them any more.
    func stopRings() {
        let value = rings.lock.withLock {
            defer { rings.value = nil }
            return rings.value
        }
        value?.stop()
    }

    private final class RingsInUse: @unchecked Sendable {
        let lock = Mutex()
        var value: FuseRings?
    }

    /// Reads a request.
    ///
    /// - Returns: its length for libfuse, or what read(2) says.
    private func receive(
        _ descriptor: Int32, _ buffer: UnsafeMutableRawPointer, _ capacity: Int
    ) -> Int {
        let thread = thread
        gate.leave(thread)
        let count = Glibc.read(descriptor, buffer, capacity)
        guard count >= FuseRequestMessage.headerLength else { return count }
        gate.enter(thread)
        let message = MutableByteView(base: buffer, count: count)
        if FuseRequestMessage.opcode(message) == FuseOpcode.initialize {
            thread.pointee.offered = FuseRequestMessage.offeredFeatures(message.view)
            return message.count
        }
        return accept(message, thread)
    }

    /// Notes what libfuse drops.
    ///
    /// - Returns: the length of the message for libfuse.
    @inline(__always)
    private func accept(
        _ message: MutableByteView, _ thread: UnsafeMutablePointer<FuseThread>
    ) -> Int {
        activity.note()
        thread.pointee.notes = FuseRequestNotes()
        return FuseRequestMessage.translate(
            message, FuseFeatures(rawValue: features.load(ordering: .relaxed)),
            &thread.pointee.notes)
    }

    /// Answers a request that came by a ring.
    private func serve(_ message: MutableByteView, from ring: FuseRing) {
        guard let session = OpaquePointer(bitPattern: session.load(ordering: .relaxed)) else {
            return ring.fail(EIO)
        }
        let thread = thread
        gate.enter(thread)
        defer { gate.leave(thread) }
        var buffer = fuse_buf()
        buffer.size = accept(message, thread)
        buffer.mem = message.unsafeBytes.baseAddress
        thread.pointee.lend(ring)
        fuse_session_process_buf(session, &buffer)
        thread.pointee.lend(nil)
        // libfuse answers all that rings bring before it returns.
        if ring.isPending { ring.fail(EIO) }
    }

    /// libfuse has a reply.
    private func send(
        _ parts: UnsafeMutablePointer<iovec>, _ count: Int, _ descriptor: Int32
    ) -> Int {
        let thread = thread
        if let ring = thread.pointee.ring,
            let length = ring._withUnsafeGuaranteedRef({
                $0.take(UnsafeMutableBufferPointer(start: parts, count: count))
            })
        {
            return length
        }
        let offered = thread.pointee.offered
        thread.pointee.offered = nil
        var prepared: FuseRings?
        // A refusal of INIT consists of the header alone.
        if let offered, count == 2, let base = parts[1].iov_base {
            let reply = MutableByteView(base: base, count: parts[1].iov_len)
            var wanted = FuseFeatures.wanted
            prepared = prepareRings(offered, descriptor)
            if prepared != nil { wanted.insert(.overRings) }
            features.store(
                FuseInitReply.extend(reply, offered: offered, wanted: wanted).rawValue,
                ordering: .relaxed)
        }
        let result = Glibc.writev(descriptor, parts, Int32(count))
        if result < 0 {
            // The mount is gone. To libfuse that is as if the request had been interrupted:
            // nobody waits for the reply, and nobody wants to read about it.
            if errno == ENODEV { errno = ENOENT }
            prepared?.stop()
        } else if offered != nil {
            if let prepared {
                rings.lock.withLock { rings.value = prepared }
                prepared.begin()
            }
            whenReady()
        }
        return result
    }

    private func prepareRings(_ offered: FuseFeatures, _ descriptor: Int32) -> FuseRings? {
        guard usesRings != false else { return nil }
        let prepared =
            offered.contains(.overRings)
            ? FuseRings.prepare(device: descriptor) { [unowned self] ring, message in
                serve(message, from: ring)
            } : nil
        if usesRings == true, prepared == nil {
            log(
                "requests do not come by io_uring: the kernel does not offer it (6.14 and later do, if"
                    + " /sys/module/fuse/parameters/enable_uring is Y), or refuses a ring")
        }
        return prepared
    }
}

/// What each thread of the loop owns: notes on the request it works on, and memory for a reply.
struct FuseThread: ~Copyable {
    /// It works on a request.
    let isBusy = Atomic<Bool>(false)
    var notes = FuseRequestNotes()
    /// Set from reading INIT to answering it.
    var offered: FuseFeatures?
    /// Where the request came from; nil: by `/dev/fuse`.
    private(set) var ring: Unmanaged<FuseRing>?
    /// The ring's memory, if it takes a reply.
    private var lent: MutableByteView?
    private var buffer: UnsafeMutableRawBufferPointer
    private let gate: FuseGate

    private init(_ gate: FuseGate) {
        self.gate = gate
        buffer = Self.allocate(Self.usualCapacity)
    }

    /// A READ is at most as large as a WRITE.
    private static let usualCapacity = FuseOperations.maximumWrite

    static func make(_ gate: FuseGate) -> UnsafeMutablePointer<FuseThread> {
        let thread = UnsafeMutablePointer<FuseThread>.allocate(capacity: 1)
        thread.initialize(to: FuseThread(gate))
        gate.add(thread)
        return thread
    }

    /// The destructor of the thread-specific key.
    static func destroy(_ pointer: UnsafeMutableRawPointer?) {
        guard let thread = pointer?.assumingMemoryBound(to: FuseThread.self) else { return }
        thread.pointee.gate.remove(thread)
        thread.pointee.buffer.deallocate()
        thread.deinitialize(count: 1)
        thread.deallocate()
    }

    /// The ring whose request the thread works on from now; nil: none.
    mutating func lend(_ ring: FuseRing?) {
        self.ring = ring.map { Unmanaged.passUnretained($0) }
        lent = ring?.free
    }

    /// Page-aligned memory, valid until the thread's next request.
    mutating func memory(_ count: Int) -> MutableByteView {
        if let lent, count <= lent.count { return lent.slice(0, count) }
        if count > buffer.count {
            buffer.deallocate()
            buffer = FuseThread.allocate(count)
        }
        return MutableByteView(base: buffer.baseAddress!, count: count)
    }

    private static func allocate(_ count: Int) -> UnsafeMutableRawBufferPointer {
        .allocate(byteCount: count, alignment: 4096)
    }
}
