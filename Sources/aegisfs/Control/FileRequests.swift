/// What the verbs about files ask of a volume, on a mount or in this process: their documents, as JSON
/// shows them and the control socket carries them.
internal import FSCore
internal import Glibc

struct ExtentDocument: Codable, Sendable {
    var offsetBytes: UInt64
    var lengthBytes: UInt64
    var storedBytes: UInt64
    var deviceBytes: [UInt64]
    /// `plain`, `promised` or the codec.
    var codec: String
    var references: UInt32
    var isInSnapshot: Bool

    init(_ extent: FileExtent) {
        offsetBytes = extent.offset
        lengthBytes = extent.length
        storedBytes = extent.stored
        deviceBytes = extent.places
        codec = extent.codec?.name ?? (extent.isPromised ? "promised" : "plain")
        references = extent.references
        isInSnapshot = extent.isInSnapshot
    }
}

/// What is stored is exclusive, or shared with other files, or kept by snapshots only.
struct UsageDocument: Codable, Sendable {
    var files: UInt64
    var logicalBytes: UInt64
    var storedBytes: UInt64
    var exclusiveBytes: UInt64
    var sharedBytes: UInt64
    var snapshotBytes: UInt64
    var encodedBytes: UInt64
    var encodedStoredBytes: UInt64
    var isComplete: Bool

    init(_ usage: SpaceUsage) {
        files = usage.files
        logicalBytes = usage.logicalBytes
        storedBytes = usage.storedBytes
        exclusiveBytes = usage.exclusiveBytes
        sharedBytes = usage.storedBytes - usage.exclusiveBytes - usage.snapshotBytes
        snapshotBytes = usage.snapshotBytes
        encodedBytes = usage.encodedBytes
        encodedStoredBytes = usage.encodedStoredBytes
        isComplete = usage.isComplete
    }
}

struct DefragmentDocument: Codable, Sendable {
    var files: UInt64 = 0
    var rewrittenBytes: UInt64 = 0
    var sharedBytes: UInt64 = 0
    var extentsBefore: UInt64 = 0
    var extentsAfter: UInt64 = 0
    var isComplete = true

    mutating func add(_ result: DefragmentResult) {
        files += 1
        rewrittenBytes += result.rewrittenBytes
        sharedBytes += result.sharedBytes
        extentsBefore += result.extentsBefore
        extentsAfter += result.extentsAfter
    }
}

struct DedupDocument: Codable, Sendable {
    var scannedBytes: UInt64
    var sharedBytes: UInt64
    var comparedBytes: UInt64
    var falseCandidates: UInt64
    var passes: UInt64
    var tableBytes: UInt64
    var isComplete: Bool

    init(_ result: DeduplicationResult) {
        scannedBytes = result.scannedBytes
        sharedBytes = result.sharedBytes
        comparedBytes = result.comparedBytes
        falseCandidates = result.falseCandidates
        passes = result.passes
        tableBytes = result.tableBytes
        isComplete = result.isComplete
    }
}

enum FileRequests {
    /// Extents in one answer.
    static let extentLimit = 10_000
    static let memoryRange: ClosedRange<UInt64> = 64 << 10...512 << 20
    static let defaultMemory: UInt64 = 256 << 20

    /// - Parameter target: the volume, for messages.
    static func perform(
        _ request: ControlRequest, _ fileSystem: FileSystem, _ target: String,
        _ reply: inout ControlReply, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) {
        var roots: [InodeNumber] = []
        for path in request.command == .dedup ? request.paths ?? ["/"] : [] {
            do throws(FSError) { roots.append(try fileSystem.inode(at: path)) } catch {
                guard error == .noSuchEntry || error == .notDirectory else {
                    throw Failure(error, target: target)
                }
                throw Failure(
                    .notFound, .targetMissing, "\(path): no such file on \(target)",
                    hint: "PATH begins at the root of the volume")
            }
        }
        do throws(FSError) {
            try perform(
                request, roots, fileSystem, &reply, isCancelled: isCancelled, progress: progress)
        } catch { throw Failure(error, target: target) }
    }

