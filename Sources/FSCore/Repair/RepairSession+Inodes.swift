/// Inodes: their records, and a place in lost+found for those that nothing names.
extension RepairSession {
    private static let directoryName = Array("lost+found".utf8)

    private func record(of inode: UInt64, _ tree: TreeID) throws(FSError) -> InodeRecord {
        try files(tree).record(of: InodeNumber(inode))
    }

    func set(_ field: Remedy.InodeField, of inode: UInt64, _ tree: TreeID) throws(FSError) {
        var record = try record(of: inode, tree)
        var inlineKeys: [Key] = []
        switch field {
        case .links(let count): record.linkCount = count
        case .blocks(let count): record.blocks = count
        case .size(let size): record.size = size
        case .hasAttributes: record.mayHaveAttributes = true
        case .inlineSize(let size):
            let hasExtents = try !keys(of: inode, .extent, tree).isEmpty
            if record.content == .inline, size < record.size {
                if size == 0, !hasExtents { return try loseInlineData(inode, record, tree) }
                lose(.data, inode, tree, bytes: record.size - size)
            }
            if !hasExtents, size <= Self.inlineLimit(record.kind) {
                record.content = .inline
                record.size = size
            } else {
                inlineKeys = try keys(of: inode, .inlineData, tree)
                record.content = .extents
            }
        }
        try change(tree) { (transaction) in
            for key in inlineKeys { transaction.delete(key) }
            transaction.put(InodeNumber(inode), record)
        }
    }

    /// How much of an inode of this kind can be inside the tree.
    private static func inlineLimit(_ kind: FileKind) -> UInt64 {
        switch kind {
        case .regular: UInt64(DiskFormat.maximumInlineSize)
        case .symbolicLink: UInt64(DiskFormat.maximumSymbolicLinkLength)
        default: 0
        }
    }

    func deleteInode(_ inode: UInt64, _ tree: TreeID) throws(FSError) {
        lose(.file, inode, tree)
        var found: [Key] = []
        try scan(
            tree, Key(inode, ItemType(rawValue: 0), 0)...Key(inode, ItemType(rawValue: .max), .max)
        ) { (key, _) in found.append(key) }
        for start in stride(from: 0, to: found.count, by: FileSystem.reclaimBatch) {
            try change(tree) { (transaction) in
                for key in found[start..<min(start + FileSystem.reclaimBatch, found.count)] {
                    transaction.delete(key)
                }
            }
        }
    }

    // MARK: Records that are lost

    /// What an inode's other items say of it.
    private struct Evidence {
        var entries: UInt64 = 0
        var inlineBytes: UInt64 = 0
        var blocks: UInt64 = 0
        var end: UInt64 = 0
        var hasAttributes = false
    }

    /// A record from what is left of the old one, as far as that can be, and from the other items.
    /// Links and names are set right when the next check has seen it.
    func rebuildInode(_ inode: UInt64, _ tree: TreeID) throws(FSError) {
        var evidence = Evidence()
        let layout = volume.layout
        try scan(
            tree, Key(inode, .inode, 1)...Key(inode, ItemType(rawValue: .max), .max)
        ) { (key, value) in
            switch key.type {
            case .inlineData: evidence.inlineBytes += UInt64(value.count)
            case .attribute: evidence.hasAttributes = true
            case .directoryEntry:
                try? DirectoryRecord.forEach(value, directory: inode) { _ in
                    evidence.entries += 1
                    return true
                }
            case .extent:
                guard
                    let extent = try? ExtentRecord(decoding: value, inode: inode, layout: layout)
                else { return }
                evidence.blocks += extent.heldBlocks
                let end = key.offset.addingReportingOverflow(UInt64(extent.blocks) << 12)
                if !end.overflow { evidence.end = max(evidence.end, end.partialValue) }
            default: break
            }
        }
        let old = try value(Key(inode, .inode, 0), tree) ?? []
        let record = old.withView { Self.record(inode, evidence, old: $0) }
        try change(tree) { (transaction) in
            transaction.put(InodeNumber(inode), record)
        }
        lose(.record, inode, tree)
        if old.isEmpty { rebuiltInodes[tree, default: 0] += 1 }
    }

