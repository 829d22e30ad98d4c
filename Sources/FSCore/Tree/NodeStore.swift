/// Reads nodes from the device and verifies them: checksum first, then structure. A copy that is
/// wrong is passed over for the next one; only when no copy is right does the read fail.
@safe
package final class NodeStore: @unchecked Sendable {
    let device: any BlockDevice
    let checksum: any Checksum
    let validator: NodeValidator
    let cache: PageCache
    let errors: ErrorLog
    /// Nil: bad copies are left as they are.
    private let health: MediumHealth?

    init(
        device: any BlockDevice, checksum: any Checksum, geometry: VolumeGeometry,
        internalUUID: VolumeUUID, cache: PageCache, errors: ErrorLog,
        health: MediumHealth? = nil
    ) {
        self.health = health
        self.device = device
        self.checksum = checksum
        validator = NodeValidator(
            geometry: geometry, internalUUID: internalUUID, checksumKind: checksum.kind)
        self.cache = cache
        self.errors = errors
    }

    /// Puts a node that was read into the cache. Under the shared tree lock.
    @discardableResult
    func admit(_ page: Page) throws(FSError) -> Page {
        guard let page = cache.insert(page) else {
            throw .corrupt(
                Corruption(.node, at: page.address.block << 12, "a node in free space"))
        }
        return page
    }

    /// Reads every copy of a node from the medium and heals the bad ones; nil if none is good. The
    /// caller holds a read epoch.
    func examine(
        _ expected: NodeValidator.Expectation, heals: Bool, _ tally: inout ExaminationTally
    ) -> Page? {
        let pointer = expected.pointer
        var good: Page?
        var bad: [UInt64] = []
        for index in 0..<pointer.replicas.count {
            let offset = pointer.replicas[index].block << 12
            let page = Page(
                buffer: ByteBuffer(count: DiskFormat.nodeSize), tree: expected.tree,
                replicas: pointer.replicas, state: .clean)
            tally.bytes += UInt64(DiskFormat.nodeSize)
            do throws(FSError) {
                try device.readMedium(into: page.node.bytes, at: offset)
                guard page.node.has(pointer.checksum, by: checksum) else {
                    throw .corrupt(Corruption(.node, at: offset, "checksum mismatch"))
                }
                try validator.validate(page.node, expected)
                good = good ?? page
            } catch {
                if heals { errors.record(error) }
                bad.append(offset)
            }
        }
        tally.found += UInt64(bad.count)
        if let good {
            if heals, let health {
                let outcome = health.heal(good.node.view, over: bad) { "a \(expected.tree) node" }
                tally.healed += outcome.healed
                for place in outcome.unwritable {
                    tally.noteUnwritable(
                        UnwritableCopy(
                            block: place >> 12, bytes: good.buffer,
                            volumeKey: expected.tree == .volume
                                ? expected.lower ?? .minimum : nil))
                }
            }
        } else {
            tally.lose(pointer.address)
            if heals { lose(expected) }
        }
        return good
    }

    /// Reads and verifies a node, past the cache; copies found bad on the way are healed. The caller
    /// holds a read epoch.
    ///
    /// - Parameter whenBad: hears of each copy that was passed over.
    package func read(
        _ expected: NodeValidator.Expectation, whenBad: (FSError) -> Void = { _ in }
    ) throws(FSError) -> Page {
        let pointer = expected.pointer
        let buffer = ByteBuffer(count: DiskFormat.nodeSize)
        let page = Page(
            buffer: buffer, tree: expected.tree, replicas: pointer.replicas, state: .clean)
        var failure: FSError?
        var bad: [UInt64] = []
        for index in 0..<pointer.replicas.count {
            let offset = pointer.replicas[index].block << 12
            do throws(FSError) {
                try device.read(into: buffer.bytes, at: offset)
                guard page.node.has(pointer.checksum, by: checksum) else {
                    throw .corrupt(Corruption(.node, at: offset, "checksum mismatch"))
                }
                try validator.validate(page.node, expected)
                health?.heal(page.node.view, over: bad) { "a \(expected.tree) node" }
                return page
            } catch {
                errors.record(error)
                whenBad(error)
                bad.append(offset)
                failure = failure ?? error
            }
        }
        lose(expected)
        throw failure
            ?? .corrupt(
                Corruption(.node, at: pointer.address.block << 12, "pointer without replicas"))
    }

    private func lose(_ expected: NodeValidator.Expectation) {
        let pointer = expected.pointer
        let object = expected.lower?.object ?? 0
        health?.lose(
            DamageRecord(
                .node, at: pointer.address, blocks: UInt32(DiskFormat.blocksPerNode),
                tree: expected.tree.rawValue, object: object)
        ) {
            "a \(expected.tree) node at block \(pointer.address.block) has no good copy; it holds "
                + "items from object \(object) on"
        }
    }
}

/// Counts damage and device errors since the volume was opened; a checkpoint adds them to the
/// superblock's persistent counters.
@safe
package final class ErrorLog: @unchecked Sendable {
    private let lock = Mutex()
    private var counts = [UInt64](repeating: 0, count: Superblock.ErrorCounters.names.count)

    func record(_ error: FSError) {
        let index: Int
        switch error {
        case .device(.read, _, _): index = 0
        case .device(.write, _, _): index = 1
        case .device(.flush, _, _): index = 2
        case .corrupt(let what): index = what.detail == "checksum mismatch" ? 3 : 4
        default: index = 7
        }
        lock.withLock { counts[index] += 1 }
    }
    /// A bad copy was made good again.
    func noteHealed() { lock.withLock { counts[5] += 1 } }
    /// Blocks were found that have no good copy.
    func noteLost() { lock.withLock { counts[6] += 1 } }
    package var current: [UInt64] { lock.withLock { counts } }
}
