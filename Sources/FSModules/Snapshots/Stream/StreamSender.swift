/// Writes a snapshot, or what it has that another has not, as a stream (`docs/STREAM.md`).
///
///     begin ─▶ new inodes ─▶ names that went ─▶ names that came ─▶ settle
///           ─▶ of each inode that differs: attributes, data, record ─▶ end
///
/// Each phase is a walk of its own over what both do not share, so that memory is bounded however much it
/// is, and the cost follows the change. What a stream holds follows from the two snapshots alone: one that
/// was cut off can go on at any record.
///
/// - Invariant: inodes without a name are no part of a stream.
public import FSCore

public final class StreamSender {
    /// What was written.
    public struct Summary: Equatable, Sendable {
        public var records: UInt64 = 0
        public var bytes: UInt64 = 0
        public var dataBytes: UInt64 = 0
    }
    public typealias Output = (ByteView) throws(FSError) -> Void

    private let volume: Volume
    private let comparison: TreeComparison
    private let old: Volume.HeldTree?
    private let new: Volume.HeldTree
    private let begin: StreamBegin
    private let output: Output?
    private let stream: UInt64
    /// Records on their way out: most are small, and each hand-over costs.
    private var pending: [UInt8] = []
    private static let pendingLimit = 256 << 10
    public private(set) var summary = Summary()

    /// - Parameters:
    ///   - first: the number of the first record behind `begin`; what comes before is left out.
    ///   - output: nil only counts.
    ///
    /// Throws `.noSuchEntry` if there is no such snapshot, what `output` throws, and what reading does.
    public static func run(
        _ store: Snapshots, _ name: [UInt8], from base: [UInt8]? = nil, first: UInt64 = 1,
        output: Output?
    ) throws(FSError) -> Summary {
        try store.withTree(name) { (new) throws(FSError) in
            func send(_ old: Volume.HeldTree?, _ base: VolumeUUID?) throws(FSError) -> Summary {
                guard let node = store.node(named: name), let label = node.label else {
                    throw .noSuchEntry
                }
                let begin = StreamBegin(
                    snapshot: node.record.identity, base: base, first: first,
                    inodeBound: store.volume.inodeBound, created: node.record.created,
                    label: label)
                guard begin.snapshot != base, first >= 1,
                    begin.inodeBound <= FileSystem.receivedInodeLimit
                else { throw .invalidArgument }
                let sender = StreamSender(store.volume, old, new, begin, output)
                try sender.send()
                return sender.summary
            }
            guard let base else { return try send(nil, nil) }
            return try store.withTree(base) { (old) throws(FSError) in
                try send(old, store.node(named: base)?.record.identity)
            }
        }
    }

    private init(
        _ volume: Volume, _ old: Volume.HeldTree?, _ new: Volume.HeldTree, _ begin: StreamBegin,
        _ output: Output?
    ) {
        self.volume = volume
        comparison = TreeComparison(volume)
        self.old = old
        self.new = new
        self.begin = begin
        self.output = output
        stream = begin.snapshot.low ^ (begin.base?.high ?? 0)
    }

    private func send() throws(FSError) {
        try emit(.begin) { () throws(FSError) in begin.payload }
        try sendNewInodes()
        try sendNames(.detach)
        try sendNames(.attach)
        try emit(.settle) { () throws(FSError) in [] }
        try sendInodes()
        let records = summary.records
        try emit(.end) { () throws(FSError) in
            var bytes: [UInt8] = []
            bytes.append(littleEndian: records)
            return bytes
        }
        try flush()
    }

    /// Writes a record unless it is one of those left out.
    private func emit(
        _ kind: StreamRecord.Kind, length: UInt64 = 0, _ payload: () throws(FSError) -> [UInt8]
    ) throws(FSError) {
        let number = summary.records
        summary.records += 1
        guard number == 0 || number >= begin.first else { return }
        if output == nil, length > 0 {
            summary.bytes += UInt64(StreamRecord.headerSize) + 16 + length
            summary.dataBytes += length
            return
        }
        let record = StreamRecord(
            kind: kind, number: number, stream: stream, payload: try payload())
        let bytes = record.encoded()
        summary.bytes += UInt64(bytes.count)
        summary.dataBytes += length
        guard output != nil else { return }
        pending.append(bytes.view)
        if pending.count >= Self.pendingLimit { try flush() }
    }

    private func flush() throws(FSError) {
        guard let output, !pending.isEmpty else { return }
        let bytes = ByteBuffer(count: pending.count)
        pending.withView { bytes.bytes.copy($0) }
        pending.removeAll(keepingCapacity: true)
        try output(bytes.view)
    }

    private func walk(
        _ body: (Key, ByteView?, ByteView?) throws(FSError) -> Void
    ) throws(FSError) {
        try comparison.run(old: old?.root, new: new.root) {
            (difference) throws(FSError) in
            guard case .item(let key, let before, let after) = difference, key.object != 0 else {
                return
            }
            try body(key, before, after)
        }
    }

