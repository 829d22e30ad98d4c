/// Every verb, and every name by which other programs call this one: the single place from which
/// dispatch, parsing, help, completion and the reference come.
internal import FSCore

enum CommandTable {
    static let verbs: [CommandSpec] = [
        format, mount, umount, status, check, scrub, snapshot, history, restore, send, receive,
        property,
        extents,
        usage, defragment,
        dedup, resize, trim, inspect, sync, explain, help, completion,
        daemon,
    ]

    /// Called by the name of the program file.
    static let helpers: [CommandSpec] = [
        makeFilesystem, checkFilesystem, mountHelper("mount.aegisfs"),
        mountHelper("mount.fuse.aegisfs"), umountHelper,
    ]

    private static let target = OperandSpec("TARGET", "an image, a block device or a mountpoint")

    // MARK: Verbs

    private static let format = CommandSpec(
        name: "format", summary: "make an empty volume on an image or block device",
        notes: [
            "SIZE is a whole number with suffix B, K, M, G, T, P or E; a bare one means GiB.",
            "What the target holds is named, and needs --force or a yes to be destroyed; so",
            "does a SIZE that cuts an image. --dry-run says it, too, and then exits with 13.",
            "\(CompressionSetting.forms).",
        ],
        options: [
            .size, .label, .uuid, .checksum, .copies, .compression, .journalSize, .noJournal,
            .force,
            .dryRun, .quiet, .json, .exact,
        ],
        operands: [OperandSpec("TARGET", "an image file or a block device")],
        examples: [
            Example("aegisfs format /dev/nvme0n1p6", "the whole partition"),
            Example("aegisfs format test.img --size 1", "a new image of 1 GiB"),
        ],
        exitCodes: [.notFound, .busy, .needsConfirmation, .interrupted], run: FormatVerb.run)

    private static let mount = CommandSpec(
        name: "mount", summary: "mount a volume on a directory",
        notes: [
            "Returns when the mount can be used. OPTIONS are ro, rw, noatime, relatime,",
            "strictatime, nosuid, nodev, noexec, sync, dirsync, allow_other, noallow_other,",
            "writeback, commit=SECONDS, cache=SIZE, nonempty, discard, remount (with ro or rw),",
            "dedup[=MEMORY], nodedup, compress[=CODEC], nocompress, io_uring, noio_uring,",
            "snapdir=root|owner|all|off: who may look into DIR/.snapshots (not listed): root, the",
            "owner of DIR, all, nobody.",
            "\(CompressionSetting.forms).",
        ],
        options: [.mountOptions, .readOnly, .foreground, .mountSnapshot, .mountHead],
        operands: [
            OperandSpec("TARGET", "an image file or a block device"),
            OperandSpec("DIR", "an empty directory", count: .optional, completion: .directories),
        ],
        examples: [
            Example("aegisfs mount test.img mnt", "read-write"),
            Example("aegisfs mount -o ro,noatime /dev/sdb1 /mnt", "with options"),
            Example("aegisfs mount -o remount,ro mnt", "make it read-only"),
            Example("aegisfs mount --snapshot monday test.img mnt", "an earlier state, to read"),
        ],
        exitCodes: [.notFound, .busy], run: MountVerb.run)

    private static let umount = CommandSpec(
        name: "umount", summary: "unmount a volume",
        notes: ["Returns when everything is on the device and the device is free."],
        options: [.lazy, .quiet], operands: [target],
        examples: [Example("aegisfs umount mnt", "by its mountpoint")],
        exitCodes: [.damaged, .notFound, .busy], run: UmountVerb.run)

    private static let status = CommandSpec(
        name: "status", summary: "show how a volume is",
        notes: ["Without TARGET it lists what is mounted."],
        options: [.json, .exact, .noHeader, .color],
        operands: [OperandSpec("TARGET", target.summary, count: .optional)],
        examples: [Example("aegisfs status mnt", "a mounted volume")],
        exitCodes: [.damaged, .notFound, .busy], run: StatusVerb.run)

    private static let check = CommandSpec(
        name: "check", summary: "compare every structure of a volume with every other",
        notes: [
            "Changes nothing. A mounted volume is checked as of a checkpoint made now.",
            "With --repair, which a mounted volume refuses, it says what it would do, asks, and",
            "puts right what can be: from second copies first, then from other structures. What",
            "has lost its place goes to lost+found. --dry-run does all of it in memory.",
        ],
        options: [.repair, .dryRun, .yes, .json, .progress, .quiet], operands: [target],
        examples: [
            Example("aegisfs check test.img", "an unmounted image"),
            Example("aegisfs check --repair --dry-run test.img", "what a repair would do"),
            Example("aegisfs check --repair --yes test.img", "do it without a question"),
        ],
        exitCodes: [
            .damaged, .repaired, .notFound, .busy, .needsConfirmation, .interrupted,
        ], run: CheckVerb.run)

