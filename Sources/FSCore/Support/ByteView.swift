/// Borrowed bytes with bounds-checked little-endian access: the one place where on-disk bytes
/// become integers.
///
/// A view owns nothing: whoever hands one out keeps the memory alive for the duration of the call
/// that received it. Views are never stored beyond that.
///
/// - Invariant: no access leaves `0 ..< count`. Readers of *untrusted* bytes use `ByteReader`,
///   which throws; the subscripting accessors here trap, and are for offsets that were validated.
internal import Glibc

@safe
public struct ByteView {
    @usableFromInline let base: UnsafeRawPointer
    public let count: Int

    @inlinable
    public init(base: UnsafeRawPointer, count: Int) {
        unsafe self.base = base
        self.count = count
    }

    /// The bytes for a C call. The pointer must not outlive the view's owner.
    @inlinable
    public var unsafeBytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: base, count: count)
    }

    @inlinable
    public subscript(_ offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < count)
        return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
    }

    @inlinable
    func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
        precondition(offset >= 0 && count - offset >= MemoryLayout<T>.size)
        return unsafe T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    @inlinable public func u16(_ offset: Int) -> UInt16 { load(offset, as: UInt16.self) }
    @inlinable public func u32(_ offset: Int) -> UInt32 { load(offset, as: UInt32.self) }
    @inlinable public func u64(_ offset: Int) -> UInt64 { load(offset, as: UInt64.self) }
    @inlinable public func i64(_ offset: Int) -> Int64 { load(offset, as: Int64.self) }

    /// The part `offset ..< offset + count`, which must lie inside.
    @inlinable
    public func slice(_ offset: Int, _ count: Int) -> ByteView {
        precondition(offset >= 0 && count >= 0 && offset <= self.count - count)
        return unsafe ByteView(base: base + offset, count: count)
    }

    public func equals(_ other: ByteView) -> Bool {
        guard count == other.count else { return false }
        return unsafe memcmp(base, other.base, count) == 0
    }

    /// Whether the bytes begin with those of an ASCII text.
    package func hasPrefix(_ text: StaticString) -> Bool {
        guard count >= text.utf8CodeUnitCount else { return false }
        return (0..<text.utf8CodeUnitCount).allSatisfy {
            unsafe self[$0] == text.utf8Start[$0]
        }
    }

    @inlinable
    public func toArray() -> [UInt8] { unsafe [UInt8](unsafeBytes) }

    @inlinable
    public var isAllZero: Bool { unsafe unsafeBytes.allSatisfy { $0 == 0 } }
}

/// Borrowed bytes that may be written; the counterpart of `ByteView`, with the same rules.
@safe
public struct MutableByteView {
    @usableFromInline let base: UnsafeMutableRawPointer
    public let count: Int

    @inlinable
    public init(base: UnsafeMutableRawPointer, count: Int) {
        unsafe self.base = base
        self.count = count
    }

    @inlinable
    public var unsafeBytes: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: base, count: count)
    }
    @inlinable public var view: ByteView {
        unsafe ByteView(base: UnsafeRawPointer(base), count: count)
    }

    @inlinable
    public subscript(_ offset: Int) -> UInt8 {
        get { view[offset] }
        nonmutating set {
            precondition(offset >= 0 && offset < count)
            unsafe base.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
        }
    }

    @inlinable
    public func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && count - offset >= MemoryLayout<T>.size)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    @inlinable
    public func slice(_ offset: Int, _ count: Int) -> MutableByteView {
        precondition(offset >= 0 && count >= 0 && offset <= self.count - count)
        return unsafe MutableByteView(base: base + offset, count: count)
    }

    /// Copies all of `source` to `offset`; it must fit. The ranges may overlap.
    @inlinable
    public func copy(_ source: ByteView, at offset: Int = 0) {
        precondition(offset >= 0 && offset <= count - source.count)
        unsafe (base + offset).copyMemory(from: source.base, byteCount: source.count)
    }

    /// Moves `count` bytes inside this view; the ranges may overlap.
    @inlinable
    public func move(from: Int, to: Int, count: Int) {
        copy(view.slice(from, count), at: to)
    }

    @inlinable
    public func zero(_ offset: Int, _ count: Int) {
        precondition(offset >= 0 && count >= 0 && offset <= self.count - count)
        _ = unsafe (base + offset).initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }
    @inlinable public func zeroAll() { zero(0, count) }
}

/// Owned, page-aligned memory: what device reads and writes use.
@safe
public final class ByteBuffer: @unchecked Sendable {
    public let bytes: MutableByteView
    @inlinable public var view: ByteView { bytes.view }
    @inlinable public var count: Int { bytes.count }

    /// Zeroed.
    public convenience init(count: Int) {
        self.init(unfilled: count)
        bytes.zeroAll()
    }
    /// For those who write all that they read: what is in it is anything.
    init(unfilled count: Int, alignment: Int = 4096) {
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: max(count, 1), alignment: alignment)
        unsafe bytes = MutableByteView(base: memory, count: count)
    }
    deinit { unsafe bytes.base.deallocate() }

    public convenience init(copying source: ByteView) {
        self.init(unfilled: source.count)
        bytes.copy(source)
    }
}

extension Array where Element == UInt8 {
    /// Lends the array's bytes for one call.
    @inlinable
    public func withView<R, E: Error>(_ body: (ByteView) throws(E) -> R) throws(E) -> R {
        // The detour over Result keeps the typed error: the stdlib's closure API rethrows any.
        let result: Result<R, E> = unsafe withUnsafeBytes { buffer in
            var empty: UInt8 = 0
            do throws(E) {
                if let base = buffer.baseAddress {
                    return .success(try body(unsafe ByteView(base: base, count: buffer.count)))
                }
                return unsafe Swift.withUnsafeBytes(of: &empty) { one in
                    do throws(E) {
                        return .success(
                            try body(unsafe ByteView(base: one.baseAddress!, count: 0)))
                    } catch { return .failure(error) }
                }
            } catch { return .failure(error) }
        }
        return try result.get()
    }

    @inlinable
    package mutating func append(_ bytes: ByteView) {
        unsafe append(contentsOf: bytes.unsafeBytes)
    }
    @inlinable
    package mutating func append<T: FixedWidthInteger>(littleEndian value: T) {
        var word = UInt64(truncatingIfNeeded: value)
        for _ in 0..<MemoryLayout<T>.size {
            append(UInt8(truncatingIfNeeded: word))
            word >>= 8
        }
    }
}
