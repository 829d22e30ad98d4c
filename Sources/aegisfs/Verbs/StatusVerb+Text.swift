/// What `aegisfs status` writes for people.
internal import FSCore

extension StatusVerb {
    static func show(_ document: StatusDocument, _ arguments: Arguments) {
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
        for problem in document.problems {
            lines += [
                ("status", style.paint(problem.status, .yellow)), ("action", problem.action),
                ("see", "aegisfs explain \(problem.see)"),
            ]
        }
        if let mountpoint = document.mountpoint {
            let tree = document.mountedTree.map { ", shows \($0.description)" } ?? ""
            lines.append(("mount", "\(mountpoint), pid \(document.pid ?? 0)\(tree)"))
        }
        if let free = document.freeSpace { lines.append(("fragments", free.summary(arguments))) }
        lines.append(("scan", document.scan?.summary ?? "no scrub is recorded on the volume"))
        if document.scrubInterval != "never" {
            lines.append(("", "scrubs itself every \(document.scrubInterval) while it is mounted"))
        }
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
        if let snapshots = document.snapshots {
            lines.append(("snapshots", snapshots.summary(arguments)))
        }
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
        if let journal = document.journal {
            var text = size(journal.sizeBytes)
            if document.mountpoint != nil {
                text +=
                    ", \(size(journal.usedBytes)) used, \(journal.records) records in "
                    + "\(journal.flushes) flushes"
            }
            lines.append(("journal", text))
        }
        if let recovery = document.recovery {
            let target = document.mountpoint == nil ? "waiting" : "replayed"
            lines.append(
                (
                    "recovery",
                    "\(recovery.operations) operations \(target), \(size(recovery.bytes)), "
                        + "\(recovery.milliseconds) ms"
                ))
        }
        if document.mountpoint != nil {
            lines.append(
                (
                    "checkpoints",
                    "\(document.checkpoints), the last took "
                        + "\(document.lastCheckpointMicroseconds / 1000) ms, the longest of late "
                        + "\(document.longestCheckpointMicroseconds / 1000) ms"
                ))
        }
        let errors = document.errors.filter { $0.count > 0 }
        lines.append(
            (
                "errors",
                errors.isEmpty
                    ? "no known errors"
                    : errors.map { "\($0.count) \($0.kind)" }.joined(separator: ", ")
            ))
        for entry in document.damage { lines.append(("", entry.description)) }
        for run in document.badBlocks.prefix(20) {
            lines.append(("", "bad: block \(run.block), \(run.blocks) blocks long"))
        }
        if document.omittedDamage > 0 {
            lines.append(("", "and \(document.omittedDamage) more"))
        }
        let width = lines.map(\.0.count).max() ?? 0
        for (name, value) in lines {
            let padding = String(repeating: " ", count: width - name.count)
            Terminal.output("\(padding)\(name)\(name.isEmpty ? " " : ":") \(value)\n")
        }
    }
}
