/// `aegisfs inspect`: the decoded structures of a device, as indented text or JSON. Reads past any
/// lock, since a damaged or busy volume is just what one wants to look at.
internal import FSCore
internal import FSModules

enum InspectVerb {
    static func superblock(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try show(arguments) { (device) throws(FSError) in
            Inspector.superblocks(device, modules: .standard)
        }
    }
    static func tree(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let depth = try number(arguments.value(.depth) ?? "2", "--depth")
        return try show(arguments) { (device) throws(FSError) in
            try Inspector.tree(device, modules: .standard, depth: Int(clamping: min(depth, 64)))
        }
    }
    static func node(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let block = try number(arguments.operands[1], "BLOCK")
        return try show(arguments) { (device) throws(FSError) in
            try Inspector.node(device, modules: .standard, block: block)
        }
    }
    static func inode(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let inode = InodeNumber(try number(arguments.operands[1], "INODE"))
        return try show(arguments) { (device) throws(FSError) in
            try Inspector.inode(device, modules: .standard, inode)
        }
    }
    static func extents(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let inode = InodeNumber(try number(arguments.operands[1], "INODE"))
        return try show(arguments) { (device) throws(FSError) in
            try Inspector.extents(device, modules: .standard, inode)
        }
    }
    static func snapshots(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try show(arguments) { (device) throws(FSError) in
            try Inspector.snapshots(device, modules: .standard)
        }
    }
    static func bitmap(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try show(arguments) { (device) throws(FSError) in
            try Inspector.bitmap(device, modules: .standard)
        }
    }
    static func space(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try show(arguments) { (device) throws(FSError) in
            try Inspector.space(device, modules: .standard)
        }
    }
    static func journal(_ arguments: Arguments) throws(Failure) -> ExitCode {
        try show(arguments) { (device) throws(FSError) in
            try Inspector.journal(device, modules: .standard)
        }
    }
    static func path(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[1]
        return try show(arguments) { (device) throws(FSError) in
            try Inspector.path(device, modules: .standard, path)
        }
    }

    private static func number(_ text: String, _ name: String) throws(Failure) -> UInt64 {
        guard let value = UInt64(text) else {
            throw .usage("\(name): '\(text)' is not a whole number")
        }
        return value
    }

    private static func show(
        _ arguments: Arguments, _ body: (any BlockDevice) throws(FSError) -> Inspector.Value
    ) throws(Failure) -> ExitCode {
        var path = arguments.operands[0]
        if case .live(let mount) = try Target.resolve(path) { path = mount.record.device }
        let value: Inspector.Value
        do throws(FSError) {
            let device = try FileBlockDevice(path: path, access: .readOnly, lock: false)
            defer { device.close() }
            value = try body(device)
        } catch {
            // What the other argument names is missing, not the target.
            let other = arguments.operand(1) ?? ""
            switch error {
            case .noSuchEntry, .notDirectory:
                throw Failure(.notFound, .targetMissing, "\(path) has no file \(other)")
            case .stale:
                throw Failure(.notFound, .targetMissing, "\(path) has no inode \(other)")
            case .invalidArgument:
                throw Failure(
                    .notFound, .targetMissing, "block \(other) lies beyond the end of \(path)")
            default: throw Failure(error, target: path)
            }
        }
        if arguments.json {
            Terminal.output(
                JSONOutput.line(Document(result: JSONValue(value)), command: "inspect"))
        } else {
            Terminal.output(text(value, indent: 0))
        }
        return .done
    }

    private struct Document: Encodable { var result: JSONValue }

    private struct JSONValue: Encodable {
        let value: Inspector.Value
        init(_ value: Inspector.Value) { self.value = value }
        private struct Name: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }
        func encode(to encoder: any Encoder) throws {
            switch value {
            case .text(let text): try text.encode(to: encoder)
            case .number(let number): try number.encode(to: encoder)
            case .signed(let number): try number.encode(to: encoder)
            case .flag(let flag): try flag.encode(to: encoder)
            case .list(let list): try list.map(JSONValue.init).encode(to: encoder)
            case .record(let fields):
                var container = encoder.container(keyedBy: Name.self)
                for (name, value) in fields {
                    try container.encode(JSONValue(value), forKey: Name(stringValue: name))
                }
            }
        }
    }

    private static func text(_ value: Inspector.Value, indent: Int) -> String {
        let margin = String(repeating: "  ", count: indent)
        switch value {
        case .text(let text): return "\(margin)\(text)\n"
        case .number(let number): return "\(margin)\(number)\n"
        case .signed(let number): return "\(margin)\(number)\n"
        case .flag(let flag): return "\(margin)\(flag ? "yes" : "no")\n"
        case .list(let list):
            guard !list.isEmpty else { return "\(margin)(none)\n" }
            return list.map { item in
                // A dash marks where an item of several lines begins.
                let lines = text(item, indent: indent + 1)
                return "\(margin)- " + lines.dropFirst(margin.count + 2)
            }.joined()
        case .record(let fields):
            let width = fields.map(\.0.count).max() ?? 0
            return fields.map { name, value in
                switch value {
                case .list, .record:
                    return "\(margin)\(name):\n" + text(value, indent: indent + 1)
                default:
                    let padding = String(repeating: " ", count: width - name.count)
                    return "\(margin)\(name)\(padding)  " + text(value, indent: 0)
                }
            }.joined()
        }
    }
}
