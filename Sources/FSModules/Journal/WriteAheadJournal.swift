/// The journal of key updates: what fsync returned for is in the ring, and replay brings it back.
///
///     append   ──▶ buffer (memfd) ──flush──▶ record in the ring ──▶ durable
///                    │ staged data: in the record (somebody waits), or to its blocks
///                    └──writeHome──▶ blocks ──checkpoint──▶ the ring's part is free again
///
/// Group commit: one thread writes for all that wait; who comes meanwhile is in the next record.
///
/// - Invariant: a record is written only after the data of its operations is durable, or with it.
/// - Invariant: a record begins on a block that holds no record of an operation behind the last
///   durable checkpoint; no block is written twice in between.
/// - Invariant: the first failure is the answer to every later flush.
///
/// Lock order: `homeLock` (held over I/O, so that no block is written home when it may belong to
/// somebody else already), `flushLock`, then `lock`, a leaf under the tree lock.
public import FSCore

@safe
public final class WriteAheadJournal: Journal, @unchecked Sendable {
    private let setup: JournalSetup
    private let ring: JournalRing
    private let reader: JournalReader

    private let homeLock = Mutex()

    private let flushLock = Mutex()
    // Guarded by `flushLock`.
    private var isFlushing = false
    private var failure: FSError?

    private let lock = Mutex()
    // Guarded by `lock`.
    private let buffer: JournalBuffer
    private var stage = Stage()
    private var position = JournalPosition(incarnation: 0, operation: 0)
    private var hash: (any NameHash)?
    private var durableSequence = SuperblockSequence(0)
    private var appendedOperation: UInt64 = 0
    /// The ring, or a durable checkpoint, has everything up to here.
    private var durableOperation: UInt64 = 0
    private var durableOffset: UInt64 = 0
    /// While a flush reads the buffer from here on.
    private var flushingFrom: UInt64?
    private var hasHomeWrites = false
    private var oldestPending: UInt64 = 0
    /// The timer was told that it has nothing to wait for.
    private var timerIsIdle = false
    private var lastFlush: UInt64 = 0
    private var isSealed = true
    private var ringHead: UInt64 = 0
    private var ringTail: UInt64 = 0
    /// Records that hold operations behind the last checkpoint: last operation, place in the ring.
    private var live: [(operation: UInt64, position: UInt64)] = []
    private var counters = JournalStatus()

    /// Room for the largest record so far. Only the flushing thread touches it.
    private var staging = ByteBuffer(count: DiskFormat.blockSize)

    /// In one fsync's record; more goes to its blocks, behind a flush of its own.
    private static let inlineLimit = 256 << 10
    private static let flushAfterMilliseconds: UInt64 = 700

    public init(_ setup: JournalSetup) throws(FSError) {
        self.setup = setup
        ring = JournalRing(setup.device, setup.extents)
        reader = JournalReader(ring: ring, setup: setup)
        buffer = try JournalBuffer()
        counters.ringBytes = ring.blockCount << 12
    }

    public var stagedDataLimit: Int { 16 << 10 }

    /// The memfd of the buffer.
    package var bufferDescriptor: Int32 { buffer.descriptor }

    public var status: JournalStatus {
        lock.withLock {
            var status = counters
            status.usedBytes = (ringHead - ringTail) << 12
            status.pendingBytes = buffer.end - durableOffset
            status.stagedBytes = UInt64(stage.byteCount)
            return status
        }
    }

    // MARK: Opening

    public func read(_ position: JournalPosition) throws(FSError) -> JournalContents {
        reader.contents(position)
    }

    public func records(damaged: (UInt64, FSError) -> Void) -> [JournalRecord] {
        reader.allRecords(damaged: damaged)
    }

    public func isBegun(after incarnation: UInt64) throws(FSError) -> Bool {
        reader.isBegun(after: incarnation)
    }

    public func replay(
        _ contents: JournalContents, _ body: (Transaction) throws(FSError) -> Void
    ) throws(FSError) {
        let transaction = Transaction()
        try reader.forEachTransaction(contents) { (bytes) throws(FSError) in
            let operation = try TransactionCoder.decode(&bytes, setup.layout, into: transaction)
            if operation > contents.position.operation { try body(transaction) }
        }
    }