    private static let livePaths = [
        OperandSpec("PATH", "a file or directory on a mount"),
        OperandSpec("MORE", "others on the same mount", count: .optionalRepeating),
    ]

    private static let extents = CommandSpec(
        name: "extents", summary: "show where a file's data lies, and what it shares",
        options: [.json, .exact, .noHeader], operands: [OperandSpec("PATH", "a file on a mount")],
        examples: [Example("aegisfs extents mnt/file", "like filefrag -v")],
        exitCodes: [.notFound], run: FileVerbs.extents)

    private static let usage = CommandSpec(
        name: "usage", summary: "show what files hold: logical, stored, shared, compressed",
        notes: [
            "Blocks with several references count once; exclusive is what deleting would free, in",
            "snapshots what only they would keep.",
        ],
        options: [.json, .exact], operands: livePaths,
        examples: [Example("aegisfs usage mnt/photos", "all below a directory")],
        exitCodes: [.notFound], run: FileVerbs.usage)

    private static let defragment = CommandSpec(
        name: "defragment", summary: "write files anew, in fewer extents or compressed otherwise",
        notes: [
            "What files share, or a snapshot has, is left alone: a copy would take the space that",
            "sharing saves.",
            "\(CompressionSetting.forms).",
        ],
        options: [.rewriteCompression, .json, .progress, .quiet], operands: livePaths,
        examples: [
            Example("aegisfs defragment --compression zstd:9 mnt/logs", "compress what is there")
        ],
        exitCodes: [.notFound, .interrupted], run: FileVerbs.defragment)

    private static let dedup = CommandSpec(
        name: "dedup", summary: "find equal blocks of files and let the files share them",
        notes: [
            "PATHs are from the volume's root, or on the mount; without any all files are gone",
            "through. Bytes are compared before anything is shared. What is done stays when it is",
            "interrupted.",
        ],
        options: [.memory, .json, .exact, .progress, .quiet],
        operands: [
            target,
            OperandSpec("PATH", "from the volume's root", count: .optionalRepeating),
        ],
        examples: [Example("aegisfs dedup mnt", "a mounted volume")],
        exitCodes: [.notFound, .busy, .interrupted], run: FileVerbs.dedup)

    private static let snapshot = CommandSpec(
        name: "snapshot", summary: "keep moments of a volume, and go back to them",
        notes: [
            "A snapshot costs no space until something that it shows is changed or deleted.",
            "They can be deleted in any order; the space comes back in the background.",
            "rollback keeps all snapshots, and makes one of what it replaces.",
            "On a mount they are seen, read-only, in DIR/.snapshots/NAME; a mounted volume goes back",
            "to one only while nobody uses its files.",
        ],
        options: [.json],
        subverbs: [
            snapshotVerb(
                "create", "keep the present state", [snapshotName],
                [.snapshotDescription, .snapshotTag, .noSync, .ofHead], run: SnapshotVerb.create),
            snapshotVerb(
                "list", "all snapshots and heads, with what they cost", [],
                [.snapshotTree, .exact, .noHeader], run: SnapshotVerb.list),
            snapshotVerb(
                "delete", "delete snapshots or clones",
                [
                    OperandSpec(
                        "NAME",
                        "of a snapshot or clone, or A..B: all from A to B; ..B: from the oldest; A..: to the newest",
                        count: .optionalRepeating)
                ], [.yes, .dryRun, .waitForSpace, .sweepRate, .progress, .quiet, .exact],
                run: SnapshotVerb.delete),
            snapshotVerb(
                "rename", "give another name", [snapshotName, OperandSpec("NEW", "its new name")],
                run: SnapshotVerb.rename),
            snapshotVerb(
                "rollback", "go back to a snapshot", [snapshotName],
                [.yes, .dryRun, .ofHead, .quiet],
                run: SnapshotVerb.rollback),
            snapshotVerb(
                "clone", "make a writable head that begins as a snapshot is",
                [snapshotName, OperandSpec("NEW", "the name of the head")],
                run: SnapshotVerb.clone),
            snapshotVerb(
                "hold", "refuse to delete it until released", [snapshotName, holdTag],
                run: SnapshotVerb.hold),
            snapshotVerb(
                "release", "end a hold", [snapshotName, holdTag], run: SnapshotVerb.release),
            snapshotVerb(
                "protect", "refuse to delete it before a date; nobody can withdraw that",
                [snapshotName], [.protectUntil, .yes],
                run: SnapshotVerb.protect),
            snapshotVerb(
                "prune", "delete what no rule keeps; held and protected ones stay", [],
                OptionSpec.retention.map(\.0) + [.freeSize, .yes, .dryRun, .quiet, .exact],
                run: SnapshotVerb.prune),
            snapshotVerb(
                "diff", "what changed since a snapshot, in paths",
                [
                    snapshotName,
                    OperandSpec("OTHER", "a later one; the present if left out", count: .optional),
                ], [.ofHead, .exact], run: StreamVerbs.difference),
            snapshotVerb("stats", "totals", [], [.exact], run: SnapshotVerb.stats),
        ],
        examples: [
            Example("aegisfs snapshot create test.img monday", "keep the present state"),
            Example("aegisfs snapshot rollback test.img monday", "go back to it"),
        ],
        exitCodes: [.notFound, .busy, .needsConfirmation], run: { _ in .done })

