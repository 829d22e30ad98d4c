/// `aegisfs snapshot` on an image, a loop device and a live mount.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct SnapshotCommandTests {
    private func shell(_ line: String) throws { try require(["/bin/sh", "-c", line]) }

    /// Bytes that only the kernel's cache has are in a snapshot; going back shows them again.
    private func goThere(_ volume: MountedVolume) throws {
        let target = volume.target
        let file = volume.directory.appendingPathComponent("file").path
        try volume.mount()
        let live = volume.directory.path
        // Written and not closed: nothing but the snapshot's own syncfs brings it here.
        try shell(
            "exec 3>\(file); echo monday >&3; "
                + "\(AegisCommand.requirePath()) snapshot create \(live) monday --tag a=b")
        try shell("echo tuesday > \(file)")
        try AegisCommand.require("snapshot", "create", live, "tuesday", "--description", "2nd")
        #expect(try AegisCommand.run("snapshot", "create", live, "monday").exitCode == 1)
        let list = try AegisCommand.require("snapshot", "list", live, "--json")
        #expect(list.contains("\"name\":\"monday\"") && list.contains("\"tags\":[\"a=b\"]"))
        try shell(
            "exec 3<\(file); \(AegisCommand.requirePath()) snapshot rollback \(live) monday --yes;"
                + " test $? = 11")
        try AegisCommand.require("snapshot", "hold", live, "monday", "backup")
        #expect(try AegisCommand.run("snapshot", "delete", live, "monday", "--yes").exitCode == 11)
        #expect(try AegisCommand.require("snapshot", "list", live).contains("held: backup"))
        try AegisCommand.require("snapshot", "release", live, "monday", "backup")
        try volume.unmount()

        #expect(try AegisCommand.run("snapshot", "rollback", target, "monday").exitCode == 13)
        try AegisCommand.require("snapshot", "rollback", target, "monday", "--dry-run")
        try AegisCommand.require("snapshot", "rollback", target, "monday", "--yes")
        try volume.mount()
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "monday\n")
        try volume.unmount()
        try AegisCommand.require("snapshot", "rollback", target, "tuesday", "--yes")
        try volume.mount()
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "tuesday\n")
        try volume.unmount()

        try AegisCommand.require("snapshot", "clone", target, "monday", "work")
        try AegisCommand.require("snapshot", "rename", target, "monday", "first")
        #expect(
            try AegisCommand.run("snapshot", "delete", target, "monday", "--yes").exitCode == 10)
        let late = try AegisCommand.run(
            "snapshot", "protect", target, "tuesday", "--until", "2001-01-01")
        #expect(late.exitCode == 2 && late.errors.contains("is over"))
        try AegisCommand.require("snapshot", "protect", target, "tuesday", "--until", "2100-01-01")
        #expect(try AegisCommand.require("snapshot", "list", target).contains("until 2100-01-01"))
        #expect(
            try AegisCommand.run("snapshot", "delete", target, "tuesday", "--yes").exitCode == 11)

        // Mounted: a snapshot to read, a clone to write.
        try volume.mount(options: "snapshot=first")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "monday\n")
        #expect(try run(["touch", file]).exitCode != 0)
        try volume.unmount()
        try volume.mount(options: "head=work")
        try shell("echo clone >> \(file)")
        try volume.unmount()
        try volume.mount(options: "head=work")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "monday\nclone\n")
        // What is in use stays.
        let shown = volume.directory.path
        #expect(try AegisCommand.run("snapshot", "delete", shown, "work", "--yes").exitCode == 11)
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "monday\nclone\n")
        try volume.unmount()
        try volume.mount()
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "tuesday\n")
        try volume.unmount()
        let missing = try AegisCommand.run(
            "mount", "--snapshot", "none", target, volume.directory.path)
        #expect(missing.exitCode == 10)
        #expect(try volume.check().exitCode == 0)
        try AegisCommand.require("snapshot", "delete", target, "first", "work", "--yes")
        try AegisCommand.require("snapshot", "stats", target)
        try AegisCommand.require("inspect", "snapshots", target)
        #expect(try volume.check().exitCode == 0)
    }

    @Test(.enabled(if: TestMachine.canMount)) func onAnImage() throws {
        try withVolume(size: "1G") { volume, _ in try goThere(volume) }
    }

    @Test(.enabled(if: TestMachine.canMount)) func onALoopDevice() throws {
        try withLoopDevice { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try goThere(volume)
        }
    }

    /// A clone is kept, compared, taken back and sent as the volume's own head is, mounted or not.
    @Test(.enabled(if: TestMachine.canMount)) func clonesHaveSnapshots() throws {
        try withVolume(size: "1G") { volume, _ in
            let (target, live) = (volume.target, volume.directory.path)
            let file = live + "/file"
            func content() throws -> String { try String(contentsOfFile: file, encoding: .utf8) }
            try volume.mount()
            try shell("echo own > \(file)")
            try AegisCommand.require("snapshot", "create", live, "base")
            try AegisCommand.require("snapshot", "clone", live, "base", "work")
            try shell("echo later > \(file)")
            try volume.unmount()

            try volume.mount(options: "head=work")
            #expect(try AegisCommand.require("status", live).contains("shows clone work"))
            // Written and not closed: its own syncfs brings it here.
            try shell(
                "exec 3>\(file); echo clone >&3; touch \(live)/new; "
                    + "\(AegisCommand.requirePath()) snapshot create \(live) w1")
            try shell("echo further > \(file); rm \(live)/new")
            let changed = try AegisCommand.require("snapshot", "diff", live, "w1")
            #expect(changed.contains("M  /file") && changed.contains("-  /new"), "\(changed)")
            let all = try AegisCommand.require("snapshot", "diff", live, "base", "w1")
            #expect(all.contains("+  /new"), "\(all)")
            let versions = try AegisCommand.require(
                "history", file, "--json")
            #expect(versions.contains("\"size_bytes\":8"), "\(versions)")
            // By the volume's name its own head is meant, by a clone's name the clone.
            let own = try AegisCommand.require("snapshot", "diff", target, "base")
            #expect(own.contains("M  /file") && !own.contains("/new"), "\(own)")
            try AegisCommand.require("snapshot", "create", target, "own2")
            #expect(
                try AegisCommand.require("snapshot", "diff", target, "own2", "--head", "work")
                    .contains("M  /file"))
            #expect(
                try AegisCommand.run("snapshot", "create", live, "x", "--head", "none").exitCode
                    == 10)
            let tree = try AegisCommand.require("snapshot", "list", live, "--tree", "--no-header")
                .split(separator: "\n").map(String.init)
            #expect(tree.contains { $0.hasPrefix("  w1 ") }, "\(tree)")
            #expect(
                tree.contains { $0.hasPrefix("  work ") && $0.hasSuffix("mounted") }, "\(tree)")
            // Under another name it still is what is mounted; so it is in a range, or a rule.
            try AegisCommand.require("snapshot", "rename", live, "work", "renamed")
            let delete = try AegisCommand.run("snapshot", "delete", live, "renamed", "--yes")
            #expect(delete.exitCode == 11 && delete.errors.contains("is mounted on"))
            try AegisCommand.require("snapshot", "rollback", live, "w1", "--yes")
            #expect(try content() == "clone\n")
            #expect(FileManager.default.fileExists(atPath: live + "/new"))
            try shell("echo again > \(file)")
            try AegisCommand.require("restore", file, "--from", "base", "--force")
            #expect(try content() == "own\n")
            try shell(
                "\(AegisCommand.requirePath()) send \(live) w1 -q > \(live)/../stream")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)

            // The same on a volume that is not mounted.
            try AegisCommand.require("snapshot", "create", target, "w2", "--head", "renamed")
            #expect(
                try AegisCommand.require("snapshot", "diff", target, "w2", "--head", "renamed")
                    .isEmpty)
            try AegisCommand.require(
                "snapshot", "rollback", target, "w1", "--head", "renamed", "--yes")
            let back = try AegisCommand.require(
                "snapshot", "diff", target, "w1", "--head", "renamed")
            #expect(back.isEmpty, "\(back)")
            #expect(
                try AegisCommand.require("history", target, "/new", "--head", "renamed")
                    .contains("(now)"))
            #expect(!(try AegisCommand.require("history", target, "/new").contains("(now)")))
            try volume.mount(options: "snapshot=w1")
            #expect(try AegisCommand.require("status", live).contains("shows snapshot w1"))
            #expect(try AegisCommand.run("snapshot", "create", live, "unseen").exitCode == 11)
            #expect(
                try AegisCommand.run("snapshot", "delete", live, "base..w1", "--yes").exitCode
                    == 11)
            try volume.unmount()
            try volume.mount()
            #expect(try content() == "later\n")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Names that a shell or a terminal would take for something else, and ranges that are none.
    @Test(.enabled(if: TestMachine.canMount)) func namesAreSeenAsTheyAre() throws {
        try withVolume(size: "1G") { volume, _ in
            let target = volume.target
            for name in ["first", "it's", "(head)", "two\nlines", "s1..s3", "\u{1B}[31mred"] {
                try AegisCommand.require("snapshot", "create", target, name)
            }
            let list = try AegisCommand.require("snapshot", "list", target, "--no-header")
            let names = list.split(separator: "\n").map { $0.prefix { $0 != " " } }
            #expect(
                names == [
                    "first", "'it'\\''s'", "'(head)'", "'two'$'\\n''lines'", "s1..s3",
                    "$'\\033''[31mred'", "(head)",
                ], "\(list)")
            let dry = try AegisCommand.require(
                "snapshot", "prune", target, "--keep-last", "1",
                "--dry-run")
            #expect(dry.contains("'two'$'\\n''lines'") && dry.contains("would delete 5 snapshots"))
            let short = try AegisCommand.run(
                "snapshot", "prune", target, "--free", "1G", "--dry-run")
            #expect(short.exitCode == 0 && short.errors.contains("cannot be reached"))

            let reversed = try AegisCommand.run(
                "snapshot", "delete", target, "s1..s3..first", "(head)..first", "--yes")
            #expect(
                reversed.exitCode == 10
                    && reversed.errors.contains("no snapshot s1..s3..first, '(head)..first'"),
                "\(reversed.errors)")
            let turned = try AegisCommand.run(
                "snapshot", "delete", target, "(head)..first", "--yes")
            #expect(turned.errors.contains("the older one comes first: first..'(head)'"))
            try AegisCommand.require("snapshot", "hold", target, "it's")
            let held = try AegisCommand.run(
                "snapshot", "delete", target, "first..(head)", "--yes")
            #expect(held.exitCode == 11 && held.errors.contains("protected: 'it'\\''s'"))
            let escape = try AegisCommand.run("snapshot", "delete", target, "\u{1B}[2J", "--yes")
            #expect(escape.exitCode == 10 && !escape.errors.contains("\u{1B}"))
            try AegisCommand.require("snapshot", "clone", target, "first", "(head)2")
            try AegisCommand.require("snapshot", "rename", target, "(head)", "was")
            try AegisCommand.require("snapshot", "rename", target, "(head)2", "(head)")
            #expect(
                try AegisCommand.require("snapshot", "list", target, "--no-header")
                    .split(separator: "\n").contains { $0.hasPrefix("'(head)'") })
            try AegisCommand.require("snapshot", "delete", target, "s1..s3", "--yes")
            #expect(!(try AegisCommand.require("snapshot", "list", target).contains("s1..s3")))
        }
    }

    /// Ranges, the tree of branches, and what a rule of retention keeps, with the space it says.
    @Test(.enabled(if: TestMachine.canMount)) func rangesTreeAndPrune() throws {
        try withVolume(size: "1G") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            for number in 1...9 {
                try shell("head -c 2000000 /dev/urandom > \(live)/file")
                try AegisCommand.require("snapshot", "create", live, "s\(number)")
            }
            try AegisCommand.require("snapshot", "clone", live, "s5", "branch")
            let tree = try AegisCommand.require(
                "snapshot", "list", live, "--tree", "--no-header")
            let lines = tree.split(separator: "\n").map(String.init)
            #expect(lines.contains { $0.hasPrefix("s5 ") })
            #expect(lines.contains { $0.hasPrefix("  branch ") })
            #expect(lines.contains { $0.hasPrefix("  s6 ") })

            // A range, with what it gives back; a held one in it is refused.
            try AegisCommand.require("snapshot", "hold", live, "s3")
            #expect(
                try AegisCommand.run("snapshot", "delete", live, "s2..s4", "--yes").exitCode == 11)
            try AegisCommand.require("snapshot", "release", live, "s3")
            let plan = try AegisCommand.require(
                "snapshot", "delete", live, "s2..s4", "--dry-run", "--exact")
            #expect(plan.contains("would delete s2, s3, s4 (gives back"))
            #expect(
                try AegisCommand.run("snapshot", "delete", live, "s4..s2", "--yes").exitCode == 10)
            try AegisCommand.require("snapshot", "delete", live, "s2..s4", "--yes", "--wait")
            let left = try AegisCommand.require("snapshot", "list", live)
            #expect(!left.contains("s3") && left.contains("s1") && left.contains("s5"))

            // Rules: three newest, and a held one; the dry run changes nothing.
            try AegisCommand.require("snapshot", "hold", live, "s1")
            let arguments = ["snapshot", "prune", live, "--keep-last", "2"]
            let dry = try require([AegisCommand.requirePath()] + arguments + ["--dry-run"])
            #expect(dry.contains("s9  (last 1)") && dry.contains("s1  (held)"))
            #expect(dry.contains("drop") && dry.contains("s7  (no rule keeps it)"))
            #expect(try AegisCommand.require("snapshot", "list", live).contains("s7"))
            #expect(try run([AegisCommand.requirePath()] + arguments).exitCode == 13)
            try require([AegisCommand.requirePath()] + arguments + ["--yes"])
            let kept = try AegisCommand.require("snapshot", "list", live, "--no-header")
            let names = kept.split(separator: "\n").compactMap { $0.split(separator: " ").first }
            #expect(Set(names) == ["s1", "s8", "s9", "branch", "(head)"])
            #expect(try AegisCommand.run("snapshot", "prune", live).exitCode == 2)
            try volume.unmount()

            // As many of the oldest as it takes.
            let free = try AegisCommand.require(
                "snapshot", "prune", volume.target, "--free", "1M", "--dry-run", "--json")
            #expect(free.contains("\"reasons\":[\"free\"]") && free.contains("enough is free"))
            try AegisCommand.require(
                "snapshot", "prune", volume.target, "--free", "1M", "--yes")
            #expect(try volume.check().exitCode == 0)

            // Those that free nothing stay, however much is asked for.
            try AegisCommand.require("snapshot", "create", volume.target, "same")
            let vain = try AegisCommand.require(
                "snapshot", "prune", volume.target, "--free", "1T", "--yes")
            #expect(!vain.contains("drop  same"))
            let rest = try AegisCommand.require("snapshot", "list", volume.target)
            #expect(rest.contains("same"), "\(vain)")
        }
    }

    /// Very many go at once: the command returns, the space comes back behind it, and the rest is told.
    @Test(.enabled(if: TestMachine.canMount)) func veryManyGoInTheBackground() throws {
        try withVolume(size: "2G") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            try shell("head -c 60000000 /dev/urandom > \(live)/file")
            try AegisCommand.require("snapshot", "create", live, "first")
            for number in 1...40 {
                try shell("echo \(number) > \(live)/f\(number); truncate -s \(number) \(live)/file")
                try AegisCommand.require("snapshot", "create", live, "s\(number)")
            }
            try AegisCommand.require("snapshot", "delete", live, "s1..s39", "--yes", "--wait")
            let before = try AegisCommand.require("snapshot", "stats", live, "--json")
            #expect(before.contains("\"pending_bytes\":0") && before.contains("\"deleted\":0"))
            // Slowly, it is seen to be on its way; the wait can be followed.
            try AegisCommand.require(
                "snapshot", "delete", live, "first", "--yes", "--rate", "20M")
            let status = try AegisCommand.require("status", live)
            #expect(status.contains("snapshots: 1"))
            let stats = try AegisCommand.require("snapshot", "stats", live)
            #expect(stats.contains("deleted ones still give back") || !stats.contains("deleted"))
            try shell("head -c 3000000 /dev/urandom > \(live)/more; sync -f \(live)")
            let followed = try AegisCommand.run(
                "snapshot", "delete", live, "s40", "--yes", "--wait", "--progress", "plain")
            #expect(followed.exitCode == 0)
            let after = try AegisCommand.require("snapshot", "stats", live, "--json")
            #expect(after.contains("\"pending_bytes\":0") && after.contains("\"snapshots\":0"))
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Killed right after the command said that it was done.
    @Test(.enabled(if: TestMachine.canMount)) func survivesAKill() throws {
        try withVolume(size: "1G") { volume, _ in
            try volume.mountInForeground()
            let live = volume.directory.path
            try shell("echo one > \(live)/file")
            try AegisCommand.require("snapshot", "create", live, "kept")
            try shell("echo two > \(live)/file; sync \(live)/file")
            try AegisCommand.require("snapshot", "create", live, "gone")
            try AegisCommand.require("snapshot", "delete", live, "gone", "--yes")
            try volume.killDaemon()
            let list = try AegisCommand.require("snapshot", "list", volume.target)
            #expect(list.contains("kept") && !list.contains("gone"))
            try AegisCommand.require("snapshot", "rollback", volume.target, "kept", "--yes")
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            #expect(
                try String(contentsOfFile: live + "/file", encoding: .utf8) == "one\n")
            try volume.unmount()
        }
    }
}
