/// Paths as the kernel sees them: bytes. Swift's `==` on strings takes canonically equivalent names
/// for one, which are two different files.
internal import Glibc

enum Paths {
    static func areEqual(_ first: String, _ second: String) -> Bool {
        first.utf8.elementsEqual(second.utf8)
    }

    /// Whether `path` is `directory` or lies below it.
    static func isInside(_ path: String, _ directory: String) -> Bool {
        if areEqual(path, directory) || areEqual(directory, "/") { return true }
        return path.utf8.starts(with: directory.utf8)
            && path.utf8.dropFirst(directory.utf8.count).first == UInt8(ascii: "/")
    }

    /// Absolute, without links and dots. Falls back to resolving only the parent, because the last
    /// component may be a mountpoint whose daemon has died, or not exist yet.
    static func resolve(_ path: String) -> String? {
        realPath(path) ?? resolveParent(path)
    }

    /// The same, but the last component is taken as it is: a mount that is named so is not touched, whose
    /// daemon may hang.
    static func resolveParent(_ path: String) -> String? {
        let trimmed = trimmingSlashes(path)
        let (parent, name) = split(trimmed)
        guard !name.isEmpty, name != ".", name != "..", let base = realPath(parent) else {
            return nil
        }
        return base == "/" ? "/" + name : base + "/" + name
    }

    /// The directory and the last component.
    static func split(_ path: String) -> (directory: String, name: String) {
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
        let directory = String(path[..<slash])
        return (directory.isEmpty ? "/" : directory, String(path[path.utf8.index(after: slash)...]))
    }

    private static func trimmingSlashes(_ path: String) -> String {
        var bytes = Array(path.utf8)
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func realPath(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
