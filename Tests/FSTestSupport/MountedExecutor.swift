/// Carries out operations below a directory through system calls: the same questions as
/// `FileSystemExecutor`, but with the kernel and FUSE between.
///
/// Held inodes are open files, named by their entry in /proc/self/fd. The process's umask must be
/// zero (the initialiser sets it), and it must run as root.
internal import CTestLinux
internal import FSCore
public import Foundation
internal import Glibc

public final class MountedExecutor: OperationExecutor {
    private let root: [UInt8]
    private var held: [Int: CInt] = [:]
    /// Sizes of directories differ between filesystems; false counts their entries instead.
    private let trustsDirectorySizes: Bool

    public init(_ directory: URL, trustsDirectorySizes: Bool = true) {
        root = [UInt8](directory.path.utf8)
        self.trustsDirectorySizes = trustsDirectorySizes
        umask(0)
    }

    deinit { dropHandles() }

    public func dropHandles() {
        for descriptor in held.values { close(descriptor) }
        held = [:]
    }

    public func perform(_ operation: FileOperation) throws -> Outcome {
        do {
            return try run(operation)
        } catch let error as SystemError {
            guard let known = FSError(errno: error.code) else { throw error }
            return .failed(known)
        }
    }

    private func run(_ operation: FileOperation) throws -> Outcome {
        switch operation {
        case .create, .symbolicLink, .link, .unlink, .removeDirectory, .rename, .hold,
            .createUnnamed, .drop:
            try changeNames(operation)
            return .done
        case .stat(let target): return .attributes(try attributes(name(target)))
        case .list(let path): return .kinds(try kinds(in: name(path)))
        case .readLink(let path): return .bytes(try linkTarget(name(path)))
        case .setMode(let target, let mode):
            try check(withPath(target) { fchmodat(AT_FDCWD, $0, mode, 0) })
        case .setOwner(let target, let user, let group):
            try check(
                withPath(target) { fchownat(AT_FDCWD, $0, user, group, self.noFollow(target)) })
        case .setTime(let target, let time):
            let times = [
                timespec(tv_sec: 0, tv_nsec: aegis_utime_omit),
                timespec(tv_sec: Int(time.seconds), tv_nsec: Int(time.nanoseconds)),
            ]
            try check(
                withPath(target) { utimensat(AT_FDCWD, $0, times, self.noFollow(target)) })
        case .write, .read, .truncate, .allocate, .copyRange, .seek: return try data(operation)
        case .setExtendedAttribute, .extendedAttribute, .extendedAttributeNames,
            .removeExtendedAttribute:
            return try extendedAttributes(operation)
        case .synchronize(let target):
            _ = try withDescriptor(target, O_RDONLY) { try check(fsync($0)) }
        }
        return .done
    }

    // MARK: Paths

    func name(_ path: Path) -> [UInt8] {
        path.names.reduce(root) { $0 + [UInt8(ascii: "/")] + $1 }
    }

    private func name(_ target: Target) throws -> [UInt8] {
        switch target {
        case .path(let path): return name(path)
        case .handle(let number): return [UInt8]("/proc/self/fd/\(try open(number))".utf8)
        }
    }

    /// A handle's name is a link that must be followed; a path's must not.
    private func noFollow(_ target: Target) -> CInt {
        if case .path = target { AT_SYMLINK_NOFOLLOW } else { 0 }
    }

    private func open(_ number: Int) throws -> CInt {
        guard let descriptor = held[number] else { throw SystemError(code: ESTALE) }
        return descriptor
    }

    private func withPath<R>(_ target: Target, _ body: (UnsafePointer<CChar>) -> R) throws -> R {
        withCString(try name(target), body)
    }

