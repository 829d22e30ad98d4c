/// The language of a mount's control socket, `/run/aegisfs/UUID.sock`.
///
/// A Unix stream socket. Both sides write JSON objects, one a line. Root and the user that runs the
/// daemon may connect; anybody else is disconnected.
///
/// Request, at most 64 KiB:
///
///     {"command": "status"}                       how the volume is
///     {"command": "sync"}                         make everything durable
///     {"command": "check"}                        check a consistent view of it
///     {"command": "remount", "read_only": true}   turn writing off or on
///     {"command": "resize", "size": {"kind": "bytes", "bytes": N}, "rate_bps": N,
///      "is_dry_run": true}                        change its size; kinds are bytes, more, less,
///                                                 minimum and maximum
///     {"command": "cancel"}                       sent while a resize runs: it ends early, if it still can,
///                                                 and its answer says how; then comes that to this line
///     {"command": "scrub", "scrub": {"action": "start", "is_background": true}}
///                                                 start, status, pause, resume or cancel a scrub
///     {"command": "trim"}                         give free space back
///     {"command": "mounts"}                       what is mounted where
///     {"command": "extents", "inodes": [7], "offset_bytes": 0}    where a file's data lies
///     {"command": "usage", "inodes": [1]}         what files hold
///     {"command": "defragment", "inodes": [7], "compression": "zstd:3"}   write files anew
///     {"command": "dedup", "paths": ["/a"], "memory_bytes": 268435456}    share equal blocks
///     {"command": "stream", "stream": {"action": "send", "snapshot": "monday"}}
///                                                 send, receive or compare snapshots; bytes go as
///                                                 `ControlStream` says
///     {"command": "restore", "restore": {"action": "copy", "path": "/a", "snapshot": "monday",
///      "directory": 1, "name": ".aegisfs-restore-7"}}    copy what a snapshot has; the client renames it
///     {"command": "shutdown"}                     unmount, even if it is in use
///     {"command": "snapshot", "snapshot": {"action": "create", "names": ["monday"]}}
///                                                 what `aegisfs snapshot` does
///
/// Answer: any number of progress lines, then one result or one error.
///
///     {"type": "progress", "progress": {"phase": "tree", "done_bytes": 1, "total_bytes": 2}}
///     {"type": "result", "status": {...}}         or "check", "resize", "trim", "mounts", or nothing more
///     {"type": "error", "error": {"code": 11, "message_id": "AEGIS-0030", "message": "...",
///                                 "hint": "..."}}
///
/// Afterwards the client may send the next request. A request that does not arrive as a whole
/// within ten seconds, or an answer that is not read for as long, ends the connection. A line that
/// is no request is answered with an error; one that is too long also ends the connection. A field
/// that is not known is ignored. Long work ends early when its client closes the connection, and when
/// the volume is unmounted.

/// What a client asks.
struct ControlRequest: Codable, Sendable {
    enum Command: String, Codable, Sendable, CaseIterable {
        case status, sync, check, remount, resize, trim, mounts, shutdown, snapshot
        case extents, usage, defragment, dedup, scrub, stream, restore, cancel
    }
    var command: Command
    /// For `scrub`.
    var scrub: ScrubRequest?
    /// For `remount`.
    var readOnly: Bool?
    /// Of files and directories; for `extents`, `usage` and `defragment`.
    var inodes: [UInt64]?
    /// In which they are, for `extents` and `usage`; nil in what is mounted.
    var inSnapshot: String?
    var offsetBytes: UInt64?
    var compression: String?
    /// From the volume's root; for `dedup`, which takes all of the volume without them.
    var paths: [String]?
    var memoryBytes: UInt64?
    /// For `snapshot`.
    var snapshot: SnapshotRequest?
    var stream: StreamRequest?
    var restore: RestoreRequest?
    /// For `resize`.
    var size: ResizeSize?
    var rateBps: UInt64?
    var isDryRun: Bool?
}

/// One line of an answer.
struct ControlReply: Codable, Sendable {
    enum Kind: String, Codable, Sendable { case progress, part, data, result, error }
    var type: Kind
    var progress: ProgressReporter.Step?
    var status: StatusDocument?
    var check: CheckDocument?
    var resize: ResizeDocument?
    var trim: TrimDocument?
    var mounts: [MountRecord]?
    var scrub: ScrubDocument?
    /// The scrubs before the last one.
    var history: [ScrubDocument]?
    var extents: [ExtentDocument]?
    var usage: UsageDocument?
    var defragment: DefragmentDocument?
    var dedup: DedupDocument?
    var snapshot: SnapshotDocument?
    var stream: StreamDocument?
    var restore: RestoreDocument?
    /// Of a part.
    var changes: [ChangeDocument]?
    /// How many bytes follow the line.
    var dataBytes: UInt64?
    var error: FailureDocument?

    static var done: ControlReply { ControlReply(type: .result) }
}

enum ControlLimits {
    static let requestBytes = 64 << 10
    /// A check may name many findings.
    static let replyBytes = 64 << 20
    static let clients = 16
    static let timeoutSeconds = 10
}

/// Carries out requests; called by several threads at once.
protocol ControlService: Sendable {
    /// - Parameter isCancelled: true as soon as nobody waits for the answer any more; long work asks.
    func perform(
        _ request: ControlRequest, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ControlReply

    /// Carries out a request with which bytes go over the channel.
    func stream(
        _ request: ControlRequest, over channel: LineChannel, isCancelled: () -> Bool
    ) throws(Failure) -> ControlReply
}
