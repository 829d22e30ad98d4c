/// write(2) and truncate(2).
internal import Synchronization

extension FileSystem {
    /// Writes all of `source` at `offset`, growing the file if need be; returns its length.
    public func write(
        _ inode: InodeNumber, at offset: UInt64, _ source: ByteView, by user: OrdinaryUser? = nil
    ) throws(FSError) -> Int {
        guard source.count > 0 else { return 0 }
        guard offset <= DiskFormat.maximumFileSize,
            UInt64(source.count) <= DiskFormat.maximumFileSize - offset
        else { throw .fileTooLarge }
        var isShared = false
        let count = try changeData(inode) { (record, transaction) throws(FSError) in
            try requireWritable(record, from: offset)
            isShared = deduplicates(record)
            let end = offset + UInt64(source.count)
            if isInline(record), max(end, record.size) <= UInt64(DiskFormat.maximumInlineSize) {
                try writeInline(inode, &record, Int(offset), source, transaction)
            } else {
                try moveOut(inode, &record, transaction, before: offset >> 12)
                try writeExtents(inode, &record, offset, source, transaction)
            }
            record.size = max(record.size, end)
            if let user {
                if dropPrivileges(&record, by: user) { transaction.unprivileged = inode }
                try dropCapability(of: inode, record, transaction)
            }
            record.noteModified(.now())
            return source.count
        }
        volume.device.counters.acceptedBytes.add(UInt64(count), ordering: .relaxed)
        if isShared {
            shareWritten(inode, offset >> 12..<blocks(covering: offset + UInt64(count)))
        }
        return count
    }

    /// The frame of data changes: a regular file, whose record is stored at the end.
    func changeData<R>(
        _ inode: InodeNumber, space: SpaceClass = .ordinary,
        _ body: (inout InodeRecord, Transaction) throws(FSError) -> R
    ) throws(FSError) -> R {
        try change(inode, space: space) { (transaction) throws(FSError) in
            var record = try record(of: inode)
            guard !record.isDirectory else { throw .isDirectory }
            guard record.kind == .regular else { throw .invalidArgument }
            let result = try body(&record, transaction)
            transaction.put(inode, record)
            return result
        }
    }

    /// Immutable files are not written; append-only ones only behind their end.
    func requireWritable(_ record: InodeRecord, from offset: UInt64) throws(FSError) {
        if record.flags & InodeFlags.immutable != 0 { throw .notPermitted }
        if record.flags & InodeFlags.append != 0, offset < record.size { throw .notPermitted }
    }

    // MARK: Small files

    /// Whether the contents lie in the tree, or could: an empty file has no place yet.
    private func isInline(_ record: InodeRecord) -> Bool {
        record.content == .inline || (record.size == 0 && record.blocks == 0)
    }

    private func writeInline(
        _ inode: InodeNumber, _ record: inout InodeRecord, _ offset: Int, _ source: ByteView,
        _ transaction: Transaction
    ) throws(FSError) {
        var bytes = record.content == .inline ? try inlineBytes(inode, record) : []
        if bytes.count < offset + source.count {
            bytes += [UInt8](repeating: 0, count: offset + source.count - bytes.count)
        }
        unsafe bytes.replaceSubrange(offset..<offset + source.count, with: source.unsafeBytes)
        record.content = .inline
        transaction.put(Key(inode, .inlineData), bytes)
    }

    /// Moves the contents of a small file to a block of its own. A write into that very block
    /// (`before` = 0) would write it at once again; it is left to `writeExtents`, which asks
    /// `oldBlock`.
    func moveOut(
        _ inode: InodeNumber, _ record: inout InodeRecord, _ transaction: Transaction,
        before firstBlock: UInt64 = .max
    ) throws(FSError) {
        guard record.content == .inline else { return }
        if firstBlock > 0, record.size > 0 {
            let block = ByteBuffer(count: DiskFormat.blockSize)
            try inlineBytes(inode, record).withView { block.bytes.copy($0) }
            try fileMap.writeBlocks(inode, 0, block.view, &record, transaction)
            record.content = .extents
        }
        if record.size > 0 { transaction.delete(Key(inode, .inlineData)) }
        if record.size == 0 || firstBlock > 0 { record.content = .extents }
    }

    // MARK: Extents

    private func writeExtents(
        _ inode: InodeNumber, _ record: inout InodeRecord, _ offset: UInt64, _ source: ByteView,
        _ transaction: Transaction
    ) throws(FSError) {
        let end = offset + UInt64(source.count)
        let first = offset >> 12
        let last = (end - 1) >> 12
        // What comes before in the same encoded extent.
        let prefix = try fileMap.blocksToEncodeAgain(inode, record, first...last, growingTo: end)
        if prefix == 0, offset & 4095 == 0, end & 4095 == 0 {
            record.content = .extents
            try fileMap.writeBlocks(inode, first, source, &record, transaction)
            return
        }
        // Ragged ends: the rest of the first and last block is what was there before.
        let staged = ByteBuffer(count: Int(last - first + 1 + prefix) << 12)
        if prefix > 0 {
            try fileMap.readBlocks(
                inode, first - prefix, into: staged.bytes.slice(0, Int(prefix) << 12))
        }
        if offset & 4095 != 0 {
            try oldBlock(
                inode, record, first,
                staged.bytes.slice(Int(prefix) << 12, DiskFormat.blockSize))
        }
        if end & 4095 != 0, end < record.size, last > first || offset & 4095 == 0 {
            try oldBlock(
                inode, record, last,
                staged.bytes.slice(staged.count - DiskFormat.blockSize, DiskFormat.blockSize))
        }
        staged.bytes.copy(source, at: Int(prefix) << 12 + Int(offset & 4095))
        record.content = .extents
        try fileMap.writeBlocks(inode, first - prefix, staged.view, &record, transaction)
    }

