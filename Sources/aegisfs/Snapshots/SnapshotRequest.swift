/// What is asked of a volume's snapshots, on the command line and over the control socket, and the
/// one place that does it.
internal import FSCore
internal import FSModules

struct SnapshotRequest: Codable, Sendable {
    enum Action: String, Codable, Sendable {
        case create, list, delete, rename, rollback, clone, hold, release, protect, stats, prune
        case history
    }
    var action: Action
    var names: [String] = []
    var newName: String?
    /// Of which a moment is kept, or which goes back to one, or whose present is compared.
    var head: HeadName?
    var description: String?
    /// `KEY=VALUE` each.
    var tags: [String]?
    /// Of a hold.
    var tag: String?
    /// Seconds since 1970.
    var until: Int64?
    var dryRun: Bool?
    /// Of a prune: what it keeps, or how much is to come back.
    var retention: Retention?
    var freeBytes: UInt64?
    /// Of a deletion: bytes a second that come back at most.
    var rateBps: UInt64?
}

/// The answer: the snapshots and heads as they are afterwards, or those that a plan names.
struct SnapshotDocument: Codable, Sendable {
    struct Entry: Codable, Sendable {
        var id: UInt64
        var name: String
        var kind: String
        var parent: String?
        var created: String
        var referencedBytes: UInt64
        var uniqueBytes: UInt64?
        var freesWithOlderBytes: UInt64?
        var inodes: UInt64
        var isAutomatic: Bool
        var description: String
        var tags: [String]
        var holds: [String]
        var protectedUntil: String?
        /// The volume's own head.
        var isDefault: Bool
        /// A mount shows it.
        var isMounted = false

        /// As people read it: a clone of the default head's name is in quotes.
        var title: String { isDefault ? name : Quoting.name(name) }

        /// Why it cannot be deleted, for people.
        var keeping: String? {
            var reasons: [String] = isMounted ? ["mounted"] : []
            if !holds.isEmpty {
                reasons.append("held: \(holds.map(Quoting.name).joined(separator: ", "))")
            }
            if let protectedUntil { reasons.append("until \(protectedUntil)") }
            return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
        }
    }
    struct Totals: Codable, Sendable {
        var snapshots: UInt64
        var heads: UInt64
        /// Deleted ones whose space is still to come back.
        var deleted: UInt64
        var uniqueBytes: UInt64
        /// Space of deleted ones is being given back just now.
        var isSweeping: Bool
        /// What is still to come back of them; at least, if it is not complete.
        var pendingBytes: UInt64
        var pendingIsComplete: Bool
        /// What has come back since the volume was opened.
        var givenBytes: UInt64

        /// What is still to come back, for people; nil if nothing is.
        func returning(_ arguments: Arguments) -> String? {
            guard deleted > 0 || pendingBytes > 0 else { return nil }
            return "\(deleted) deleted ones still give back \(pendingIsComplete ? "" : "at least ")"
                + "\(arguments.size(pendingBytes))\(isSweeping ? ", just now" : "")"
        }
    }
    /// A version of a path.
    struct Version: Codable, Sendable {
        var inode: UInt64
        var kind: String
        var sizeBytes: UInt64
        var modified: String
        var snapshots: [String]
        /// The volume has it now.
        var isPresent: Bool

        init(_ version: FileVersion) {
            inode = version.inode.rawValue
            kind = version.kind.word
            sizeBytes = version.size
            modified = TimeFormatter.utc(version.modified.seconds)
            snapshots = version.snapshots.map { String(decoding: $0, as: UTF8.self) }
            isPresent = version.isPresent
        }
    }
    /// What a prune makes of a snapshot.
    struct Verdict: Codable, Sendable {
        var name: String
        var created: String
        var isKept: Bool
        /// The rules that keep it, or the one by which it goes.
        var reasons: [String]
    }
    var snapshots: [Entry] = []
    var totals: Totals?
    /// What a rollback kept.
    var kept: String?
    var verdicts: [Verdict]?
    /// Of a path, the oldest first.
    var versions: [Version]?
    /// What a deletion gives back: at most, with shared blocks. At least, if it is not complete.
    var freesBytes: UInt64?
    var freesIsComplete: Bool?
    /// The plan was not carried out.
    var isDryRun = false
}

extension SnapshotDocument.Entry {
    init(_ figures: SnapshotFigures) {
        func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
        let record = figures.record
        id = record.id
        isDefault = record.kind == .head && record.head == .head
        name = figures.label.map { text($0.name) } ?? (isDefault ? "(head)" : "")
        kind = record.kind == .head ? "head" : "snapshot"
        parent = figures.parentName.map(text)
        created = TimeFormatter.utc(record.created.seconds)
        referencedBytes = record.counts.referenced << 12
        uniqueBytes = figures.uniqueBlocks.map { $0 << 12 }
        freesWithOlderBytes = figures.blocksWithOlder.map { $0 << 12 }
        inodes = record.counts.inodes
        isAutomatic = record.isAutomatic
        description = text(figures.label?.description ?? [])
        tags = figures.label?.tags.map { "\(text($0.key))=\(text($0.value))" } ?? []
        holds = figures.label?.holds.map(text) ?? []
        let until = figures.label?.protectedUntil ?? 0
        protectedUntil = until == 0 ? nil : TimeFormatter.utc(until)
    }
}