    /// An open file for one call: what is held, or one that is closed afterwards.
    private func withDescriptor<R>(
        _ target: Target, _ flags: CInt, _ body: (CInt) throws -> R
    ) throws -> R {
        switch target {
        case .handle(let number): return try body(open(number))
        case .path(let path):
            let descriptor = withCString(name(path)) {
                Glibc.open($0, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
            }
            try check(descriptor)
            defer { close(descriptor) }
            return try body(descriptor)
        }
    }

    // MARK: Names

    private func changeNames(_ operation: FileOperation) throws {
        switch operation {
        case .create(let path, let new):
            try withCString(name(path)) { path in
                if FileKind(mode: new.mode) == .directory {
                    try check(mkdir(path, new.mode & 0o7777))
                } else {
                    let number = gnu_dev_makedev(new.device.major, new.device.minor)
                    try check(mknod(path, new.mode, number))
                }
            }
        case .symbolicLink(let path, let target):
            try check(
                withCString(target) { target in
                    withCString(name(path)) { symlink(target, $0) }
                })
        case .link(let source, let path):
            let flags = if case .handle = source { AT_SYMLINK_FOLLOW } else { CInt(0) }
            try check(
                withPath(source) { source in
                    withCString(self.name(path)) { linkat(AT_FDCWD, source, AT_FDCWD, $0, flags) }
                })
        case .unlink(let path): try check(withCString(name(path)) { unlinkat(AT_FDCWD, $0, 0) })
        case .removeDirectory(let path): try check(withCString(name(path)) { rmdir($0) })
        case .rename(let from, let to, let options):
            try check(
                withCString(name(from)) { from in
                    withCString(name(to)) {
                        renameat2(AT_FDCWD, from, AT_FDCWD, $0, options.rawValue)
                    }
                })
        case .hold(let path, let number):
            let descriptor = withCString(name(path)) {
                Glibc.open($0, O_RDWR | O_NOFOLLOW | O_CLOEXEC)
            }
            try check(descriptor)
            held[number] = descriptor
        case .createUnnamed(let path, let new, let number):
            let flags = aegis_o_tmpfile | O_DIRECTORY | O_RDWR | O_CLOEXEC
            let descriptor = withCString(name(path)) {
                Glibc.open($0, flags, new.mode & 0o7777)
            }
            try check(descriptor)
            held[number] = descriptor
        case .drop(let number):
            if let descriptor = held.removeValue(forKey: number) { close(descriptor) }
        default: preconditionFailure("\(operation) changes no name")
        }
    }

    func kinds(in path: [UInt8]) throws -> [[UInt8]: FileKind] {
        let descriptor = withCString(path) {
            Glibc.open($0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        }
        guard let stream = fdopendir(try check(descriptor)) else {
            throw SystemError(code: errno)
        }
        defer { closedir(stream) }
        var result: [[UInt8]: FileKind] = [:]
        errno = 0
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                [UInt8](bytes.prefix { $0 != 0 })
            }
            if name != [0x2E], name != [0x2E, 0x2E] {
                result[name] = FileKind(rawValue: entry.pointee.d_type)
            }
            errno = 0
        }
        if errno != 0 { throw SystemError(code: errno) }
        return result
    }

    // MARK: Inodes

    private func attributes(_ path: [UInt8]) throws -> AttributeView {
        try attributesAndInode(path).0
    }

    func attributesAndInode(_ path: [UInt8]) throws -> (AttributeView, UInt64) {
        var status = Glibc.stat()
        let follows = path.starts(with: "/proc/self/fd/".utf8)
        try check(
            withCString(path) {
                fstatat(AT_FDCWD, $0, &status, follows ? 0 : AT_SYMLINK_NOFOLLOW)
            })
        var size = UInt64(status.st_size)
        if FileKind(mode: status.st_mode) == .directory, !trustsDirectorySizes, !follows {
            size = UInt64(try kinds(in: path).count)
        }
        let view = AttributeView(
            mode: status.st_mode, links: UInt32(status.st_nlink), user: status.st_uid,
            group: status.st_gid, size: size,
            device: DeviceNumber(
                major: UInt32(gnu_dev_major(status.st_rdev)),
                minor: UInt32(gnu_dev_minor(status.st_rdev))),
            modificationTime: Timestamp(
                seconds: Int64(status.st_mtim.tv_sec),
                nanoseconds: UInt32(status.st_mtim.tv_nsec)))
        return (view, UInt64(status.st_ino))
    }

