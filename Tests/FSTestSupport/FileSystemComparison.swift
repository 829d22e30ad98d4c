/// The whole of a real filesystem as the values that the model is compared by, with checks of what
/// must agree inside it on the way.
public import FSCore

/// What of a real filesystem contradicts itself, or could not be read.
public struct InconsistentTree: Error, CustomStringConvertible {
    public var path: Path
    public var problem: String
    /// What the filesystem itself said, if it did.
    public var error: FSError?
    public var description: String { "\(path): \(problem)" }
}

extension FileSystem {
    /// Walks everything that has a name, through the verbs that the kernel would use.
    public func treeView() throws -> TreeView {
        var walk = TreeWalk(fileSystem: self)
        defer { walk.releaseAll() }
        try walk.visit(.root, .root)
        for (path, inode) in walk.inodes {
            walk.view.entries[path]!.firstPath = walk.firstPaths[inode]!
        }
        return walk.view
    }

    /// The contents of a file, page by page.
    public func fingerprint(
        of inode: InodeNumber, size: UInt64
    ) throws(FSError) -> ContentFingerprint {
        var result = ContentFingerprint(size: size)
        // Most files are small, and memory has its price when thousands of trees are read.
        let buffer = ByteBuffer(count: Int(min(size, 256 << 10)))
        var offset: UInt64 = 0
        while offset < size {
            let count = try read(inode, at: offset, into: buffer.bytes)
            let expected = min(UInt64(buffer.count), size - offset)
            guard UInt64(count) == expected else {
                throw .corrupt(
                    Corruption(.data, at: inode.rawValue, "read \(count) of \(expected) bytes"))
            }
            var position = 0
            while position < count {
                let length = min(SparseBytes.pageSize, count - position)
                result.add(
                    page: (offset + UInt64(position)) / UInt64(SparseBytes.pageSize),
                    buffer.view.slice(position, length).unsafeBytes)
                position += length
            }
            offset += UInt64(count)
        }
        return result
    }
}

private struct TreeWalk {
    let fileSystem: FileSystem
    var view = TreeView()
    var inodes: [Path: InodeNumber] = [:]
    var firstPaths: [InodeNumber: Path] = [:]
    private var references: [InodeNumber] = []
    private var contents: [InodeNumber: ContentFingerprint] = [:]

    init(fileSystem: FileSystem) { self.fileSystem = fileSystem }

    func releaseAll() {
        for inode in references { fileSystem.release(inode, count: 1) }
    }

    mutating func visit(_ inode: InodeNumber, _ path: Path) throws {
        do {
            try describe(inode, path)
        } catch let error as FSError {
            throw InconsistentTree(path: path, problem: "\(error)", error: error)
        }
    }

    private mutating func describe(_ inode: InodeNumber, _ path: Path) throws {
        let attributes = try fileSystem.attributes(of: inode)
        inodes[path] = inode
        firstPaths[inode] = min(firstPaths[inode] ?? path, path)
        var entry = EntryView(attributes: AttributeView(attributes), firstPath: path)
        for name in splitNames(try fileSystem.extendedAttributeNames(of: inode)) {
            entry.extendedAttributes[name] = try name.withView { (name) throws(FSError) in
                try fileSystem.extendedAttribute(name, of: inode)
            }
        }
        switch attributes.kind {
        case .regular:
            entry.content =
                try contents[inode] ?? fileSystem.fingerprint(of: inode, size: attributes.size)
            contents[inode] = entry.content
        case .symbolicLink:
            entry.target = try fileSystem.symbolicLinkTarget(of: inode)
        default: break
        }
        view.entries[path] = entry
        if attributes.kind == .directory { try descend(inode, path) }
    }

    private mutating func descend(_ inode: InodeNumber, _ path: Path) throws {
        var listed: [(name: [UInt8], inode: InodeNumber, kind: FileKind)] = []
        try fileSystem.readDirectory(inode, after: 0, withAttributes: false) { entry, _ in
            listed.append((entry.name.toArray(), entry.inode, entry.kind))
            return true
        }
        func require(_ condition: Bool, _ problem: String) throws {
            if !condition { throw InconsistentTree(path: path, problem: problem) }
        }
        try require(
            listed.prefix(2).map(\.name) == [[0x2E], [0x2E, 0x2E]] && listed[0].inode == inode,
            "the listing does not begin with . and ..")
        try require(Set(listed.map(\.name)).count == listed.count, "a name is listed twice")
        for item in listed.dropFirst(2) {
            let found = try item.name.withView { (name) throws(FSError) in
                try fileSystem.lookup(name, in: inode)
            }
            references.append(found.inode)
            try require(
                found.inode == item.inode && found.kind == item.kind,
                "listing and lookup disagree about \(shown(item.name))")
            try visit(found.inode, path.appending(item.name))
        }
    }
}
