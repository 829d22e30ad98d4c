/// A small filesystem in memory whose only aim is to be obviously right: the oracle of the tests.
///
/// It is a value: a copy is a snapshot, which costs nothing until one of the two changes. There is
/// no limit on space. Paths are resolved without following symbolic links. What POSIX leaves open
/// it leaves open too: a refusal names every error that fits the mistakes in a call, and a
/// modification time that a real filesystem would take from the clock is unknown.
public import FSCore

/// What the model says must happen.
public enum Expectation: Sendable {
    case success(Outcome)
    /// Any of these errors; nothing has changed.
    case refusal([FSError])
    /// SEEK_DATA and SEEK_HOLE may treat stored zeros either way, but must skip no data.
    case seek(SparseBytes, from: UInt64)

    /// Why an outcome does not fit; nil if it does.
    public func mismatch(with outcome: Outcome) -> String? {
        switch self {
        case .success(.attributes(let expected)):
            guard case .attributes(let actual) = outcome else { return "answered \(outcome)" }
            return actual.firstDifference(fromExpected: expected)
        case .success(.bytes(let expected)):
            guard case .bytes(let actual) = outcome else { return "answered \(outcome)" }
            if actual == expected { return nil }
            let common = zip(actual, expected).prefix { $0 == $1 }.count
            return "answered \(actual.count) bytes that differ at \(common) "
                + "from the \(expected.count) expected"
        case .success(let expected):
            return outcome == expected ? nil : "answered \(outcome), expected \(expected)"
        case .refusal(let errors):
            if case .failed(let error) = outcome, errors.contains(error) { return nil }
            return "answered \(outcome), expected one of the errors \(errors)"
        case .seek(let content, let offset):
            guard case .positions(let data, let hole) = outcome else {
                return "answered \(outcome)"
            }
            return Self.seekMismatch(content, offset, data, hole)
        }
    }

    private static func seekMismatch(
        _ content: SparseBytes, _ offset: UInt64, _ data: UInt64?, _ hole: UInt64?
    ) -> String? {
        if offset >= content.size {
            return data == nil && hole == nil ? nil : "found data or a hole beyond the end"
        }
        if let data, data < offset || data >= content.size { return "data at \(data)" }
        if !content.isZero(from: offset, to: data ?? content.size) {
            let found = data.map(String.init) ?? "the end"
            return "SEEK_DATA skips data from \(offset) on, to \(found)"
        }
        guard let hole else { return "no hole although the end of the file is one" }
        return hole < offset || hole > content.size ? "hole at \(hole)" : nil
    }
}

public struct ReferenceFileSystem: Sendable {
    typealias Name = [UInt8]
    typealias NodeID = Int

    struct Node: Sendable {
        var mode: UInt32
        var user: UInt32
        var group: UInt32
        var links: UInt32
        var device = DeviceNumber.none
        var data = SparseBytes()
        var entries: [Name: NodeID] = [:]
        var target: [UInt8] = []
        var extendedAttributes: [Name: [UInt8]] = [:]
        /// Nil when it came from the clock.
        var modificationTime: Timestamp?
        /// Of a directory; the root's is itself.
        var parent: NodeID = ReferenceFileSystem.rootID
        var handles = 0
        /// Made by O_TMPFILE and never linked: only such an inode may get a first name.
        var isUnnamed = false

        var kind: FileKind { FileKind(mode: mode)! }
        var isDirectory: Bool { kind == .directory }

        var attributes: AttributeView {
            let size: UInt64 =
                switch kind {
                case .directory: UInt64(entries.count)
                case .symbolicLink: UInt64(target.count)
                default: data.size
                }
            return AttributeView(
                mode: mode, links: links, user: user, group: group, size: size, device: device,
                modificationTime: modificationTime)
        }
    }

    /// The mistakes in a call; nothing was changed.
    struct Refusal: Error {
        var errors: [FSError]
        init(_ errors: FSError...) { self.errors = errors }
        init(_ errors: [FSError]) { self.errors = errors }
    }

    static let rootID = 1
    var nodes: [NodeID: Node]
    var handles: [Int: NodeID] = [:]
    private var nextID = 2

    public init(rootMode: UInt32 = 0o755, rootUser: UInt32 = 0, rootGroup: UInt32 = 0) {
        let root = Node(
            mode: FileKind.directory.modeBits | rootMode, user: rootUser, group: rootGroup,
            links: 2)
        nodes = [Self.rootID: root]
    }