    public func claims(
        _ contents: JournalContents, _ body: (BlockRun) throws(FSError) -> Void
    ) throws(FSError) {
        var runs: [BlockRun] = []
        try reader.forEachTransaction(contents) { (bytes) throws(FSError) in
            runs.removeAll(keepingCapacity: true)
            let operation = try TransactionCoder.allocated(&bytes, setup.layout) { runs.append($0) }
            if operation > contents.position.operation {
                for run in runs { try body(run) }
            }
        }
    }

    public func start(
        _ position: JournalPosition, sequence: SuperblockSequence
    ) throws(FSError) {
        let hash = setup.recordSum(position.incarnation)
        lock.withLock {
            self.position = position
            self.hash = hash
            durableSequence = sequence
            appendedOperation = position.operation
            durableOperation = position.operation
            buffer.begin(setup.internalUUID, incarnation: position.incarnation)
            buffer.setBegin(durableOffset, firstOperation: position.operation + 1)
            ringHead = 0
            ringTail = 0
            live = []
        }
        try writeSeal()
        try setup.device.flush()
    }

    // MARK: Operations

    public func hasRoom(for transaction: Transaction) throws(FSError) -> Bool {
        let size = TransactionCoder.size(transaction)
        guard size - transaction.data.count <= ring.recordLimit - JournalFormat.headerSize else {
            throw .corrupt(
                Corruption(
                    .journal, at: UInt64(size), "an operation of so many bytes fits no record"))
        }
        return lock.withLock { buffer.hasRoom(size) }
    }

    public func makeRoom() throws(FSError) -> Bool {
        try writeHome(upTo: .max, cut: 0)
        return try flush(.timer)
    }

    public func append(_ transaction: Transaction) -> Bool {
        let size = TransactionCoder.size(transaction)
        return lock.withLock {
            if appendedOperation == durableOperation { oldestPending = monotonicNanoseconds() }
            let wakesTimer = timerIsIdle
            timerIsIdle = false
            appendedOperation += 1
            let operation = appendedOperation
            var places: [(BlockRun, Int)] = []
            let offset = buffer.append(size, operation: operation) { target in
                TransactionCoder.encode(transaction, operation: operation, into: target) {
                    places.append(($0, $1))
                }
            }
            for (run, place) in places {
                stage.add(run, operation: operation, offset: offset + UInt64(place))
            }
            if !stage.isEmpty {
                for run in transaction.released { stage.release(run, by: operation) }
            }
            return wakesTimer
        }
    }

    public func noteHomeWrite() { lock.withLock { hasHomeWrites = true } }

    public func readStaged(_ run: BlockRun, into target: MutableByteView) -> [Bool]? {
        lock.withLock {
            guard stage.mayTouch(run) else { return nil }
            var found: [Bool]?
            for index in 0..<Int(run.count) {
                guard let entry = stage.entry(run.start.block + UInt64(index)) else { continue }
                target.copy(buffer.view(entry.offset, DiskFormat.blockSize), at: index << 12)
                if found == nil { found = Array(repeating: false, count: Int(run.count)) }
                found?[index] = true
            }
            return found
        }
    }

    // MARK: Home

    public func writeHome(_ cut: JournalCut) throws(FSError) {
        try writeHome(upTo: cut.operation, cut: cut.operation)
    }

    private func writeHome(upTo operation: UInt64, cut: UInt64) throws(FSError) {
        try homeLock.withLock { () throws(FSError) in
            let (unsorted, durable) = lock.withLock {
                (stage.toWrite(upTo: operation, cut: cut), durableOperation)
            }
            let blocks = unsorted.sorted { $0.block < $1.block }
            var index = 0
            while index < blocks.count {
                var end = index + 1
                while end < blocks.count, end - index < 256,
                    blocks[end].block == blocks[end - 1].block + 1
                {
                    end += 1
                }
                // The views stay valid: the buffer's tail does not pass an entry of the stage.
                let parts = blocks[index..<end].map {
                    buffer.view($0.entry.offset, DiskFormat.blockSize)
                }
                try setup.device.write(parts: parts, at: blocks[index].block << 12)
                index = end
            }
            lock.withLock {
                for (block, entry) in blocks {
                    stage.remove(block, offset: entry.offset)
                    if entry.operation > durable { hasHomeWrites = true }
                }
                moveTail()
            }
        }
    }

    /// With the lock held.
    private func moveTail() {
        var tail = min(durableOffset, flushingFrom ?? .max)
        if let oldest = stage.oldestOffset() { tail = min(tail, oldest) }
        buffer.setTail(tail)
        durableOffset = max(durableOffset, buffer.tail)
    }

