/// `aegisfs status`: how a volume is, what is wrong and what to do, live or offline; without a
/// target, what is mounted.
internal import FSCore

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
    struct ErrorCount: Codable, Sendable {
        var kind: String
        var count: UInt64
    }
    var device: String
    var label: String
    var uuid: String
    /// `online`, `read-only`, `suspended`
    var state: String
    /// What is wrong, what to do, where to read more; nil if all is well.
    var status: String?
    var action: String?
    var see: String?
    var mountpoint: String?
    var pid: Int32?
    var diskVersion: UInt32
    var sizeBytes: UInt64
    var space: Space
    var features: [String]
    var compatibleFeatures: UInt64
    var readOnlyCompatibleFeatures: UInt64
    var incompatibleFeatures: UInt64
    var superblockSequence: UInt64
    var birthEpoch: UInt64
    var checkpoints: UInt64
    var lastCheckpointMicroseconds: UInt64
    var cache: Cache?
    var unlinkedInodes: UInt64
    /// How it was found: by the daemon when it mounted it, else just now.
    var wasCleanlyUnmounted: Bool
    var errors: [ErrorCount]

    /// - Parameter mount: the daemon's record; nil for a volume that nobody has mounted.
    init(_ status: VolumeStatus, device: String, mount: MountRecord?) {
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

        switch status.state {
        case .online: state = "online"
        case .readOnly: state = mount == nil ? "not mounted" : "read-only"
        case .latched: state = "suspended"
        }
        if case .latched(let why) = status.state {
            self.status = "Writing has ended after an error: \(why)."
            action = "Unmount it, look into the system log, then run 'aegisfs check'."
            see = MessageID.latched.rawValue
        } else if errors.contains(where: { $0.count > 0 }) {
            self.status = "Errors were counted on this volume."
            action =
                "The system log names the damaged places; 'aegisfs check' looks at the structure."
            see = MessageID.errorsCounted.rawValue
        } else if mount == nil, !status.cleanlyUnmounted {
            self.status = "The volume was not unmounted cleanly."
            action = "None: the next mount recovers by itself."
            see = MessageID.notCleanlyUnmounted.rawValue
        }
    }

    /// Whether something is wrong that does not go away by itself.
    var isDamaged: Bool { state == "suspended" || errors.contains { $0.count > 0 } }
}

enum StatusVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let path = arguments.operand(0) else { return list(arguments) }
        let document: StatusDocument
        switch try Target.resolve(path) {
        case .live(let mount):
            let reply = try ControlClient.send(ControlRequest(command: .status), to: mount)
            guard let status = reply.status else {
                throw Failure(.failed, .badRequest, "the daemon answered without a result")
            }
            document = status
        case .offline:
            let (device, volume) = try DeviceAccess.openVolume(reading: path)
            document = StatusDocument(volume.status(), device: path, mount: nil)
            try? volume.close()
            device.close()
        }
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "status"))
        } else {
            show(document, arguments)
        }
        return document.isDamaged ? .damaged : .done
    }

    private struct List: Encodable { var mounts: [MountRecord] }

    private static func list(_ arguments: Arguments) -> ExitCode {
        let records = LiveMount.all().map(\.record)
        if arguments.json {
            Terminal.output(JSONOutput.line(List(mounts: records), command: "status"))
            return .done
        }
        var table = TextTable([
            ("device", .left), ("label", .left), ("pid", .right), ("mode", .left),
            ("mountpoint", .left),
        ])
        for record in records {
            table.add([
                record.device, record.label.isEmpty ? "-" : record.label, "\(record.pid)",
                record.isReadOnly ? "ro" : "rw", record.mountpoint,
            ])
        }
        for mount in Target.deadMounts() {
            let mode = Target.isDead(mount) ? "dead" : "?"
            table.add([mount.source, "-", "-", mode, mount.mountpoint])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        return .done
    }

    private static func show(_ document: StatusDocument, _ arguments: Arguments) {
        func size(_ bytes: UInt64) -> String { arguments.size(bytes) }
        let style = arguments.style
        var lines: [(String, String)] = [
            (
                "volume",
                document.label.isEmpty ? document.device : "\(document.label) (\(document.device))"
            ),
            ("uuid", document.uuid),
            ("state", style.paint(document.state, document.state == "suspended" ? .red : .green)),
        ]
        if let status = document.status { lines.append(("status", style.paint(status, .yellow))) }
        if let action = document.action { lines.append(("action", action)) }
        if let see = document.see { lines.append(("see", "aegisfs explain \(see)")) }
        if let mountpoint = document.mountpoint {
            lines.append(("mount", "\(mountpoint), pid \(document.pid ?? 0)"))
        }
        lines.append(("scan", "none is recorded on the volume"))
        let space = document.space
        let share = SizeFormatter.percentage(space.usedBytes, of: space.totalBytes) ?? "0.0 %"
        lines += [
            (
                "space",
                "\(size(space.totalBytes)), \(size(space.usedBytes)) used (\(share)), "
                    + "\(size(space.availableBytes)) available"
            ),
            (
                "inodes",
                "\(space.inodes) used"
                    + (document.unlinkedInodes > 0
                        ? ", \(document.unlinkedInodes) unlinked but open" : "")
            ),
        ]
        if let cache = document.cache {
            lines.append(
                (
                    "cache",
                    "\(size(cache.bytes)) of \(size(cache.limitBytes)), "
                        + "\(size(cache.dirtyBytes)) dirty, \(cache.hits) hits, \(cache.misses) misses"
                ))
        }
        lines += [
            (
                "config",
                "disk version \(document.diskVersion), \(document.features.joined(separator: ", "))"
            ),
            (
                "sequence",
                "superblock \(document.superblockSequence), birth epoch \(document.birthEpoch)"
            ),
        ]
        let errors = document.errors.filter { $0.count > 0 }
        lines.append(
            (
                "errors",
                errors.isEmpty
                    ? "no known errors"
                    : errors.map { "\($0.count) \($0.kind)" }.joined(separator: ", ")
            ))
        let width = lines.map(\.0.count).max() ?? 0
        for (name, value) in lines {
            let padding = String(repeating: " ", count: width - name.count)
            Terminal.output("\(padding)\(name): \(value)\n")
        }
    }
}
