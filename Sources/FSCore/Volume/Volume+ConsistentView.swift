/// A checkpoint's state held still beside running operations, for `check` and later for scrub.
extension Volume {
    struct ConsistentView {
        var superblock: Superblock
        /// The committed bitmap of every region that has one, or why it cannot be read.
        var leaves: [UInt64: Result<ByteBuffer, FSError>]
        /// While it is held, no block of this state is handed out again.
        var token: ReadEpochs.Token
    }

    /// Makes a checkpoint and holds its state; the caller gives the token back by `leave`.
    func openConsistentView() throws(FSError) -> ConsistentView {
        try checkpoint(force: false)
        // No checkpoint may run while the view is taken: it would flip bitmap slots.
        stateLock.lock()
        while progress.isRunning { stateLock.wait() }
        progress.isRunning = true
        let superblock = self.superblock
        stateLock.unlock()
        defer {
            stateLock.withLock {
                progress.isRunning = false
                stateLock.signalAll()
            }
        }
        let token = epochs.enter()
        return ConsistentView(
            superblock: superblock, leaves: allocator.committedLeaves(), token: token)
    }
}