struct SnapshotService {
    let volume: Volume
    let target: String
    /// Nil if nothing of the volume is mounted.
    var mounted: MountedTree?

    var store: Snapshots { volume.snapshotStore }

    func perform(_ request: SnapshotRequest) throws(Failure) -> SnapshotDocument {
        var document = SnapshotDocument()
        let names = request.names.map { Array($0.utf8) }
        let head = try store.head(meant: request.head, mounted, target)
        if request.action == .delete { try requireUnmounted(expanded(names)) }
        do throws(FSError) {
            switch request.action {
            case .prune: try prune(request, &document)
            case .history:
                guard let path = request.names.first else { throw .invalidArgument }
                document.versions = try store.history(of: path, in: head).map {
                    SnapshotDocument.Version($0)
                }
            case .list:
                let figures = try store.figures()
                document.snapshots = figures.map { figures in
                    var entry = SnapshotDocument.Entry(figures)
                    entry.isMounted = mounted?.contains(figures.record) == true
                    return entry
                }
                if store.deletedCount > 0 { document.totals = try totals(of: figures) }
            case .stats: document.totals = try totals(of: try store.figures())
            case .create, .clone, .rollback, .rename:
                try change(request, names, head, &document)
            case .delete:
                let names = expanded(names)
                document.snapshots = try plan(names, request)
                document.isDryRun = request.dryRun == true
                if request.dryRun == true {
                    try noteFreed(names, &document)
                } else {
                    if let rate = request.rateBps { store.sweepRate = rate }
                    try store.delete(names)
                }
            case .hold, .release, .protect: try relabel(request, names)
            }
            if ![.list, .stats, .prune, .history].contains(request.action), request.dryRun != true {
                try volume.synchronize()
            }
        } catch { throw failure(error, request) }
        return document
    }

    private func change(
        _ request: SnapshotRequest, _ names: [[UInt8]], _ head: TreeID,
        _ document: inout SnapshotDocument
    ) throws(FSError) {
        guard let name = names.first else { throw .invalidArgument }
        switch request.action {
        case .create: try store.create(try label(name, request), of: head)
        case .clone:
            guard let newName = request.newName else { throw .invalidArgument }
            try store.clone(name, as: try label(Array(newName.utf8), request))
        case .rollback:
            let kept = freeName("before-rollback-\(TimeFormatter.utc(Timestamp.now().seconds))")
            document.kept = kept
            document.isDryRun = request.dryRun == true
            guard store.isSnapshot(name) else { throw .noSuchEntry }
            if request.dryRun == true { return }
            try store.rollback(head, to: name, keeping: SnapshotLabel(name: Array(kept.utf8)))
        case .rename:
            guard let newName = request.newName else { throw .invalidArgument }
            try store.relabel(name) { $0.name = Array(newName.utf8) }
        default: throw .invalidArgument
        }
    }

    private func requireUnmounted(_ names: [[UInt8]]) throws(Failure) {
        guard let mounted,
            let name = names.first(where: { name in
                store.record(named: name).map(mounted.contains) == true
            })
        else { return }
        let text = String(decoding: name, as: UTF8.self)
        throw Failure(
            .busy, .mountBusy, "\(Quoting.name(text)) is mounted on \(mounted.mountpoint)",
            hint: "'aegisfs umount \(mounted.mountpoint)' first")
    }

    /// `name`, or what comes next: two rollbacks may be made within a second.
    private func freeName(_ name: String) -> String {
        var candidate = name
        var number = 2
        while store.label(of: Array(candidate.utf8)) != nil {
            candidate = "\(name)-\(number)"
            number += 1
        }
        return candidate
    }

    private func label(
        _ name: [UInt8], _ request: SnapshotRequest
    ) throws(FSError) -> SnapshotLabel {
        var label = SnapshotLabel(name: name)
        label.description = Array((request.description ?? "").utf8)
        for tag in request.tags ?? [] {
            let parts = tag.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty else { throw .invalidArgument }
            label.tags.append(
                SnapshotLabel.Tag(key: Array(parts[0].utf8), value: Array(parts[1].utf8)))
        }
        return label
    }

    private func relabel(
        _ request: SnapshotRequest, _ names: [[UInt8]]
    ) throws(FSError) {
        let tag = Array((request.tag ?? "hold").utf8)
        for name in names {
            try store.relabel(name) { (label) throws(FSError) in
                switch request.action {
                case .hold:
                    guard !label.holds.contains(tag) else { throw .entryExists }
                    label.holds.append(tag)
                case .release:
                    guard label.holds.contains(tag) else { throw .noSuchAttribute }
                    label.holds.removeAll { $0 == tag }
                default:
                    guard let until = request.until, until > Timestamp.now().seconds,
                        until >= label.protectedUntil
                    else {
                        throw .notPermitted
                    }
                    label.protectedUntil = until
                }
            }
        }
    }

