/// What POSIX and the Linux manual pages say, one rule at a time, on AegisFS and on ext4: a rule
/// that ext4 does not follow either would be a mistake of ours.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct ConformanceTests {
    /// Rules that AegisFS cannot follow behind this kernel's FUSE; `docs/SEMANTICS.md` has them all.
    private static let limits: [String: String] = [
        "fallocate COLLAPSE_RANGE: takes whole blocks out": "FUSE answers for us",
        "immutable file: open(O_WRONLY) is EPERM": "FUSE does not know the flag",
        "immutable file: open(O_WRONLY|O_APPEND) is EPERM": "FUSE does not know the flag",
        "append-only file: open(O_WRONLY) is EPERM": "FUSE does not know the flag",
        "flags: statx shows immutable, append-only and nodump": "FUSE does not pass them on",
        "times FIFO: a write moves mtime and ctime, a read atime": "FUSE leaves them to nobody",
    ]
    /// More of them with `-o writeback`, where the kernel keeps what was written and is the authority
    /// on times; which of them show depends on what is in its cache.
    private static let limitsOfWriteback: Set<String> = [
        "times read: moves a of the inode, none of the parent",
        "relatime: a read moves an access time older than the last change",
        "relatime: a read moves an access time older than a day",
        "times mmap: reading a mapped page of an old file moves atime",
        "times execve: running an old program moves its atime",
        "append-only file: touch is allowed",
        "flags: setting them moves ctime",
    ]
    /// Rules that the control does not follow.
    private static let limitsOfExt4: [String: String] = [
        "xattr: a thousand attributes": "their names have to fit one block"
    ]

    private static let obstacle: String? =
        TestMachine.loopObstacle
        ?? (command == nil ? "no aegisfs-conformance beside the tests" : nil)
        ?? ((try? run(["mkfs.ext4", "-V"]).exitCode) == 0 ? nil : "no mkfs.ext4")
    static let canRun = TestMachine.can("conformance beside ext4", obstacle)

    /// The program with the rules, built beside `aegisfs`.
    private static let command: String? = AegisCommand.path.map {
        URL(fileURLWithPath: $0).deletingLastPathComponent()
            .appendingPathComponent("aegisfs-conformance").path
    }.flatMap { FileManager.default.isExecutableFile(atPath: $0) ? $0 : nil }

    /// The stages in the order in which they need each other, and the options to mount with.
    private static let stages: [(name: String, options: String?)] = [
        ("plain", nil), ("ro", "ro"), ("noatime", "noatime"), ("strictatime", "strictatime"),
        ("restricted", "nosuid,nodev,noexec"), ("remounted", nil),
    ]

    @Test(.enabled(if: canRun)) func aegisFollowsTheRules() throws {
        try withVolume { volume, _ in
            var failures: [String: String] = [:]
            for stage in Self.stages {
                try volume.mount(options: stage.options)
                try failures.merge(runRules(stage.name, in: volume.directory)) { $1 }
                try volume.unmount()
            }
            compare(failures, with: Self.limits)
            let checked = try volume.check()
            #expect(checked.exitCode == 0, "\(checked.output)\(checked.errors)")
        }
    }

    @Test(.enabled(if: canRun)) func aegisFollowsTheRulesWithWriteback() throws {
        try withVolume { volume, _ in
            try volume.mount(options: "writeback")
            let failures = try runRules("plain", in: volume.directory)
            try volume.unmount()
            compare(
                failures.filter { !Self.limitsOfWriteback.contains($0.key) }, with: Self.limits)
            #expect(try volume.check().exitCode == 0)
        }
    }

    @Test(.enabled(if: canRun && RingTests.canRun)) func aegisFollowsTheRulesByRings() throws {
        try withVolume { volume, _ in
            volume.offersRings = true
            try volume.mount()
            let failures = try runRules("plain", in: volume.directory)
            try volume.unmount()
            compare(failures, with: Self.limits)
            #expect(try volume.check().exitCode == 0)
        }
    }

    @Test(.enabled(if: canRun)) func ext4FollowsTheRules() throws {
        try withLoopDevice { device, folder in
            // Without the feature attributes end at 4 KiB.
            try require(["mkfs.ext4", "-q", "-O", "ea_inode", device])
            let directory = folder.appendingPathComponent("ext4")
            try FileManager.default.createDirectory(
                at: directory, withIntermediateDirectories: true)
            defer { _ = try? run(["umount", "-l", directory.path]) }
            var failures: [String: String] = [:]
            for stage in Self.stages {
                try require(["mount", "-o", stage.options ?? "rw", device, directory.path])
                try failures.merge(runRules(stage.name, in: directory)) { $1 }
                try require(["umount", directory.path])
            }
            compare(failures, with: Self.limitsOfExt4)
        }
    }

    /// The rules of a stage that were not followed, with what was found instead.
    private func runRules(_ stage: String, in directory: URL) throws -> [String: String] {
        let result = try run(
            [#require(Self.command), directory.path, stage], seconds: 180)
        let lines = result.output.split(separator: "\n")
        // Whatever ended the run early, the last rule it finished says where.
        #expect(
            result.exitCode <= 1 && !lines.isEmpty,
            "\(stage): exit \(result.exitCode) after '\(lines.last ?? "")': \(result.errors)")
        var failures: [String: String] = [:]
        for line in lines where line.hasPrefix("FAIL ") {
            let parts = line.dropFirst(5).split(separator: ": line ", maxSplits: 1)
            failures[String(parts[0])] = String(line)
        }
        return failures
    }

    /// Exactly the known limits fail: one that does not any more has to leave the list.
    private func compare(_ failures: [String: String], with limits: [String: String]) {
        for (name, line) in failures where limits[name] == nil {
            Issue.record("\(line)")
        }
        for (name, reason) in limits where failures[name] == nil {
            Issue.record("followed, though listed as a limit (\(reason)): \(name)")
        }
    }
}
