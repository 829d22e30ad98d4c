/// The whole tree below a directory, seen through system calls; and the small bridges to them.
internal import CTestLinux
internal import FSCore
internal import Foundation
internal import Glibc

/// A system call failed.
struct SystemError: Error, CustomStringConvertible {
    var code: CInt
    var description: String { String(cString: strerror(code)) }
}

/// Throws if a system call returned −1, else hands its result on.
@discardableResult
func check<T: SignedInteger>(_ result: T) throws -> T {
    if result < 0 { throw SystemError(code: errno) }
    return result
}

/// Lends bytes, which hold no zero, as a C string.
func withCString<R>(_ bytes: [UInt8], _ body: (UnsafePointer<CChar>) throws -> R) rethrows -> R {
    try (bytes + [0]).withUnsafeBufferPointer { buffer in
        try buffer.withMemoryRebound(to: CChar.self) { try body($0.baseAddress!) }
    }
}

extension FSError {
    /// The refusal that the kernel reports as this number; nil for one that a model never expects.
    init?(errno code: CInt) {
        switch code {
        case ENOENT: self = .noSuchEntry
        case EEXIST: self = .entryExists
        case ENOTDIR: self = .notDirectory
        case EISDIR: self = .isDirectory
        case ENOTEMPTY: self = .directoryNotEmpty
        case ENAMETOOLONG: self = .nameTooLong
        case EMLINK: self = .tooManyLinks
        case EINVAL: self = .invalidArgument
        case EFBIG: self = .fileTooLarge
        case ENOSPC: self = .noSpace
        case EROFS: self = .readOnly
        case ENODATA: self = .noSuchAttribute
        case E2BIG: self = .attributeTooLarge
        case EPERM: self = .notPermitted
        case EACCES: self = .accessDenied
        case EOPNOTSUPP: self = .notSupported
        case ESTALE: self = .stale
        case ENXIO: self = .noDataBeyond
        case EBUSY: self = .busy
        default: return nil
        }
    }
}

extension MountedExecutor {
    public func treeView() throws -> TreeView {
        var view = TreeView()
        var inodes: [Path: UInt64] = [:]
        var firstPaths: [UInt64: Path] = [:]
        func visit(_ path: Path) throws {
            let name = name(path)
            do {
                let (attributes, inode) = try attributesAndInode(name)
                inodes[path] = inode
                firstPaths[inode] = min(firstPaths[inode] ?? path, path)
                var entry = EntryView(attributes: attributes, firstPath: path)
                entry.extendedAttributes = try extendedAttributes(of: name)
                switch FileKind(mode: attributes.mode) {
                case .regular: entry.content = try fingerprint(name, attributes.size)
                case .symbolicLink: entry.target = try linkTarget(name)
                case .directory:
                    for child in try kinds(in: name).keys { try visit(path.appending(child)) }
                default: break
                }
                view.entries[path] = entry
            } catch let error as SystemError {
                throw InconsistentTree(path: path, problem: "\(error)")
            }
        }
        try visit(.root)
        for (path, inode) in inodes { view.entries[path]!.firstPath = firstPaths[inode]! }
        return view
    }

    private func extendedAttributes(of path: [UInt8]) throws -> [[UInt8]: [UInt8]] {
        var buffer = [CChar](repeating: 0, count: 65536)
        let length = try check(withCString(path) { llistxattr($0, &buffer, buffer.count) })
        let names = splitNames(buffer.prefix(length).map { UInt8(bitPattern: $0) })
        var result: [[UInt8]: [UInt8]] = [:]
        for name in names {
            let count = withCString(path) { path in
                withCString(name) { lgetxattr(path, $0, &buffer, buffer.count) }
            }
            result[name] = buffer.prefix(try check(count)).map { UInt8(bitPattern: $0) }
        }
        return result
    }

    private func fingerprint(_ path: [UInt8], _ size: UInt64) throws -> ContentFingerprint {
        let descriptor = try check(withCString(path) { Glibc.open($0, O_RDONLY | O_CLOEXEC) })
        defer { close(descriptor) }
        var result = ContentFingerprint(size: size)
        var buffer = [UInt8](repeating: 0, count: 256 << 10)
        var offset = 0
        while true {
            let count = try check(pread(descriptor, &buffer, buffer.count, offset))
            if count == 0 { break }
            buffer.withUnsafeBytes { bytes in
                for start in stride(from: 0, to: count, by: SparseBytes.pageSize) {
                    let end = min(start + SparseBytes.pageSize, count)
                    result.add(
                        page: UInt64((offset + start) / SparseBytes.pageSize),
                        UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
                }
            }
            offset += count
        }
        guard UInt64(offset) == size else {
            throw ProcessFailure("\(shown(path)): read \(offset) bytes of \(size)")
        }
        return result
    }
}
