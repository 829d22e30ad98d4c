/// `aegisfs status`: how a volume is, what is wrong and what to do, live or offline; without a
/// target, what is mounted.
internal import FSCore
internal import FSModules

/// A volume's state, as JSON shows it and the control socket carries it.
struct StatusDocument: Codable, Sendable {
    struct Space: Codable, Sendable {
        var totalBytes: UInt64
        var usedBytes: UInt64
        var freeBytes: UInt64
        var availableBytes: UInt64
        var inodes: UInt64
        var freeInodes: UInt64
    }
    struct Cache: Codable, Sendable {
        var bytes: UInt64
        var limitBytes: UInt64
        var dirtyBytes: UInt64
        var hits: UInt64
        var misses: UInt64
    }
    struct Journal: Codable, Sendable {
        var sizeBytes: UInt64
        var usedBytes: UInt64
        var pendingBytes: UInt64
        var records: UInt64
        var flushes: UInt64
        var seals: UInt64
        var writtenBytes: UInt64
    }
    /// What the last mount brought back from the journal.
    struct Recovery: Codable, Sendable {
        var operations: UInt64
        var bytes: UInt64
        var milliseconds: UInt64
    }
    struct ErrorCount: Codable, Sendable {
        var kind: String
        var count: UInt64
    }
    /// A place without a good copy.
    struct Damage: Codable, Sendable {
        /// `data`, `metadata` or `bitmap`
        var kind: String
        var path: String?
        var inode: UInt64
        var offsetBytes: UInt64
        var sizeBytes: UInt64
        var block: UInt64
        var foundAt: String
        /// Snapshots that have an intact older version of it: they were read just now.
        var intactIn: [String]?

        var description: String {
            switch kind {
            case "data":
                "\(path ?? "inode \(inode)"), bytes \(offsetBytes) to "
                    + "\(offsetBytes + sizeBytes - 1) (block \(block))\(advice)"
            case "metadata": "metadata at block \(block), of inode \(inode) or above"
            default: "allocation bitmap at block \(block)"
            }
        }
    }
    struct BadBlocks: Codable, Sendable {
        var block: UInt64
        var blocks: UInt64
    }
    /// What is wrong, what to do, where to read more.
    struct Problem: Codable, Sendable {
        var status: String
        var action: String
        var see: String
    }
    var device: String
    var label: String
    var uuid: String
    /// `online`, `read-only`, `suspended`, `detached`, `not mounted`
    var state: String
    /// One word or two for a list: `ok` or the gravest problem.
    var health = "ok"
    /// Whether something is wrong that does not go away by itself.
    var isDamaged = false
    /// The gravest problem; nil if all is well.
    var status: String?
    var action: String?
    var see: String?
    /// All of them, the gravest first.
    var problems: [Problem] = []
    var mountpoint: String?
    /// Nil if it shows the default head.
    var mountedTree: MountedTree.Document?
    var pid: Int32?
    var diskVersion: UInt32
    var sizeBytes: UInt64
    var space: Space
    var freeSpace: FreeSpaceDocument?
    var snapshots: SnapshotStatus?
    var features: [String]
    var compatibleFeatures: UInt64
    var readOnlyCompatibleFeatures: UInt64
    var incompatibleFeatures: UInt64
    var superblockSequence: UInt64
    var birthEpoch: UInt64
    var checkpoints: UInt64
    var lastCheckpointMicroseconds: UInt64
    var longestCheckpointMicroseconds: UInt64
    var journal: Journal?
    var recovery: Recovery?
    var cache: Cache?
    var unlinkedInodes: UInt64
    /// How it was found: by the daemon when it mounted it, else just now.
    var wasCleanlyUnmounted: Bool
    var errors: [ErrorCount]
    /// The scrub that runs, or the last one.
    var scan: ScrubDocument?
    /// How often a mounted volume scrubs itself; `never` or a duration.
    var scrubInterval = "never"
    /// At most `damageLimit` entries.
    var damage: [Damage]
    var omittedDamage: Int
    /// Runs of blocks that the device does not keep; at most `damageLimit`.
    var badBlocks: [BadBlocks]
    static let damageLimit = 1000