    /// Carries out one operation and says what a right filesystem answers.
    public mutating func perform(_ operation: FileOperation) -> Expectation {
        do throws(Refusal) {
            return try answer(operation)
        } catch {
            return .refusal(error.errors)
        }
    }

    /// All that is held is let go, as when a volume is unmounted: what has no name is gone.
    public mutating func dropHandles() {
        for number in handles.keys { drop(number) }
    }

    public var view: TreeView {
        var result = TreeView()
        var firstPaths: [NodeID: Path] = [:]
        func visit(_ id: NodeID, _ path: Path) {
            let node = nodes[id]!
            firstPaths[id] = min(firstPaths[id] ?? path, path)
            for name in node.entries.keys { visit(node.entries[name]!, path.appending(name)) }
        }
        func describe(_ id: NodeID, _ path: Path) {
            let node = nodes[id]!
            var entry = EntryView(attributes: node.attributes, firstPath: firstPaths[id]!)
            if node.kind == .regular { entry.content = node.data.fingerprint }
            if node.kind == .symbolicLink { entry.target = node.target }
            entry.extendedAttributes = node.extendedAttributes
            result.entries[path] = entry
            for name in node.entries.keys { describe(node.entries[name]!, path.appending(name)) }
        }
        visit(Self.rootID, .root)
        describe(Self.rootID, .root)
        return result
    }

    // MARK: Finding

    func node(at path: Path) throws(Refusal) -> NodeID {
        var id = Self.rootID
        for name in path.names {
            guard nodes[id]!.isDirectory else { throw Refusal(.notDirectory) }
            guard name.count <= 255 else { throw Refusal(.nameTooLong) }
            guard let next = nodes[id]!.entries[name] else { throw Refusal(.noSuchEntry) }
            id = next
        }
        return id
    }

    func node(at target: Target) throws(Refusal) -> NodeID {
        switch target {
        case .path(let path): return try node(at: path)
        case .handle(let number):
            guard let id = handles[number] else { throw Refusal(.stale) }
            return id
        }
    }

    /// The directory of a path and the name in it, which may or may not exist.
    func place(of path: Path) throws(Refusal) -> (directory: NodeID, name: Name) {
        let name = path.names.last!
        let mistakes: [FSError] = name.count > 255 ? [.nameTooLong] : []
        let directory: NodeID
        do throws(Refusal) {
            directory = try node(at: path.parent)
        } catch {
            throw Refusal(error.errors + mistakes)
        }
        if !nodes[directory]!.isDirectory { throw Refusal([.notDirectory] + mistakes) }
        if !mistakes.isEmpty { throw Refusal(mistakes) }
        return (directory, name)
    }

    func isSame(_ id: NodeID, orBelow ancestor: NodeID) -> Bool {
        var id = id
        while id != ancestor {
            if id == Self.rootID { return false }
            id = nodes[id]!.parent
        }
        return true
    }

    /// Whether link(2) may give this inode one more name.
    func isLinkable(_ id: NodeID) -> Bool { nodes[id]!.links > 0 || nodes[id]!.isUnnamed }

    // MARK: Changing

    mutating func add(_ node: Node) -> NodeID {
        nodes[nextID] = node
        nextID += 1
        return nextID - 1
    }

    /// Puts a node under a name that is free.
    mutating func insert(_ id: NodeID, _ name: Name, into directory: NodeID) {
        nodes[directory]!.entries[name] = id
        nodes[directory]!.modificationTime = nil
        if nodes[id]!.isDirectory {
            nodes[directory]!.links += 1
            nodes[id]!.parent = directory
        }
    }

    /// Takes a name away; the node stays as it is.
    mutating func detach(_ name: Name, from directory: NodeID) {
        let id = nodes[directory]!.entries.removeValue(forKey: name)!
        nodes[directory]!.modificationTime = nil
        if nodes[id]!.isDirectory { nodes[directory]!.links -= 1 }
    }

    /// Takes a name away, and with it a link.
    mutating func remove(_ name: Name, from directory: NodeID) {
        let id = nodes[directory]!.entries[name]!
        detach(name, from: directory)
        nodes[id]!.links -= nodes[id]!.isDirectory ? 2 : 1
        forgetIfUnused(id)
    }

    mutating func drop(_ number: Int) {
        let id = handles.removeValue(forKey: number)!
        nodes[id]!.handles -= 1
        forgetIfUnused(id)
    }

    private mutating func forgetIfUnused(_ id: NodeID) {
        if nodes[id]!.links == 0, nodes[id]!.handles == 0 { nodes[id] = nil }
    }
}