    private static func record(_ inode: UInt64, _ evidence: Evidence, old: ByteView) -> InodeRecord
    {
        let isOld = old.count == InodeRecord.byteCount
        let oldMode = isOld ? old.u32(4) : 0
        let isModeGood = oldMode >> 16 == 0 && FileKind(mode: oldMode) != nil
        var kind = isModeGood ? FileKind(mode: oldMode) ?? .regular : .regular
        if inode == InodeNumber.root.rawValue || evidence.entries > 0 { kind = .directory }
        if kind == .symbolicLink, evidence.inlineBytes == 0 { kind = .regular }
        let permissions =
            isModeGood ? oldMode & ModeBits.permissions : kind == .directory ? 0o700 : 0o600
        var record = InodeRecord(
            mode: kind.modeBits | permissions, userID: isOld ? old.u32(8) : 0,
            groupID: isOld ? old.u32(12) : 0, linkCount: 1, time: .now())
        if isOld, old.u32(16) > 0 { record.linkCount = old.u32(16) }
        if isOld, kind == .characterDevice || kind == .blockDevice {
            record.device = DeviceNumber(major: old.u32(28), minor: old.u32(32))
        }
        if isOld {
            func time(_ index: Int, _ now: Timestamp) -> Timestamp {
                let nanoseconds = old.u32(96 + 4 * index)
                guard nanoseconds < 1_000_000_000 else { return now }
                return Timestamp(
                    seconds: Int64(bitPattern: old.u64(64 + 8 * index)), nanoseconds: nanoseconds)
            }
            record.accessTime = time(0, record.accessTime)
            record.modificationTime = time(1, record.modificationTime)
            record.birthTime = time(3, record.birthTime)
        }
        record.mayHaveAttributes = evidence.hasAttributes
        record.mayHaveDefaultACL = evidence.hasAttributes && kind == .directory
        record.blocks = evidence.blocks
        let oldSize = isOld ? old.u64(40) : 0
        if kind == .directory {
            record.size = evidence.entries
        } else if evidence.inlineBytes > 0, evidence.blocks == 0,
            evidence.inlineBytes <= inlineLimit(kind)
        {
            record.content = .inline
            record.size = evidence.inlineBytes
        } else if kind == .regular {
            record.size =
                oldSize > 0 && oldSize <= DiskFormat.maximumFileSize
                ? oldSize : evidence.end
        }
        return record
    }

    // MARK: lost+found

    /// The directory for what has no name, made if there is none.
    private func salvageDirectory(_ tree: TreeID) throws(FSError) -> InodeNumber {
        let files = try files(tree)
        for number in 0..<16 {
            let name = Self.directoryName + (number == 0 ? [] : Array(".\(number)".utf8))
            let found = try name.withView { (name) throws(FSError) in
                try files.entry(name, in: .root)
            }
            guard let found else { return try makeSalvageDirectory(name, tree, files) }
            if let record = try? files.record(of: found.inode), record.isDirectory {
                return found.inode
            }
        }
        throw .entryExists
    }

    private func makeSalvageDirectory(
        _ name: [UInt8], _ tree: TreeID, _ files: FileSystem
    ) throws(FSError) -> InodeNumber {
        let inode = try volume.allocateInode()
        try change(tree) { (transaction) throws(FSError) in
            var root = try files.record(of: .root)
            var record = InodeRecord(
                mode: FileKind.directory.modeBits | 0o700, userID: 0, groupID: 0, linkCount: 2,
                time: .now())
            record.parent = InodeNumber.root.rawValue
            record.nameCookie = try name.withView { (name) throws(FSError) in
                try files.addEntry(name, inode: inode, kind: .directory, to: .root, transaction)
            }
            root.linkCount += 1
            root.size += 1
            transaction.put(inode, record)
            transaction.put(.root, root)
            transaction.inodeDelta += 1
        }
        return inode
    }

    /// Gives an inode its only name.
    func attach(_ inode: InodeNumber, _ tree: TreeID, name: String? = nil) throws(FSError) {
        let directory = try salvageDirectory(tree)
        let files = try files(tree)
        let links = try keys(of: inode.rawValue, .link, tree)
        try change(tree) { (transaction) throws(FSError) in
            var record = try files.record(of: inode)
            var parent = try files.record(of: directory)
            var cookie: UInt64?
            for number in 0..<64 where cookie == nil {
                let text = (name ?? "#\(inode.rawValue)") + (number == 0 ? "" : ".\(number)")
                cookie = try Array(text.utf8).withView { (text) throws(FSError) in
                    guard try files.entry(text, in: directory) == nil else { return nil }
                    return try files.addEntry(
                        text, inode: inode, kind: record.kind, to: directory, transaction)
                }
            }
            guard let cookie else { throw .entryExists }
            for key in links { transaction.delete(key) }
            record.parent = directory.rawValue
            record.nameCookie = cookie
            if !record.isDirectory { record.linkCount = 1 }
            parent.size += 1
            if record.isDirectory { parent.linkCount += 1 }
            transaction.put(inode, record)
            transaction.put(directory, parent)
            transaction.delete(Key(0, .orphan, inode.rawValue))
        }
        salvagedInodes += 1
    }
}