    /// - Parameters:
    ///   - superblocks: what is wrong with the superblock's copies.
    ///   - mount: the daemon's record and what it sees; nil for a volume that nobody has mounted.
    init(
        _ status: VolumeStatus, superblocks: [CheckFinding], device: String,
        mount: MountRecord? = nil, condition: MountCondition? = nil
    ) {
        self.device = device
        label = status.label
        uuid = status.uuid.description
        mountpoint = mount?.mountpoint
        pid = mount?.pid
        diskVersion = status.diskVersion
        sizeBytes = status.byteCount
        let statistics = status.statistics
        space = Space(
            totalBytes: statistics.totalBlocks << 12,
            usedBytes: (statistics.totalBlocks - min(statistics.freeBlocks, statistics.totalBlocks))
                << 12,
            freeBytes: statistics.freeBlocks << 12,
            availableBytes: statistics.availableBlocks << 12,
            inodes: status.inodeCount, freeInodes: statistics.freeInodes)
        features = status.featureNames
        compatibleFeatures = status.compatibleFeatures
        readOnlyCompatibleFeatures = status.readOnlyCompatibleFeatures
        incompatibleFeatures = status.incompatibleFeatures
        superblockSequence = status.superblockSequence
        birthEpoch = status.birthEpoch
        checkpoints = status.checkpoints
        lastCheckpointMicroseconds = UInt64(status.lastCheckpointMilliseconds * 1000)
        longestCheckpointMicroseconds = UInt64(status.longestCheckpointMilliseconds * 1000)
        journal = status.journal.map {
            Journal(
                sizeBytes: $0.ringBytes, usedBytes: $0.usedBytes, pendingBytes: $0.pendingBytes,
                records: $0.records, flushes: $0.flushes, seals: $0.seals,
                writtenBytes: $0.bytesWritten)
        }
        recovery = status.recovery.map {
            Recovery(
                operations: $0.operations, bytes: $0.bytes, milliseconds: UInt64($0.milliseconds))
        }
        if mount != nil {
            cache = Cache(
                bytes: UInt64(status.cachePages * DiskFormat.nodeSize),
                limitBytes: UInt64(status.cacheLimitPages * DiskFormat.nodeSize),
                dirtyBytes: UInt64(status.dirtyPages * DiskFormat.nodeSize),
                hits: status.cacheHits, misses: status.cacheMisses)
        }
        unlinkedInodes = status.orphans
        wasCleanlyUnmounted = status.cleanlyUnmounted
        errors = status.errors.map { ErrorCount(kind: $0.name, count: $0.count) }
        damage = status.damage.prefix(Self.damageLimit).map {
            Damage(
                kind: $0.kind.rawValue, path: $0.path, inode: $0.inode, offsetBytes: $0.offset,
                sizeBytes: $0.byteCount, block: $0.block, foundAt: TimeFormatter.utc($0.time))
        }
        omittedDamage = status.damage.count - damage.count
        badBlocks = status.badBlocks.prefix(Self.damageLimit).map {
            BadBlocks(block: $0.start.block, blocks: $0.count)
        }

        switch status.state {
        case .online: state = "online"
        case .readOnly: state = mount == nil ? "not mounted" : "read-only"
        case .latched: state = "suspended"
        }
        if condition?.isDetached == true, state != "suspended" { state = "detached" }
        addProblems(status, superblocks, mount, condition)
    }

    /// The gravest first: what can lose data, what is damaged, what is only worth knowing.
    private mutating func addProblems(
        _ status: VolumeStatus, _ superblocks: [CheckFinding], _ mount: MountRecord?,
        _ condition: MountCondition?
    ) {
        if case .latched(let why) = status.state {
            let isHostFull = status.failure?.isOfFullHost == true
            add(
                "suspended", "Writing has ended after an error: \(why).",
                isHostFull
                    ? "Make room on the filesystem that holds the image, unmount the volume and mount "
                        + "it again: what was acknowledged is there."
                    : "Unmount it, look into the system log, then run 'aegisfs check'.",
                (isHostFull ? MessageID.hostFull : .latched).rawValue, isDamage: true)
        }
        if let damage = status.recovery?.damage {
            add(
                "journal", "The journal is damaged: \(damage.detail).",
                "The volume shows the state before; copy what is needed, and restore the rest "
                    + "from a backup.", CheckIssue.journalDamaged.id, isDamage: true)
        }
        if condition?.image == .deleted {
            add(
                "no image", "The image was deleted: it is gone as soon as the volume is unmounted.",
                "Copy what is on the volume elsewhere before anything else.",
                MessageID.imageGone.rawValue, isDamage: true)
        }
        if let first = superblocks.first {
            let places = superblocks.map(\.message).joined(separator: "; ")
            add(
                "damaged",
                "\(superblocks.count) of the 4 superblock copies cannot be used: \(places).",
                mount?.isReadOnly == false
                    ? "None is needed: the next two checkpoints that store changes write them anew."
                    : "Mount it for writing: the next two checkpoints write them anew.",
                first.id, isDamage: true)
        }
        if !damage.isEmpty {
            let files = Set(damage.filter { $0.kind == "data" }.map(\.inode)).count
            let others = damage.filter { $0.kind != "data" }.count
            let what = [
                files == 0 ? "" : files == 1 ? "one file" : "\(files) files",
                others == 0 ? "" : "metadata in \(others) places",
            ].filter { !$0.isEmpty }.joined(separator: " and ")
            add(
                "lost data", "There is no good copy of parts of \(what).",
                files == 0
                    ? "Copy what can be read elsewhere, and run 'aegisfs check'."
                    : "Restore the files listed below from a backup, or from a snapshot where one is "
                        + "named ('aegisfs restore'), or delete them.",
                MessageID.dataLost.rawValue, isDamage: true)
        } else if errors.contains(where: { $0.count > 0 }) {
            add(
                "errors", "Errors were counted on this volume; nothing is known to be damaged now.",
                "If they grow, replace the device. The system log says where they were.",
                MessageID.errorsCounted.rawValue, isDamage: false)
        }
        if !badBlocks.isEmpty {
            let count = badBlocks.reduce(0) { $0 + $1.blocks }
            add(
                "bad blocks", "\(count) blocks of the device do not keep what is written to them.",
                "Run 'aegisfs scrub', which moves what lies there; replace the device if they grow.",
                MessageID.errorsCounted.rawValue, isDamage: false)
        }
        if condition?.isDetached == true {
            add(
                "detached",
                "It was unmounted with --lazy, and ends when what is open on it is closed.",
                "End the programs that still use it; until then its device is busy.",
                MessageID.detached.rawValue, isDamage: false)
        }
        if case .moved(let name) = condition?.image {
            add(
                "moved", "The image was moved to \(name).",
                "None is needed: only its name has changed.", MessageID.imageGone.rawValue,
                isDamage: false)
        }
        if mount == nil, !status.cleanlyUnmounted {
            add(
                "not clean", "The volume was not unmounted cleanly.",
                "None: the next mount recovers by itself, once a dead one is unmounted.",
                MessageID.notCleanlyUnmounted.rawValue, isDamage: false)
        }
    }

