/// Copies that are in use and that the medium does not keep any more: they get another place, so that there
/// are as many good ones again as before.
///
/// Nothing that refers to such a copy changes, however many snapshots do: from now on the remap table says
/// where it is, as on a volume that was made smaller (`Volume+Evacuate`). The nodes of the volume tree,
/// from which that table is read, are written anew at other places instead. Superblocks, bitmap blocks and
/// the journal's ring lie at fixed places and stay there.
///
/// - Invariant: it runs while the view is open in which a copy was found, so that its blocks have nobody
///   else's bytes before the move is made or given up.
/// - Invariant: what was released, and nobody has any more, is not moved.
/// - Invariant: a new place was read back before anything refers to it.

/// A copy to which nothing can be written.
struct UnwritableCopy {
    /// As everything that refers to it says.
    var block: UInt64
    /// What belongs there, verified.
    var bytes: ByteBuffer
    /// Of a node of the volume tree: the first key that it may have.
    var volumeKey: Key?
}

extension Volume {
    /// Places that turn out to be bad as well, before a copy is left where it is.
    private static let relocationAttempts = 8

    /// Moves what the tally has of such copies; they count as healed then.
    package func relocateUnwritable(_ tally: inout ExaminationTally) throws(FSError) {
        let copies = tally.takeUnwritable()
        guard !copies.isEmpty, isWritable else { return }
        let isFirst = stateLock.withLock {
            defer { isResizing = true }
            return !isResizing
        }
        // A change of the size moves blocks, too. The next scrub finds the copy again.
        guard isFirst else { return }
        defer { stateLock.withLock { isResizing = false } }
        // Their places are not handed out again once they are free.
        storeHealth()
        for copy in copies {
            guard let key = copy.volumeKey else { continue }
            try relocateNode(key, of: .volume)
            tally.healed += 1
            health.moved("a node of the volume tree was written anew at another place")
        }
        let others = copies.filter { $0.volumeKey == nil }
        guard !others.isEmpty else { return }
        if !treeLock.shared({ usesRemaps }) {
            // The feature bit is durable before the first entry.
            try checkpoint(force: true) {
                $0.incompatible |= DiskFormat.Incompatible.remap
                $0.addressLimit = max($0.addressLimit, layout.addressLimit)
            }
        }
        let evacuation = Evacuation(boundary: 0)
        treeLock.exclusive {
            usesRemaps = true
            self.evacuation = evacuation
        }
        defer { treeLock.exclusive { self.evacuation = nil } }
        // From here on the bitmap knows what was released before, and `evacuation` what is after.
        try checkpoint(force: true)
        for copy in others where try relocate(copy, evacuation) {
            tally.healed += 1
            health.moved("the copy at block \(copy.block) has another place now")
        }
    }

    private func relocate(
        _ copy: UnwritableCopy, _ evacuation: Evacuation
    ) throws(FSError) -> Bool {
        let source = copy.block..<copy.block + UInt64(copy.bytes.count >> 12)
        let before = remaps.records(touching: source)
        let run = BlockRun(source)
        if before.isEmpty {
            guard try allocator.isCommitted(run) else { return false }
        } else if before.count > 1 || before[0].part(source)?.count != run.count {
            // Moved before, in part: where the parts are now, they are healed on their own.
            return false
        }
        for _ in 0..<Self.relocationAttempts {
            let copies: [RemapRecord]
            do throws(FSError) {
                copies = try self.copy(copy.bytes.view, of: source, run.start) {
                    (bytes, place) throws(FSError) in
                    guard (try? physical.rewrite(bytes, at: place.start.block << 12)) != true else {
                        return
                    }
                    health.noteBad(place)
                    allocator.exclude(place)
                    throw .device(.write, errno: 5, offset: place.start.block << 12)
                }
            } catch {
                if case .device = error { continue }
                if error == .noSpace { return false }
                throw error
            }
            let transaction = Transaction()
            if let record = before.first, let part = record.part(source) {
                transaction.replaceRemap(
                    record, with: RemapTable.subtract(source, from: [record]) + copies)
                transaction.release(BlockRun(part.target..<part.target + part.count))
            } else {
                for copy in copies {
                    transaction.put(copy.key, copy.encoded(), tree: .volume)
                }
                transaction.release(run)
            }
            for copy in copies {
                transaction.publish(BlockRun(copy.target..<copy.target + copy.count))
            }
            let checks = !options.brokenRules.contains(.releasedBlocksMoved)
            transaction.condition = { [remaps] in
                !(checks && evacuation.hasReleased(source))
                    && remaps.records(touching: source) == before
            }
            do throws(FSError) {
                try commit(transaction, .emergency)
                return true
            } catch {
                cancel(copies)
                guard error == .busy else { throw error }
                return false
            }
        }
        return false
    }
}
