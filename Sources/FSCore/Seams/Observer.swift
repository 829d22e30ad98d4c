/// Hears of what a volume does, for logs and counters. Calls come from any thread and must be quick.
public protocol VolumeObserver: AnyObject, Sendable {
    func volume(_ event: VolumeEvent)
}

/// Something worth a line in a log.
public enum VolumeEvent: Sendable {
    /// A checkpoint is durable.
    case checkpoint(sequence: SuperblockSequence, nodes: Int, milliseconds: Double)
    /// The journal was replayed when the volume was opened.
    case recovered(Volume.Recovery)
    /// The volume gave up writing.
    case latched(String)
    /// There is no space even for what makes space: snapshots keep it.
    case full
    /// No copy of something was good: a read failed. Or a bad copy could not be healed.
    case damage(String)
    /// A bad copy was written again from a good one.
    case healed(String)
}
