/// Reads every copy of everything on a volume, verifies it, and heals what is bad from what is good.
///
///     superblocks ─▶ bitmap ─▶ each tree in turn, a step at a time:
///                                 hold the last checkpoint's state ─▶ nodes ─▶ their data in the
///                                 order of the device ─▶ heal ─▶ let go
///
/// A step is short, so that blocks which are freed meanwhile are soon free, and so that a scrub can be
/// paused between two of them and go on after a restart. What is written behind the place where it is
/// was verified when it was written.
///
/// - Invariant: a scrub never says that something is good which it has not read from the medium.
/// - Invariant: a dry run changes nothing on the device; that of a volume that is only read is one.
public import FSCore
internal import Glibc

public final class Scrubber {
    public struct Options: Sendable {
        /// A file or directory with all below it, from the volume's root; empty: the whole volume.
        public var path = ""
        public var isDryRun = false
        /// Bytes per second; 0 none.
        public var rateLimit: UInt64 = 0
        public init() {}
    }

    /// What a running scrub is told to do.
    public enum Command: Sendable {
        case goOn, pause, cancel
        /// End, and leave the record as one that was interrupted.
        case leave
    }

    private let volume: Volume
    private let isDryRun: Bool
    private let command: @Sendable () -> Command
    private let progress: (ScrubRecord) -> Void
    private var record: ScrubRecord
    private var tally = ExaminationTally()
    private let pace: ScrubPace
    /// When the record was stored, and since when it is active.
    private var lastStored = monotonicNanoseconds()
    private var lastCounted = monotonicNanoseconds()
    /// What was listed as damaged when a whole scrub began; nil for any other.
    private var listed: [DamageRecord]?
    private var isLeft = false

    private static let step = WalkBudget(nodes: 1024, blocks: 32768)
    /// While somebody uses the volume: so short that what is freed meanwhile can soon be used again.
    private static let shortStep = WalkBudget(nodes: 64, blocks: 4096)
    private static let storeNanoseconds: UInt64 = 5_000_000_000

    /// Runs a scrub to its end, or until it is paused or cancelled.
    ///
    /// - Parameters:
    ///   - interrupted: the record of a scrub to go on with; nil begins a new one.
    ///   - command: asked often, by any thread.
    /// - Throws: if the path does not exist, or the volume ended all writing.
    public static func run(
        _ volume: Volume, _ options: Options, continuing interrupted: ScrubRecord? = nil,
        command: @escaping @Sendable () -> Command, progress: (ScrubRecord) -> Void
    ) throws(FSError) -> ScrubRecord {
        try withoutActuallyEscaping(progress) { (progress) throws(FSError) in
            let scrubber = try Scrubber(volume, options, interrupted, command, progress)
            return try scrubber.run()
        }
    }

    private init(
        _ volume: Volume, _ options: Options, _ interrupted: ScrubRecord?,
        _ command: @escaping @Sendable () -> Command, _ progress: @escaping (ScrubRecord) -> Void
    ) throws(FSError) {
        guard options.path.utf8.count <= ScrubRecord.maximumPathBytes else { throw .nameTooLong }
        self.volume = volume
        self.command = command
        self.progress = progress
        isDryRun = options.isDryRun || !volume.isWritable
        pace = ScrubPace(
            bytesPerSecond: interrupted?.rateLimit ?? options.rateLimit, volume.activity)
        if var interrupted {
            interrupted.state = .running
            interrupted.totalBytes = max(interrupted.totalBytes, interrupted.doneBytes)
            record = interrupted
            return
        }
        // A path that is not there leaves no record.
        if !options.path.isEmpty { _ = try volume.locate(options.path) }
        let last = ScrubRecord.last(in: volume)
        record = ScrubRecord(number: (last?.number ?? 0) &+ 1, started: Timestamp.now().seconds)
        record.path = options.path
        record.rateLimit = options.rateLimit
        record.isDryRun = isDryRun
        if options.path.isEmpty, !isDryRun { listed = volume.listedDamage() }
        if !isDryRun { try last?.archive(in: volume) }
    }

    private func run() throws(FSError) -> ScrubRecord {
        do throws(FSError) {
            try work()
        } catch {
            record.state = .failed
            finish()
            throw error
        }
        finish()
        return record
    }

    private func work() throws(FSError) {
        // What was written until now is looked at, too.
        if volume.isWritable { try volume.checkpoint() }
        if record.isWhole { record.totalBytes = max(volume.scrubbableBytes, record.doneBytes) }
        try store()
        progress(record)
        if record.isWhole, record.tree == 0 {
            try volume.examineSuperblocks(heals: !isDryRun, &tally)
            volume.examineBitmap(heals: !isDryRun, &tally) { command() != .goOn }
            guard try note() else { return }
        }
        if record.isWhole {
            try walk(whole: Key.minimum...Key.maximum)
        } else {
            try walkPath()
        }
        guard record.state == .running, !isLeft else { return }
        record.state = .finished
        record.doneBytes = record.totalBytes
        if let listed {
            // What was not found again is good, or not used any more.
            try volume.forgetDamage(
                listed.map(\.place).filter { !tally.lostPlaces.contains($0.rawValue) })
        }
    }

