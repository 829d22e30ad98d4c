/// copy_file_range(2): shares whole blocks, copies the rest.
extension FileSystem {
    /// Copies bytes between files of this volume; returns how many, fewer at the end of the source.
    /// Each piece (some dozens of extents, or 1 MiB that is really copied) is an operation of its
    /// own.
    ///
    /// - Parameter snapshot: whose file the source is, if it is not one of these. It is not deleted
    ///   meanwhile, so what the source refers to stays without a lock.
    public func copyRange(
        from source: InodeNumber, of snapshot: FileSystem? = nil, at sourceOffset: UInt64,
        to target: InodeNumber, at targetOffset: UInt64, count: UInt64,
        by user: OrdinaryUser? = nil
    ) throws(FSError) -> UInt64 {
        let origin = snapshot ?? self
        let sourceRecord = try origin.record(of: source)
        for record in [sourceRecord, try record(of: target)] {
            guard !record.isDirectory else { throw .isDirectory }
            guard record.kind == .regular else { throw .invalidArgument }
        }
        let size = sourceRecord.size
        let count = min(count, size - min(sourceOffset, size))
        guard targetOffset <= DiskFormat.maximumFileSize,
            count <= DiskFormat.maximumFileSize - targetOffset
        else { throw .fileTooLarge }
        if source == target, origin === self {
            let distance =
                max(sourceOffset, targetOffset) - min(sourceOffset, targetOffset)
            guard count == 0 || distance >= count else { throw .invalidArgument }
        }
        var done: UInt64 = 0
        while done < count {
            let from = sourceOffset + done
            let to = targetOffset + done
            var got: UInt64 = 0
            if from & 4095 == to & 4095 {
                // Up to the next block by copying, then by sharing.
                if from & 4095 == 0 {
                    got = try sharePiece(
                        origin, source, from, target, to, count - done, by: user)
                } else {
                    got = try copyPiece(
                        origin, source, from, target, to,
                        min(count - done, 4096 - from & 4095), by: user)
                    if got == 0 { break }
                }
            }
            if got == 0 {
                // Where blocks lie alike, sharing may go on at the next piece of 128 KiB.
                let piece = DiskFormat.maximumEncodedBlocks << 12
                let limit = from & 4095 == to & 4095 ? piece - from % piece : 1 << 20
                got = try copyPiece(
                    origin, source, from, target, to, min(count - done, limit),
                    by: user)
            }
            guard got > 0 else { break }
            done += got
        }
        return done
    }

    private func copyPiece(
        _ origin: FileSystem, _ source: InodeNumber, _ from: UInt64, _ target: InodeNumber,
        _ to: UInt64, _ count: UInt64, by user: OrdinaryUser?
    ) throws(FSError) -> UInt64 {
        let buffer = ByteBuffer(count: Int(count))
        let got = try origin.read(source, at: from, into: buffer.bytes)
        guard got > 0 else { return 0 }
        _ = try write(target, at: to, buffer.view.slice(0, got), by: user)
        return UInt64(got)
    }

    /// Lets the target refer to the source's blocks, from a block boundary on; returns how many
    /// bytes it covered, 0 if nothing here can be shared. The source's last block is shared whole
    /// when it becomes the target's last: behind both ends there are zeros.
    private func sharePiece(
        _ origin: FileSystem, _ source: InodeNumber, _ from: UInt64, _ target: InodeNumber,
        _ to: UInt64, _ count: UInt64, by user: OrdinaryUser?
    ) throws(FSError) -> UInt64 {
        func share(_ transaction: Transaction) throws(FSError) -> UInt64 {
            let sourceRecord = try origin.record(of: source)
            var record = try self.record(of: target)
            try requireWritable(record, from: to)
            let count = min(count, sourceRecord.size - min(from, sourceRecord.size))
            guard sourceRecord.content == .extents, count > 0 else { return 0 }
            if record.content == .inline, record.size > 0 {
                // Moving out changes the map; sharing does so in the next transaction.
                try moveOut(target, &record, transaction)
                transaction.put(target, record)
                return 0
            }
            var blocks = count >> 12
            let isTail = from + count == sourceRecord.size && to + count >= record.size
            if isTail, count & 4095 != 0 { blocks += 1 }
            guard blocks > 0 else { return 0 }

            let first = from >> 12
            let place = to >> 12
            let (shared, isAllShared) = try batch(
                source, of: origin, first..<first + blocks)
            if !isAllShared, let last = shared.last { blocks = min(blocks, last.end - first) }
            let (replaced, isAllReplaced) = try batch(target, place..<place + blocks)
            if !isAllReplaced, let last = replaced.last { blocks = min(blocks, last.end - place) }

            try refer(
                to: shared, from: first, &blocks, target, at: place, replacing: replaced, &record,
                transaction)
            guard blocks > 0 else { return 0 }
            record.content = .extents
            let covered = min(blocks << 12, count)
            record.size = max(record.size, to + covered)
            if let user {
                dropPrivileges(&record, by: user)
                try dropCapability(of: target, record, transaction)
            }
            record.noteModified(.now())
            transaction.put(target, record)
            return covered
        }
        if origin !== self {
            return try change(target) { (transaction) throws(FSError) in try share(transaction) }
        }
        return try change(source, target) {
            (transaction) throws(FSError) in try share(transaction)
        }
    }

    /// Maps what `shared` has of `blocks` blocks from `first` on to `place` of the target, which has
    /// `replaced` there; where `shared` has none there are holes. `blocks` becomes less when only so
    /// many are worth it, 0 if none.
    func refer(
        to shared: [FileMap.Extent], from first: UInt64, _ blocks: inout UInt64,
        _ target: InodeNumber, at place: UInt64, replacing replaced: [FileMap.Extent],
        _ record: inout InodeRecord, _ transaction: Transaction
    ) throws(FSError) {
        var fresh: [FileMap.Extent] = []
        for extent in shared where extent.record.kind == .data {
            let start = max(extent.block, first)
            let end = min(extent.end, first + blocks)
            guard start < end else { continue }
            var part = extent.record.part(UInt32(start - extent.block), UInt32(end - start))
            part.birth = transaction.epoch(in: volume)
            fresh.append(FileMap.Extent(block: start - first + place, record: part))
        }
        // What would cost more to share than to copy is left to the caller.
        let worth = FileMap.countWorthSharing(fresh)
        if worth < fresh.count {
            blocks = fresh[worth].block - place
            fresh.removeSubrange(worth...)
            guard blocks > 0 else { return }
        }
        for extent in fresh {
            for index in 0..<extent.record.replicas.count {
                transaction.reference(extent.record.storedRun(index))
            }
        }
        let range = place..<place + blocks
        try fileMap.replace(
            target, range, replaced.filter { $0.block < range.upperBound && $0.end > place },
            with: fresh, &record, transaction)
    }
}