    private static func perform(
        _ request: ControlRequest, _ roots: [InodeNumber], _ fileSystem: FileSystem,
        _ reply: inout ControlReply, isCancelled: () -> Bool,
        progress: (ProgressReporter.Step) -> Void
    ) throws(FSError) {
        let inodes = (request.inodes ?? []).map { InodeNumber($0) }
        switch request.command {
        case .extents:
            guard let inode = inodes.first else { throw .invalidArgument }
            reply.extents = try fileSystem.extents(
                of: inode, from: min(request.offsetBytes ?? 0, UInt64(Int64.max)),
                limit: extentLimit
            ).map { ExtentDocument($0) }
        case .usage:
            reply.usage = UsageDocument(
                try fileSystem.usage(of: inodes, isCancelled: isCancelled))
        case .defragment:
            reply.defragment = try defragment(
                request, inodes, fileSystem, isCancelled: isCancelled, progress: progress)
        case .dedup:
            let memory = request.memoryBytes ?? defaultMemory
            guard memoryRange.contains(memory) else { throw .invalidArgument }
            reply.dedup = DedupDocument(
                try fileSystem.deduplicate(
                    roots, memoryBytes: Int(memory), isCancelled: isCancelled
                ) { done, total in
                    progress(
                        ProgressReporter.Step(phase: "dedup", doneBytes: done, totalBytes: total))
                })
        default: throw .invalidArgument
        }
    }

    private static func defragment(
        _ request: ControlRequest, _ roots: [InodeNumber], _ fileSystem: FileSystem,
        isCancelled: () -> Bool, progress: (ProgressReporter.Step) -> Void
    ) throws(FSError) -> DefragmentDocument {
        var compression: CompressionSetting?
        if let text = request.compression {
            guard let setting = CompressionSetting(parsing: text) else { throw .invalidArgument }
            compression = setting
        }
        var document = DefragmentDocument()
        let files = try fileSystem.regularFiles(below: roots)
        for (number, inode) in files.enumerated() where document.isComplete {
            do throws(FSError) {
                let size = try fileSystem.attributes(of: inode).size
                document.add(
                    try fileSystem.defragment(inode, compression: compression) { done in
                        progress(
                            ProgressReporter.Step(
                                phase: "defragment, file \(number + 1) of \(files.count)",
                                doneBytes: min(done, size), totalBytes: size))
                        if isCancelled() { document.isComplete = false }
                        return document.isComplete
                    })
            } catch .stale { continue }
        }
        return document
    }
}

/// A path on a mount: which daemon has it, and the inode.
struct LivePath {
    var mount: LiveMount
    var inode: UInt64
    var isRegular: Bool
    /// The one in which it is; nil in what is mounted.
    var snapshot: String?

    /// - Parameter reading: nothing is to be changed, so that it may be in a snapshot.
    init(_ path: String, reading: Bool = false) throws(Failure) {
        guard let status = fileStatus(path, followLinks: false) else {
            throw Target.missing(path, errno)
        }
        let device = DeviceIdentity.number(UInt64(status.st_dev))
        let entry = MountTable.current()?.entries.last { $0.isAegisFS && $0.device == device }
        guard let entry else {
            throw Failure(
                .notFound, .notMounted, "\(path) is on no mounted AegisFS volume",
                hint: "'aegisfs status' lists what is mounted")
        }
        guard let mount = LiveMount.of(entry) else { throw Target.unreachable(path, entry) }
        self.mount = mount
        inode = UInt64(status.st_ino)
        isRegular = status.isRegular
        guard inode >= InodeNumber.limit else { return }
        guard reading, let (name, isRoot) = Self.snapshot(path, on: entry) else {
            throw Failure(
                .failed, .wrongKindOfTarget, "\(path) is in a snapshot, which is left as it is",
                hint: "name a file of the volume itself")
        }
        snapshot = name
        // What the kernel knows has a tag above the number.
        inode = isRoot ? InodeNumber.root.rawValue : inode % InodeNumber.limit
    }

    /// The snapshot below whose name in `.snapshots` a path lies.
    private static func snapshot(
        _ path: String, on mount: MountTable.Entry
    ) -> (name: String, isRoot: Bool)? {
        let base = (mount.mountpoint == "/" ? "" : mount.mountpoint) + "/.snapshots/"
        guard let resolved = Paths.resolveParent(path), resolved.hasPrefix(base) else { return nil }
        let parts = resolved.dropFirst(base.count).split(separator: "/", maxSplits: 1)
        return parts.first.map { (String($0), parts.count == 1) }
    }

    /// Several paths, which must be on one mount, and in one snapshot or none.
    static func all(
        _ paths: [String], reading: Bool = false
    ) throws(Failure) -> (first: LivePath, inodes: [UInt64]) {
        let first = try LivePath(paths[0], reading: reading)
        var inodes = [first.inode]
        for path in paths.dropFirst() {
            let next = try LivePath(path, reading: reading)
            guard first.mount.record.socket == next.mount.record.socket else {
                throw .usage("\(paths[0]) and \(path) are on different volumes")
            }
            guard first.snapshot == next.snapshot else {
                throw .usage("\(paths[0]) and \(path) are not in the same snapshot")
            }
            inodes.append(next.inode)
        }
        return (first, inodes)
    }

    static func noResult() -> Failure {
        Failure(.failed, .badRequest, "the daemon answered without a result")
    }
}
