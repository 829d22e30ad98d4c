/// Copies a file or a directory tree of a snapshot into a head, as new inodes that share its data.
///
/// - Invariant: until an inode has all that it had, nobody but root may use it: no mode, no owner.
/// - Invariant: what is below a directory is done before its record, so that its times stay.
internal import FSCore

struct TreeCopy {
    /// Bytes that are shared between two steps.
    private static let piece: UInt64 = 64 << 20

    private let volume: Volume
    private let origin: FileSystem
    /// Nil: nothing is copied, only counted.
    private let target: FileSystem?
    private let verifies: Bool
    private(set) var summary = RestoreSummary()
    /// Copies of inodes with several names.
    private var copies: [InodeNumber: InodeNumber] = [:]
    private var directories: Set<InodeNumber> = []

    init(_ volume: Volume, from origin: FileSystem, to target: FileSystem?, verifies: Bool) {
        self.volume = volume
        self.origin = origin
        self.target = target
        self.verifies = verifies
    }

    /// A directory whose names are being copied.
    private struct Open {
        let source: InodeNumber
        let copy: InodeNumber
        private var cookie = FileSystem.parentCookie
        private var names: ArraySlice<DirectoryNames.Entry> = []
        private static let page = 512

        init(source: InodeNumber, copy: InodeNumber) {
            self.source = source
            self.copy = copy
        }

        mutating func next(of files: FileSystem) throws(FSError) -> DirectoryNames.Entry? {
            if names.isEmpty {
                var found: [DirectoryNames.Entry] = []
                var last = cookie
                try files.readDirectory(source, after: cookie, withAttributes: false) {
                    (entry, _) in
                    found.append(
                        DirectoryNames.Entry(name: entry.name.toArray(), inode: entry.inode))
                    last = entry.cookie
                    return found.count < Self.page
                }
                cookie = last
                names = found[...]
            }
            return names.popFirst()
        }
    }

    /// - Parameter step: hears how far it is; false ends it with `.interrupted`.
    mutating func run(
        _ source: InodeNumber, as name: [UInt8], in directory: InodeNumber,
        _ step: (RestoreSummary) -> Bool
    ) throws(FSError) {
        summary.kind = try origin.attributes(of: source).kind
        var open: [Open] = []
        try copy(DirectoryNames.Entry(name: name, inode: source), directory, &open, step)
        while var current = open.popLast() {
            guard let entry = try current.next(of: origin) else {
                try finish(current.source, current.copy, isTop: open.isEmpty)
                continue
            }
            open.append(current)
            try copy(entry, current.copy, &open, step)
        }
    }

    private mutating func copy(
        _ entry: DirectoryNames.Entry, _ directory: InodeNumber, _ open: inout [Open],
        _ step: (RestoreSummary) -> Bool
    ) throws(FSError) {
        guard step(summary) else { throw .interrupted }
        let record = try origin.record(of: entry.inode)
        if let known = copies[entry.inode] {
            summary.links += 1
            try target?.attach(entry.name, to: known, in: directory, spare: [], directory)
            return try settle(record, known, isTop: false)
        }
        let copy = try target == nil ? entry.inode : volume.allocateInode()
        if record.isDirectory {
            guard directories.insert(entry.inode).inserted else {
                throw .corrupt(
                    Corruption(.directory, at: entry.inode.rawValue, "it has several names"))
            }
        } else if record.linkCount > 1 {
            copies[entry.inode] = copy
        }
        try target?.receive(
            copy, mode: record.mode & ModeBits.kind, device: record.device,
            target: record.kind == .symbolicLink
                ? origin.symbolicLinkTarget(of: entry.inode) : [],
            as: entry.name, in: directory)
        if record.isDirectory || record.kind == .regular {
            try target?.prepare(copy, compression: record.compression, copies: record.copies)
        }
        switch record.kind {
        case .directory:
            summary.directories += 1
            return open.append(Open(source: entry.inode, copy: copy))
        case .regular:
            summary.files += 1
            try copyData(entry.inode, record.size, copy, step)
        default: summary.others += 1
        }
        try finish(entry.inode, copy, isTop: open.isEmpty)
    }

    private mutating func copyData(
        _ source: InodeNumber, _ size: UInt64, _ copy: InodeNumber,
        _ step: (RestoreSummary) -> Bool
    ) throws(FSError) {
        var changes = AttributeChanges()
        changes.size = size
        _ = try target?.setAttributes(of: copy, changes)
        var position: UInt64 = 0
        while position < size {
            do throws(FSError) {
                position = try origin.nextData(source, from: position)
            } catch .noDataBeyond { break }
            let end = try origin.nextHole(source, from: position)
            while position < end {
                let count = min(end - position, Self.piece)
                if let target {
                    let got = try target.copyRange(
                        from: source, of: origin, at: position, to: copy, at: position,
                        count: count)
                    guard got == count else {
                        throw .corrupt(Corruption(.extent, at: source.rawValue, "cut short"))
                    }
                }
                position += count
                summary.bytes += count
                guard step(summary) else { throw .interrupted }
            }
        }
        if verifies, let target, try !isReadable(copy, size, target, step) {
            summary.unreadable += 1
        }
    }

    /// Whether every byte of the copy has its sum.
    private func isReadable(
        _ copy: InodeNumber, _ size: UInt64, _ target: FileSystem,
        _ step: (RestoreSummary) -> Bool
    ) throws(FSError) -> Bool {
        let buffer = ByteBuffer(count: 1 << 20)
        var position: UInt64 = 0
        while position < size {
            guard step(summary) else { throw .interrupted }
            do throws(FSError) { position = try target.nextData(copy, from: position) } catch {
                if case .noDataBeyond = error { return true }
                throw error
            }
            do throws(FSError) {
                let count = try target.read(
                    copy, at: position, into: buffer.bytes, keepsAccessTime: true)
                position += UInt64(count)
            } catch .corrupt { return false } catch {
                if case .device = error { return false }
                throw error
            }
        }
        return true
    }

    /// Attributes and the record of what has its contents.
    private mutating func finish(
        _ source: InodeNumber, _ copy: InodeNumber, isTop: Bool
    ) throws(FSError) {
        let record = try origin.record(of: source)
        if let target {
            for name in try origin.extendedAttributeNames(of: source).split(separator: 0) {
                let name = Array(name)
                try target.receiveAttribute(
                    name, of: copy, try origin.receivedAttribute(name, of: source))
            }
        }
        try settle(record, copy, isTop: isTop)
    }

    /// - Parameter isTop: flags that would keep it from being renamed are left to the caller.
    private mutating func settle(
        _ record: InodeRecord, _ copy: InodeNumber, isTop: Bool
    ) throws(FSError) {
        let fixed = InodeFlags.immutable | InodeFlags.append
        if isTop { summary.fixedFlags = record.flags & fixed }
        guard let target else { return }
        var new = FileSystem.ReceivedRecord(record)
        if isTop { new.flags &= ~fixed }
        // It is a new inode; only what a user can set is as it was.
        let now = Timestamp.now()
        new.times[2] = now
        new.times[3] = now
        new.changeSequence = try target.record(of: copy).changeSequence + 1
        try target.settle(copy, new)
    }
}