    // MARK: Inodes and names

    private func record(_ value: ByteView?, _ inode: UInt64) throws(FSError) -> InodeRecord? {
        guard let value else { return nil }
        return try InodeRecord(decoding: value, inode: inode)
    }

    /// Whether an inode has a name in the new snapshot and had none in the old one.
    private func isNew(_ before: InodeRecord?, _ after: InodeRecord) -> Bool {
        after.linkCount > 0 && (before?.linkCount ?? 0) == 0
    }

    private func sendNewInodes() throws(FSError) {
        let root = InodeNumber.root.rawValue
        try walk { (key, before, after) throws(FSError) in
            guard key.type == .inode, key.object != root,
                let after = try record(after, key.object),
                isNew(try record(before, key.object), after)
            else { return }
            let files = new.files
            try emit(.inode) { () throws(FSError) in
                var bytes: [UInt8] = []
                bytes.append(littleEndian: key.object)
                bytes.append(littleEndian: after.mode)
                bytes.append(littleEndian: after.device.major)
                bytes.append(littleEndian: after.device.minor)
                if after.kind == .symbolicLink {
                    bytes += try files.symbolicLinkTarget(of: InodeNumber(key.object))
                }
                return bytes
            }
        }
    }

    private func sendNames(_ kind: StreamRecord.Kind) throws(FSError) {
        try walk { (key, before, after) throws(FSError) in
            guard key.type == .directoryEntry else { return }
            let was = try DirectoryNames(before, key.object).entries
            let now = try DirectoryNames(after, key.object).entries
            let names =
                kind == .detach
                ? was.filter { !now.contains($0) } : now.filter { !was.contains($0) }
            for entry in names {
                try emit(kind) { () throws(FSError) in
                    var bytes: [UInt8] = []
                    bytes.append(littleEndian: key.object)
                    bytes.append(littleEndian: entry.inode.rawValue)
                    return bytes + entry.name
                }
            }
        }
    }

    // MARK: What inodes have

    /// What of one inode differs.
    private struct Difference {
        var inode: UInt64
        var attributes = false
        /// It was, or is, inline.
        var inline = false
        /// Bytes of the file whose extents differ, in order.
        var ranges: [Range<UInt64>] = []

        mutating func add(_ range: Range<UInt64>) {
            // Old and new extents come by their beginnings, so one may reach into the one before.
            if let last = ranges.last, range.lowerBound <= last.upperBound {
                ranges[ranges.count - 1] =
                    last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                ranges.append(range)
            }
        }
    }

    private func sendInodes() throws(FSError) {
        var current: Difference?
        let layout = volume.diskLayout
        var hasRoot = false
        try walk { (key, before, after) throws(FSError) in
            if current?.inode != key.object {
                if let current { try send(current) }
                current = Difference(inode: key.object)
                hasRoot = hasRoot || key.object == InodeNumber.root.rawValue
            }
            switch key.type {
            case .attribute: current?.attributes = true
            case .inlineData: current?.inline = true
            case .extent:
                for value in [before, after] {
                    guard let value else { continue }
                    let extent = try ExtentRecord(
                        decoding: value, inode: key.object, layout: layout)
                    current?.add(key.offset..<key.offset + UInt64(extent.blocks) << 12)
                }
            default: break
            }
        }
        if let current { try send(current) }
        // Receiving changes the root directory, even if nobody else has.
        if !hasRoot { try send(Difference(inode: InodeNumber.root.rawValue)) }
    }

    private func send(_ difference: Difference) throws(FSError) {
        let inode = InodeNumber(difference.inode)
        guard let record = try present(inode, new) else { return }
        let before = try old.flatMap { (old) throws(FSError) in try present(inode, old) }
        if difference.attributes { try sendAttributes(inode, isNew: before == nil) }
        let differs =
            before == nil || difference.inline || !difference.ranges.isEmpty
            || before?.size != record.size || before?.compression != record.compression
            || before?.copies != record.copies
        if record.kind == .regular || record.isDirectory, differs {
            try sendContent(difference, record, before)
        }
        try emit(.record) { () throws(FSError) in
            var bytes: [UInt8] = []
            bytes.append(littleEndian: inode.rawValue)
            FileSystem.ReceivedRecord(record).append(to: &bytes)
            return bytes
        }
    }

    private func present(
        _ inode: InodeNumber, _ moment: Volume.HeldTree
    ) throws(FSError) -> InodeRecord? {
        do throws(FSError) {
            let record = try moment.files.record(of: inode)
            return record.linkCount > 0 ? record : nil
        } catch .stale { return nil }
    }