    /// What would be deleted; throws as the deletion would.
    private func plan(
        _ names: [[UInt8]], _ request: SnapshotRequest
    ) throws(FSError) -> [SnapshotDocument.Entry] {
        try store.requireDeletable(names)
        // What each frees is found in the deadlists, of which there may be very many.
        guard request.dryRun == true else {
            return names.compactMap(store.namedFigures).map(SnapshotDocument.Entry.init)
        }
        let chosen = Set(names)
        return try store.figures().filter { $0.label.map { chosen.contains($0.name) } ?? false }
            .map(SnapshotDocument.Entry.init)
    }

    private func totals(
        of all: [SnapshotFigures]
    ) throws(FSError) -> SnapshotDocument.Totals {
        let pending = try store.blocksToGive()
        return SnapshotDocument.Totals(
            snapshots: UInt64(all.filter { $0.record.kind == .snapshot }.count),
            heads: UInt64(all.filter { $0.record.kind == .head }.count),
            deleted: UInt64(store.deletedCount),
            uniqueBytes: all.reduce(0) { $0 + ($1.uniqueBlocks ?? 0) } << 12,
            isSweeping: store.isSweeping, pendingBytes: pending.blocks << 12,
            pendingIsComplete: pending.isComplete, givenBytes: store.givenBlocks << 12)
    }

    /// Those of the names that a request means, ranges taken apart.
    private func among(
        _ request: SnapshotRequest, _ isMeant: ([UInt8]) -> Bool
    ) -> [[UInt8]] {
        expanded(request.names.map { Array($0.utf8) }).filter(isMeant)
    }

    private func listed(_ names: [[UInt8]]) -> String {
        names.map { Quoting.name(String(decoding: $0, as: UTF8.self)) }.joined(separator: ", ")
    }

    private func missing(_ request: SnapshotRequest) -> Failure {
        let missing = among(request) { store.record(named: $0) == nil }
        guard let first = missing.first else {
            return Failure(
                .notFound, .noSnapshot,
                "\(target): \(listed(among(request) { _ in true })) is a "
                    + "clone, and no snapshot")
        }
        var hint = "'aegisfs snapshot list \(target)' shows all"
        if missing.count == 1, let ends = ends(ofRange: first),
            store.isSnapshot(ends.first), store.isSnapshot(ends.last)
        {
            hint =
                store.range(from: ends.last, to: ends.first).isEmpty
                ? "neither of the two goes on from the other"
                : "the older one comes first: \(listed([ends.last]))..\(listed([ends.first]))"
        }
        return Failure(
            .notFound, .noSnapshot, "\(target): there is no snapshot \(listed(missing))", hint: hint
        )
    }

    /// Names what is in the way, and the cure.
    private func failure(_ error: FSError, _ request: SnapshotRequest) -> Failure {
        let names = request.names.map(Quoting.name).joined(separator: ", ")
        switch error {
        case .noSuchEntry: return missing(request)
        case .entryExists:
            let name = Quoting.name(request.newName ?? request.tag ?? request.names.first ?? "")
            return Failure(.failed, .snapshotExists, "\(target): \(name) exists already")
        case .busy where !among(request, { store.isInUse($0) }).isEmpty:
            return Failure(
                .busy, .snapshotInUse,
                "\(target): a 'send', 'receive' or 'diff' works with "
                    + listed(among(request) { store.isInUse($0) }))
        case .notPermitted where request.action == .protect:
            return Failure(
                .busy, .snapshotHeld, "\(target): \(names) is protected longer than that",
                hint: "a protection can be made longer, and not be withdrawn")
        case .busy, .notPermitted:
            let now = Timestamp.now().seconds
            let kept = among(request) { name in
                store.label(of: name).map { !$0.holds.isEmpty || $0.protectedUntil > now } ?? false
            }
            return Failure(
                .busy, .snapshotHeld, "\(target): held or protected: \(listed(kept))",
                hint: "'aegisfs snapshot list --json \(target)' names the holds and dates")
        case .noSuchAttribute:
            return Failure(
                .notFound, .noSnapshot, "\(target): \(names) is not held by this tag")
        case .invalidArgument, .nameTooLong:
            return .usage(
                "a name is that of a file: 1 to 255 bytes without '/', and not '.' or '..'",
                hint: "a tag is KEY=VALUE, and all that is said of a snapshot has 4000 bytes")
        case .noSpace:
            return Failure(
                .failed, .noSpace, "\(target): \(error.description)",
                hint: HeldSpace(of: volume)?.advice(target)
                    ?? "delete something on it, or enlarge it")
        default: return Failure(error, target: target)
        }
    }
}
