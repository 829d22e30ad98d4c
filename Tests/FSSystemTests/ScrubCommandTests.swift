/// `aegisfs scrub` by the command: on images, loop devices and mounts, under load, interrupted, and by
/// itself; and what `status` says afterwards.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct ScrubCommandTests {
    /// Device bytes of a file's first block in each copy, as `inspect` tells them.
    private func places(_ target: String, _ path: String) throws -> [UInt64] {
        let inode = try AegisCommand.require("inspect", "path", target, path, "--json")
        let number = try #require(inode.firstMatch(of: /"inode":(\d+)/)?.1)
        let extents = try AegisCommand.require(
            "inspect", "extents", target, String(number), "--json")
        let list = try #require(extents.firstMatch(of: /"device_blocks":\[([0-9,]+)\]/)?.1)
        return list.split(separator: ",").compactMap { UInt64($0) }.map { $0 * 4096 }
    }
    private func spoil(_ image: String, _ offset: UInt64) throws {
        let file = ImageFile(image)
        var bytes = try file.read(at: offset, count: 4096)
        bytes[100] ^= 1
        try file.write(bytes, at: offset)
    }
    private func scrub(_ arguments: String...) throws -> ProcessResult {
        try run([try AegisCommand.requirePath(), "scrub"] + arguments, seconds: 300)
    }
    /// A mounted volume with a file in two copies and one in one.
    private func fill(_ volume: MountedVolume) throws {
        try volume.mount()
        let root = volume.directory.path
        try require(["/bin/sh", "-c", "touch \(root)/double; mkdir \(root)/dir"])
        try AegisCommand.require("property", "set", root + "/double", "copies", "2")
        for name in ["double", "single", "dir/other"] {
            try require(["/bin/sh", "-c", "head -c 300000 /dev/urandom >> \(root)/\(name)"])
        }
        try volume.unmount()
    }

    @Test(.enabled(if: TestMachine.canMount)) func anImageIsScrubbed() throws {
        try withVolume(size: "128M") { volume, _ in
            let image = volume.target
            try fill(volume)
            expect(try scrub(image, "--status"), 0, "no scrub is recorded")
            expect(try scrub(image), 0, "finished", "no errors")
            let double = try places(image, "/double")
            try spoil(image, double[1])
            expect(try scrub(image, "--dry-run"), 3, "1 bad copies found, 0 healed", "dry run")
            expect(try scrub(image, "--path", "/dir"), 0, "scrub of /dir finished", "no errors")
            expect(try scrub(image, "--path", "double", "--rate", "100M"), 4, "1 healed")
            expect(try scrub(image), 0, "no errors")
            try spoil(image, try places(image, "/single")[0])
            expect(try scrub(image), 3, "1 blocks without a good copy", "lists the files")
            let status = try AegisCommand.run("status", image)
            expect(
                status, 3, "There is no good copy of parts of one file.", "action: Restore",
                "AEGIS-0251", "/single, bytes 0 to 4095", "scan: scrub finished")
            let json = try AegisCommand.run("status", "--json", image).output
            for part in ["\"path\":\"/single\"", "\"offset_bytes\":0", "\"lost\":1"] {
                #expect(json.contains(part), "\(json)")
            }
            let summary = try scrub(image, "--json", "--progress", "none").output
            #expect(summary.contains("\"type\":\"summary\"") && summary.contains("\"lost\":1"))
            expect(try scrub(image, "--status"), 0, "before: scrub of /double finished")

            for arguments in [["--pause"], ["--resume"], ["--cancel"]] {
                let result = try run([AegisCommand.requirePath(), "scrub", image] + arguments)
                expect(result, 1, "AEGIS-0252")
            }
            expect(try scrub(image, "--background"), 1, "is not mounted")
            expect(try scrub(image, "--pause", "--cancel"), 2, "exclude each other")
            expect(try scrub(image, "--status", "--rate", "1M"), 2, "exclude each other")
            expect(try scrub(image, "--rate", "0"), 2)
            let before = try scrub(image, "--status").output
            for path in ["/missing", "../..", "/dir/../double", "dir/other/deeper"] {
                expect(try scrub(image, "--path", path), 10, "has no ", path)
            }
            expect(try scrub(image, "--path", ""), 2, "--path: empty")
            #expect(try scrub(image, "--status").output == before)
            expect(try scrub(image, "--path", "./dir/./other"), 0, "no errors")
            expect(try scrub(image + ".none"), 10)

            // Overwritten data is not damaged any more.
            try volume.mount()
            let file = volume.directory.path + "/single"
            #expect(try run(["cat", file]).exitCode != 0)
            try require(["/bin/sh", "-c", "tail -c +4097 \(file) > /dev/null"])
            try require([
                "dd", "if=/dev/zero", "of=\(file)", "bs=4096", "count=1", "conv=notrunc",
                "status=none",
            ])
            expect(try AegisCommand.run("status", volume.directory.path), 0)
            try volume.unmount()
            expect(try scrub(image), 0)
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Where nothing may be written, copies are verified all the same.
    @Test(.enabled(if: TestMachine.canMount)) func aReadOnlyMountIsScrubbed() throws {
        try withVolume(size: "128M") { volume, _ in
            try fill(volume)
            let double = try places(volume.target, "/double")
            try volume.mount(options: "ro")
            let root = volume.directory.path
            expect(try scrub(root), 0, "no errors", "only read here")
            try spoil(volume.target, double[1])
            expect(try scrub(root), 3, "1 bad copies found, 0 healed", "nothing was healed")
            expect(try scrub(root, "--path", "/double"), 3, "1 bad copies found, 0 healed")
            expect(try scrub(root, "--background"), 0)
            try volume.unmount()
            expect(try scrub(volume.target), 4, "1 healed")
        }
    }

    /// Interrupted with ^C, an image's scrub goes on later; so does one of a daemon that was killed.
    @Test(.enabled(if: TestMachine.canMount)) func anInterruptedScrubGoesOn() throws {
        try withVolume(size: "256M") { volume, _ in
            try fill(volume)
            let child = try ChildProcess([
                AegisCommand.requirePath(), "scrub", volume.target, "--rate", "10K", "--json",
            ])
            child.waitForOutput()
            child.signal(SIGINT)
            let ended = child.wait()
            #expect(ended.exitCode == 130 && ended.errors.contains("--resume"), "\(ended.errors)")
            expect(try scrub(volume.target, "--status"), 0, "in progress")
            expect(try scrub(volume.target, "--pause"), 0, "paused")
            expect(try scrub(volume.target), 11, "AEGIS-0252")
            expect(try scrub(volume.target, "--cancel"), 0, "cancelled")

            try volume.mountInForeground()
            expect(
                try scrub(volume.directory.path, "--background", "--rate", "10K"), 0, "in progress")
            sleep(7)
            try volume.killDaemon()
            try volume.mount()
            expect(try scrub(volume.directory.path, "--status"), 0, "in progress")
            try volume.unmount()
            try volume.mount()
            expect(try scrub(volume.directory.path, "--pause"), 0, "paused")
            expect(try scrub(volume.directory.path), 11)
            try volume.unmount()
            try volume.mount()
            expect(try scrub(volume.directory.path, "--status"), 0, "paused")
            expect(try scrub(volume.directory.path, "--cancel"), 0, "cancelled")
            expect(try scrub(volume.directory.path, "--resume"), 1)
            expect(try scrub(volume.directory.path), 0, "no errors")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// While a workload runs, planted damage is found and healed, and the workload notices nothing.
    @Test(.enabled(if: TestMachine.canMount)) func aMountIsScrubbedUnderLoad() throws {
        try withVolume(size: "1G") { volume, folder in
            try fill(volume)
            let double = try places(volume.target, "/double")
            try volume.mount()
            let root = volume.directory.path
            let load = try ChildProcess([
                "/bin/sh", "-c",
                "for i in $(seq 30); do cp -r /usr/include/linux \(root)/tree && "
                    + "diff -r /usr/include/linux \(root)/tree && rm -rf \(root)/tree || exit 1; done",
            ])
            var found = 0
            while load.isRunning {
                try spoil(volume.target, double[found % 2])
                let result = try scrub(root)
                #expect(result.exitCode == 4 || result.exitCode == 0, "\(result.output)")
                if result.output.contains("1 healed") { found += 1 }
            }
            #expect(load.wait().exitCode == 0)
            #expect(found > 0)
            expect(try scrub(root), 0)
            let status = try AegisCommand.run("status", root)
            expect(status, 0, "scan: scrub finished", "healed")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func aVolumeScrubsItself() throws {
        try withVolume(size: "128M") { volume, _ in
            try fill(volume)
            try spoil(volume.target, try places(volume.target, "/double")[1])
            try AegisCommand.require("property", "set", volume.target, "scrub-interval", "1s")
            try volume.mount()
            var status = ""
            for _ in 0..<60 where !status.contains("1 healed") && !status.contains("before") {
                sleep(1)
                status = try scrub(volume.directory.path, "--status").output
            }
            #expect(status.contains("1 healed"), "\(status)")
            let shown = try AegisCommand.run("status", volume.directory.path)
            expect(shown, 0, "scrubs itself every 1s")
            try volume.unmount()
        }
    }

    @Test(.enabled(if: TestMachine.canLoop)) func aLoopDeviceIsScrubbed() throws {
        try withLoopDevice(size: "128M") { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try fill(volume)
            try spoil(device, try places(device, "/double")[1])
            try require(["sync", device])
            expect(try scrub(device), 4, "1 healed")
            try volume.mount()
            expect(try scrub(volume.directory.path), 0)
            try volume.unmount()
        }
    }
}
