/// Makes a snapshot of a stream (`docs/STREAM.md`), in a head of its own that nobody sees otherwise.
///
/// Names that go, or come to where another was, wait in a directory of their own at the root: so names can
/// be exchanged and directories turned upside down in any order. It is gone when the stream is through
/// with the names.
///
/// - Invariant: each record leaves a volume without any finding, also when it is the last that arrives.
/// - Invariant: what a record says is done before the note that it is; saying it again changes nothing.
public import FSCore

public final class StreamReceiver {
    public struct Summary: Equatable, Sendable {
        public var name: [UInt8] = []
        public var records: UInt64 = 0
        public var dataBytes: UInt64 = 0
        /// The records that were there from before.
        public var skipped: UInt64 = 0
    }
    /// Fills what it can of its argument; 0 at the end of the stream.
    public typealias Source = (MutableByteView) throws(StreamError) -> Int

    private let store: Snapshots
    private var reader: StreamReader
    private let begin: StreamBegin
    private var summary = Summary()
    private let node: UInt64
    private let files: FileSystem
    /// Where names wait, and what it is called.
    private var spare: InodeNumber?
    private let spareName: [UInt8]

    /// Work between two notes of how far it is.
    private static let recordsPerNote: UInt64 = 512
    private static let bytesPerNote: UInt64 = 16 << 20

    /// - Parameter name: of the snapshot; nil takes the one that it had.
    public static func run(
        _ store: Snapshots, name: [UInt8]? = nil, from source: @escaping Source
    ) throws(StreamError) -> Summary {
        var reader = StreamReader(source)
        reader.verifies = !store.volume.brokenRules.contains(.streamUnverified)
        let first = try reader.read()
        let begin: StreamBegin
        do throws(FSError) {
            begin = try first.payload.withView { (view) throws(FSError) in try StreamBegin(view) }
        } catch { throw .damaged(record: 0, error.description) }
        reader.skip(to: begin.first)
        if let there = store.identified(begin.snapshot, .snapshot)?.label {
            throw .alreadyReceived(name: there.name)
        }
        if let base = begin.base, store.base(base) == nil {
            throw .wrongBase(base)
        }
        var label = begin.label
        label.name = name ?? label.name
        if store.node(named: label.name) != nil { throw .nameTaken(label.name) }
        if begin.first > 1, store.identified(begin.snapshot, .head) == nil {
            throw .wrongPlace(first: begin.first, expected: 1)
        }
        guard store.beginReceiving(begin.snapshot) else { throw .isRunning }
        defer { store.endReceiving(begin.snapshot) }
        let receiver: StreamReceiver
        do throws(FSError) {
            receiver = try StreamReceiver(store, reader, begin, name: label.name)
        } catch { throw .file(error) }
        store.pin(id: receiver.node)
        defer { store.unpin(receiver.node) }
        return try receiver.receive(label)
    }

    private init(
        _ store: Snapshots, _ reader: StreamReader, _ begin: StreamBegin, name: [UInt8]
    ) throws(FSError) {
        self.store = store
        self.reader = reader
        self.begin = begin
        let head = try store.headToReceive(begin, name: name)
        node = head.node.record.id
        files = head.files
        spareName = Array(".aegisfs-receive-\(begin.snapshot)".utf8)
    }

    private func receive(_ label: SnapshotLabel) throws(StreamError) -> Summary {
        let start: UInt64
        do throws(FSError) {
            start = try Snapshots.progress(of: files)
            spare = try spareName.withView { (name) throws(FSError) in
                try files.entry(named: name, in: .root)
            }
        } catch { throw .file(error) }
        guard begin.first <= start else {
            throw .wrongPlace(first: begin.first, expected: start)
        }
        summary.name = label.name
        var noted = start
        var notedBytes: UInt64 = 0
        do throws(StreamError) {
            while true {
                let record = try reader.read()
                summary.records += 1
                guard record.number >= start else {
                    summary.skipped += 1
                    continue
                }
                let change = try StreamChange(
                    record, below: begin.inodeBound, reserved: spareName)
                if case .end(let count) = change {
                    try finish(record, count, label)
                    return summary
                }
                try carryOut(change, record)
                if record.number + 1 - noted >= Self.recordsPerNote || record.kind == .settle
                    || summary.dataBytes - notedBytes >= Self.bytesPerNote
                {
                    try note(record.number + 1)
                    noted = record.number + 1
                    notedBytes = summary.dataBytes
                }
            }
        } catch {
            // So that it goes on right here. It is the stream's error that is told.
            if reader.next > noted, case .damaged = error { try? note(lastDone + 1) }
            if reader.next > noted, case .cut = error { try? note(lastDone + 1) }
            throw error
        }
    }

