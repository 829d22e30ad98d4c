/// What is said of damage that a snapshot's older version survives, and how it is taken from there.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct SnapshotDamageTests {
    @discardableResult
    private func shell(_ line: String) throws -> String { try ManyKinds.shell(line) }

    /// Byte of the image at which a byte of a file lies.
    private func place(of offset: Int, in path: String) throws -> Int {
        let text = try AegisCommand.require("extents", path, "--json")
        let document = try JSONSerialization.jsonObject(with: Data(text.utf8))
        let extents = (document as? [String: Any])?["extents"] as? [[String: Any]] ?? []
        for extent in extents {
            guard let start = extent["offset_bytes"] as? Int,
                let length = extent["length_bytes"] as? Int,
                let place = (extent["device_bytes"] as? [Int])?.first,
                (start..<start + length).contains(offset)
            else { continue }
            return place + offset - start
        }
        throw ProcessFailure("\(path) has no extent at \(offset)")
    }

    @Test(.enabled(if: TestMachine.canMount)) func damageNamesSnapshots() throws {
        try withVolume(size: "512M") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let file = live + "/file"
            try shell("head -c 300000 /dev/urandom > \(file); cp \(file) \(folder.path)/old")
            try AegisCommand.require("snapshot", "create", live, "old")
            try shell(
                "head -c 4096 /dev/zero | dd of=\(file) bs=4k seek=20 conv=notrunc status=none")
            try AegisCommand.require("snapshot", "create", live, "other")
            try shell(
                "head -c 8192 /dev/urandom | dd of=\(file) bs=4k seek=2 conv=notrunc status=none")
            try AegisCommand.require("snapshot", "create", live, "new")
            let changed = try place(of: 8192, in: file)
            let untouched = try place(of: 200_000, in: file)
            try volume.unmount()
            for byte in [changed, untouched] {
                try shell(
                    "head -c 100 /dev/urandom | "
                        + "dd of=\(volume.target) bs=1 seek=\(byte) conv=notrunc status=none")
            }

            let daemon = try ChildProcess(
                [
                    AegisCommand.requirePath(), "mount", "--foreground", volume.target, live,
                ])
            for _ in 0..<1500 where !MountTable.isMounted(volume.directory) { usleep(20_000) }
            #expect(try run(["cat", file]).exitCode == 1)
            #expect(
                try run(["dd", "if=\(file)", "of=/dev/null", "bs=4k", "skip=48"]).exitCode == 1)
            let status = try AegisCommand.run("status", live, "--json")
            #expect(status.exitCode == 3)
            // The block that was written since is whole in what came before; the other never was.
            #expect(status.output.contains("\"intact_in\":[\"other\",\"old\"]"), "\(status.output)")
            #expect(status.output.contains("\"intact_in\":[]"))
            let text = try AegisCommand.run("status", live).output
            #expect(text.contains("intact in an older version in 'other', 'old'"))
            #expect(text.contains("no snapshot has an intact version"))

            let partly = try AegisCommand.run(
                "restore", file, "--from", "new", "--to", live + "/bad", "--verify")
            #expect(partly.exitCode == 3 && partly.errors.contains("AEGIS-0413"))
            try AegisCommand.require("restore", file, "--from", "old", "--to", live + "/back")
            try shell("cmp -n 100000 \(live)/back \(folder.path)/old")
            // The daemon tells it by itself, a moment later.
            usleep(3_000_000)
            try volume.unmount()
            let log = daemon.wait(seconds: 60).errors
            #expect(log.contains("intact in an older version in 'other', 'old'"), "\(log)")
        }
    }
}
