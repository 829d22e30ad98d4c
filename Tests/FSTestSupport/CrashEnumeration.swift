/// Every state that a crash can leave of a recorded run, as far as a plan goes: each is opened,
/// compared with what the run promised, used, closed and checked.
///
///     … flush   w1 w2 w3 … wn   flush …
///               └─ an interval: any of its writes may have arrived, in any order, torn
///
/// A set of writes can be what a crash left from the moment when the last of them was issued until
/// the flush that ends the interval. So it is tried once, against the strictest promise in that
/// time: at least what was durable right before that flush, at most what had begun at that write.
///
/// - Invariant: the device holds the durable contents of the interval when no state is being tried.
internal import FSCore
internal import FSModules

final class CrashEnumeration {
    private let device: OverlayBlockDevice
    private let history: CrashHistory
    private let plan: CrashPlan
    private let options: OpenOptions
    private var random: SeededRandom
    private(set) var tally = CrashTally()

    /// The durable contents as one number: the hashes of its blocks, each over its place too, XORed.
    private var contents: UInt64 = 0
    private var blockHashes: [UInt64: UInt64] = [:]
    /// Up to here the durable contents alone are somebody else's state.
    private var durableEvent = 0
    /// By hash of the contents: the tree that was found in it.
    private var found: [UInt64: StableHash] = [:]
    /// Blocks that the run has changed, as they were before it.
    private var original: [UInt64: BlockImage.Block] = [:]

    private struct Write {
        /// Events before this one.
        var event: Int
        var write: DeviceWrite
        var hashes: [UInt64]
    }
    private struct Overlay {
        var blocks: [UInt64: (block: BlockImage.Block, hash: UInt64)] = [:]
    }

    /// - Parameter device: has the durable contents that the events begin with, and keeps them.
    init(
        _ device: OverlayBlockDevice, _ history: CrashHistory, _ plan: CrashPlan,
        options: OpenOptions, seed: UInt64
    ) {
        self.device = device
        self.history = history
        self.plan = plan
        self.options = options
        random = SeededRandom(seed: seed)
    }

    /// Tries the states of `events`, the first of which has the number `first`: all, or those that
    /// have something of the events from `fresh` on. The device is then as it was.
    func run(_ events: [SimulatedBlockDevice.Event], first: Int = 0, fresh: Int = 0) -> CrashTally {
        durableEvent = fresh
        var begin = 0
        while true {
            var end = begin
            var writes: [Write] = []
            while end < events.count {
                if case .flush = events[end] { break }
                if case .write(let write) = events[end] {
                    writes.append(
                        Write(event: first + end, write: write, hashes: hashes(of: write)))
                }
                end += 1
            }
            if first + end >= fresh {
                tryInterval(writes, begin: first + begin, end: first + end, fresh: fresh)
            }
            if tally.problem != nil || end == events.count { break }
            for write in writes { makeDurable(write) }
            device.keep()
            begin = end + 1
        }
        for (number, block) in original { device.put(block, at: number) }
        device.keep()
        return tally
    }

    private func tryInterval(_ writes: [Write], begin: Int, end: Int, fresh: Int) {
        let old = begin >= fresh ? 0 : writes.prefix { $0.event < fresh }.count
        for selection in CrashSelection.all(writes.count, fresh: old, plan, &random) {
            guard tally.problem == nil, tally.distinctStates < plan.maximumStates else { return }
            let last = selection.writes.map { writes[$0].event + 1 }.max() ?? begin
            let range = history.allowed(from: last, to: end)
            if let problem = problem(overlay(selection, writes), range, begin: begin) {
                let torn = selection.torn.map { ", write \($0.write) torn: \($0.how)" } ?? ""
                tally.problem =
                    "events \(begin) to \(end), of \(writes.count) writes \(selection.writes)"
                    + "\(torn): \(problem)"
            }
        }
    }

    // MARK: Contents

    private func hash(_ block: BlockImage.Block, _ number: UInt64) -> UInt64 {
        var hash = StableHash(block)
        hash.combine(number)
        return hash.value
    }

    private func hashes(of write: DeviceWrite) -> [UInt64] {
        write.blocks.enumerated().map { hash($1, write.firstBlock + UInt64($0)) }
    }

    /// The hash of a durable block.
    private func durableHash(_ number: UInt64) -> UInt64 {
        if let known = blockHashes[number] { return known }
        let value = hash(device.block(number), number)
        blockHashes[number] = value
        return value
    }

    private func makeDurable(_ write: Write) {
        for (index, block) in write.write.blocks.enumerated() {
            let number = write.write.firstBlock + UInt64(index)
            contents ^= durableHash(number) ^ write.hashes[index]
            if original[number] == nil { original[number] = device.block(number) }
            blockHashes[number] = write.hashes[index]
            device.put(block, at: number)
        }
    }

