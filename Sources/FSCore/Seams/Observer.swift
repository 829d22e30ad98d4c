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
    /// A copy of something was bad; another was right, or the read failed.
    case damage(String)
}
