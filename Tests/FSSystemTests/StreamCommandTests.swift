/// `aegisfs send`, `receive` and `snapshot diff` as users call them.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct StreamCommandTests {
    @discardableResult
    private func shell(_ line: String) throws -> String { try ManyKinds.shell(line) }
    private var aegisfs: String { get throws { try AegisCommand.requirePath() } }

    private func withMounted(
        _ volume: MountedVolume, snapshot: String, _ body: () throws -> Void
    ) throws {
        try volume.mount(options: "snapshot=\(snapshot)")
        defer { try? volume.unmount() }
        try body()
    }

    @Test(.enabled(if: TestMachine.canMount)) func throughAPipeAndBack() throws {
        try withVolume(size: "1G") { source, folder in
            let target = try MountedVolume(image: "target.img", size: "2G", in: folder)
            defer { target.cleanUp() }
            try AegisCommand.require(
                "format", "--force", "--quiet", "--checksum", "xxh3", "--copies", "2",
                "--compression", "zstd:3", target.target)
            try source.mount()
            let live = source.directory.path
            try ManyKinds.fill(live)
            try AegisCommand.require("snapshot", "create", live, "one")
            try ManyKinds.change(live)
            try AegisCommand.require("snapshot", "create", live, "two", "--tag", "k=v")

            // From a live mount to a live mount, then from image to image.
            try target.mount()
            try shell(
                "\(aegisfs) send \(live) one | \(aegisfs) receive \(target.directory.path)")
            try target.unmount()
            try source.unmount()
            let progress = try shell(
                "\(aegisfs) send \(source.target) two --progress json 2>&1 >/dev/null")
            #expect(progress.contains("\"phase\":\"send\"") && progress.contains("total_bytes"))
            let size = try AegisCommand.require(
                "send", source.target, "two", "--from", "one", "--dry-run", "--json")
            try shell(
                "\(aegisfs) send \(source.target) two --from one -q > \(folder.path)/two.stream")
            let bytes =
                try FileManager.default.attributesOfItem(
                    atPath: folder.path + "/two.stream")[.size] as? Int
            #expect(size.contains("\"stream_bytes\":\(bytes ?? -1),"))
            try shell("\(aegisfs) receive \(target.target) < \(folder.path)/two.stream")
            #expect(
                try AegisCommand.require("snapshot", "list", target.target, "--json")
                    .contains("\"tags\":[\"k=v\"]"))
            for name in ["one", "two"] {
                try withMounted(source, snapshot: name) {
                    try withMounted(target, snapshot: name) {
                        try ManyKinds.expectSame(source.directory, target.directory)
                    }
                }
            }
            #expect(try target.check().exitCode == 0)
            #expect(try source.check().exitCode == 0)

            // What must be refused.
            let again = try run([
                "/bin/sh", "-c", "\(aegisfs) receive \(target.target) < \(folder.path)/two.stream",
            ])
            #expect(again.exitCode == 1 && again.errors.contains("AEGIS-0407"))
            let fresh = try MountedVolume(image: "fresh.img", size: "1G", in: folder)
            let based = try run([
                "/bin/sh", "-c", "\(aegisfs) receive \(fresh.target) < \(folder.path)/two.stream",
            ])
            #expect(based.exitCode == 10 && based.errors.contains("AEGIS-0405"))
            let noise = try run([
                "/bin/sh", "-c", "head -c 100000 /dev/urandom | \(aegisfs) receive \(fresh.target)",
            ])
            #expect(noise.exitCode == 1 && noise.errors.contains("AEGIS-0403"))
            let terminal = try run([
                "script", "-qec", "\(aegisfs) send \(source.target) one", "/dev/null",
            ])
            #expect(terminal.exitCode == 2 && terminal.output.contains("AEGIS-0400"))
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func goesOnAfterAKill() throws {
        try withVolume(size: "1G") { source, folder in
            let target = try MountedVolume(image: "target.img", size: "1G", in: folder)
            defer { target.cleanUp() }
            try source.mount()
            try ManyKinds.fill(source.directory.path)
            try shell("head -c 60000000 /dev/urandom > \(source.directory.path)/large")
            try AegisCommand.require("snapshot", "create", source.directory.path, "one")
            try source.unmount()
            let stream = folder.path + "/one.stream"
            try shell("\(aegisfs) send \(source.target) one > \(stream)")

            // The command is killed, then the daemon, then the stream is cut short.
            let command = try ChildProcess([
                "/bin/sh", "-c",
                "(head -c 40000000 \(stream); sleep 30) | exec \(aegisfs) receive \(target.target)",
            ])
            try waitForPartial(target.target, command)
            try target.mountInForeground()
            let live = try ChildProcess([
                "/bin/sh", "-c",
                "(head -c 50000000 \(stream); sleep 30) | "
                    + "\(aegisfs) receive \(target.directory.path)",
            ])
            usleep(1_500_000)
            try target.killDaemon()
            live.signal(9)
            #expect(live.wait().exitCode != 0)
            #expect(try target.check().exitCode == 0)
            let cut = try run([
                "/bin/sh", "-c", "head -c 55000000 \(stream) | \(aegisfs) receive \(target.target)",
            ])
            #expect(cut.exitCode == 1 && cut.errors.contains("AEGIS-0402"))

            let status = try AegisCommand.require("receive", target.target, "--status")
            let token = try #require(status.split(separator: " ").last).trimmingCharacters(
                in: .whitespacesAndNewlines)
            let rest = folder.path + "/rest.stream"
            try shell("\(aegisfs) send \(source.target) --resume \(token) > \(rest)")
            let sizes = try [stream, rest].map {
                try FileManager.default.attributesOfItem(atPath: $0)[.size] as? Int ?? 0
            }
            #expect(sizes[1] < sizes[0] / 2)
            try shell("\(aegisfs) receive \(target.target) < \(rest)")
            #expect(
                try AegisCommand.require("receive", target.target, "--status").contains("nothing"))
            try withMounted(source, snapshot: "one") {
                try withMounted(target, snapshot: "one") {
                    try ManyKinds.expectSame(source.directory, target.directory)
                }
            }
            #expect(try target.check().exitCode == 0)
            #expect(
                try AegisCommand.run("send", source.target, "--resume", "nonsense", "--dry-run")
                    .exitCode == 2)
        }
    }

    /// Kills the command once it has worked for a moment.
    private func waitForPartial(_ target: String, _ command: ChildProcess) throws {
        usleep(2_000_000)
        try shell("pkill -9 -s \(command.processID) aegisfs; true")
        command.signal(9)
        _ = command.wait()
        #expect(try AegisCommand.run("check", target).exitCode == 0)
        let status = try AegisCommand.require("snapshot", "list", target)
        #expect(status.contains("one.partial"))
    }

    /// Each version once, with who has it; also of a file that is gone, and on an image.
    @Test(.enabled(if: TestMachine.canMount)) func historyNamesVersions() throws {
        try withVolume(size: "1G") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            try shell("mkdir \(live)/dir; echo one > \(live)/dir/file; sync -f \(live)")
            for name in ["a", "b"] { try AegisCommand.require("snapshot", "create", live, name) }
            try shell("echo second > \(live)/dir/file; sync -f \(live)")
            try AegisCommand.require("snapshot", "create", live, "c")
            func rows(_ arguments: String...) throws -> [String] {
                try require([AegisCommand.requirePath(), "history"] + arguments + ["--no-header"])
                    .split(separator: "\n").map(String.init)
            }
            let present = try rows(live + "/dir/file")
            #expect(present.count == 2)
            #expect(present.first?.hasSuffix("a, b") == true)
            #expect(present.last?.hasSuffix("c, (now)") == true)
            try shell("rm -r \(live)/dir")
            let gone = try rows(live + "/dir/file")
            #expect(gone.count == 2 && gone.last?.hasSuffix("file  c") == true)
            let json = try AegisCommand.require("history", live, "/dir/file", "--json")
            #expect(json.contains("\"size_bytes\":4") && json.contains("\"is_present\":false"))
            #expect(try AegisCommand.run("history", live, "/none").exitCode == 10)
            try volume.unmount()
            #expect(try rows(volume.target, "dir/file") == gone)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func diffNamesPaths() throws {
        try withVolume(size: "1G") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            try ManyKinds.fill(live)
            try AegisCommand.require("snapshot", "create", live, "one")
            try ManyKinds.change(live)
            let expected = [
                "M  /a/big", "R  /a/b/ -> /a/b/inner/", "-  /a/fifo", "+  /a/null2",
                "+  /a/b/", "R  /a/fixed -> /a/b/inner/c/fixed", "-  /empty/", "+  /new (4 B)",
                "M  /a/reflink", "M  /a/sparse", "M  /a/small (6 B -> 11 B)",
            ]
            try shell("sync -f \(live)")
            let onLive = try AegisCommand.require("snapshot", "diff", live, "one")
            for line in expected { #expect(onLive.contains(line), "\(line) in \(onLive)") }
            #expect(!onLive.contains("promised") && !onLive.contains("symlink"))
            try AegisCommand.require("snapshot", "create", live, "two")
            try volume.unmount()
            #expect(try AegisCommand.require("snapshot", "diff", volume.target, "one") == onLive)
            #expect(
                try AegisCommand.require("snapshot", "diff", volume.target, "one", "two") == onLive)
            let json = try AegisCommand.require(
                "snapshot", "diff", volume.target, "one", "two", "--json")
            #expect(
                json.contains("\"change\":\"renamed\"") && json.contains("\"type\":\"summary\""))
            #expect(
                try AegisCommand.run("snapshot", "diff", volume.target, "none").exitCode == 10)
        }
    }
}
