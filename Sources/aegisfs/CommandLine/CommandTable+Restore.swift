/// The verb that takes files back from snapshots, in the command table.
internal import FSModules

extension CommandTable {
    static let restore = CommandSpec(
        name: "restore", summary: "take a file or directory back from a snapshot",
        notes: [
            "All of it: data, holes, attributes, ACLs, links within it. Data is shared with the",
            "snapshot, so it takes no time and no space; --verify reads it, too. PATH appears in",
            "one step. What is there is replaced with --force only. Interrupted, nothing is left",
            "but, after a crash, a name '\(Snapshots.temporaryPrefix)...' beside PATH.",
        ],
        options: [
            .restoreFrom, .restoreTo, .replace, .verify, .dryRun, .json, .progress, .quiet, .exact,
        ],
        operands: [
            OperandSpec("TARGET", "a path on a mount, or a volume"),
            OperandSpec("PATH", "from the volume's root", count: .optional),
        ],
        examples: [
            Example("aegisfs restore mnt/report.txt --from monday", "a file that was deleted"),
            Example("aegisfs restore test.img /home --from monday --to /home.old", "beside it"),
        ],
        exitCodes: [.damaged, .notFound, .busy, .needsConfirmation, .interrupted],
        run: RestoreVerb.run)
}
