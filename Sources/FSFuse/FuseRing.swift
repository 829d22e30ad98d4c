/// One thread's way of requests by io_uring: a ring with one entry in the kernel's queue of a processor
/// (in the kernel's documentation: FUSE-over-io-uring).
///
///     register ─▶ wait ─▶ request ─▶ work ─▶ reply into the entry ─▶ commit, wait ─▶ request ...
///
/// Committing a reply and fetching the next request are one system call, which on `/dev/fuse` are two.
///
///     memory   header ∙∙∙ iovecs ∙∙∙ copy of header and argument │ payload
///                                                                8192
///
/// The kernel gives a request in pieces and libfuse wants it in one, so the small pieces are copied to
/// where the payload begins. The data of a WRITE stays where the kernel put it, and that of a READ
/// can be made where the kernel takes it from (`free`).
///
/// - Invariant: only the thread that made a ring uses it.
/// - Invariant: the memory is ours from the request to the commit, else the kernel's.
internal import CFuse3
internal import CURing
internal import FSCore
internal import Glibc

final class FuseRing {
    private var ring = io_uring()
    private let device: Int32
    private let queue: UInt16
    private let memory: UnsafeMutableRawPointer
    private var command = FuseRingCommand.register
    private var commitID: UInt64 = 0
    /// Nobody has answered the request yet.
    private(set) var isPending = false

    private static let vectorsOffset = 512
    private static let payloadOffset = 8192
    /// What the kernel demands of an entry: the largest READ and WRITE.
    private static let payloadCapacity = FuseOperations.maximumWrite

    /// nil if the kernel or a limit refuses a ring.
    init?(device: Int32, queue: Int) {
        guard let queue = UInt16(exactly: queue) else { return nil }
        var parameters = io_uring_params()
        // The command of a submission needs the long form. Work for the ring is done when the thread
        // waits for it, which is all that it ever does besides working itself.
        parameters.flags =
            IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
        guard io_uring_queue_init_params(1, &ring, &parameters) == 0 else { return nil }
        self.device = device
        self.queue = queue
        memory = .allocate(
            byteCount: Self.payloadOffset + Self.payloadCapacity, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.payloadOffset)
        let vectors = (memory + Self.vectorsOffset).bindMemory(to: iovec.self, capacity: 2)
        vectors[0] = iovec(iov_base: memory, iov_len: FuseRingHeader.length)
        vectors[1] = iovec(
            iov_base: memory + Self.payloadOffset, iov_len: Self.payloadCapacity)
    }

    /// Closing the ring takes its entry back from the kernel, which then has no use for the memory.
    deinit {
        io_uring_queue_exit(&ring)
        memory.deallocate()
    }

    private var header: MutableByteView {
        MutableByteView(base: memory, count: FuseRingHeader.length)
    }
    private var payload: UnsafeMutableRawPointer { memory + Self.payloadOffset }

    /// The memory of the payload, if the request has none itself: a reply that is made there need not
    /// be copied.
    var free: MutableByteView? {
        header.view.u32(FuseRingHeader.payloadCountOffset) == 0
            ? MutableByteView(base: payload, count: Self.payloadCapacity) : nil
    }

    /// Commits the reply to the request before, if there was one, and waits for the next.
    ///
    /// - Parameter isStopping: asked before each wait, which a signal interrupts. The reply is committed
    ///   even so.
    /// - Returns: its bytes, valid until the next call; nil when it is to stop, there is no mount any
    ///   more, or the kernel does not want the ring.
    func next(_ isStopping: () -> Bool) -> MutableByteView? {
        repeat {
            guard submit(), wait(isStopping) else { return nil }
            command = FuseRingCommand.commitAndFetch
            commitID = header.view.u64(FuseRingHeader.commitIDOffset)
            isPending = true
            if let message = assemble() { return message }
            fail(EIO)
        } while true
    }

    private func submit() -> Bool {
        guard let entry = io_uring_get_sqe(&ring) else { return false }
        let bytes = UnsafeMutableRawPointer(entry)
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 128)
        entry.pointee.opcode = UInt8(IORING_OP_URING_CMD.rawValue)
        entry.pointee.fd = device
        entry.pointee.cmd_op = command
        if command == FuseRingCommand.register {
            entry.pointee.addr = UInt64(UInt(bitPattern: memory + Self.vectorsOffset))
            entry.pointee.len = 2
        }
        let area = MutableByteView(
            base: bytes + FuseRingCommand.offset, count: FuseRingCommand.length)
        area.store(commitID, at: FuseRingCommand.commitIDOffset)
        area.store(queue, at: FuseRingCommand.queueOffset)
        return true
    }

    private func wait(_ isStopping: () -> Bool) -> Bool {
        while true {
            guard !isStopping() else {
                io_uring_submit(&ring)
                return false
            }
            let status = io_uring_submit_and_wait(&ring, 1)
            var completion: UnsafeMutablePointer<io_uring_cqe>?
            if io_uring_peek_cqe(&ring, &completion) == 0, let completion {
                let result = completion.pointee.res
                io_uring_cqe_seen(&ring, completion)
                return result == 0
            }
            guard status >= 0 || [EINTR, EAGAIN, EBUSY].contains(-status) else { return false }
        }
    }

    /// Puts the request in one piece; nil if its header contradicts itself.
    private func assemble() -> MutableByteView? {
        guard
            let fixed = FuseRingHeader.fixedCount(
                header.view, payloadCapacity: Self.payloadCapacity)
        else { return nil }
        let length = FuseRequestMessage.headerLength
        let start = payload - fixed
        start.copyMemory(from: memory, byteCount: length)
        (start + length).copyMemory(
            from: memory + FuseRingHeader.argumentOffset, byteCount: fixed - length)
        return MutableByteView(base: start, count: Int(header.view.u32(0)))
    }

    /// Takes a reply, to commit it with the next request.
    ///
    /// - Parameter parts: the first is the reply's header.
    /// - Returns: the reply's length; nil if it is for another request than the ring's: libfuse answers
    ///   an INTERRUPT on whatever thread it finds it.
    func take(_ parts: UnsafeMutableBufferPointer<iovec>) -> Int? {
        guard isPending, let base = parts[0].iov_base,
            parts[0].iov_len == FuseReplyHeader.length
        else { return nil }
        let reply = ByteView(base: base, count: FuseReplyHeader.length)
        // The header in the entry is still the request's: its unique has the same place.
        guard reply.u64(FuseReplyHeader.uniqueOffset) == header.view.u64(8) else { return nil }
        var end = parts.dropFirst().reduce(0) { $0 + $1.iov_len }
        guard end <= Self.payloadCapacity else {
            fail(EIO)
            return FuseReplyHeader.length + end
        }
        let total = end
        // From the end, because the last part may lie where the first is to go.
        for part in parts.dropFirst().reversed() {
            end -= part.iov_len
            guard let base = part.iov_base, base != payload + end else { continue }
            (payload + end).copyMemory(from: base, byteCount: part.iov_len)
        }
        header.copy(reply)
        header.store(UInt32(total), at: FuseRingHeader.payloadCountOffset)
        isPending = false
        return FuseReplyHeader.length + total
    }

    /// Answers with an error.
    func fail(_ code: Int32) {
        let unique = header.view.u64(8)
        header.store(UInt32(FuseReplyHeader.length), at: 0)
        header.store(-code, at: FuseReplyHeader.errorOffset)
        header.store(unique, at: FuseReplyHeader.uniqueOffset)
        header.store(UInt32(0), at: FuseRingHeader.payloadCountOffset)
        isPending = false
    }
}
