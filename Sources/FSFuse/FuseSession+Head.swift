/// The mounted head becomes another tree under the mount.
///
///     close the gate ─▶ change ─▶ another tag ─▶ open the gate ─▶ forget the root's names
///
/// With the other tag everything but the root is new to the kernel. What it knows of the old tree cannot
/// be reached any more once the names in the root are forgotten; a request by an old node id is
/// answered ESTALE, upon which path walks begin anew.
///
/// - Invariant: the kernel is told while the gate is open: it waits for whoever looks up a name in the
///   root, and that one may wait for our answer.
internal import CFuse3
public import FSCore
internal import Glibc

public enum HeadChange: Sendable {
    case changed
    case unchanged
    /// Requests were still worked on; nothing was done.
    case busy
}

extension FuseSession {
    /// Stops all work on requests, and lets `change` make the head another tree.
    ///
    /// - Parameter change: returns whether it did. No request is answered meanwhile: it may not look
    ///   at the mount.
    public func changeHead(
        patienceMilliseconds: Int, _ change: () -> Bool
    ) -> HeadChange {
        guard channel.gate.close(patienceMilliseconds: patienceMilliseconds) else { return .busy }
        defer { channel.gate.open() }
        return channel.head.become(change) ? .changed : .unchanged
    }

    /// Has the kernel forget names in the root, then what it holds of the root itself.
    ///
    /// - Parameter list: names those that were there and those that are, also twice.
    public func forgetRoot<E: Error>(
        _ list: (_ forget: (ByteView) -> Void) throws(E) -> Void
    ) throws(E) {
        try list { name in
            guard !FuseSnapshotNodes.isDirectoryName(name) else { return }
            withSession { session in
                name.unsafeBytes.withMemoryRebound(to: CChar.self) { name in
                    _ = fuse_lowlevel_notify_inval_entry(
                        session, FuseNodeID.root, name.baseAddress, name.count)
                }
            }
        }
        withSession { _ = fuse_lowlevel_notify_inval_inode($0, FuseNodeID.root, 0, 0) }
    }
}