    private func overlay(_ selection: CrashSelection, _ writes: [Write]) -> Overlay {
        var overlay = Overlay()
        for index in selection.writes {
            let write = writes[index]
            if let torn = selection.torn, torn.write == index {
                let blocks = torn.how.apply(write.write) {
                    overlay.blocks[$0]?.block ?? device.block($0)
                }
                for (number, block) in blocks {
                    overlay.blocks[number] = (block, hash(block, number))
                }
                continue
            }
            for (index, block) in write.write.blocks.enumerated() {
                let number = write.write.firstBlock + UInt64(index)
                overlay.blocks[number] = (block, write.hashes[index])
            }
        }
        return overlay
    }

    // MARK: One state

    private func problem(
        _ overlay: Overlay, _ range: ClosedRange<Int>, begin: Int
    ) -> String? {
        var state = contents
        for (number, entry) in overlay.blocks { state ^= durableHash(number) ^ entry.hash }
        if state == contents, durableEvent > 0, begin <= durableEvent { return nil }
        if let tree = found[state] {
            return history.isAllowed(tree, range)
                ? nil : "the tree is none of those after operations \(range), but an earlier one"
        }
        tally.distinctStates += 1
        func isTurn(_ interval: Int) -> Bool {
            interval > 0 && tally.distinctStates % interval == 0
        }
        defer { device.revert() }
        do {
            put(overlay)
            let trial = CrashTrial(device: device, options: options, number: tally.distinctStates)
            let tree: StableHash
            switch try trial.run(
                { history.problem($0, $1, range) }, reopens: isTurn(plan.reopenEvery))
            {
            case .failure(let problem): return problem.description
            case .success(let hash): tree = hash
            }
            found[state] = tree
            if isTurn(plan.secondCrashEvery) { return try secondCrash(overlay, tree) }
            return nil
        } catch { return "\(error)" }
    }

    private func put(_ overlay: Overlay) {
        for (number, entry) in overlay.blocks { device.put(entry.block, at: number) }
    }

    /// A second crash, at any moment of the recovery from the first or of the use after it: nothing
    /// more may be lost, and what was synchronized in between is there.
    private func secondCrash(_ overlay: Overlay, _ tree: StableHash) throws -> String? {
        device.revert()
        put(overlay)
        device.startRecording()
        let volume = try Volume.open(device, modules: .standard, options: options)
        let probe = CrashProbe(number: tally.secondCrashes, name: "between two crashes")
        let inode = try probe.write(volume)
        let durable = device.eventCount
        volume.fileSystem.release(inode, count: 1)
        if random.chance(1, in: 3) { try volume.close() }
        let events = device.stopRecording()
        let moment = random.integer(in: 0...events.count)
        device.revert()
        put(overlay)
        putRemains(of: events[..<moment])
        tally.secondCrashes += 1
        let trial = CrashTrial(device: device, options: options, number: tally.secondCrashes)
        let result = try trial.run(
            { view, _ in
                var view = view
                if let problem = probe.take(from: &view, isDurable: moment >= durable) {
                    return problem
                }
                return view.treeHash == tree ? nil : "another tree than after the first crash"
            }, reopens: false)
        guard case .failure(let problem) = result else { return nil }
        return "then a crash after \(moment) of \(events.count) events: \(problem)"
    }

    /// What a crash right after `events` may leave of them.
    private func putRemains(of events: ArraySlice<SimulatedBlockDevice.Event>) {
        let barrier = events.lastIndex { if case .flush = $0 { true } else { false } } ?? 0
        let density = random.pick([0, 1, 8, 15, 16])
        for (index, event) in events.enumerated() {
            guard case .write(let write) = event, index < barrier || random.chance(density, in: 16)
            else { continue }
            let isTorn = index >= barrier && random.chance(1, in: 6)
            let blocks =
                isTorn
                ? TornWrite.any(&random).apply(write) { device.block($0) }
                : write.blocks.enumerated().map { (write.firstBlock + UInt64($0), $1) }
            for (number, block) in blocks { device.put(block, at: number) }
        }
    }
}

extension CrashRun {
    /// Tries the crash states of the recorded run.
    public func enumerate(_ plan: CrashPlan) -> CrashTally {
        let (durable, barrier, events) = device.history(from: firstEvent)
        let overlay = OverlayBlockDevice(durable, byteCount: device.byteCount)
        let enumeration = CrashEnumeration(
            overlay, history, plan, options: options, seed: seed ^ 0x5EED)
        return enumeration.run(events, first: barrier)
    }
}
