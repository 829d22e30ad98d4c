/// What an open volume does about a medium that lies or fails: bad copies are written again from good
/// ones, and what has no good copy is remembered, to be told and to be stored in the volume tree.
///
///     a copy is bad ──another is good──▶ heal: write, read back from the medium, compare
///                   │                      └──not the same──▶ bad block: listed, never used again;
///                   │                            a scrub moves the copy (`Volume+Relocate`)
///                   └──none is good────▶ lose: a damage record, the read fails
///
/// - Invariant: nothing is written before the volume was recovered, nor to one that is only read:
///   until then it is not known that the blocks are still what they were.
/// - Invariant: who heals holds the blocks: by a read epoch, by the lock of the inode that refers to
///   them, or, of bitmap blocks, by the lock on the slots.
/// - Invariant: a failed heal does not latch the volume. What was bad is still bad.
@safe
package final class MediumHealth: @unchecked Sendable {
    private let device: RemappedBlockDevice
    private let errors: ErrorLog
    private let lock = Mutex()

    // Guarded by the lock.
    private var isArmed = false
    private var newDamage: [UInt64: DamageRecord] = [:]
    private var newBadBlocks: [BlockRun] = []
    /// Blocks that a record names already, stored or not.
    private var known: Set<UInt64> = []
    /// Of a medium that is gone for the most part no more is listed; errors are still counted.
    static let knownLimit = 4096

    /// Asked before each write.
    var mayWrite: @Sendable () -> Bool = { false }
    /// Hears of every heal and every loss.
    var report: @Sendable (VolumeEvent) -> Void = { _ in }

    init(device: RemappedBlockDevice, errors: ErrorLog) {
        self.device = device
        self.errors = errors
    }

    /// The volume is what it should be: from now on copies are healed.
    func arm() { lock.withLock { isArmed = true } }

    /// What became of bad copies.
    struct Outcome {
        /// So many are right now.
        var healed: UInt64 = 0
        /// Byte offsets of those that the medium does not take.
        var unwritable: [UInt64] = []
    }

    /// Writes verified bytes over bad copies.
    ///
    /// - Parameter places: byte offsets on the device.
    @discardableResult
    func heal(_ good: ByteView, over places: [UInt64], _ what: () -> String) -> Outcome {
        var outcome = Outcome()
        guard !places.isEmpty, lock.withLock({ isArmed }), mayWrite() else { return outcome }
        for place in places {
            do throws(FSError) {
                if try device.rewrite(good, at: place) {
                    outcome.healed += 1
                    errors.noteHealed()
                    report(.healed("\(what()): the copy at device byte \(place) was rewritten"))
                    continue
                }
            } catch { errors.record(error) }
            let first = place >> 12
            for part in device.remaps.translate(first..<first + UInt64(good.count) >> 12) {
                noteBad(BlockRun(BlockAddress(block: part.start), part.count))
            }
            outcome.unwritable.append(place)
            report(.damage("\(what()): the copy at device byte \(place) cannot be rewritten"))
        }
        return outcome
    }

    /// Blocks, where they are on the device, do not keep what is written to them.
    func noteBad(_ run: BlockRun) {
        lock.withLock {
            if newBadBlocks.count < Self.knownLimit, !newBadBlocks.contains(run) {
                newBadBlocks.append(run)
            }
        }
    }

    /// A copy that could not be rewritten is good again, elsewhere.
    func moved(_ what: String) {
        errors.noteHealed()
        report(.healed(what))
    }

    /// No copy is good. True if that is news.
    @discardableResult
    package func lose(_ record: DamageRecord, _ what: () -> String) -> Bool {
        let isNew = lock.withLock {
            guard known.count < Self.knownLimit, known.insert(record.place.rawValue).inserted else {
                return false
            }
            newDamage[record.place.rawValue] = record
            return true
        }
        guard isNew else { return false }
        errors.noteLost()
        report(.damage(what()))
        return true
    }

    // MARK: For the volume tree

    /// Records that were found there.
    func load(_ records: [DamageRecord]) {
        lock.withLock { for record in records { known.insert(record.place.rawValue) } }
    }
    /// What is not stored yet.
    var unstored: (damage: [DamageRecord], badBlocks: [BlockRun]) {
        lock.withLock { (newDamage.values.sorted { $0.place < $1.place }, newBadBlocks) }
    }
    func stored(_ damage: [DamageRecord], _ badBlocks: [BlockRun]) {
        lock.withLock {
            for record in damage { newDamage[record.place.rawValue] = nil }
            newBadBlocks.removeAll { badBlocks.contains($0) }
        }
    }
    /// Blocks that are no longer damaged, or no longer used.
    func forget(_ places: [BlockAddress]) {
        lock.withLock {
            for place in places {
                known.remove(place.rawValue)
                newDamage[place.rawValue] = nil
            }
        }
    }
}