    /// A block as it is before the running write.
    private func oldBlock(
        _ inode: InodeNumber, _ record: InodeRecord, _ block: UInt64, _ target: MutableByteView
    ) throws(FSError) {
        if record.content == .inline {
            target.zeroAll()
            guard block == 0 else { return }
            try inlineBytes(inode, record).withView { target.copy($0) }
        } else if block << 12 < record.size {
            try fileMap.readBlocks(inode, block, into: target)
        } else {
            target.zeroAll()
        }
    }

    // MARK: Truncate

    /// Sets the size. Bytes that come into being are zeros; bytes behind the end are gone at once,
    /// their blocks in as many transactions as it takes.
    func truncate(
        _ inode: InodeNumber, to size: UInt64, by user: OrdinaryUser? = nil
    ) throws(FSError) {
        guard size <= DiskFormat.maximumFileSize else { throw .fileTooLarge }
        let isDone = try changeData(inode, space: .freeing) {
            (record, transaction) throws(FSError) in
            let fixed = InodeFlags.immutable | InodeFlags.append
            guard record.flags & fixed == 0 else { throw .notPermitted }
            var isDone = true
            if record.content == .inline {
                if size > UInt64(DiskFormat.maximumInlineSize) {
                    try moveOut(inode, &record, transaction)
                } else if size != record.size {
                    var bytes = try inlineBytes(inode, record)
                    bytes = Array(bytes.prefix(Int(size)))
                    bytes += [UInt8](repeating: 0, count: Int(size) - bytes.count)
                    if size == 0 {
                        transaction.delete(Key(inode, .inlineData))
                        record.content = .extents
                    } else {
                        transaction.put(Key(inode, .inlineData), bytes)
                    }
                }
            } else if size <= record.size, size > 0 || record.blocks > 0 {
                // Also at the same size: space beyond the end (fallocate, KEEP_SIZE) goes.
                isDone = try cut(inode, &record, from: size, zeroingTail: true, transaction)
                if !isDone, !orphans.contains(inode) { addOrphan(inode, transaction) }
            }
            record.size = size
            if let user {
                dropPrivileges(&record, by: user)
                try dropCapability(of: inode, record, transaction)
            }
            record.noteModified(.now())
            return isDone
        }
        if !isDone { try finishCut(inode) }
    }

    /// Releases blocks behind `size`, as many as one transaction takes; true if that was all. With
    /// `zeroingTail` the part of the last block behind the end is zeroed too.
    func cut(
        _ inode: InodeNumber, _ record: inout InodeRecord, from size: UInt64,
        zeroingTail: Bool = false, _ transaction: Transaction
    ) throws(FSError) -> Bool {
        var first = blocks(covering: size)
        var tail: [FileMap.Extent] = []
        if zeroingTail, let block = try zeroedBlock(inode, size >> 12, from: Int(size & 4095)) {
            first = size >> 12
            tail = try fileMap.store(first, block.view, record, .freeing, transaction)
        }
        let (found, isAll) = try batch(inode, first..<(1 << 52))
        let end = max(found.last?.end ?? first, first + UInt64(tail.count))
        try fileMap.replace(inode, first..<end, found, with: tail, &record, transaction, .freeing)
        return isAll
    }

    /// A block with its bytes from `within` on zeroed; nil if nothing changes by that.
    func zeroedBlock(
        _ inode: InodeNumber, _ block: UInt64, from within: Int, count: Int? = nil
    ) throws(FSError) -> ByteBuffer? {
        let count = count ?? DiskFormat.blockSize - within
        guard within > 0 || count < DiskFormat.blockSize,
            let extent = try fileMap.extents(inode, block..<block + 1).first,
            extent.record.kind == .data
        else { return nil }
        let bytes = ByteBuffer(count: DiskFormat.blockSize)
        try fileMap.readBlocks(inode, block, into: bytes.bytes)
        guard !bytes.view.slice(within, count).isAllZero else { return nil }
        bytes.bytes.zero(within, count)
        return bytes
    }

    /// The rest of a truncate that was too large for one transaction. The inode is on the orphan
    /// list until it is done.
    private func finishCut(_ inode: InodeNumber) throws(FSError) {
        var isDone = false
        while !isDone {
            isDone = try changeData(inode, space: .emergency) {
                (record, transaction) throws(FSError) in
                guard orphans.contains(inode), record.linkCount > 0 else { return true }
                let isDone = try cut(inode, &record, from: record.size, transaction)
                if isDone { removeOrphan(inode, transaction) }
                return isDone
            }
        }
    }
}