    private static let history = CommandSpec(
        name: "history", summary: "show the versions of a path that snapshots have",
        notes: [
            "One version is the same inode, of the same size, last written at the same time. The",
            "path need not exist any more; a snapshot in which it does not is not shown.",
        ],
        options: [.ofHead, .json, .exact, .noHeader],
        operands: [
            OperandSpec("TARGET", "a path on a mount, or a volume"),
            OperandSpec("PATH", "from the volume's root", count: .optional),
        ],
        examples: [
            Example("aegisfs history mnt/report.txt", "on a mount"),
            Example("aegisfs history test.img /report.txt", "of a volume, mounted or not"),
        ],
        exitCodes: [.notFound, .busy], run: HistoryVerb.run)

    private static let send = CommandSpec(
        name: "send", summary: "write a snapshot, or what changed between two, as a stream",
        notes: [
            "The stream goes to standard output; 'aegisfs receive' makes the snapshot of it, on",
            "this or another volume of any settings. Every record of it has a sum.",
            "With --from the other side must have BASE, sent or received. --dry-run tells the size.",
        ],
        options: [.sendFrom, .resumeToken, .dryRun, .json, .progress, .quiet, .exact],
        operands: [target, OperandSpec("SNAPSHOT", "what to send", count: .optional)],
        examples: [
            Example("aegisfs send mnt monday > monday.stream", "all of it"),
            Example(
                "aegisfs send mnt tuesday --from monday | ssh host aegisfs receive /backup", ""),
        ],
        exitCodes: [.notFound, .busy, .interrupted], run: StreamVerbs.send)

    private static let receive = CommandSpec(
        name: "receive", summary: "make a snapshot of a stream",
        notes: [
            "The stream comes from standard input. What arrived of one that was cut off is kept as",
            "'NAME.partial': --status shows how to go on, 'aegisfs snapshot delete' gives it up.",
        ],
        options: [.receiveStatus, .json, .progress, .quiet, .exact],
        operands: [
            target,
            OperandSpec(
                "NAME", "of the snapshot; the one that it had if left out", count: .optional),
        ],
        examples: [
            Example("aegisfs receive backup.img < monday.stream", "into an image"),
            Example("aegisfs receive backup.img --status", "after an interruption"),
        ],
        exitCodes: [.notFound, .busy, .interrupted], run: StreamVerbs.receive)

    private static let snapshotName = OperandSpec("NAME", "of a snapshot")
    private static let holdTag = OperandSpec(
        "TAG", "who holds it; 'hold' if left out", count: .optional)

    private static func snapshotVerb(
        _ name: String, _ summary: String, _ operands: [OperandSpec],
        _ options: [OptionSpec] = [],
        run: @escaping @Sendable (Arguments) throws(Failure) -> ExitCode
    ) -> CommandSpec {
        CommandSpec(
            name: name, summary: summary, options: options + [.json],
            operands: [target] + operands,
            exitCodes: [.notFound, .busy, .needsConfirmation], run: run)
    }

    private static let resize = CommandSpec(
        name: "resize", summary: "make a volume larger or smaller, mounted or not",
        notes: [
            "SIZE is as for format, with + or - relative to now; max is all of the device, min",
            "the smallest size that holds what is there. An image file gets the same size.",
            "Shrinking moves what is behind the new end; interrupted, it moves that back and ends",
            "with 130, or with 0 if all was moved. A second signal does not wait.",
        ],
        options: [.dryRun, .yes, .rate, .json, .progress, .quiet, .exact],
        operands: [target, OperandSpec("SIZE", "such as 20G, +5G, -512M, max or min")],
        examples: [
            Example("aegisfs resize mnt +10G", "a mounted volume, 10 GiB more"),
            Example("aegisfs resize test.img min --dry-run", "how small it could be"),
        ],
        exitCodes: [.notFound, .busy, .needsConfirmation, .interrupted], run: ResizeVerb.run)