    func linkTarget(_ path: [UInt8]) throws -> [UInt8] {
        var buffer = [CChar](repeating: 0, count: 8192)
        let count = withCString(path) { readlink($0, &buffer, buffer.count) }
        try check(count)
        return buffer.prefix(count).map { UInt8(bitPattern: $0) }
    }

    private func data(_ operation: FileOperation) throws -> Outcome {
        switch operation {
        case .write(let target, let offset, let payload):
            let bytes = payload.bytes
            return .count(
                try withDescriptor(target, O_WRONLY) { descriptor in
                    let count = bytes.withUnsafeBytes {
                        pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset))
                    }
                    return UInt64(try check(count))
                })
        case .read(let target, let offset, let count):
            var buffer = [UInt8](repeating: 0, count: count)
            let length = try withDescriptor(target, O_RDONLY) { descriptor in
                try check(pread(descriptor, &buffer, count, off_t(offset)))
            }
            return .bytes([UInt8](buffer.prefix(length)))
        case .truncate(let target, let size):
            switch target {
            case .path(let path):
                try check(withCString(name(path)) { truncate($0, off_t(size)) })
            case .handle(let number): try check(ftruncate(open(number), off_t(size)))
            }
        case .allocate(let target, let offset, let count, let mode):
            try withDescriptor(target, O_WRONLY) { descriptor in
                _ = try check(
                    fallocate(descriptor, CInt(mode.rawValue), Int(offset), Int(count)))
            }
        case .copyRange(let source, let from, let target, let to, let count):
            return try withDescriptor(source, O_RDONLY) { source in
                try withDescriptor(target, O_WRONLY) { target in
                    .count(try self.copy(source, from, target, to, count))
                }
            }
        case .seek(let target, let offset):
            return try withDescriptor(target, O_RDONLY) { descriptor in
                .positions(
                    data: try self.position(descriptor, offset, aegis_seek_data),
                    hole: try self.position(descriptor, offset, aegis_seek_hole))
            }
        default: preconditionFailure("\(operation) touches no data")
        }
        return .done
    }

    private func copy(
        _ source: CInt, _ from: UInt64, _ target: CInt, _ to: UInt64, _ count: UInt64
    ) throws -> UInt64 {
        var (input, output) = (Int(from), Int(to))
        var status = Glibc.stat()
        try check(fstat(source, &status))
        var done: UInt64 = 0
        repeat {
            let step = try check(
                copy_file_range(source, &input, target, &output, UInt(count - done), 0))
            if step == 0 { break }
            done += UInt64(step)
        } while done < count && input < status.st_size
        return done
    }

    private func position(_ descriptor: CInt, _ offset: UInt64, _ whence: CInt) throws -> UInt64? {
        let result = lseek(descriptor, off_t(offset), whence)
        if result < 0, errno == ENXIO { return nil }
        return UInt64(try check(result))
    }

    private func extendedAttributes(_ operation: FileOperation) throws -> Outcome {
        var buffer = [CChar](repeating: 0, count: 65536)
        switch operation {
        case .setExtendedAttribute(let target, let name, let payload, let mode):
            let bytes = payload.bytes
            let flags: CInt = mode == .createOrReplace ? 0 : mode == .createOnly ? 1 : 2
            try check(
                withPath(target) { path in
                    withCString(name) { name in
                        bytes.withUnsafeBytes {
                            setxattr(path, name, $0.baseAddress, $0.count, flags)
                        }
                    }
                })
            return .done
        case .extendedAttribute(let target, let name):
            let count = try withPath(target) { path in
                withCString(name) { getxattr(path, $0, &buffer, buffer.count) }
            }
            return .bytes(buffer.prefix(try check(count)).map { UInt8(bitPattern: $0) })
        case .extendedAttributeNames(let target):
            let count = try withPath(target) { listxattr($0, &buffer, buffer.count) }
            let list = buffer.prefix(try check(count)).map { UInt8(bitPattern: $0) }
            return .names(Set(splitNames(list)))
        case .removeExtendedAttribute(let target, let name):
            try check(withPath(target) { path in withCString(name) { removexattr(path, $0) } })
            return .done
        default: preconditionFailure("\(operation) is about no extended attribute")
        }
    }
}
