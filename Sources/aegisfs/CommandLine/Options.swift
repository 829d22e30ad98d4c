/// Every option of every verb, defined once: a verb's implementation and the command table name an
/// option by the same constant, so that neither can misspell it.
internal import FSCore

extension OptionSpec {
    // MARK: Options that mean the same for every verb that has them
    static let help = OptionSpec("help", "show this help", short: "h")
    static let json = OptionSpec("json", "print JSON, one object a line")
    static let quiet = OptionSpec("quiet", "print nothing but errors", short: "q")
    static let verbose = OptionSpec("verbose", "print more", short: "v")
    static let noHeader = OptionSpec("no-header", "leave out the column titles")
    static let exact = OptionSpec("exact", "print sizes in bytes")
    static let color = OptionSpec(
        "color", "auto, always or never", value: "WHEN",
        choices: Style.Choice.allCases.map(\.rawValue))
    static let dryRun = OptionSpec("dry-run", "do all but the change itself", short: "n")
    static let progress = OptionSpec(
        "progress", "auto, plain, json or none", value: "HOW",
        choices: ProgressReporter.Mode.allCases.map(\.rawValue))

    // MARK: format
    static let size = OptionSpec(
        "size", "create or size the image; 0: the whole device", short: "s", value: "SIZE")
    static let label = OptionSpec("label", "a name of up to 63 bytes", short: "L", value: "NAME")
    static let uuid = OptionSpec("uuid", "instead of a random one", short: "U", value: "UUID")
    static let journalSize = OptionSpec(
        "journal-size", "instead of 1/64 of the volume, 4M to 256M", value: "SIZE")
    static let checksum = OptionSpec(
        "checksum", "crc32c, xxh3 or sha256", value: "KIND",
        choices: ChecksumKind.allCases.map(\.name))
    static let copies = OptionSpec(
        "copies", "of the data of files that say nothing else", value: "N",
        choices: (1...DiskFormat.maximumDataCopies).map { "\($0)" })
    static let noJournal = OptionSpec("no-journal", "every fsync is a checkpoint: slow")
    static let compression = OptionSpec(
        "compression", "for files that say nothing else, such as zstd:3", value: "CODEC")
    static let force = OptionSpec("force", "overwrite what is there", short: "f")

    // MARK: resize
    static let yes = OptionSpec("yes", "go ahead without asking", short: "y")
    static let rate = OptionSpec("rate", "move at most so much a second", value: "SIZE")

    // MARK: mount and umount
    static let mountOptions = OptionSpec(
        "options", "separated by commas; see above", short: "o", value: "OPTIONS",
        repeatable: true)
    static let readOnly = OptionSpec("read-only", "the same as -o ro", short: "r")
    static let foreground = OptionSpec("foreground", "stay, and log to standard error")
    static let lazy = OptionSpec("lazy", "detach now, finish when it is idle", short: "l")
    static let readyDescriptor = OptionSpec(
        "ready-fd", "where to report that the mount is ready", value: "FD")

    // MARK: scrub
    static let background = OptionSpec("background", "return at once; the daemon goes on")
    static let scrubPath = OptionSpec(
        "path", "only this file or directory, from the volume's root on", value: "PATH")
    static let scrubRate = OptionSpec("rate", "read at most this much a second", value: "SIZE")
    static let scrubStatus = OptionSpec("status", "show the last scrub and those before it")
    static let pause = OptionSpec("pause", "hold the running scrub")
    static let resume = OptionSpec("resume", "go on with a scrub that was held or interrupted")
    static let cancel = OptionSpec("cancel", "end the running scrub")

    // MARK: check
    static let repair = OptionSpec("repair", "put right what is wrong; not on a mount")

    // MARK: defragment and dedup
    static let rewriteCompression = OptionSpec(
        "compression", "instead of what the files are to have", value: "CODEC")
    static let memory = OptionSpec(
        "memory", "for what was seen, 64K to 512M; 256M if not given", value: "SIZE")
    // MARK: snapshot
    static let mountSnapshot = OptionSpec(
        "snapshot", "mount a snapshot, read-only; also -o snapshot=NAME", value: "NAME")
    static let mountHead = OptionSpec(
        "head", "mount a clone; also -o head=NAME", value: "NAME")
    static let ofHead = OptionSpec(
        "head", "a clone instead of what is mounted, or of the volume's own head", value: "NAME")
    static let noSync = OptionSpec("no-sync", "leave out what is only in the kernel's cache")
    static let snapshotDescription = OptionSpec("description", "what it is for", value: "TEXT")
    static let snapshotTag = OptionSpec("tag", "a property", value: "K=V", repeatable: true)
    static let protectUntil = OptionSpec("until", "nobody deletes it before", value: "DATE")

    static let snapshotTree = OptionSpec("tree", "each behind the one from which it goes on")
    static let waitForSpace = OptionSpec("wait", "return when the space is back")
    static let sweepRate = OptionSpec(
        "rate", "give back at most so much a second, until all is back", value: "SIZE")
    static let freeSize = OptionSpec(
        "free", "the oldest go until so much comes back", value: "SIZE")
    /// `--keep-daily` and the like.
    static let retention: [(OptionSpec, Retention.Period)] = Retention.Period.allCases.map {
        let what =
            $0 == .last ? "the newest N" : "the newest of each of the last N \($0.plural)"
        return (OptionSpec("keep-\($0.rawValue)", "keep \(what)", value: "N"), $0)
    }

    // MARK: restore
    static let restoreFrom = OptionSpec("from", "the snapshot that has it", value: "SNAPSHOT")
    static let restoreTo = OptionSpec("to", "where to put it, if not at PATH", value: "PATH")
    static let replace = OptionSpec("force", "replace what is there", short: "f")
    static let verify = OptionSpec("verify", "read all data, and say what is damaged")

    // MARK: send and receive
    static let sendFrom = OptionSpec(
        "from", "only what differs from this snapshot", value: "BASE")
    static let resumeToken = OptionSpec(
        "resume", "go on with a stream that was cut off", value: "TOKEN")
    static let receiveStatus = OptionSpec("status", "show what was begun, and how to go on")

    // MARK: inspect
    static let depth = OptionSpec("depth", "levels of the tree to show", value: "N")

    // MARK: help and the program itself
    static let markdown = OptionSpec("markdown", "the whole reference as Markdown")
    static let version = OptionSpec("version", "print the version", short: "V")

    // MARK: What mount(8) and fsck(8) pass to their helpers
    static let noTable = OptionSpec("n", "accepted: there is no mtab")
    static let sloppy = OptionSpec("s", "ignore mount options that are not known")
    static let fake = OptionSpec("f", "check the command line, mount nothing")
    static let chatty = OptionSpec("v", "accepted, without effect", repeatable: true)
    static let filesystemType = OptionSpec("t", "accepted, without effect", value: "TYPE")
    static let remountOnFailure = OptionSpec("r", "accepted, without effect")
    static let forceUnmount = OptionSpec("f", "accepted, without effect")
    static let automatic = OptionSpec("a", "the same as -p")
    static let preen = OptionSpec("p", "repair without a question")
    static let assumeYes = OptionSpec("y", "the same as -p")
    static let assumeNo = OptionSpec("n", "change nothing, whatever else is asked for")
    static let forceCheck = OptionSpec("f", "accepted: the check is always a full one")
    static let fsckVersion = OptionSpec("V", "print the version")
    static let fsckProgress = OptionSpec("C", "accepted, without effect", attached: "FD")
    static let fsckVerbose = OptionSpec("v", "accepted, without effect", repeatable: true)
}