    private static let trim = CommandSpec(
        name: "trim", summary: "give free space back to the device or the image's filesystem",
        notes: ["An image file gets holes where nothing is. 'mount -o discard' does it all along."],
        options: [.json, .progress, .quiet, .exact], operands: [target],
        examples: [Example("aegisfs trim mnt", "also by fstrim(8)")],
        exitCodes: [.notFound, .busy, .interrupted], run: TrimVerb.run)

    private static let inspect = CommandSpec(
        name: "inspect", summary: "show what lies on a device, also on a damaged one",
        notes: ["Reads only, and takes no lock: on a mounted volume it shows the last checkpoint."],
        options: [.json],
        subverbs: [
            inspection("superblock", "all copies of the superblock", run: InspectVerb.superblock),
            inspection(
                "tree", "the trees, level by level", options: [.depth], run: InspectVerb.tree),
            inspection(
                "node", "the node at a block",
                [OperandSpec("BLOCK", "a block number")], run: InspectVerb.node),
            inspection(
                "inode", "an inode's record",
                [OperandSpec("INODE", "an inode number")], run: InspectVerb.inode),
            inspection(
                "extents", "where a file's data lies",
                [OperandSpec("INODE", "an inode number")], run: InspectVerb.extents),
            inspection("journal", "the records of the journal", run: InspectVerb.journal),
            inspection("bitmap", "allocated blocks by region", run: InspectVerb.bitmap),
            inspection("space", "a map of the space, and free runs", run: InspectVerb.space),
            inspection(
                "snapshots", "the table of snapshots and the deadlists",
                run: InspectVerb.snapshots),
            inspection(
                "path", "the inode behind a path",
                [OperandSpec("PATH", "from the volume's root")], run: InspectVerb.path),
        ],
        examples: [
            Example("aegisfs inspect superblock test.img", "the four copies"),
            Example("aegisfs inspect path test.img /etc/hosts", "the inode of a file"),
        ],
        exitCodes: [.notFound], run: { _ throws(Failure) in .usage })

    private static func inspection(
        _ name: String, _ summary: String, _ operands: [OperandSpec] = [],
        options: [OptionSpec] = [],
        run: @escaping @Sendable (Arguments) throws(Failure) -> ExitCode
    ) -> CommandSpec {
        CommandSpec(
            name: name, summary: summary, options: [.json] + options,
            operands: [target] + operands, exitCodes: [.notFound], run: run)
    }

    private static let scrub = CommandSpec(
        name: "scrub", summary: "read and verify every copy of everything, and heal what is bad",
        notes: [
            "Metadata has two copies, data as many as 'aegisfs property' says. What has no",
            "good copy is listed by 'aegisfs status'. 'aegisfs property set TARGET",
            "scrub-interval 30d' has a mounted volume scrub itself. A scrub that was",
            "interrupted goes on with the next mount. --dry-run finds and heals nothing.",
        ],
        options: [
            .background, .scrubPath, .scrubRate, .dryRun, .scrubStatus, .pause, .resume, .cancel,
            .json,
            .progress, .quiet,
        ],
        operands: [target],
        examples: [
            Example("aegisfs scrub mnt", "with progress"),
            Example("aegisfs scrub mnt --background --rate 100M", "slowly, beside other work"),
            Example("aegisfs scrub test.img --path /photos", "a directory of an image"),
        ],
        exitCodes: [.damaged, .repaired, .notFound, .busy, .interrupted], run: ScrubVerb.run)

    private static let property = CommandSpec(
        name: "property", summary: "show and set properties of files, directories and volumes",
        notes: Property.all.map { "\($0.name): \($0.summary); \($0.values)." } + [
            "New files take those of their directory. 'default' takes a value away again.",
            "Of an image or device it is the root directory that has them.",
        ],
        subverbs: [
            CommandSpec(
                name: "get", summary: "print the value of a property", options: [.json],
                operands: [propertyPath, propertyName], exitCodes: [.notFound, .busy],
                run: PropertyVerb.get),
            CommandSpec(
                name: "set", summary: "give a property a value",
                operands: [propertyPath, propertyName, OperandSpec("VALUE", "see above")],
                exitCodes: [.notFound, .busy], run: PropertyVerb.set),
            CommandSpec(
                name: "list", summary: "print all properties", options: [.json, .noHeader],
                operands: [propertyPath], exitCodes: [.notFound, .busy], run: PropertyVerb.list),
        ],
        examples: [
            Example("aegisfs property set mnt/photos copies 2", "two copies of what is new there"),
            Example("aegisfs property list mnt", "all of a mounted volume"),
        ],
        exitCodes: [.notFound, .busy], run: { _ throws(Failure) in .usage })

