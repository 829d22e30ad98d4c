/// read(2), SEEK_DATA and SEEK_HOLE.
extension FileSystem {
    /// Fills `target` from `offset` on; returns how many bytes, fewer than asked for only at the
    /// end of the file. `keepsAccessTime` is for a file that was opened with O_NOATIME.
    public func read(
        _ inode: InodeNumber, at offset: UInt64, into target: MutableByteView,
        keepsAccessTime: Bool = false
    ) throws(FSError) -> Int {
        let (count, record) = try locks.shared(inode) { () throws(FSError) -> (Int, InodeRecord) in
            let record = try self.record(of: inode)
            guard !record.isDirectory else { throw .isDirectory }
            guard record.kind == .regular else { throw .invalidArgument }
            guard offset < record.size else { return (0, record) }
            let count = Int(min(UInt64(target.count), record.size - offset))
            if record.content == .inline {
                try readInline(inode, record, Int(offset), target.slice(0, count))
            } else {
                try readExtents(inode, offset, target, count)
            }
            return (count, record)
        }
        if count > 0, !keepsAccessTime { noteAccess(inode, record) }
        return count
    }

    private func readInline(
        _ inode: InodeNumber, _ record: InodeRecord, _ offset: Int, _ target: MutableByteView
    ) throws(FSError) {
        let bytes = try inlineBytes(inode, record)
        bytes.withView { target.copy($0.slice(offset, target.count)) }
    }

    /// The contents of a small file.
    func inlineBytes(_ inode: InodeNumber, _ record: InodeRecord) throws(FSError) -> [UInt8] {
        guard record.size > 0 else { return [] }
        let bytes = try value(Key(inode, .inlineData)) { $0.toArray() }
        guard let bytes, bytes.count == Int(record.size) else {
            throw .corrupt(
                Corruption(.inode, at: inode.rawValue, "inline data has the wrong length"))
        }
        return bytes
    }

    /// Reads `count` bytes: whole blocks straight into the target, the ragged ends by way of a
    /// block of our own.
    private func readExtents(
        _ inode: InodeNumber, _ offset: UInt64, _ target: MutableByteView, _ count: Int
    ) throws(FSError) {
        var position = offset
        let end = offset + UInt64(count)
        while position < end {
            let within = Int(position & 4095)
            let done = Int(position - offset)
            // The last block may be read in full if the target has the room for it.
            let wanted = min(target.count - done, Int(blocks(covering: end - position)) << 12)
            if within == 0, wanted >= DiskFormat.blockSize {
                let whole = wanted & ~4095
                try fileMap.readBlocks(inode, position >> 12, into: target.slice(done, whole))
                position += UInt64(whole)
            } else {
                let block = ByteBuffer(count: DiskFormat.blockSize)
                try fileMap.readBlocks(inode, position >> 12, into: block.bytes)
                let part = min(DiskFormat.blockSize - within, Int(end - position))
                target.copy(block.view.slice(within, part), at: done)
                position += UInt64(part)
            }
        }
    }

    /// Whether each read has to be seen (`strictatime`).
    public var countsEveryAccess: Bool { volume.options.accessTime == .strict }

    /// Updates the access time as the mount asks for. A failure is nobody's business: access times
    /// are outside of every promise.
    func noteAccess(_ inode: InodeNumber, _ record: InodeRecord) {
        let now = Timestamp.now()
        switch volume.options.accessTime {
        case .none: return
        case .strict: break
        case .relative:
            let day: Int64 = 86400
            guard
                record.accessTime <= record.modificationTime
                    || record.accessTime <= record.changeTime
                    || record.accessTime.seconds <= now.seconds - day
            else { return }
        }
        guard record.flags & InodeFlags.noAccessTime == 0,
            (try? requireWritable()) != nil
        else { return }
        try? change(inode) { (transaction) throws(FSError) in
            var record = try self.record(of: inode)
            record.accessTime = now
            transaction.put(inode, record)
        }
    }

    /// lseek(2), SEEK_DATA: the next byte from `offset` on that is not in a hole. Promised space
    /// is a hole.
    public func nextData(_ inode: InodeNumber, from offset: UInt64) throws(FSError) -> UInt64 {
        try seek(inode, offset) { (record) throws(FSError) in
            if record.content == .inline { return offset }
            var block = offset >> 12
            while true {
                guard
                    let extent = try fileMap.extents(inode, block..<(1 << 52), limit: 1).first
                else { throw .noDataBeyond }
                if extent.record.kind == .data {
                    let found = max(extent.block << 12, offset)
                    guard found < record.size else { throw .noDataBeyond }
                    return found
                }
                block = extent.end
            }
        }
    }

    /// lseek(2), SEEK_HOLE: the next byte from `offset` on in a hole; there is one at the end.
    public func nextHole(_ inode: InodeNumber, from offset: UInt64) throws(FSError) -> UInt64 {
        try seek(inode, offset) { (record) throws(FSError) in
            if record.content == .inline { return record.size }
            var position = offset
            while position < record.size {
                let block = position >> 12
                guard
                    let extent = try fileMap.extents(inode, block..<block + 1, limit: 1).first,
                    extent.record.kind == .data
                else { return position }
                position = extent.end << 12
            }
            return record.size
        }
    }

    private func seek(
        _ inode: InodeNumber, _ offset: UInt64,
        _ body: (InodeRecord) throws(FSError) -> UInt64
    ) throws(FSError) -> UInt64 {
        try locks.shared(inode) { () throws(FSError) in
            let record = try record(of: inode)
            guard record.kind == .regular else { throw .invalidArgument }
            guard offset < record.size else { throw .noDataBeyond }
            return try body(record)
        }
    }
}
