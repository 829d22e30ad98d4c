/// What `aegisfs snapshot diff` tells, as JSON shows it and the control socket carries it.
internal import FSCore
internal import FSModules

/// One path that differs.
struct ChangeDocument: Codable, Sendable {
    /// `added`, `removed`, `modified`, `renamed`
    var change: String
    var path: String
    var oldPath: String?
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char-device`, `block-device`
    var kind: String
    var oldSizeBytes: UInt64?
    var newSizeBytes: UInt64?
    /// A renamed one was modified, too.
    var isModified: Bool

    init(_ change: PathChange) {
        self.change = change.kind.rawValue
        path = change.path
        oldPath = change.oldPath
        kind = change.fileKind.word
        oldSizeBytes = change.oldSize
        newSizeBytes = change.newSize
        isModified = change.isModified
    }

    /// One line for people: what, size, path.
    func line(_ size: (UInt64) -> String) -> String {
        let mark =
            switch change {
            case "added": "+"
            case "removed": "-"
            case "renamed": isModified ? "R*" : "R"
            default: "M"
            }
        let sizes =
            switch (oldSizeBytes, newSizeBytes) {
            case (let old?, let new?) where old != new: " (\(size(old)) -> \(size(new)))"
            case (let old?, _): " (\(size(old)))"
            case (nil, let new?): " (\(size(new)))"
            default: ""
            }
        let slash = kind == "directory" ? "/" : ""
        let from = oldPath.map { "\(Quoting.name($0 + slash)) -> " } ?? ""
        return
            "\(mark.count == 1 ? mark + " " : mark) \(from)\(Quoting.name(path + slash))\(sizes)\n"
    }
}

extension FileKind {
    /// As JSON has it.
    var word: String {
        switch self {
        case .regular: "file"
        case .directory: "directory"
        case .symbolicLink: "symlink"
        case .fifo: "fifo"
        case .socket: "socket"
        case .characterDevice: "char-device"
        case .blockDevice: "block-device"
        }
    }
}

/// How many of each there are.
struct ChangeCounts: Codable, Sendable {
    var added: UInt64 = 0
    var removed: UInt64 = 0
    var modified: UInt64 = 0
    var renamed: UInt64 = 0

    init(_ changes: [ChangeDocument]) {
        for change in changes {
            switch change.change {
            case "added": added += 1
            case "removed": removed += 1
            case "renamed": renamed += 1
            default: modified += 1
            }
        }
    }
}