    private var lastDone: UInt64 = 0

    private func note(_ next: UInt64) throws(StreamError) {
        do throws(FSError) {
            try Snapshots.note(next, in: files)
            try store.volume.synchronize()
        } catch { throw .file(error) }
    }

    private func finish(
        _ record: StreamRecord, _ count: UInt64, _ label: SnapshotLabel
    ) throws(StreamError) {
        guard count == record.number else {
            throw .damaged(record: record.number, "records are missing")
        }
        do throws(FSError) {
            // The note goes, and the root directory is as the stream said at last.
            let root = FileSystem.ReceivedRecord(try files.record(of: .root))
            try Snapshots.note(nil, in: files)
            try files.settle(.root, root)
            try store.finishReceiving(node, as: label, created: begin.created)
            try store.volume.synchronize()
        } catch { throw translate(error, record) }
    }

    /// What makes no sense on this head is the stream's fault; all else is the volume's.
    private func translate(_ error: FSError, _ record: StreamRecord) -> StreamError {
        switch error {
        case .noSuchEntry, .entryExists, .notDirectory, .isDirectory, .directoryNotEmpty,
            .nameTooLong, .tooManyLinks, .invalidArgument, .fileTooLarge, .noSuchAttribute,
            .attributeTooLarge, .notPermitted, .accessDenied, .notSupported, .stale,
            .crossDevice, .noDataBeyond:
            .damaged(record: record.number, "it does not fit what is there: \(error)")
        default: .file(error)
        }
    }

    // MARK: Records

    private func carryOut(
        _ change: StreamChange, _ record: StreamRecord
    ) throws(StreamError) {
        do throws(FSError) { try carryOut(change) } catch { throw translate(error, record) }
        lastDone = record.number
    }

    private func carryOut(_ change: StreamChange) throws(FSError) {
        switch change {
        case .inode(let node):
            try files.receive(
                node.inode, mode: node.mode, device: node.device, target: node.target,
                as: Self.waitingName(node.inode), in: try spareDirectory())
        case .detach(let name):
            try files.detach(
                name.name, of: name.inode, in: name.directory,
                spare: Self.waitingName(name.inode), try spareDirectory())
        case .attach(let name):
            try files.attach(
                name.name, to: name.inode, in: name.directory,
                spare: Self.waitingName(name.inode), try spareDirectory())
        case .settle: try settleNames()
        case .content(let content):
            try files.prepare(
                content.inode, compression: content.compression, copies: content.copies)
            guard try !files.record(of: content.inode).isDirectory else { return }
            var changes = AttributeChanges()
            changes.size = content.size
            _ = try files.setAttributes(of: content.inode, changes)
        case .hole(let space):
            try files.allocate(
                space.inode, at: space.offset, count: space.count, [.punchHole, .keepSize])
        case .promise(let space):
            try files.allocate(space.inode, at: space.offset, count: space.count, .keepSize)
        case .data(let data):
            _ = try files.write(data.inode, at: data.offset, data.bytes.view)
            summary.dataBytes += UInt64(data.bytes.count)
        case .attribute(let attribute):
            try files.receiveAttribute(attribute.name, of: attribute.inode, attribute.value)
        case .record(let inode, let new): try files.settle(inode, new)
        case .end: break
        }
    }

    // MARK: Names that wait

    private static func waitingName(_ inode: InodeNumber) -> [UInt8] {
        Array(String(inode.rawValue, radix: 16).utf8)
    }

    private func spareDirectory() throws(FSError) -> InodeNumber {
        if let spare { return spare }
        let made = try spareName.withView { (name) throws(FSError) in
            try files.create(name, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o700))
        }
        files.release(made.inode, count: 1)
        spare = made.inode
        return made.inode
    }

    /// What was given no name goes, and so does the place where it waited.
    private func settleNames() throws(FSError) {
        guard let spare else { return }
        for name in try files.names(in: spare) {
            let attributes = try name.withView { (name) throws(FSError) in
                try files.lookup(name, in: spare)
            }
            files.release(attributes.inode, count: 1)
            try name.withView { (name) throws(FSError) in
                if attributes.kind == .directory {
                    try files.removeDirectory(name, in: spare)
                } else {
                    try files.unlink(name, in: spare)
                }
            }
        }
        try spareName.withView { (name) throws(FSError) in
            try files.removeDirectory(name, in: .root)
        }
        self.spare = nil
    }
}