    // MARK: Flush

    public var millisecondsUntilFlush: Int? {
        lock.withLock {
            let start: UInt64
            if appendedOperation > durableOperation {
                start = oldestPending
            } else if !isSealed {
                start = lastFlush
            } else {
                timerIsIdle = true
                return nil
            }
            let due = start + Self.flushAfterMilliseconds * 1_000_000
            let now = monotonicNanoseconds()
            return due > now ? Int((due - now) / 1_000_000) + 1 : 0
        }
    }

    public func flush(_ reason: JournalFlushReason) throws(FSError) -> Bool {
        let target = lock.withLock { appendedOperation }
        flushLock.lock()
        defer { flushLock.unlock() }
        while true {
            if let failure { throw failure }
            let isDone = lock.withLock { durableOperation >= target }
            if isDone, reason == .synchronize { return true }
            if isFlushing {
                flushLock.wait()
                continue
            }
            isFlushing = true
            flushLock.unlock()
            var result: Result<Bool, FSError>
            do throws(FSError) {
                result = .success(
                    isDone ? try sealIfIdle() : try writeRecords(reason))
            } catch { result = .failure(error) }
            flushLock.lock()
            isFlushing = false
            flushLock.signalAll()
            switch result {
            case .success(let hasRoom):
                if !hasRoom || isDone { return hasRoom }
            case .failure(let error):
                failure = error
                throw error
            }
        }
    }

    /// Says in the ring that the last record is durable, so that damage to it is known as damage.
    private func sealIfIdle() throws(FSError) -> Bool {
        guard lock.withLock({ !isSealed }) else { return true }
        try writeSeal()
        return true
    }

    /// One part of the pending transactions that becomes one record.
    private struct Part {
        var position: UInt64
        var blocks: UInt64
        var first: UInt64
        var last: UInt64
        var entries: [UInt64]
        var bytes: Int
    }

    /// Makes everything that is pending now durable; false if the ring has no room for it.
    private func writeRecords(_ reason: JournalFlushReason) throws(FSError) -> Bool {
        let began = monotonicNanoseconds()
        let (from, end, operation, durable, stagedBytes) = lock.withLock {
            flushingFrom = durableOffset
            return (
                durableOffset, buffer.end, appendedOperation, durableOperation,
                stage.bytes(after: durableOperation)
            )
        }
        defer {
            lock.withLock {
                flushingFrom = nil
                moveTail()
            }
        }
        let takesData =
            reason == .synchronize && stagedBytes <= Self.inlineLimit
            && end - from <= 4 * UInt64(Self.inlineLimit)
        if !takesData { try writeHome(upTo: operation, cut: 0) }
        let needsFlush = lock.withLock {
            defer { hasHomeWrites = false }
            return hasHomeWrites
        }
        if needsFlush { try setup.device.flush() }

        let parts = plan(from, end, first: durable + 1, takesData: takesData)
        guard let head = parts.last.map({ $0.position + $0.blocks }),
            lock.withLock({ head - ringTail <= ring.blockCount })
        else { return parts.isEmpty }
        for part in parts { try write(part, durable: durable, takesData: takesData) }
        try setup.device.flush()
        lock.withLock {
            if !setup.brokenRules.contains(.recordBlockRewritten) { ringHead = head }
            counters.records += UInt64(parts.count)
            counters.flushes += 1
            counters.bytesWritten += parts.reduce(0) { $0 + $1.blocks << 12 }
            for part in parts where part.last > position.operation {
                live.append((part.last, part.position))
            }
            isSealed = false
            lastFlush = monotonicNanoseconds()
            if live.isEmpty { ringTail = ringHead }
            setDurable(operation, offset: end, pendingSince: began)
        }
        return true
    }

    /// With the lock held: the ring or a checkpoint has everything up to `operation`.
    private func setDurable(_ operation: UInt64, offset: UInt64, pendingSince: UInt64) {
        guard operation > durableOperation else { return }
        durableOperation = operation
        durableOffset = max(offset, durableOffset)
        buffer.setBegin(durableOffset, firstOperation: operation + 1)
        oldestPending = pendingSince
    }

