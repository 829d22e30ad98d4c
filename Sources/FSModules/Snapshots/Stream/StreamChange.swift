/// What a record of a stream asks for, taken apart: a value of it is one that a sender might have written.
internal import FSCore

enum StreamChange {
    struct Name {
        var directory: InodeNumber
        var inode: InodeNumber
        var name: [UInt8]
    }
    struct Node {
        var inode: InodeNumber
        var mode: UInt32
        var device: DeviceNumber
        var target: [UInt8]
    }
    struct Content {
        var inode: InodeNumber
        var size: UInt64
        var compression: CompressionSetting
        var copies: UInt8
    }
    struct Space {
        var inode: InodeNumber
        var offset: UInt64
        var count: UInt64
    }
    struct Data {
        var inode: InodeNumber
        var offset: UInt64
        var bytes: ByteBuffer
    }
    struct Attribute {
        var inode: InodeNumber
        var name: [UInt8]
        /// Nil: it goes.
        var value: [UInt8]?
    }

    case inode(Node)
    case detach(Name)
    case attach(Name)
    case settle
    case content(Content)
    case hole(Space)
    case promise(Space)
    case data(Data)
    case attribute(Attribute)
    case record(InodeNumber, FileSystem.ReceivedRecord)
    /// How many records came before.
    case end(UInt64)

    /// - Parameters:
    ///   - bound: all inode numbers are below.
    ///   - reserved: a name that nothing of the stream has.
    init(
        _ record: StreamRecord, below bound: UInt64, reserved: [UInt8]
    ) throws(StreamError) {
        do throws(FSError) {
            self = try record.payload.withView { (view) throws(FSError) in
                var parser = Parser(
                    reader: ByteReader(view, .snapshot, at: record.number), bound: bound,
                    reserved: reserved)
                let change = try parser.change(record.kind)
                try parser.reader.require(
                    parser.reader.remaining == 0, "bytes behind the payload")
                return change
            }
        } catch {
            guard case .corrupt(let what) = error else { throw .file(error) }
            throw .damaged(record: record.number, what.detail)
        }
    }
}

private struct Parser {
    var reader: ByteReader
    let bound: UInt64
    let reserved: [UInt8]

    mutating func change(_ kind: StreamRecord.Kind) throws(FSError) -> StreamChange {
        switch kind {
        case .begin: throw reader.corrupt("a second beginning")
        case .inode: .inode(try node())
        case .detach: .detach(try name())
        case .attach: .attach(try name())
        case .settle: .settle
        case .content: .content(try content())
        case .hole: .hole(try space())
        case .promise: .promise(try space())
        case .data: .data(try data())
        case .attribute: .attribute(try attribute(isSet: true))
        case .attributeRemoval: .attribute(try attribute(isSet: false))
        case .record: .record(try inode(), try FileSystem.ReceivedRecord(&reader))
        case .end: .end(try reader.u64())
        }
    }

    private mutating func inode() throws(FSError) -> InodeNumber {
        let number = try reader.u64()
        try reader.require(number >= 1 && number < bound, "inode number \(number)")
        return InodeNumber(number)
    }

    private mutating func rest() throws(FSError) -> [UInt8] {
        try reader.bytes(reader.remaining).toArray()
    }

    private mutating func node() throws(FSError) -> StreamChange.Node {
        let node = StreamChange.Node(
            inode: try inode(), mode: try reader.u32(),
            device: DeviceNumber(major: try reader.u32(), minor: try reader.u32()),
            target: try rest())
        let kind = FileKind(mode: node.mode)
        try reader.require(
            kind != nil && node.mode >> 16 == 0 && node.inode != .root, "kind of an inode")
        let isTarget =
            (1...DiskFormat.maximumSymbolicLinkLength).contains(node.target.count)
            && !node.target.contains(0)
        try reader.require(
            kind == .symbolicLink ? isTarget : node.target.isEmpty, "target of a link")
        try reader.require(
            kind == .characterDevice || kind == .blockDevice || node.device == .none,
            "device number")
        return node
    }

    private mutating func name() throws(FSError) -> StreamChange.Name {
        let directory = try inode()
        let inode = try inode()
        let name = try reader.bytes(reader.remaining)
        try reader.require(DirectoryRecord.isValid(name: name), "a name")
        let bytes = name.toArray()
        try reader.require(bytes != reserved, "a reserved name")
        return StreamChange.Name(directory: directory, inode: inode, name: bytes)
    }

    private mutating func content() throws(FSError) -> StreamChange.Content {
        let content = StreamChange.Content(
            inode: try inode(), size: try reader.u64(),
            compression: try CompressionSetting(&reader), copies: try reader.u8())
        try reader.require(
            content.copies <= DiskFormat.maximumDataCopies, "\(content.copies) copies")
        return content
    }

    private mutating func space() throws(FSError) -> StreamChange.Space {
        StreamChange.Space(inode: try inode(), offset: try reader.u64(), count: try reader.u64())
    }

    private mutating func data() throws(FSError) -> StreamChange.Data {
        let inode = try inode()
        let offset = try reader.u64()
        let bytes = try reader.bytes(reader.remaining)
        try reader.require(
            bytes.count >= 1 && bytes.count <= Int(StreamRecord.maximumData), "data")
        return StreamChange.Data(inode: inode, offset: offset, bytes: ByteBuffer(copying: bytes))
    }

    private mutating func attribute(isSet: Bool) throws(FSError) -> StreamChange.Attribute {
        let inode = try inode()
        let length = Int(try reader.u8())
        let name = try reader.bytes(length)
        let namespaces: [StaticString] = ["user.", "trusted.", "security.", "system.posix_acl_"]
        var isKnown = false
        for prefix in namespaces where name.hasPrefix(prefix) {
            isKnown = name.count > prefix.utf8CodeUnitCount
        }
        try reader.require(isKnown, "name of an attribute")
        let value = isSet ? try rest() : nil
        return StreamChange.Attribute(inode: inode, name: name.toArray(), value: value)
    }
}