    /// Adds what is known of scrubs.
    mutating func addScan(of volume: Volume, _ record: ScrubRecord?) {
        scan = record.map { ScrubDocument($0) }
        if let property = Property.named("scrub-interval"),
            let value = try? volume.fileSystem.property(property, of: .root)
        {
            scrubInterval = value.value
        }
    }

    mutating func add(
        _ health: String, _ status: String, _ action: String, _ see: String, isDamage: Bool
    ) {
        if problems.isEmpty {
            self.health = health
            (self.status, self.action, self.see) = (status, action, see)
        }
        isDamaged = isDamaged || isDamage
        problems.append(Problem(status: status, action: action, see: see))
    }
}

enum StatusVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let path = arguments.operand(0) else { return list(arguments) }
        let document = try document(path)
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "status"))
        } else {
            show(document, arguments)
        }
        return document.isDamaged ? .damaged : .done
    }

    private static func document(_ path: String) throws(Failure) -> StatusDocument {
        switch try Target.resolve(path) {
        case .live(let mount):
            do throws(Failure) {
                return try ask(mount)
            } catch {
                if mount.hasEnded { return try document(path) }
                // A daemon that finishes an unmount answers nobody any more.
                guard mount.isFinishing else { throw error }
                throw Failure(
                    .busy, .finishing, "\(path): \(mount.description)",
                    hint: "'aegisfs umount \(path)' waits for it")
            }
        case .offline:
            let (device, volume) = try DeviceAccess.openVolume(reading: path)
            defer {
                try? volume.close()
                device.close()
            }
            var document = StatusDocument(
                volume.status(),
                superblocks: Checker.superblockFindings(device.device, modules: .standard),
                device: path)
            document.addFullness(of: volume)
            document.addScan(of: volume, ScrubRecord.last(in: volume))
            document.freeSpace = FreeSpaceDocument(of: volume)
            document.addSnapshots(of: volume)
            return document
        }
    }

    private static func ask(
        _ mount: LiveMount, timeoutSeconds: Int = ControlClient.statusTimeoutSeconds
    ) throws(Failure) -> StatusDocument {
        let reply = try ControlClient.send(
            ControlRequest(command: .status), to: mount, timeoutSeconds: timeoutSeconds)
        guard let status = reply.status else {
            throw Failure(.failed, .badRequest, "the daemon answered without a result")
        }
        return status
    }

    // MARK: The list

    /// A daemon's record and how its volume is.
    private struct Listed: Encodable {
        private enum Keys: String, CodingKey { case health }
        let record: MountRecord
        let health: String

        func encode(to encoder: any Encoder) throws {
            try record.encode(to: encoder)
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(health, forKey: .health)
        }
    }
    private struct List: Encodable { var mounts: [Listed] }
    /// One daemon that hangs must not keep the others from being listed.
    private static let listTimeoutSeconds = 3

    private static func health(_ mount: LiveMount) -> String {
        do throws(Failure) {
            return try ask(mount, timeoutSeconds: listTimeoutSeconds).health
        } catch {
            return switch mount.latest.state {
            case .starting: "starting"
            case .mounted: "no answer"
            case .finishing, .closed: "finishing"
            }
        }
    }

    private static func list(_ arguments: Arguments) -> ExitCode {
        let mounts = LiveMount.all().map { Listed(record: $0.record, health: health($0)) }
        if arguments.json {
            Terminal.output(JSONOutput.line(List(mounts: mounts), command: "status"))
            return .done
        }
        var table = TextTable([
            ("device", .left), ("label", .left), ("pid", .right), ("mode", .left),
            ("health", .left), ("mountpoint", .left),
        ])
        for mount in mounts {
            let record = mount.record
            table.add([
                record.device, record.label.isEmpty ? "-" : record.label, "\(record.pid)",
                record.isReadOnly ? "ro" : "rw", mount.health, record.mountpoint,
            ])
        }
        for mount in Target.deadMounts() {
            let health = Target.isDead(mount) ? "dead" : "unknown"
            table.add([mount.source, "-", "-", "-", health, mount.mountpoint])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        return .done
    }
}
