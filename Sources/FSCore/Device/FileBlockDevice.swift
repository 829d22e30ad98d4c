/// An image file or a real block device as a `BlockDevice`, opened for one user at a time.
///
/// - Invariant: while it is open read-write, no other process has it open through this type
///   (`flock`; block devices also `O_EXCL`, which the kernel's own filesystems respect).
/// - Invariant: a short read or write is carried on or reported, never passed over.
internal import CLinux
internal import Glibc
internal import Synchronization

@safe
public final class FileBlockDevice: BlockDevice, @unchecked Sendable {
    public enum Access: Sendable { case readOnly, readWrite }

    public var byteCount: UInt64 { size.load(ordering: .relaxed) }
    private let size: Atomic<UInt64>
    public let sectorSize: Int
    public let name: String
    public var isReadOnly: Bool { !writable.load(ordering: .acquiring) }
    private let writable: Atomic<Bool>
    public let isBlockDevice: Bool

    private let descriptor: Int32
    private let isLocked: Bool
    private let lock = Mutex()
    private var isOpen = true
    /// Goes past the page cache (O_DIRECT); opened when it is first needed. −1: there is no such thing.
    private var direct: Int32?
    private let fetched = FetchedPieces()

    // ioctl numbers of linux/fs.h, which are macros of no use to Swift.
    private static let blkGetSize64: UInt = 0x8008_1272
    private static let blkSectorSize: UInt = 0x1268
    private static let blkReadOnlyGet: UInt = 0x125E
    private static let blkDiscard: UInt = 0x1277

    /// Opens `path`. Throws `.device(.open, errno:)`: EWOULDBLOCK or EBUSY if somebody else uses
    /// it, EINVAL if it is neither a regular file nor a block device.
    public init(path: String, access: Access, lock: Bool = true) throws(FSError) {
        func failure() -> FSError { .device(.open, errno: errno, offset: 0) }
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw failure() }
        let kind = status.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFBLK else {
            throw .device(.open, errno: kind == S_IFDIR ? EISDIR : EINVAL, offset: 0)
        }
        isBlockDevice = kind == S_IFBLK
        writable = Atomic(access == .readWrite)
        isLocked = lock
        name = path
        var flags = O_CLOEXEC | (access == .readOnly ? O_RDONLY : O_RDWR)
        if isBlockDevice, access == .readWrite, lock { flags |= O_EXCL }
        descriptor = unsafe open(path, flags)
        guard descriptor >= 0 else { throw failure() }
        let found: UInt64
        var sector: Int32 = 512
        if lock, flock(descriptor, (access == .readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
            let error = failure()
            Glibc.close(descriptor)
            throw error
        }
        // Only now is the file ours, and its size what it will be.
        if isBlockDevice {
            var bytes: UInt64 = 0
            guard unsafe ioctl(descriptor, Self.blkGetSize64, &bytes) == 0 else {
                let error = failure()
                Glibc.close(descriptor)
                throw error
            }
            _ = unsafe ioctl(descriptor, Self.blkSectorSize, &sector)
            var isWriteProtected: Int32 = 0
            _ = unsafe ioctl(descriptor, Self.blkReadOnlyGet, &isWriteProtected)
            if isWriteProtected != 0, access == .readWrite {
                Glibc.close(descriptor)
                throw .device(.open, errno: EROFS, offset: 0)
            }
            found = bytes & ~4095
        } else {
            guard unsafe fstat(descriptor, &status) == 0 else {
                let error = failure()
                Glibc.close(descriptor)
                throw error
            }
            found = UInt64(status.st_size) & ~4095
        }
        size = Atomic(found)
        sectorSize = Int(sector)
    }

    deinit { close() }

    /// Gives the device back. Idempotent.
    public func close() {
        fetched.close()
        lock.withLock {
            if isOpen { Glibc.close(descriptor) }
            if let direct, direct >= 0 { Glibc.close(direct) }
            direct = -1
            isOpen = false
        }
    }

