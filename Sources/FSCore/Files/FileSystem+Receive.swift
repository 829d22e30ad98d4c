/// What a head that is being received needs beyond the verbs of POSIX: inodes of given numbers, records as
/// they were elsewhere, and a place for what has no name for a while.
///
/// Nobody else uses such a head, so inode flags are taken away where they are in the way; the last that
/// is said of each inode is its whole record.
///
/// - Invariant: each of these is one transaction, or several that leave a tree without any finding, and
///   says no more when it is said again: a receive that was cut off goes on a little before its end.
extension FileSystem {
    /// Numbers of received inodes stay below, so that no stream can use up those of a volume.
    package static let receivedInodeLimit: UInt64 = 1 << 47

    /// An inode's record but for what follows from its contents and names.
    package struct ReceivedRecord: Equatable {
        package var mode: UInt32
        package var userID: UInt32
        package var groupID: UInt32
        package var flags: UInt32
        package var projectID: UInt32
        package var changeSequence: UInt64
        /// Access, modification, change and birth.
        package var times: [Timestamp]

        package init(_ record: InodeRecord) {
            mode = record.mode
            userID = record.userID
            groupID = record.groupID
            flags = record.flags
            projectID = record.projectID
            changeSequence = record.changeSequence
            times = [
                record.accessTime, record.modificationTime, record.changeTime, record.birthTime,
            ]
        }

        package init(_ reader: inout ByteReader) throws(FSError) {
            mode = try reader.u32()
            userID = try reader.u32()
            groupID = try reader.u32()
            flags = try reader.u32()
            projectID = try reader.u32()
            changeSequence = try reader.u64()
            times = []
            for _ in 0..<4 {
                let seconds = try reader.i64()
                let nanoseconds = try reader.u32()
                try reader.require(nanoseconds < 1_000_000_000, "nanoseconds of a time")
                times.append(Timestamp(seconds: seconds, nanoseconds: nanoseconds))
            }
            try reader.require(
                FileKind(mode: mode) != nil && mode >> 16 == 0
                    && flags & ~InodeFlags.settable == 0, "mode or flags")
        }

        package func append(to bytes: inout [UInt8]) {
            for field in [mode, userID, groupID, flags, projectID] {
                bytes.append(littleEndian: field)
            }
            bytes.append(littleEndian: changeSequence)
            for time in times {
                bytes.append(littleEndian: time.seconds)
                bytes.append(littleEndian: time.nanoseconds)
            }
        }
    }

    // MARK: Inodes

    /// Whether there is such an inode, with a name.
    package func isPresent(_ inode: InodeNumber) throws(FSError) -> Bool {
        do throws(FSError) { return try record(of: inode).linkCount > 0 } catch .stale {
            return false
        }
    }

    /// An inode of this number under a name that is free. What is there already stays.
    package func receive(
        _ inode: InodeNumber, mode: UInt32, device: DeviceNumber, target: [UInt8],
        as name: [UInt8], in directory: InodeNumber
    ) throws(FSError) {
        if try isPresent(inode) { return }
        try change(directory, inode) { (transaction) throws(FSError) in
            var parent = try directoryRecord(directory)
            let isDirectory = FileKind(mode: mode) == .directory
            var record = InodeRecord(
                mode: mode, userID: 0, groupID: 0, linkCount: isDirectory ? 2 : 1, time: .now())
            record.device = device
            if record.kind == .symbolicLink {
                record.content = .inline
                record.size = UInt64(target.count)
                let first = min(target.count, DiskFormat.maximumValueSize)
                transaction.put(Key(inode, .inlineData, 0), Array(target[..<first]))
                if first < target.count {
                    transaction.put(Key(inode, .inlineData, 1), Array(target[first...]))
                }
            }
            record.parent = directory.rawValue
            record.nameCookie = try name.withView { (name) throws(FSError) in
                try addEntry(
                    name, inode: inode, kind: record.kind, to: directory, transaction)
            }
            if isDirectory { parent.linkCount += 1 }
            parent.size += 1
            transaction.put(inode, record)
            transaction.put(directory, parent)
            transaction.inodeDelta += 1
        }
    }

