/// What `restore` asks of a volume: for the verb itself, and in the daemon of a mount.
internal import FSCore
internal import FSModules

struct RestoreRequest: Codable, Sendable {
    enum Action: String, Codable, Sendable {
        /// Only count.
        case plan
        /// Under the name for the time being.
        case copy
        /// Take away what is below that name: a copy that found no place, or what it has replaced.
        case discardCopy, discardReplaced
    }
    var action: Action
    /// From the volume's root, in the snapshot.
    var path: String
    var snapshot: String
    /// The inode of the directory that gets it.
    var directory: UInt64?
    /// For the time being.
    var name: String?
    var verifies: Bool?
}

struct RestoreDocument: Codable, Sendable {
    var path = ""
    var snapshot = ""
    var to = ""
    var kind = ""
    var files: UInt64 = 0
    var directories: UInt64 = 0
    var others: UInt64 = 0
    var links: UInt64 = 0
    var dataBytes: UInt64 = 0
    /// Files of which parts cannot be read; looked for with `--verify` only.
    var unreadableFiles: UInt64 = 0
    /// Flags of ioctl_iflags(2) that are set when it has its place.
    var fixedFlags: UInt32 = 0
    /// Something else was there.
    var isReplacement = false
    /// Where what was replaced still lies, if it could not be removed.
    var leftover: String?
    var isDryRun = false

    init() {}
    init(_ summary: RestoreSummary, _ request: RestoreRequest) {
        path = request.path
        snapshot = request.snapshot
        kind = summary.kind.word
        files = summary.files
        directories = summary.directories
        others = summary.others
        links = summary.links
        dataBytes = summary.bytes
        unreadableFiles = summary.unreadable
        fixedFlags = summary.fixedFlags
        isDryRun = request.action == .plan
    }
}

struct RestoreService {
    let volume: Volume
    /// Of the head that gets what is restored.
    let files: FileSystem
    let target: String

    private var store: Snapshots { volume.snapshotStore }

    func perform(
        _ request: RestoreRequest?, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> RestoreDocument {
        guard let request else {
            throw Failure(.usage, .badRequest, "the request does not say what to restore")
        }
        do throws(FSError) {
            switch request.action {
            case .plan: return RestoreDocument(try plan(request, isCancelled), request)
            case .copy:
                return RestoreDocument(try copy(request, isCancelled, progress), request)
            case .discardCopy, .discardReplaced:
                let (directory, name) = try place(request)
                try store.discard(
                    name, in: directory, of: files, loosens: request.action == .discardCopy)
                return RestoreDocument()
            }
        } catch { throw failure(error, request) }
    }

    func plan(
        _ request: RestoreRequest, _ isCancelled: () -> Bool
    ) throws(FSError) -> RestoreSummary {
        try store.planRestore(
            of: request.path, from: Array(request.snapshot.utf8), isCancelled: isCancelled)
    }

    func copy(
        _ request: RestoreRequest, _ isCancelled: () -> Bool,
        _ progress: (ProgressReporter.Step) -> Void
    ) throws(FSError) -> RestoreSummary {
        let (directory, name) = try place(request)
        let total = try plan(request, isCancelled).bytes
        return try store.copy(
            request.path, from: Array(request.snapshot.utf8), to: files, as: name, in: directory,
            verifies: request.verifies == true
        ) { summary in
            progress(
                ProgressReporter.Step(
                    phase: "restore", doneBytes: min(summary.bytes, total), totalBytes: total))
            return !isCancelled()
        }
    }

    private func place(_ request: RestoreRequest) throws(FSError) -> (InodeNumber, [UInt8]) {
        guard let directory = request.directory, directory > 0, let name = request.name else {
            throw .invalidArgument
        }
        return (InodeNumber(directory), Array(name.utf8))
    }

    func failure(_ error: FSError, _ request: RestoreRequest) -> Failure {
        switch error {
        case .noSuchEntry:
            Failure(
                .notFound, .noSnapshot, "\(target): there is no snapshot '\(request.snapshot)'",
                hint: "'aegisfs snapshot list \(target)' shows all")
        case .stale:
            Failure(
                .notFound, .noVersion,
                "\(target): snapshot '\(request.snapshot)' has no \(request.path)",
                hint: "'aegisfs history \(target) \(request.path)' shows which snapshots have it")
        case .invalidArgument where !request.path.utf8.contains { $0 != 0x2F }:
            .usage(
                "restore: the root of a volume cannot be restored",
                hint: "'aegisfs snapshot rollback' takes all of it back")
        default: Failure(error, target: target)
        }
    }
}
