/// Transactions that are not in the ring yet, and staged data that is not in its blocks yet, in a
/// memfd: memory that outlives the process if somebody else holds the descriptor. Every transaction
/// is whole in it before its operation is answered, so another daemon could take over.
///
///     0       magic                "AEGISBUF"
///     8       internal uuid        16
///     24      incarnation          u64
///     32      begin                u64   offset of the first transaction that the ring lacks
///     40      end                  u64   offset behind the last transaction
///     48      first operation      u64   of that at `begin`
///     56      last operation       u64
///     4096    transactions (`JournalFormat`), a ring of `capacity` bytes: an offset lies at its
///             remainder; 0xFFFFFFFF instead of a byte count: the next one is at the beginning
///
/// - Invariant: offsets only grow; `tail ≤ begin ≤ end ≤ tail + capacity`.
/// - Invariant: `end` is stored after everything before it.
internal import CLinux
internal import FSCore
internal import Glibc

@safe
final class JournalBuffer {
    static let magic: UInt64 = 0x4655_4253_4947_4541
    static let headerSize = 4096
    static let capacity = 64 << 20
    fileprivate static let wrapMark = UInt32.max
    // MFD_CLOEXEC of linux/memfd.h.
    private static let memfdCloseOnExec: UInt32 = 1

    let descriptor: Int32
    private let memory: MutableByteView
    private(set) var end: UInt64 = 0
    /// Nothing before it is needed any more.
    private(set) var tail: UInt64 = 0

    /// Throws `.device(.open, …)` when the kernel has no memory for it.
    init() throws(FSError) {
        let size = Self.headerSize + Self.capacity
        descriptor = unsafe memfd_create("aegisfs-journal", Self.memfdCloseOnExec)
        guard descriptor >= 0 else { throw .device(.open, errno: errno, offset: 0) }
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            let error = FSError.device(.open, errno: errno, offset: 0)
            Glibc.close(descriptor)
            throw error
        }
        guard
            let base = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            unsafe base != MAP_FAILED
        else {
            let error = FSError.device(.open, errno: errno, offset: 0)
            Glibc.close(descriptor)
            throw error
        }
        unsafe memory = MutableByteView(base: base, count: size)
        memory.store(Self.magic, at: 0)
    }

    deinit {
        unsafe munmap(memory.unsafeBytes.baseAddress!, memory.count)
        Glibc.close(descriptor)
    }

    func begin(_ uuid: VolumeUUID, incarnation: UInt64) {
        var writer = ByteWriter(memory.slice(8, 24))
        uuid.encode(&writer)
        writer.u64(incarnation)
    }

    fileprivate static func place(_ offset: UInt64) -> Int {
        headerSize + Int(offset % UInt64(capacity))
    }

    /// Where an entry of `size` bytes would begin.
    private func start(_ size: Int) -> UInt64 {
        let left = Self.capacity - Int(end % UInt64(Self.capacity))
        return left >= size ? end : end + UInt64(left)
    }

    func hasRoom(_ size: Int) -> Bool {
        start(size) + UInt64(size) <= tail + UInt64(Self.capacity)
    }

    /// Adds an entry that `fill` writes; returns its offset. There must be room.
    func append(_ size: Int, operation: UInt64, fill: (MutableByteView) -> Void) -> UInt64 {
        let offset = start(size)
        if offset != end, offset - end >= 4 {
            memory.store(Self.wrapMark, at: Self.place(end))
        }
        fill(memory.slice(Self.place(offset), size))
        end = offset + UInt64(size)
        memory.store(end, at: 40)
        memory.store(operation, at: 56)
        return offset
    }

    /// The ring has everything before `offset`, whose operation is `first`.
    func setBegin(_ offset: UInt64, firstOperation first: UInt64) {
        memory.store(offset, at: 32)
        memory.store(first, at: 48)
    }

    /// Frees everything before `offset`. An empty buffer starts over, so that a little use touches
    /// little memory.
    func setTail(_ offset: UInt64) {
        tail = max(tail, offset)
        guard tail == end, end % UInt64(Self.capacity) != 0 else { return }
        end += UInt64(Self.capacity) - end % UInt64(Self.capacity)
        tail = end
        // In this order: a beginning behind the end says that nothing is pending.
        memory.store(end, at: 32)
        memory.store(end, at: 40)
    }

    func view(_ offset: UInt64, _ count: Int) -> ByteView {
        memory.view.slice(Self.place(offset), count)
    }

    /// The entry at or behind `offset`, whatever wrap lies between.
    func entry(at offset: UInt64) -> (offset: UInt64, view: ByteView) {
        let left = Self.capacity - Int(offset % UInt64(Self.capacity))
        var offset = offset
        if left < 4 || view(offset, 4).u32(0) == Self.wrapMark { offset += UInt64(left) }
        return (offset, view(offset, TransactionCoder.byteCount(view(offset, 4))))
    }
}

extension JournalBuffer {
    /// What another process reads from the descriptor after the one that wrote it has died.
    struct View {
        let internalUUID: VolumeUUID
        let incarnation: UInt64
        let firstOperation: UInt64
        let lastOperation: UInt64
        private let begin: UInt64
        private let end: UInt64
        private let bytes: ByteBuffer

        /// Throws `.corrupt(.journal)` for bytes that no buffer holds.
        init(descriptor: Int32) throws(FSError) {
            bytes = ByteBuffer(count: JournalBuffer.headerSize + JournalBuffer.capacity)
            var done = 0
            while done < bytes.count {
                let rest = bytes.bytes.slice(done, bytes.count - done)
                let count = unsafe pread(
                    descriptor, rest.unsafeBytes.baseAddress, rest.count, off_t(done))
                guard count > 0 else { throw .device(.read, errno: errno, offset: UInt64(done)) }
                done += count
            }
            var reader = ByteReader(bytes.view, .journal, at: 0)
            try reader.require(try reader.u64() == JournalBuffer.magic, "no journal buffer")
            internalUUID = try VolumeUUID(&reader)
            incarnation = try reader.u64()
            begin = try reader.u64()
            end = try reader.u64()
            firstOperation = try reader.u64()
            lastOperation = try reader.u64()
            try reader.require(
                end < 1 << 62 && (begin > end || end - begin <= UInt64(JournalBuffer.capacity)),
                "bounds")
        }

        /// Hands out the transactions that the ring may lack, in order.
        func forEach(_ body: (ByteView) throws(FSError) -> Void) throws(FSError) {
            var offset = begin
            while offset < end {
                let left = JournalBuffer.capacity - Int(offset % UInt64(JournalBuffer.capacity))
                let place = JournalBuffer.place(offset)
                guard left >= 4, bytes.view.u32(place) != JournalBuffer.wrapMark else {
                    offset += UInt64(left)
                    continue
                }
                let count = Int(bytes.view.u32(place))
                guard count >= JournalFormat.transactionHeaderSize, count <= left,
                    UInt64(count) <= end - offset
                else { throw .corrupt(Corruption(.journal, at: offset, "length in the buffer")) }
                try body(bytes.view.slice(place, count))
                offset += UInt64(count)
            }
        }
    }
}
