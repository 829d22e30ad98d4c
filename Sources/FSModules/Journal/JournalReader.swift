/// Finds the valid records of a ring and tells a torn tail from damage.
///
/// Records say which operations were durable when they were written. After the last record that
/// follows on from its forerunner nothing may be missing that any record calls durable: if it is,
/// something that was acknowledged cannot be read, which is damage; if not, the power went before
/// the rest was acknowledged. A crash tears records, but leaves no block that cannot be read: where
/// the device refuses the place of the next record, that record may have been acknowledged.
internal import FSCore

struct JournalReader {
    let ring: JournalRing
    let setup: JournalSetup

    /// Every valid record of the ring, in order of place. `damaged` hears of blocks that look like
    /// the beginning of a record and are none.
    func allRecords(
        damaged: (UInt64, FSError) -> Void = { _, _ in }
    ) -> [JournalRecord] {
        var window = JournalRingWindow(scanning: ring)
        return allRecords(&window, damaged: damaged)
    }

    private func allRecords(
        _ window: inout JournalRingWindow, damaged: (UInt64, FSError) -> Void = { _, _ in }
    ) -> [JournalRecord] {
        var found: [JournalRecord] = []
        var sums: [UInt64: any NameHash] = [:]
        var block: UInt64 = 0
        while block < ring.blockCount {
            let view = window.view(block, 1)
            guard view.u64(0) == JournalFormat.magic else {
                block += 1
                continue
            }
            do throws(FSError) {
                let record = try record(at: block, view, &window, &sums)
                found.append(record)
                block += JournalFormat.blocks(record.byteCount)
            } catch {
                damaged(block, error)
                block += 1
            }
        }
        return found
    }

    private func record(
        at block: UInt64, _ view: ByteView, _ window: inout JournalRingWindow,
        _ sums: inout [UInt64: any NameHash]
    ) throws(FSError) -> JournalRecord {
        func corrupt(_ why: String) -> FSError {
            .corrupt(Corruption(.journal, at: ring.locate(block).offset, why))
        }
        let header = try RecordHeader(view, at: ring.locate(block).offset)
        guard header.internalUUID == setup.internalUUID else {
            throw corrupt("a record of another volume")
        }
        guard header.position % ring.blockCount == block else { throw corrupt("place of record") }
        guard header.byteCount <= ring.recordLimit else { throw corrupt("length of record") }
        let blocks = JournalFormat.blocks(header.byteCount)
        guard blocks <= ring.locate(block).contiguous else { throw corrupt("length of record") }
        if sums.count > 8 { sums = [:] }
        let hash = sums[header.incarnation] ?? setup.recordSum(header.incarnation)
        sums[header.incarnation] = hash
        let bytes = ByteBuffer(copying: window.view(block, blocks).slice(0, header.byteCount))
        let stored = bytes.view.u64(JournalFormat.sumOffset)
        bytes.bytes.store(UInt64(0), at: JournalFormat.sumOffset)
        guard hash.hash(bytes.view) == stored else { throw corrupt("checksum mismatch") }
        return JournalRecord(
            kind: header.kind, incarnation: header.incarnation, position: header.position,
            ringBlock: block, firstOperation: header.firstOperation,
            lastOperation: header.lastOperation, durableOperation: header.durableOperation,
            durableSequence: header.durableSequence, byteCount: header.byteCount)
    }

    /// What there is to replay behind `position`.
    func contents(_ position: JournalPosition) -> JournalContents {
        var contents = JournalContents(position: position)
        var window = JournalRingWindow(scanning: ring)
        let all = allRecords(&window).filter { $0.incarnation >= position.incarnation }
        contents.newestSequence = all.map(\.durableSequence).max() ?? SuperblockSequence(0)
        let ours = all.filter { $0.incarnation == position.incarnation }
        contents.durableOperation = ours.map(\.durableOperation).max() ?? 0
        var next = position.operation + 1
        let transactions = ours.filter { $0.kind == .transactions && $0.lastOperation >= next }
        for record in transactions.sorted(by: { $0.firstOperation < $1.firstOperation }) {
            guard record.firstOperation <= next else { break }
            guard record.lastOperation >= next else { continue }
            contents.records.append(record)
            next = record.lastOperation + 1
        }
        if contents.durableOperation >= next {
            contents.damage = Corruption(
                .journal, at: next,
                "operations \(next) to \(contents.durableOperation) were durable and cannot be read"
            )
        } else if !window.unreadable.isEmpty {
            let end = ours.filter { $0.lastOperation < next }
                .map { $0.position + JournalFormat.blocks($0.byteCount) }.max()
            if isNextUnreadable(end ?? 0, position.incarnation, &window) {
                contents.damage = Corruption(
                    .journal, at: next,
                    "the device cannot read where operations from \(next) on may have been written"
                )
            }
        }
        return contents
    }

    /// Whether a record that follows on position `end` may be there without being readable.
    private func isNextUnreadable(
        _ end: UInt64, _ incarnation: UInt64, _ window: inout JournalRingWindow
    ) -> Bool {
        // A record too long for the rest of an extent begins in the next one.
        let longest = JournalFormat.blocks(ring.recordLimit)
        var start = end
        while true {
            let block = start % ring.blockCount
            if window.unreadable.contains(block) { return true }
            let contiguous = ring.locate(block).contiguous
            let location = ring.locate(block).offset
            if let header = try? RecordHeader(window.view(block, 1), at: location),
                header.internalUUID == setup.internalUUID, header.incarnation == incarnation,
                header.position == start
            {
                let blocks = JournalFormat.blocks(header.byteCount)
                return (block..<block + min(blocks, contiguous)).contains {
                    window.unreadable.contains($0)
                }
            }
            if contiguous >= longest || start - end >= ring.blockCount { return false }
            start += contiguous
        }
    }

    /// Whether the ring's first block holds a record of a later incarnation.
    func isBegun(after incarnation: UInt64) -> Bool {
        var window = JournalRingWindow(ring)
        var sums: [UInt64: any NameHash] = [:]
        let view = window.view(0, 1)
        guard let record = try? record(at: 0, view, &window, &sums) else { return false }
        return record.incarnation > incarnation
    }

    /// Gives the payload of each record to `body`, which reads one transaction at a time.
    func forEachTransaction(
        _ contents: JournalContents,
        _ body: (inout ByteReader) throws(FSError) -> Void
    ) throws(FSError) {
        var window = JournalRingWindow(ring)
        var sums: [UInt64: any NameHash] = [:]
        for record in contents.records {
            let blocks = JournalFormat.blocks(record.byteCount)
            // Verified again: what is applied is what was read now.
            let again = try self.record(
                at: record.ringBlock, window.view(record.ringBlock, 1), &window, &sums)
            guard again == record else {
                throw .corrupt(
                    Corruption(
                        .journal, at: ring.locate(record.ringBlock).offset,
                        "the record changed while it was being read"))
            }
            let view = window.view(record.ringBlock, blocks)
            let payload = view.slice(
                JournalFormat.headerSize, record.byteCount - JournalFormat.headerSize)
            var reader = ByteReader(
                payload, .journal, at: ring.locate(record.ringBlock).offset)
            for expected in record.firstOperation...record.lastOperation {
                let start = reader.offset
                try reader.require(
                    TransactionCoder.operation(payload, at: start) == expected,
                    "number of an operation")
                try body(&reader)
            }
            try reader.require(reader.remaining == 0, "bytes behind the last transaction")
        }
    }
}
