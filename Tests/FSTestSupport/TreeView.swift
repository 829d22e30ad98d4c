/// A whole filesystem as plain values: what the model and the real one are compared by.
///
/// It holds what POSIX determines: names, kinds, permissions, owners, link counts and which names
/// are links of one inode, sizes, contents, extended attributes, link targets, and modification
/// times where the model knows them. Allocation, access times, inode numbers and inodes without a
/// name are left out.
public struct TreeView: Sendable {
    public var entries: [Path: EntryView] = [:]
    public init() {}

    /// One hash of everything but the times, the same in every process.
    public var treeHash: StableHash {
        // A sum, because sorting paths costs more than all the rest.
        var sum: UInt64 = 0
        for (path, entry) in entries {
            var one = StableHash()
            for name in path.names { one.combine(name) }
            entry.combine(into: &one)
            sum &+= one.value
        }
        var result = StableHash()
        result.combine(sum)
        return result
    }

    /// What first differs, in the order of paths, in words for a person; nil if nothing does.
    public func firstDifference(fromExpected expected: TreeView) -> String? {
        for path in Set(entries.keys).union(expected.entries.keys).sorted() {
            switch (expected.entries[path], entries[path]) {
            case (nil, _): return "\(path): is there, but should not be"
            case (_, nil): return "\(path): is missing"
            case (let expected?, let actual?):
                if let difference = actual.firstDifference(fromExpected: expected) {
                    return "\(path): \(difference)"
                }
            }
        }
        return nil
    }
}

/// One name of the tree and the inode behind it.
public struct EntryView: Sendable {
    public var attributes: AttributeView
    public var content: ContentFingerprint?
    public var target: [UInt8]?
    public var extendedAttributes: [[UInt8]: [UInt8]] = [:]
    /// The first path, in order, that leads to the same inode.
    public var firstPath: Path

    public init(attributes: AttributeView, firstPath: Path) {
        self.attributes = attributes
        self.firstPath = firstPath
    }

    func firstDifference(fromExpected expected: EntryView) -> String? {
        if let difference = attributes.firstDifference(fromExpected: expected.attributes) {
            return difference
        }
        if firstPath != expected.firstPath {
            return "is a link of \(firstPath), expected of \(expected.firstPath)"
        }
        if target != expected.target {
            return "points to \(shown(target)), expected \(shown(expected.target))"
        }
        for name in Set(extendedAttributes.keys).union(expected.extendedAttributes.keys)
            .sorted(by: { $0.lexicographicallyPrecedes($1) })
        where extendedAttributes[name] != expected.extendedAttributes[name] {
            let counts = [extendedAttributes[name], expected.extendedAttributes[name]]
                .map { $0.map { "\($0.count) bytes" } ?? "none" }
            return "extended attribute \(shown(name)) differs: \(counts[0]), expected \(counts[1])"
        }
        if let content, let wanted = expected.content,
            let offset = content.firstDifference(from: wanted)
        {
            return "contents differ in the page at byte \(offset)"
        }
        return nil
    }

    func combine(into hash: inout StableHash) {
        attributes.combine(into: &hash)
        for name in firstPath.names { hash.combine(name) }
        hash.combine(target ?? [])
        hash.combine(content?.hash.value ?? 0)
        for name in extendedAttributes.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            hash.combine(name)
            hash.combine(extendedAttributes[name]!)
        }
    }
}

/// Bytes for a person: printable ASCII as it is, the rest escaped, long ones cut.
public func shown(_ bytes: [UInt8]?) -> String {
    guard let bytes else { return "nothing" }
    var text = ""
    for byte in bytes.prefix(40) {
        if byte > 0x20, byte < 0x7F, byte != UInt8(ascii: "\\") {
            text.append(Character(UnicodeScalar(byte)))
        } else {
            let digits = String(byte, radix: 16)
            text += "\\x" + (digits.count == 1 ? "0" : "") + digits
        }
    }
    return bytes.count > 40 ? "\(text)…(\(bytes.count) bytes)" : text
}