    private func sendAttributes(_ inode: InodeNumber, isNew: Bool) throws(FSError) {
        func names(_ files: FileSystem?) throws(FSError) -> [[UInt8]] {
            guard let files else { return [] }
            return try files.extendedAttributeNames(of: inode).split(separator: 0).map(Array.init)
        }
        func payload(_ name: [UInt8], _ value: [UInt8]) -> [UInt8] {
            var bytes: [UInt8] = []
            bytes.append(littleEndian: inode.rawValue)
            bytes.append(UInt8(name.count))
            return bytes + name + value
        }
        let before = try names(isNew ? nil : old?.files)
        let after = try names(new.files)
        for name in before where !after.contains(name) {
            try emit(.attributeRemoval) { () throws(FSError) in payload(name, []) }
        }
        for name in after {
            let value = try new.files.receivedAttribute(name, of: inode) ?? []
            if before.contains(name),
                try old?.files.receivedAttribute(name, of: inode) == value
            {
                continue
            }
            try emit(.attribute) { () throws(FSError) in payload(name, value) }
        }
    }

    private func sendContent(
        _ difference: Difference, _ record: InodeRecord, _ before: InodeRecord?
    ) throws(FSError) {
        let inode = InodeNumber(difference.inode)
        let isRegular = record.kind == .regular
        // A small file, or one that was small, comes as a whole: cut to nothing first.
        let whole = isRegular && (before == nil || difference.inline)
        func content(_ size: UInt64) throws(FSError) {
            try emit(.content) { () throws(FSError) in
                var bytes: [UInt8] = []
                bytes.append(littleEndian: inode.rawValue)
                bytes.append(littleEndian: isRegular ? size : 0)
                bytes.append(littleEndian: record.compression.number)
                bytes.append(record.copies)
                return bytes
            }
        }
        try content(whole ? 0 : record.size)
        guard isRegular else { return }
        if record.content == .inline {
            if record.size > 0 { try sendData(inode, 0..<record.size) }
            return
        }
        if whole {
            try sendRange(inode, 0..<1 << 63, record.size, clears: false)
            if record.size > 0 { try content(record.size) }
        } else {
            for range in difference.ranges {
                try sendRange(inode, range, record.size, clears: true)
            }
        }
    }

    /// A range of a file as it is now: data, promises and, if there may be other things, holes.
    private func sendRange(
        _ inode: InodeNumber, _ range: Range<UInt64>, _ size: UInt64, clears: Bool
    ) throws(FSError) {
        var position = range.lowerBound
        var run: Range<UInt64>?
        func flush() throws(FSError) {
            if let run, run.lowerBound < size {
                try sendData(inode, run.lowerBound..<min(run.upperBound, size))
            }
            run = nil
        }
        func fill(_ kind: StreamRecord.Kind, _ range: Range<UInt64>) throws(FSError) {
            guard !range.isEmpty else { return }
            try emit(kind) { () throws(FSError) in
                var bytes: [UInt8] = []
                bytes.append(littleEndian: inode.rawValue)
                bytes.append(littleEndian: range.lowerBound)
                bytes.append(littleEndian: range.upperBound - range.lowerBound)
                return bytes
            }
        }
        while position < range.upperBound {
            let found = try new.files.extents(of: inode, from: position, limit: 256)
            for extent in found where extent.offset < range.upperBound {
                let start = max(extent.offset, position)
                let end = min(extent.offset + extent.length, range.upperBound)
                guard end > start else { continue }
                if start > position || extent.isPromised { try flush() }
                if clears { try fill(.hole, position..<(extent.isPromised ? end : start)) }
                if extent.isPromised {
                    try fill(.promise, start..<end)
                } else if let last = run, last.upperBound == start,
                    end - last.lowerBound <= StreamRecord.maximumData
                {
                    run = last.lowerBound..<end
                } else {
                    try flush()
                    run = start..<end
                }
                position = end
            }
            if found.count < 256 { break }
        }
        try flush()
        if clears, position < range.upperBound { try fill(.hole, position..<range.upperBound) }
    }

    private func sendData(
        _ inode: InodeNumber, _ range: Range<UInt64>
    ) throws(FSError) {
        let files = new.files
        var position = range.lowerBound
        while position < range.upperBound {
            let count = min(range.upperBound - position, StreamRecord.maximumData)
            let offset = position
            try emit(.data, length: count) { () throws(FSError) in
                // Room for the whole last block lets the file read straight into it.
                let buffer = ByteBuffer(count: Int(count + 4095) & ~4095)
                let got = try files.read(
                    inode, at: offset, into: buffer.bytes.slice(0, Int(count)),
                    keepsAccessTime: true)
                guard got == Int(count) else {
                    throw .corrupt(Corruption(.inode, at: inode.rawValue, "its data ends early"))
                }
                var bytes: [UInt8] = []
                bytes.reserveCapacity(16 + got)
                bytes.append(littleEndian: inode.rawValue)
                bytes.append(littleEndian: offset)
                bytes.append(buffer.view.slice(0, got))
                return bytes
            }
            position += count
        }
    }
}

extension Optional {
    /// `flatMap` that says what it throws.
    fileprivate func flatMap<R, E: Error>(_ body: (Wrapped) throws(E) -> R?) throws(E) -> R? {
        guard let self else { return nil }
        return try body(self)
    }
}
