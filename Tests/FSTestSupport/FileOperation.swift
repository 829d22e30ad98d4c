/// One call into a filesystem as a value, so that the model, the real filesystem in the process
/// and a mounted one can all be asked the same and their answers be compared.
public import FSCore

/// A path from the root, as bytes; empty is the root itself.
public struct Path: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var names: [[UInt8]]
    public init(_ names: [[UInt8]]) { self.names = names }
    public init(_ text: String) {
        names = text.split(separator: "/").map { [UInt8]($0.utf8) }
    }
    public static let root = Path([])
    public func appending(_ name: [UInt8]) -> Path { Path(names + [name]) }
    public var parent: Path { Path([[UInt8]](names.dropLast())) }
    public var description: String { "/" + names.map { shown($0) }.joined(separator: "/") }

    public static func < (a: Path, b: Path) -> Bool {
        for (one, other) in zip(a.names, b.names) where one != other {
            return one.lexicographicallyPrecedes(other)
        }
        return a.names.count < b.names.count
    }
}

/// What an operation works on: a name, or an inode that is held (as by an open file) whether or
/// not it still has one.
public enum Target: Sendable, CustomStringConvertible {
    case path(Path)
    case handle(Int)

    public var description: String {
        switch self {
        case .path(let path): "\(path)"
        case .handle(let number): "#\(number)"
        }
    }
}

/// Bytes that are made when they are needed, so that traces stay short.
public struct Payload: Sendable, CustomStringConvertible {
    public enum Pattern: Sendable {
        case random, zeros, repeating
        /// Compresses to about a quarter.
        case text
    }
    public var pattern: Pattern
    public var seed: UInt64
    public var count: Int

    public init(_ pattern: Pattern, seed: UInt64, count: Int) {
        self.pattern = pattern
        self.seed = seed
        self.count = count
    }
    public var bytes: [UInt8] {
        switch pattern {
        case .random:
            var random = SeededRandom(seed: seed)
            return random.bytes(count)
        case .text:
            var random = SeededRandom(seed: seed)
            let words = random.bytes(512)
            var bytes: [UInt8] = []
            bytes.reserveCapacity(count + 16)
            while bytes.count < count {
                let start = random.below(512 - 16)
                bytes += words[start..<start + 16]
            }
            return Array(bytes.prefix(count))
        case .zeros: return [UInt8](repeating: 0, count: count)
        case .repeating:
            return [UInt8](repeating: UInt8(truncatingIfNeeded: seed) | 1, count: count)
        }
    }
    public var description: String { "\(count) bytes (\(pattern), seed \(seed))" }
}

public enum FileOperation: Sendable {
    case create(Path, NewInode)
    case symbolicLink(Path, target: [UInt8])
    case link(Target, Path)
    case unlink(Path)
    case removeDirectory(Path)
    case rename(Path, Path, RenameOptions)
    case stat(Target)
    case list(Path)
    case readLink(Path)
    case setMode(Target, UInt32)
    case setOwner(Target, user: UInt32, group: UInt32)
    case setTime(Target, modification: Timestamp)
    case truncate(Target, UInt64)
    case write(Target, at: UInt64, Payload)
    case read(Target, at: UInt64, count: Int)
    case allocate(Target, at: UInt64, count: UInt64, AllocationMode)
    case copyRange(Target, at: UInt64, to: Target, targetAt: UInt64, count: UInt64)
    case seek(Target, from: UInt64)
    case setExtendedAttribute(Target, name: [UInt8], Payload, AttributeSetMode)
    case extendedAttribute(Target, name: [UInt8])
    case extendedAttributeNames(Target)
    case removeExtendedAttribute(Target, name: [UInt8])
    case synchronize(Target)
    /// Takes hold of an inode under a free number.
    case hold(Path, as: Int)
    /// O_TMPFILE: an inode without a name, held under a free number.
    case createUnnamed(Path, NewInode, as: Int)
    case drop(Int)
}

