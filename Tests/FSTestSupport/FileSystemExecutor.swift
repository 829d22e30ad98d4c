/// Carries out operations on a `FileSystem` in this process, as the kernel would: every path is
/// looked up name by name, and every reference that was handed out is given back.
public import FSCore

public final class FileSystemExecutor: OperationExecutor {
    public private(set) var fileSystem: FileSystem
    private var held: [Int: InodeNumber] = [:]

    public init(_ fileSystem: FileSystem) { self.fileSystem = fileSystem }

    /// Goes on with the same volume, opened again; what was held is no longer.
    public func remounted(_ fileSystem: FileSystem) {
        self.fileSystem = fileSystem
        held = [:]
    }

    /// Gives back every reference, as a kernel that unmounts.
    public func dropHandles() {
        for inode in held.values { fileSystem.release(inode, count: 1) }
        held = [:]
    }

    public func treeView() throws -> TreeView { try fileSystem.treeView() }

    public func perform(_ operation: FileOperation) throws -> Outcome {
        do throws(FSError) {
            return try run(operation)
        } catch {
            return .failed(error)
        }
    }

    private func run(_ operation: FileOperation) throws(FSError) -> Outcome {
        switch operation {
        case .create, .symbolicLink, .link, .unlink, .removeDirectory, .rename, .hold,
            .createUnnamed, .drop:
            try changeNames(operation)
            return .done
        case .list(let path):
            return .kinds(try with(path) { (inode) throws(FSError) in try kinds(in: inode) })
        case .readLink(let path):
            return try with(path) { (inode) throws(FSError) in
                .bytes(try fileSystem.symbolicLinkTarget(of: inode))
            }
        case .stat(let target):
            return try with(target) { (inode) throws(FSError) in
                .attributes(AttributeView(try fileSystem.attributes(of: inode)))
            }
        case .setMode, .setOwner, .setTime, .truncate: return try setAttributes(operation)
        case .write, .read, .allocate, .copyRange, .seek: return try data(operation)
        case .setExtendedAttribute, .extendedAttribute, .extendedAttributeNames,
            .removeExtendedAttribute:
            return try extendedAttributes(operation)
        case .synchronize(let target):
            try with(target) { (inode) throws(FSError) in try fileSystem.synchronize(inode) }
            return .done
        }
    }

    // MARK: Paths

    /// Lends the inode of a path, which is referenced during the call.
    private func with<R>(
        _ path: Path, _ body: (InodeNumber) throws(FSError) -> R
    ) throws(FSError) -> R {
        var inode = InodeNumber.root
        var referenced: [InodeNumber] = []
        defer { for inode in referenced { fileSystem.release(inode, count: 1) } }
        for name in path.names {
            inode = try name.withView { (name) throws(FSError) in
                try fileSystem.lookup(name, in: inode).inode
            }
            referenced.append(inode)
        }
        return try body(inode)
    }

    private func with<R>(
        _ target: Target, _ body: (InodeNumber) throws(FSError) -> R
    ) throws(FSError) -> R {
        switch target {
        case .path(let path): return try with(path, body)
        case .handle(let number):
            guard let inode = held[number] else { throw .stale }
            return try body(inode)
        }
    }

    /// Lends the directory of a path and the last name.
    private func withPlace<R>(
        _ path: Path, _ body: (InodeNumber, ByteView) throws(FSError) -> R
    ) throws(FSError) -> R {
        try with(path.parent) { (directory) throws(FSError) in
            try path.names.last!.withView { (name) throws(FSError) in try body(directory, name) }
        }
    }

    // MARK: Names

    private func changeNames(_ operation: FileOperation) throws(FSError) {
        switch operation {
        case .create(let path, let new):
            let made = try withPlace(path) { (directory, name) throws(FSError) in
                try fileSystem.create(name, in: directory, new)
            }
            fileSystem.release(made.inode, count: 1)
        case .symbolicLink(let path, let target):
            let made = try withPlace(path) { (directory, name) throws(FSError) in
                try target.withView { (target) throws(FSError) in
                    try fileSystem.createSymbolicLink(
                        name, in: directory, target: target, userID: 0, groupID: 0)
                }
            }
            fileSystem.release(made.inode, count: 1)
        case .link(let source, let path):
            let made = try with(source) { (inode) throws(FSError) in
                try withPlace(path) { (directory, name) throws(FSError) in
                    try fileSystem.link(inode, as: name, in: directory)
                }
            }
            fileSystem.release(made.inode, count: 1)
        case .unlink(let path):
            try withPlace(path) { (directory, name) throws(FSError) in
                try fileSystem.unlink(name, in: directory)
            }
        case .removeDirectory(let path):
            try withPlace(path) { (directory, name) throws(FSError) in
                try fileSystem.removeDirectory(name, in: directory)
            }
        case .rename(let from, let to, let options):
            try withPlace(from) { (directory, name) throws(FSError) in
                try withPlace(to) { (newDirectory, newName) throws(FSError) in
                    try fileSystem.rename(
                        name, in: directory, to: newName, in: newDirectory, options)
                }
            }
        case .hold(let path, let number):
            held[number] = try withPlace(path) { (directory, name) throws(FSError) in
                try fileSystem.lookup(name, in: directory).inode
            }
        case .createUnnamed(let path, let new, let number):
            held[number] = try with(path) { (directory) throws(FSError) in
                try fileSystem.createUnnamed(in: directory, new).inode
            }
        case .drop(let number):
            if let inode = held.removeValue(forKey: number) {
                fileSystem.release(inode, count: 1)
            }
        default: preconditionFailure("\(operation) changes no name")
        }
    }