    /// The record as it was elsewhere. Throws `.invalidArgument` if the inode is of another kind.
    package func settle(_ inode: InodeNumber, _ new: ReceivedRecord) throws(FSError) {
        try change(inode, space: .freeing) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            guard record.kind == FileKind(mode: new.mode) else { throw .invalidArgument }
            record.mode = new.mode
            record.userID = new.userID
            record.groupID = new.groupID
            record.flags = new.flags
            record.projectID = new.projectID
            record.changeSequence = new.changeSequence
            record.accessTime = new.times[0]
            record.modificationTime = new.times[1]
            record.changeTime = new.times[2]
            record.birthTime = new.times[3]
            transaction.put(inode, record)
        }
    }

    /// How the data that follows is to be stored; takes away what keeps the inode from being written.
    package func prepare(
        _ inode: InodeNumber, compression: CompressionSetting, copies: UInt8
    ) throws(FSError) {
        try change(inode, space: .freeing) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            record.flags &= ~(InodeFlags.immutable | InodeFlags.append)
            record.compression = compression
            record.copies = copies
            transaction.put(inode, record)
        }
    }

    func loosen(_ inode: InodeNumber) throws(FSError) {
        let record = try record(of: inode)
        guard record.flags & (InodeFlags.immutable | InodeFlags.append) != 0 else { return }
        try prepare(inode, compression: record.compression, copies: record.copies)
    }

    // MARK: Names

    /// Takes a name from an inode that has it, and keeps the inode under `spare` in another directory.
    package func detach(
        _ name: [UInt8], of inode: InodeNumber, in directory: InodeNumber, spare: [UInt8],
        _ store: InodeNumber
    ) throws(FSError) {
        let found = try name.withView { (name) throws(FSError) in try entry(name, in: directory) }
        guard found?.inode == inode else { return }
        try loosen(directory)
        try loosen(inode)
        let isKept = try spare.withView { (spare) throws(FSError) in
            try entry(spare, in: store) != nil
        }
        try name.withView { (name) throws(FSError) in
            if isKept {
                try unlink(name, in: directory)
            } else {
                try spare.withView { (spare) throws(FSError) in
                    try rename(name, in: directory, to: spare, in: store, [])
                }
            }
        }
    }

    /// Gives a name to an inode; a directory is taken from where it is kept. Throws `.entryExists` if
    /// the name is another's.
    package func attach(
        _ name: [UInt8], to inode: InodeNumber, in directory: InodeNumber, spare: [UInt8],
        _ store: InodeNumber
    ) throws(FSError) {
        let found = try name.withView { (name) throws(FSError) in try entry(name, in: directory) }
        if let found {
            guard found.inode == inode else { throw .entryExists }
            return
        }
        try loosen(directory)
        try loosen(inode)
        let isDirectory = try record(of: inode).isDirectory
        try name.withView { (name) throws(FSError) in
            if isDirectory {
                try spare.withView { (spare) throws(FSError) in
                    try rename(spare, in: store, to: name, in: directory, .noReplace)
                }
            } else {
                _ = try link(inode, as: name, in: directory)
                release(inode, count: 1)
            }
        }
    }

    /// The inode behind a name, without a reference.
    package func entry(named name: ByteView, in directory: InodeNumber) throws(FSError)
        -> InodeNumber?
    {
        try entry(name, in: directory)?.inode
    }

    /// The names in a directory.
    package func names(in directory: InodeNumber) throws(FSError) -> [[UInt8]] {
        var names: [[UInt8]] = []
        try readDirectory(directory, after: 2, withAttributes: false) { (entry, _) in
            names.append(entry.name.toArray())
            return true
        }
        return names
    }

    // MARK: Extended attributes

    /// Sets or removes an attribute as it stood elsewhere: the mode stays out of it.
    package func receiveAttribute(
        _ name: [UInt8], of inode: InodeNumber, _ value: [UInt8]?
    ) throws(FSError) {
        try loosen(inode)
        try change(inode, space: value == nil ? .freeing : .ordinary) {
            (transaction) throws(FSError) in
            var record = try record(of: inode)
            try name.withView { (name) throws(FSError) in
                let present = record.mayHaveAttributes ? try storedAttribute(name, of: inode) : nil
                guard let value else {
                    for key in present?.keys ?? [] { transaction.delete(key) }
                    return
                }
                guard value.count <= DiskFormat.maximumAttributeSize else {
                    throw .attributeTooLarge
                }
                let mode = record.mode
                try value.withView { (value) throws(FSError) in
                    if isACL(name) { _ = try setACL(name, value, of: inode, &record) }
                    record.mode = mode
                    try store(name, value, of: inode, over: present, &record, transaction)
                }
            }
            transaction.put(inode, record)
        }
    }

    /// The value of a stored attribute of any namespace.
    package func receivedAttribute(
        _ name: [UInt8], of inode: InodeNumber
    ) throws(FSError) -> [UInt8]? {
        guard try record(of: inode).mayHaveAttributes else { return nil }
        return try name.withView { (name) throws(FSError) in
            try storedAttribute(name, of: inode)
        }?.value
    }
}