    /// Opens what was opened for reading for writing, too; reads go on meanwhile. Throws
    /// `.device(.open, errno:)` as `init` does, and then nothing has changed.
    public func allowWriting() throws(FSError) {
        guard isReadOnly else { return }
        try lock.withLock { () throws(FSError) in
            guard isOpen else { throw .device(.open, errno: EBADF, offset: 0) }
            let exclusive = isBlockDevice && isLocked ? O_EXCL : 0
            try replace(descriptor, O_RDWR | exclusive)
            if isLocked, flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                let error = FSError.device(.open, errno: errno, offset: 0)
                try replace(descriptor, O_RDONLY)
                _ = flock(descriptor, LOCK_SH | LOCK_NB)
                throw error
            }
            if let direct, direct >= 0 { try replace(direct, O_RDWR | directAccessFlag) }
            writable.store(true, ordering: .releasing)
        }
    }

    /// Has a descriptor stand for a new opening of its file; a lock of the old one is gone.
    private func replace(_ number: Int32, _ flags: Int32) throws(FSError) {
        let opened = unsafe open("/proc/self/fd/\(number)", flags | O_CLOEXEC)
        guard opened >= 0 else { throw .device(.open, errno: errno, offset: 0) }
        defer { Glibc.close(opened) }
        var isWriteProtected: Int32 = 0
        if isBlockDevice { _ = unsafe ioctl(opened, Self.blkReadOnlyGet, &isWriteProtected) }
        guard isWriteProtected == 0 || flags & O_ACCMODE == O_RDONLY else {
            throw .device(.open, errno: EROFS, offset: 0)
        }
        guard dup2(opened, number) >= 0 else {
            throw .device(.open, errno: errno, offset: 0)
        }
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
    }

    public func resize(to bytes: UInt64) throws(FSError) {
        if isBlockDevice {
            try refresh()
            guard bytes <= byteCount else {
                throw .device(.resize, errno: ENOSPC, offset: bytes)
            }
            return
        }
        guard bytes <= UInt64(Int64.max), ftruncate(descriptor, off_t(bytes)) == 0 else {
            throw .device(
                .resize, errno: bytes <= UInt64(Int64.max) ? errno : EFBIG, offset: bytes)
        }
        size.store(bytes & ~4095, ordering: .relaxed)
        fetched.forget(bytes & ~4095..<UInt64.max)
    }

    public func refresh() throws(FSError) {
        var bytes: UInt64 = 0
        if isBlockDevice {
            guard unsafe ioctl(descriptor, Self.blkGetSize64, &bytes) == 0 else {
                throw .device(.resize, errno: errno, offset: 0)
            }
        } else {
            var status = stat()
            guard unsafe fstat(descriptor, &status) == 0 else {
                throw .device(.resize, errno: errno, offset: 0)
            }
            bytes = UInt64(status.st_size)
        }
        size.store(bytes & ~4095, ordering: .relaxed)
    }

    /// Asks for the size once: it may change meanwhile.
    private func has(_ offset: UInt64, _ count: UInt64) -> Bool {
        let size = byteCount
        return offset <= size && count <= size - offset
    }

    public func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        guard has(offset, UInt64(target.count)) else {
            throw .device(.read, errno: EINVAL, offset: offset)
        }
        var done = 0
        while done < target.count {
            let (filled, missing) = fetched.take(
                into: target.slice(done, target.count - done), at: offset + UInt64(done))
            done += filled
            guard filled == 0 else { continue }
            let count = unsafe pread(
                descriptor, target.slice(done, missing).unsafeBytes.baseAddress, missing,
                off_t(offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            // The end of the file where the size said there is more: somebody cut the image.
            guard count > 0 else {
                throw .device(
                    .read, errno: count == 0 ? EIO : errno, offset: offset + UInt64(done))
            }
            done += count
        }
    }

    /// Past the page cache, unless it has some of it or the piece is small.
    public func prefetch(at offset: UInt64, count: UInt64) {
        guard has(offset, count) else { return }
        if count >= Self.largeFetch, cachedPages(descriptor, UInt(offset), UInt(count)) == 0 {
            let direct = directDescriptor
            if direct >= 0, fetched.fetch(offset..<offset + count, from: direct) { return }
        }
        _ = posix_fadvise(descriptor, off_t(offset), off_t(count), POSIX_FADV_WILLNEED)
    }
    private static let largeFetch: UInt64 = 512 << 10

    public func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        guard has(offset, UInt64(source.count)) else {
            throw .device(.write, errno: EINVAL, offset: offset)
        }
        defer { fetched.forget(offset..<offset + UInt64(source.count)) }
        var done = 0
        while done < source.count {
            let rest = source.slice(done, source.count - done)
            let count = unsafe pwrite(
                descriptor, rest.unsafeBytes.baseAddress, rest.count, off_t(offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw .device(
                    .write, errno: count == 0 ? EIO : errno, offset: offset + UInt64(done))
            }
            done += count
        }
    }

    public func write(parts: [ByteView], at offset: UInt64) throws(FSError) {
        let total = parts.reduce(0) { $0 + $1.count }
        guard has(offset, UInt64(total)) else {
            throw .device(.write, errno: EINVAL, offset: offset)
        }
        let vectors = unsafe parts.map { part in
            unsafe iovec(
                iov_base: UnsafeMutableRawPointer(mutating: part.unsafeBytes.baseAddress),
                iov_len: part.count)
        }
        defer { fetched.forget(offset..<offset + UInt64(total)) }
        let count = unsafe pwritev(descriptor, vectors, Int32(vectors.count), off_t(offset))
        guard count != total else { return }
        // Rare: interrupted or short. The plain call knows how to go on, and reports errors.
        var position = offset
        for part in parts {
            try write(part, at: position)
            position += UInt64(part.count)
        }
    }

    /// By a descriptor of its own that goes past the page cache (O_DIRECT); a filesystem that has no
    /// such thing, as tmpfs, is asked the usual way.
    public func rewrite(_ source: ByteView, at offset: UInt64) throws(FSError) -> Bool {
        guard has(offset, UInt64(source.count)) else {
            throw .device(.write, errno: EINVAL, offset: offset)
        }
        let direct = directDescriptor
        guard direct >= 0 else {
            try write(source, at: offset)
            return true
        }
        defer { fetched.forget(offset..<offset + UInt64(source.count)) }
        // The kernel writes back and forgets what its cache has of the range; an error of that is not
        // taken from a later flush, as fdatasync would.
        let buffer = ByteBuffer(copying: source)
        let written = unsafe pwrite(
            direct, buffer.view.unsafeBytes.baseAddress, buffer.count, off_t(offset))
        guard written == buffer.count else {
            throw .device(.write, errno: written < 0 ? errno : EIO, offset: offset)
        }
        buffer.bytes.zeroAll()
        let got = unsafe pread(
            direct, buffer.bytes.unsafeBytes.baseAddress, buffer.count, off_t(offset))
        guard got == buffer.count else {
            throw .device(.read, errno: got < 0 ? errno : EIO, offset: offset)
        }
        return buffer.view.equals(source)
    }

    /// What cannot be read so is read the usual way.
    public func readMedium(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        let direct = directDescriptor
        guard direct >= 0, has(offset, UInt64(target.count)),
            unsafe Int(bitPattern: target.unsafeBytes.baseAddress) & 4095 == 0
        else { return try read(into: target, at: offset) }
        let count = unsafe pread(
            direct, target.unsafeBytes.baseAddress, target.count, off_t(offset))
        if count < 0, errno != EINVAL, errno != EINTR {
            throw .device(.read, errno: errno, offset: offset)
        }
        if count != target.count { try read(into: target, at: offset) }
    }

    private var directDescriptor: Int32 {
        lock.withLock {
            if let direct { return direct }
            let access = isReadOnly ? O_RDONLY : O_RDWR
            let opened = unsafe open(
                "/proc/self/fd/\(descriptor)", access | O_CLOEXEC | directAccessFlag)
            direct = opened
            return opened
        }
    }

    public func flush() throws(FSError) {
        guard fdatasync(descriptor) == 0 else { throw .device(.flush, errno: errno, offset: 0) }
    }

    public func discard(at offset: UInt64, count: UInt64) throws(FSError) {
        defer { fetched.forget(offset..<offset + count) }
        if isBlockDevice {
            var range = (offset, count)
            guard unsafe ioctl(descriptor, Self.blkDiscard, &range) == 0 else {
                throw .device(.discard, errno: errno, offset: offset)
            }
        } else {
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            guard fallocate(descriptor, 0x02 | 0x01, Int(offset), Int(count)) == 0 else {
                throw .device(.discard, errno: errno, offset: offset)
            }
        }
    }
}