    // MARK: The whole volume

    private func walk(whole range: ClosedRange<Key>) throws(FSError) {
        while true {
            let view = volume.openDurableView()
            defer { volume.close(view) }
            // The tree that the record names, or the first behind it: it may be gone.
            guard let current = view.trees.first(where: { $0.id >= record.tree }) else { return }
            if current.id != record.tree {
                record.tree = current.id
                record.position = .minimum
            }
            let next = try step(current, from: record.position, through: range.upperBound)
            if let next {
                record.position = next
            } else {
                record.tree += 1
                record.position = .minimum
            }
            guard try note() else { return }
        }
    }

    /// One step; returns where the next one begins in this tree.
    private func step(
        _ tree: ExaminedTree, isWhole: Bool = false, from position: Key, through last: Key
    ) throws(FSError) -> Key? {
        var extents: [ExaminedExtent] = []
        let before = tally.bytes
        let pace = pace
        let command = command
        var next: Key?
        let wasDone = try pace.turn(0, command) { () throws(FSError) in
            next = try volume.examine(
                tree, isWhole: isWhole, from: position, through: last,
                pace.isBusy ? Self.shortStep : Self.step, heals: !isDryRun, &tally
            ) { extents.append($0) }
        }
        guard wasDone else { return position }
        pace.charge(tally.bytes - before)
        guard !extents.isEmpty else {
            try volume.relocateUnwritable(&tally)
            return next
        }
        let reader = ScrubReader(volume, extents)
        let bad = reader.findBad(
            in: { bytes, work in pace.turn(bytes, command, work) },
            progress: { show(tally.bytes + $0) })
        // What was not read for a cancellation is not counted; the step is done again after a pause.
        guard command() == .goOn else { return position }
        tally.bytes += reader.byteCount
        for block in bad {
            volume.mend(
                extents[block.extent], block: block.block, of: tree, heals: !isDryRun, &tally
            )
        }
        try volume.relocateUnwritable(&tally)
        return next
    }

    // MARK: A file or directory

    private func walkPath() throws(FSError) {
        let (number, inodes) = try volume.inodes(below: record.path)
        record.totalBytes = max(inodes.reduce(0) { $0 + $1.bytes }, 1)
        // Goes on with the inode that the record names.
        for (inode, bytes) in inodes where inode.rawValue >= record.position.object {
            let done = record.doneBytes
            var position = Key(inode.rawValue, ItemType(rawValue: 0), 0)
            let last = Key(inode.rawValue, ItemType(rawValue: .max), .max)
            if record.position.object == inode.rawValue {
                position = max(position, record.position)
            }
            while true {
                let view = volume.openDurableView()
                defer { volume.close(view) }
                let tree = view.trees.first { tree in
                    number.map { tree.id == $0 } ?? tree.isDefaultHead
                }
                guard let tree else { return }
                let next = try step(tree, isWhole: true, from: position, through: last)
                record.position = next ?? last
                guard try note() else { return }
                guard let next, next <= last else { break }
                position = next
            }
            record.doneBytes = min(done + bytes, record.totalBytes)
        }
    }

    // MARK: State

    /// Takes over what was found; false to end.
    private func note() throws(FSError) -> Bool {
        record.found += tally.found
        record.healed += tally.healed
        record.lost += tally.lost
        if record.isWhole {
            record.doneBytes = min(record.doneBytes + tally.bytes, record.totalBytes)
        }
        tally.forgetCounts()
        count()
        progress(record)
        switch command() {
        case .goOn: break
        case .pause: record.state = .paused
        case .cancel: record.state = .cancelled
        case .leave: isLeft = true
        }
        guard record.state == .running, !isLeft else { return false }
        if monotonicNanoseconds() - lastStored > Self.storeNanoseconds { try store() }
        return true
    }

    /// How far it is in the middle of a step that may be long.
    private func show(_ bytes: UInt64) {
        guard record.isWhole else { return }
        count()
        var shown = record
        shown.doneBytes = min(shown.doneBytes + bytes, shown.totalBytes)
        progress(shown)
    }

    private func count() {
        let now = monotonicNanoseconds()
        let seconds = (now - lastCounted) / 1_000_000_000
        record.activeSeconds += seconds
        lastCounted += seconds * 1_000_000_000
    }

    private func store() throws(FSError) {
        lastStored = monotonicNanoseconds()
        guard !isDryRun else { return }
        do throws(FSError) { try record.store(in: volume) } catch .readOnly {}
    }

    private func finish() {
        count()
        if !record.isOpen { record.ended = Timestamp.now().seconds }
        progress(record)
        // What cannot be stored any more was reported when that began.
        try? store()
    }
}
