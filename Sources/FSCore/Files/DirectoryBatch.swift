/// Some entries of a directory as copied out of the tree, to be handed on without locks; and those that
/// are not in use, so that a listing allocates nothing.
///
/// - Invariant: what a batch holds when it is taken is anything.
final class DirectoryBatch {
    struct Listed {
        var inode: InodeNumber
        var cookie: UInt64
        var kind: FileKind
        var nameLength: UInt8
    }
    /// Few enough to stay in a processor's cache on their way.
    static let maximumSize = 128
    var entries: [Listed] = []
    /// The names of `entries`, one behind the other.
    var names: [UInt8] = []
    /// Those of `entries`, if they were asked for.
    var attributes: [Attributes?] = []
    var isLast = false

    init() {
        entries.reserveCapacity(Self.maximumSize)
        names.reserveCapacity(16 * Self.maximumSize)
    }
}

/// - Invariant: at most `maximumIdle` are kept.
final class DirectoryBatches: @unchecked Sendable {
    private static let maximumIdle = 8
    private let lock = Mutex()
    private var idle: [DirectoryBatch] = []

    func take() -> DirectoryBatch? { lock.withLock { idle.popLast() } }
    func give(_ batch: DirectoryBatch) {
        lock.withLock { if idle.count < Self.maximumIdle { idle.append(batch) } }
    }
}