    /// Lists in two halves, the second behind a cookie of the first, so that both ways count.
    private func kinds(in inode: InodeNumber) throws(FSError) -> [[UInt8]: FileKind] {
        var result: [[UInt8]: FileKind] = [:]
        var last: UInt64 = 0
        var room = 7
        var isAtEnd = false
        while !isAtEnd {
            isAtEnd = true
            try fileSystem.readDirectory(inode, after: last, withAttributes: false) { entry, _ in
                if room == 0 {
                    isAtEnd = false
                    return false
                }
                room -= 1
                last = entry.cookie
                let name = entry.name.toArray()
                if name != [0x2E], name != [0x2E, 0x2E] { result[name] = entry.kind }
                return true
            }
            room = .max
        }
        return result
    }

    // MARK: Inodes

    private func setAttributes(_ operation: FileOperation) throws(FSError) -> Outcome {
        var changes = AttributeChanges()
        let target: Target
        switch operation {
        case .setMode(let subject, let mode):
            target = subject
            changes.mode = mode
        case .setOwner(let subject, let user, let group):
            target = subject
            changes.userID = user
            changes.groupID = group
            changes.isChown = true
        case .setTime(let subject, let time):
            target = subject
            changes.modificationTime = .at(time)
        case .truncate(let subject, let size):
            target = subject
            changes.size = size
        default: preconditionFailure("\(operation) sets no attribute")
        }
        try with(target) { (inode) throws(FSError) in
            _ = try fileSystem.setAttributes(of: inode, changes)
        }
        return .done
    }

    private func data(_ operation: FileOperation) throws(FSError) -> Outcome {
        switch operation {
        case .write(let target, let offset, let payload):
            return .count(
                try with(target) { (inode) throws(FSError) in
                    try payload.bytes.withView { (bytes) throws(FSError) in
                        UInt64(try fileSystem.write(inode, at: offset, bytes))
                    }
                })
        case .read(let target, let offset, let count):
            let buffer = ByteBuffer(count: count)
            let length = try with(target) { (inode) throws(FSError) in
                try fileSystem.read(inode, at: offset, into: buffer.bytes)
            }
            return .bytes(buffer.view.slice(0, length).toArray())
        case .allocate(let target, let offset, let count, let mode):
            try with(target) { (inode) throws(FSError) in
                try fileSystem.allocate(inode, at: offset, count: count, mode)
            }
            return .done
        case .copyRange(let source, let from, let target, let to, let count):
            return .count(
                try with(source) { (source) throws(FSError) in
                    try with(target) { (target) throws(FSError) in
                        try copy(source, from, target, to, count)
                    }
                })
        case .seek(let target, let offset):
            return try with(target) { (inode) throws(FSError) in
                .positions(
                    data: try position { () throws(FSError) in
                        try fileSystem.nextData(inode, from: offset)
                    },
                    hole: try position { () throws(FSError) in
                        try fileSystem.nextHole(inode, from: offset)
                    })
            }
        default: preconditionFailure("\(operation) touches no data")
        }
    }

    /// Copies until all is done up to where the source ended at first: one call may copy less
    /// than it is asked for.
    private func copy(
        _ source: InodeNumber, _ from: UInt64, _ target: InodeNumber, _ to: UInt64,
        _ count: UInt64
    ) throws(FSError) -> UInt64 {
        let size = try fileSystem.attributes(of: source).size
        var done: UInt64 = 0
        repeat {
            let step = try fileSystem.copyRange(
                from: source, at: from + done, to: target, at: to + done, count: count - done)
            if step == 0 { break }
            done += step
        } while done < count && from + done < size
        return done
    }

    private func position(_ body: () throws(FSError) -> UInt64) throws(FSError) -> UInt64? {
        do throws(FSError) {
            return try body()
        } catch .noDataBeyond {
            return nil
        }
    }

    private func extendedAttributes(_ operation: FileOperation) throws(FSError) -> Outcome {
        switch operation {
        case .setExtendedAttribute(let target, let name, let payload, let mode):
            try with(target) { (inode) throws(FSError) in
                try name.withView { (name) throws(FSError) in
                    try payload.bytes.withView { (value) throws(FSError) in
                        try fileSystem.setExtendedAttribute(name, of: inode, value, mode)
                    }
                }
            }
            return .done
        case .extendedAttribute(let target, let name):
            return try with(target) { (inode) throws(FSError) in
                try name.withView { (name) throws(FSError) in
                    .bytes(try fileSystem.extendedAttribute(name, of: inode))
                }
            }
        case .extendedAttributeNames(let target):
            return .names(
                Set(
                    try with(target) { (inode) throws(FSError) in
                        splitNames(try fileSystem.extendedAttributeNames(of: inode))
                    }))
        case .removeExtendedAttribute(let target, let name):
            try with(target) { (inode) throws(FSError) in
                try name.withView { (name) throws(FSError) in
                    try fileSystem.removeExtendedAttribute(name, of: inode)
                }
            }
            return .done
        default: preconditionFailure("\(operation) is about no extended attribute")
        }
    }
}

/// The names in a list as listxattr(2) returns it: each ended by a zero byte.
func splitNames(_ list: [UInt8]) -> [[UInt8]] {
    list.split(separator: 0).map { [UInt8]($0) }
}