    /// Cuts the pending transactions into records and finds a place for each.
    private func plan(
        _ from: UInt64, _ end: UInt64, first: UInt64, takesData: Bool
    ) -> [Part] {
        var parts: [Part] = []
        var next = lock.withLock { ringHead }
        var part = Part(
            position: 0, blocks: 0, first: first, last: first - 1, entries: [],
            bytes: JournalFormat.headerSize)
        func close() {
            guard !part.entries.isEmpty else { return }
            part.blocks = JournalFormat.blocks(part.bytes)
            part.position = ring.place(part.blocks, from: next)
            next = part.position + part.blocks
            parts.append(part)
            part = Part(
                position: 0, blocks: 0, first: part.last + 1, last: part.last, entries: [],
                bytes: JournalFormat.headerSize)
        }
        var offset = from
        while offset < end {
            let entry = buffer.entry(at: offset)
            let bytes = takesData ? entry.view.count : TransactionCoder.dataOffset(entry.view)
            if part.bytes + bytes > ring.recordLimit { close() }
            part.entries.append(entry.offset)
            part.bytes += bytes
            part.last += 1
            offset = entry.offset + UInt64(entry.view.count)
        }
        close()
        return parts
    }

    /// Where a record is made.
    private func room(_ blocks: UInt64) -> MutableByteView {
        let size = Int(blocks) << 12
        if staging.count < size {
            staging = ByteBuffer(count: max(size, min(2 * staging.count, ring.recordLimit)))
        }
        return staging.bytes.slice(0, size)
    }

    private func write(_ part: Part, durable: UInt64, takesData: Bool) throws(FSError) {
        let record = room(part.blocks)
        var place = JournalFormat.headerSize
        for offset in part.entries {
            let view = buffer.entry(at: offset).view
            let count = takesData ? view.count : TransactionCoder.dataOffset(view)
            let target = record.slice(place, count)
            target.copy(view.slice(0, count))
            if !takesData { TransactionCoder.strip(target) }
            place += count
        }
        record.zero(place, record.count - place)
        try seal(
            record, .transactions, at: part.position, first: part.first, last: part.last,
            durable: durable, payload: part.bytes - JournalFormat.headerSize)
    }

    private func seal(
        _ record: MutableByteView, _ kind: JournalRecord.Kind, at position: UInt64, first: UInt64,
        last: UInt64, durable: UInt64, payload: Int
    ) throws(FSError) {
        let (sequence, incarnation, hash) = lock.withLock {
            (durableSequence, self.position.incarnation, self.hash)
        }
        guard let hash else { preconditionFailure("the journal was not started") }
        RecordHeader(
            kind: kind, internalUUID: setup.internalUUID, incarnation: incarnation,
            position: position, firstOperation: first, lastOperation: last,
            durableOperation: durable, durableSequence: sequence, payloadBytes: payload
        ).seal(record, hash)
        try ring.write(record.view, at: position)
    }

    /// A record without operations. Nobody waits for it, so it is not flushed.
    private func writeSeal() throws(FSError) {
        let (head, tail, durable) = lock.withLock { (ringHead, ringTail, durableOperation) }
        let place = ring.place(1, from: head)
        lock.withLock { isSealed = true }
        guard place + 1 - tail <= ring.blockCount else { return }
        let record = room(1)
        record.zeroAll()
        try seal(
            record, .seal, at: place, first: durable + 1, last: durable, durable: durable,
            payload: 0)
        lock.withLock {
            ringHead = place + 1
            counters.seals += 1
            counters.bytesWritten += UInt64(DiskFormat.blockSize)
        }
    }

    // MARK: Checkpoints

    public var wantsCheckpoint: Bool {
        lock.withLock { (ringHead - ringTail) * 2 > ring.blockCount }
    }

    public func cut(_ operation: UInt64) -> JournalCut {
        lock.withLock { JournalCut(operation: operation, offset: buffer.end) }
    }

    public func retire(_ cut: JournalCut, sequence: SuperblockSequence) {
        homeLock.withLock {
            lock.withLock {
                durableSequence = sequence
                isSealed = false
                lastFlush = monotonicNanoseconds()
                position.operation = max(position.operation, cut.operation)
                appendedOperation = max(appendedOperation, cut.operation)
                setDurable(cut.operation, offset: cut.offset, pendingSince: oldestPending)
                live.removeAll { $0.operation <= cut.operation }
                ringTail = live.first?.position ?? ringHead
                stage.dropReleased(upTo: cut.operation)
                moveTail()
            }
        }
    }
}
