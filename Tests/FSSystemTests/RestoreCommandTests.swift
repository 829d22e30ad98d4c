/// `aegisfs restore` as users call it: on mounts and images, compared by rsync.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct RestoreCommandTests {
    @discardableResult
    private func shell(_ line: String) throws -> String { try ManyKinds.shell(line) }

    /// A tree, a copy of it elsewhere, a snapshot, and changes since.
    private func prepare(_ volume: MountedVolume) throws -> String {
        try volume.mount()
        let live = volume.directory.path
        try shell("mkdir \(live)/t \(live)/other")
        try ManyKinds.fill(live + "/t")
        try shell(
            "rsync -aHAXS --modify-window=-1 \(live)/t/ \(live)/expected/; "
                + "touch -r \(live)/expected \(live)/stamp")
        try AegisCommand.require("snapshot", "create", live, "one")
        try ManyKinds.change(live + "/t")
        return live
    }

    private func expectSame(_ path: String, _ live: String) throws {
        // The control of the last comparison was made and removed in it.
        try shell("touch -r \(live)/stamp \(live)/expected")
        try ManyKinds.expectSame(
            URL(fileURLWithPath: live + "/expected"), URL(fileURLWithPath: path))
        #expect(try shell("lsattr \(path)/a/fixed").contains("i"))
        #expect(try shell("stat -c %b \(path)/a/sparse").hasPrefix("8\n"))
        #expect(
            try shell("stat -c %i \(path)/a/small")
                == (try shell("stat -c %i \(path)/a/b/link")))
        #expect(try AegisCommand.require("extents", path + "/a/big").contains("shared"))
    }

    @Test(.enabled(if: TestMachine.canMount)) func onAMount() throws {
        try withVolume(size: "1G") { volume, folder in
            let live = try prepare(volume)
            // What is there stays.
            let refused = try AegisCommand.run("restore", live + "/t", "--from", "one")
            #expect(refused.exitCode == 13 && refused.errors.contains("AEGIS-0412"))
            #expect(try AegisCommand.run("restore", live, "/t", "--from", "one").exitCode == 13)
            let plan = try AegisCommand.require(
                "restore", live + "/t", "--from", "one", "--to", live + "/new", "--dry-run",
                "--json")
            #expect(plan.contains("\"is_dry_run\":true") && plan.contains("\"links\":1"))
            #expect(try run(["ls", live + "/new"]).exitCode != 0)
            // Beside it, from a path of the volume's root, and in place of it.
            try AegisCommand.require(
                "restore", live + "/t", "--from", "one", "--to", live + "/new", "--verify")
            try expectSame(live + "/new", live)
            try AegisCommand.require("restore", live, "t", "--from", "one", "--to", "other/again")
            try expectSame(live + "/other/again", live)
            // What is open of the old tree can still be read.
            try shell(
                "exec 3< \(live)/t/new; "
                    + "\(AegisCommand.requirePath()) restore \(live)/t --from one --force -q; "
                    + "test $? = 3 && grep -q new <&3")
            try expectSame(live + "/t", live)
            // Its immutable file kept the rest from going.
            let left = try shell("ls -d \(live)/.aegisfs-restore-*")
                .trimmingCharacters(in: .newlines)
            try shell("chattr -R -i \(left); rm -r \(left)")

            // Files: gone, changed, of another kind, immutable.
            try shell("rm \(live)/other/again/a/symlink; cp -a \(live)/t/a/big \(folder.path)/big")
            try shell("echo changed > \(live)/t/a/big; ln \(live)/t/a/big \(live)/hard")
            try AegisCommand.require("restore", live + "/t/a/big", "--from", "one", "--force")
            try shell("cmp \(live)/t/a/big \(folder.path)/big; grep -q changed \(live)/hard")
            try AegisCommand.require(
                "restore", live + "/t/a/symlink", "--from", "one", "--to", live + "/link")
            #expect(try shell("readlink \(live)/link") == "../a/small\n")
            try shell("rm \(live)/t/a/symlink")
            try AegisCommand.require("restore", live + "/t/a/symlink", "--from", "one")
            #expect(
                try AegisCommand.run("restore", live + "/t/a/fixed", "--from", "one", "--force")
                    .exitCode == 1)
            try shell("mkdir -p \(live)/full/a && touch \(live)/full/a/b")
            try AegisCommand.require(
                "restore", live + "/t/a/small", "--from", "one", "--to", live + "/full", "--force")
            #expect(try shell("cat \(live)/full") == "small\n")
            #expect(try shell("ls -A \(live) | grep -c restore-; true") == "0\n")

            // Named by the volume, what is mounted of it gets the file; and what only the snapshot has
            // is said to be its own.
            try AegisCommand.require(
                "restore", volume.target, "/t/a/big", "--from", "one", "--to", "/by-volume")
            try shell("cmp \(live)/by-volume \(folder.path)/big")
            let inside = live + "/.snapshots/one/t/a/big"
            #expect(try AegisCommand.require("extents", inside).contains("in a snapshot"))
            for path in [inside, live + "/.snapshots/one"] {
                let usage = try AegisCommand.require("usage", path, "--json")
                #expect(usage.contains("\"exclusive_bytes\":0"), "\(usage)")
            }
            #expect(try AegisCommand.run("defragment", inside).exitCode == 1)

            for (words, code) in [
                (["restore", live + "/t"], 2), (["restore", live, "--from", "one"], 2),
                (["restore", live + "/t", "--from", "none"], 10),
                (["restore", live + "/never", "--from", "one"], 10),
                (["restore", live + "/t", "--from", "one", "--to", "/tmp/elsewhere"], 2),
                (["restore", live + "/t", "--from", "one", "--to", live + "/no/where"], 10),
                (["restore", "/etc/hostname", "--from", "one"], 10),
            ] {
                let result = try run([try AegisCommand.requirePath()] + words)
                #expect(result.exitCode == Int32(code), "\(words): \(result.errors)")
            }
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func onAnImage() throws {
        try withVolume(size: "1G") { volume, _ in
            let live = try prepare(volume)
            try volume.unmount()
            let image = volume.target
            #expect(try AegisCommand.run("restore", image, "/t", "--from", "one").exitCode == 13)
            try AegisCommand.require("restore", image, "/t", "--from", "one", "--to", "/new", "-n")
            try AegisCommand.require("restore", image, "/t", "--from", "one", "--to", "/new")
            let replaced = try AegisCommand.run(
                "restore", image, "t", "--from", "one", "--force", "--json")
            #expect(replaced.exitCode == 3 && replaced.output.contains("\"leftover\":\"/.aegisfs"))
            #expect(
                try AegisCommand.run(
                    "restore", image, "/t", "--from", "one", "--to", "/no/where"
                ).exitCode == 10)
            #expect(try AegisCommand.run("restore", image, "/", "--from", "one").exitCode == 2)
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try expectSame(live + "/new", live)
            try expectSame(live + "/t", live)
            try volume.unmount()
        }
    }

    /// A client that goes away in the middle leaves nothing; a daemon that is killed, a clean volume.
    @Test(.enabled(if: TestMachine.canMount)) func interrupted() throws {
        try withVolume(size: "2G") { volume, _ in
            try volume.mountInForeground()
            let live = volume.directory.path
            try shell(
                "mkdir \(live)/many && cd \(live)/many && for d in $(seq 60); do mkdir $d; "
                    + "for f in $(seq 100); do echo $f > $d/$f; done; done")
            try AegisCommand.require("snapshot", "create", live, "one")
            let path = try AegisCommand.requirePath()
            let command = [
                path, "restore", live + "/many", "--from", "one", "--to", live + "/copy",
            ]
            for pause in [UInt32(5_000), 50_000, 200_000] {
                let child = try ChildProcess(command)
                usleep(pause)
                child.signal(15)
                let result = child.wait()
                let isThere = try run(["test", "-e", live + "/copy"]).exitCode == 0
                // A signal right behind the last step ends the command, too.
                #expect(isThere || result.exitCode != 0)
                // The daemon notices that nobody waits.
                var names = ""
                for _ in 0..<300 {
                    names = try shell("ls -A \(live)")
                    if !names.contains(".aegisfs-restore") { break }
                    usleep(100_000)
                }
                #expect(!names.contains(".aegisfs-restore"), "\(names)")
                try shell("rm -rf \(live)/copy")
            }
            let child = try ChildProcess(command)
            usleep(100_000)
            try volume.killDaemon()
            _ = child.wait()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try shell("rm -rf \(live)/copy \(live)/.aegisfs-restore-*")
            try AegisCommand.require(
                "restore", live + "/many", "--from", "one", "--to", live + "/copy", "--json")
            try shell("diff -r \(live)/many \(live)/copy")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }
}