    private static let propertyPath = OperandSpec("PATH", "on a mount, or an image or device")
    private static let propertyName = OperandSpec(
        "NAME", "a property", completion: .words(Property.all.map(\.name)))

    private static let sync = CommandSpec(
        name: "sync", summary: "make everything written to a mounted volume durable",
        options: [.quiet], operands: [target],
        examples: [Example("aegisfs sync mnt", "after sync(1), for what it wrote back")],
        exitCodes: [.notFound], run: SyncVerb.run)

    private static let explain = CommandSpec(
        name: "explain", summary: "tell what a message id means",
        notes: ["Without ID it lists all of them."], options: [.json],
        operands: [
            OperandSpec(
                "ID", "such as AEGIS-0030", count: .optional,
                completion: .words(MessageCatalogue.entries.map(\.id)))
        ],
        examples: [Example("aegisfs explain AEGIS-0030", "also: aegisfs explain 30")],
        run: ExplainVerb.run)

    private static let help = CommandSpec(
        name: "help", summary: "show help for a verb", options: [.markdown],
        operands: [OperandSpec("VERB", "a verb", count: .optionalRepeating, completion: .verbs)],
        run: HelpVerb.run)

    private static let completion = CommandSpec(
        name: "completion", summary: "print a completion script for a shell",
        operands: [OperandSpec("SHELL", "bash", completion: .words(["bash"]))],
        examples: [Example("eval \"$(aegisfs completion bash)\"", "in ~/.bashrc")],
        run: HelpVerb.completion)

    /// What `mount` starts in the background.
    private static let daemon = CommandSpec(
        name: "mount-daemon", summary: "serve a mount",
        options: [.mountOptions, .readyDescriptor],
        operands: [OperandSpec("TARGET", "the device"), OperandSpec("DIR", "the mountpoint")],
        isHidden: true, run: MountVerb.serve)

    // MARK: Helpers of other programs

    private static let makeFilesystem = CommandSpec(
        name: "mkfs.aegisfs", summary: format.summary, notes: format.notes,
        options: format.options, operands: format.operands,
        examples: [Example("mkfs.aegisfs -L data /dev/sdb1", "the whole partition")],
        exitCodes: format.exitCodes, run: FormatVerb.run)

    private static let checkFilesystem = CommandSpec(
        name: "fsck.aegisfs", summary: check.summary,
        notes: [
            "Changes nothing without -p, -a or -y. The options and exit codes are those of",
            "fsck(8); 'aegisfs check' tells more.",
        ],
        options: [
            .automatic, .preen, .assumeYes, .assumeNo, .forceCheck, .fsckVersion, .fsckProgress,
            .fsckVerbose,
        ],
        operands: [OperandSpec("TARGET", "an image file or a block device")],
        examples: [Example("fsck.aegisfs /dev/sdb1", "also by fsck -t aegisfs /dev/sdb1")],
        exitCodes: [.damaged, .repaired, .interrupted], status: { $0.fsckStatus },
        run: CheckVerb.runFsck)

    private static func mountHelper(_ name: String) -> CommandSpec {
        CommandSpec(
            name: name, summary: mount.summary,
            notes: mount.notes + ["mount(8) calls this; the exit codes are its own."],
            options: [
                .mountOptions, .noTable, .sloppy, .fake, .chatty, .filesystemType,
                .readOnly,
            ],
            operands: mount.operands,
            examples: [Example("mount -t fuse.aegisfs test.img mnt", "by mount(8)")],
            status: { $0.mountStatus }, run: MountVerb.runHelper)
    }

    private static let umountHelper = CommandSpec(
        name: "umount.fuse.aegisfs", summary: umount.summary,
        notes: umount.notes + ["umount(8) calls this; the exit codes are those of mount(8)."],
        options: [
            .noTable, .lazy, .forceUnmount, .chatty, .remountOnFailure, .filesystemType,
        ],
        operands: [target], examples: [Example("umount mnt", "by umount(8)")],
        status: { $0.mountStatus }, run: UmountVerb.run)
}