extension FileOperation: CustomStringConvertible {
    public var description: String {
        func octal(_ mode: UInt32) -> String { "0" + String(mode, radix: 8) }
        func owner(_ new: NewInode) -> String { "\(new.userID):\(new.groupID)" }
        return switch self {
        case .create(let path, let new): "create \(path) mode \(octal(new.mode)) \(owner(new))"
        case .symbolicLink(let path, let target): "symlink \(path) to \(shown(target))"
        case .link(let source, let path): "link \(source) as \(path)"
        case .unlink(let path): "unlink \(path)"
        case .removeDirectory(let path): "rmdir \(path)"
        case .rename(let from, let to, let options):
            "rename \(from) to \(to) flags \(options.rawValue)"
        case .stat(let target): "stat \(target)"
        case .list(let path): "list \(path)"
        case .readLink(let path): "readlink \(path)"
        case .setMode(let target, let mode): "chmod \(target) \(octal(mode))"
        case .setOwner(let target, let user, let group): "chown \(target) \(user):\(group)"
        case .setTime(let target, let time):
            "mtime \(target) \(time.seconds) s \(time.nanoseconds) ns"
        case .truncate(let target, let size): "truncate \(target) to \(size)"
        case .write(let target, let offset, let payload): "write \(target) at \(offset): \(payload)"
        case .read(let target, let offset, let count): "read \(target) at \(offset): \(count)"
        case .allocate(let target, let offset, let count, let mode):
            "allocate \(target) at \(offset): \(count) flags \(mode.rawValue)"
        case .copyRange(let source, let from, let target, let to, let count):
            "copy \(source) at \(from) to \(target) at \(to): \(count)"
        case .seek(let target, let offset): "seek \(target) from \(offset)"
        case .setExtendedAttribute(let target, let name, let payload, let mode):
            "setxattr \(target) \(shown(name)) \(mode): \(payload)"
        case .extendedAttribute(let target, let name): "getxattr \(target) \(shown(name))"
        case .extendedAttributeNames(let target): "listxattr \(target)"
        case .removeExtendedAttribute(let target, let name):
            "removexattr \(target) \(shown(name))"
        case .synchronize(let target): "fsync \(target)"
        case .hold(let path, let number): "hold \(path) as #\(number)"
        case .createUnnamed(let path, let new, let number):
            "unnamed in \(path) mode \(octal(new.mode)) as #\(number)"
        case .drop(let number): "drop #\(number)"
        }
    }
}

/// What an operation answered.
public enum Outcome: Equatable, Sendable {
    case done
    case bytes([UInt8])
    case count(UInt64)
    case attributes(AttributeView)
    case kinds([[UInt8]: FileKind])
    case names(Set<[UInt8]>)
    /// SEEK_DATA and SEEK_HOLE; nil where there is none behind the offset.
    case positions(data: UInt64?, hole: UInt64?)
    case failed(FSError)
}

extension Outcome: CustomStringConvertible {
    public var description: String {
        switch self {
        case .done: "done"
        case .bytes(let bytes): "\(bytes.count) bytes \(shown(bytes))"
        case .count(let count): "count \(count)"
        case .attributes(let attributes): "\(attributes)"
        case .kinds(let kinds):
            kinds.map { "\(shown($0.key)) (\($0.value))" }.sorted().joined(separator: ", ")
        case .names(let names): names.map { shown($0) }.sorted().joined(separator: ", ")
        case .positions(let data, let hole): "data at \(data as Any), hole at \(hole as Any)"
        case .failed(let error): "\"\(error)\""
        }
    }
}

/// The attributes that POSIX determines. A time that the model cannot know is nil.
public struct AttributeView: Equatable, Sendable {
    /// Kind and permission bits.
    public var mode: UInt32
    public var links: UInt32
    public var user: UInt32
    public var group: UInt32
    public var size: UInt64
    public var device: DeviceNumber
    public var modificationTime: Timestamp?

    public init(
        mode: UInt32, links: UInt32, user: UInt32, group: UInt32, size: UInt64,
        device: DeviceNumber, modificationTime: Timestamp?
    ) {
        self.mode = mode
        self.links = links
        self.user = user
        self.group = group
        self.size = size
        self.device = device
        self.modificationTime = modificationTime
    }

    public init(_ attributes: Attributes) {
        self.init(
            mode: attributes.mode, links: attributes.linkCount, user: attributes.userID,
            group: attributes.groupID, size: attributes.size, device: attributes.device,
            modificationTime: attributes.modificationTime)
    }

    func firstDifference(fromExpected expected: AttributeView) -> String? {
        func differs<T: Equatable>(_ what: String, _ actual: T, _ wanted: T) -> String? {
            actual == wanted ? nil : "\(what) is \(actual), expected \(wanted)"
        }
        if let difference = differs(
            "mode", "0" + String(mode, radix: 8), "0" + String(expected.mode, radix: 8))
            ?? differs("link count", links, expected.links) ?? differs("owner", user, expected.user)
            ?? differs("group", group, expected.group) ?? differs("size", size, expected.size)
            ?? differs("device", device, expected.device)
        {
            return difference
        }
        guard let wanted = expected.modificationTime, let modificationTime else { return nil }
        return differs("modification time", modificationTime, wanted)
    }

    func combine(into hash: inout StableHash) {
        for word in [mode, links, user, group, device.major, device.minor] {
            hash.combine(UInt64(word))
        }
        hash.combine(size)
    }
}

/// Whoever can carry out operations and show the whole tree.
public protocol OperationExecutor: AnyObject {
    /// Answers of the filesystem, refusals included, are outcomes; what is thrown means that the
    /// test itself cannot go on.
    func perform(_ operation: FileOperation) throws -> Outcome
    func treeView() throws -> TreeView
}
