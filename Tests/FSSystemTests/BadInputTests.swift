/// What a person can do wrong, and what can be wrong with an image: each has its exit code and a
/// message that names the cause, nothing is changed, and nothing crashes.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct BadInputTests {
    private enum Exit {
        static let failed: Int32 = 1
        static let usage: Int32 = 2
        static let damaged: Int32 = 3
        static let notFound: Int32 = 10
        static let busy: Int32 = 11
        static let needsConfirmation: Int32 = 13
    }

    /// Runs the command, which must end by itself with this code and say a word on stderr.
    @discardableResult
    private func expect(
        _ code: Int32, saying words: String..., from arguments: [String],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> ProcessResult {
        let result = try run([AegisCommand.requirePath()] + arguments, seconds: 60)
        let line = "aegisfs " + arguments.joined(separator: " ")
        #expect(
            result.exitCode == code, "\(line): \(result.errors)", sourceLocation: sourceLocation)
        #expect(!result.errors.isEmpty, "\(line)", sourceLocation: sourceLocation)
        for word in words {
            #expect(
                result.errors.lowercased().contains(word.lowercased()),
                "\(line): no \"\(word)\" in: \(result.errors)", sourceLocation: sourceLocation)
        }
        return result
    }

    private func withFolder(_ body: (URL, _ mount: String) throws -> Void) throws {
        try withTemporaryDirectory { folder in
            let mount = folder.appendingPathComponent("mnt")
            try FileManager.default.createDirectory(at: mount, withIntermediateDirectories: true)
            defer { if MountTable.isMounted(mount) { _ = try? run(["umount", "-l", mount.path]) } }
            try body(folder, mount.path)
        }
    }

    private func image(_ folder: URL, size: String = "64M") throws -> String {
        let path = folder.appendingPathComponent("volume.img").path
        try require(["truncate", "-s", size, path])
        try AegisCommand.require("format", "--force", "--quiet", path)
        return path
    }

    // MARK: What is no volume

    @Test(.enabled(if: TestMachine.canMount)) func notAVolume() throws {
        try withFolder { folder, mount in
            let zeros = folder.appendingPathComponent("zeros").path
            let text = folder.appendingPathComponent("text").path
            let short = folder.appendingPathComponent("short").path
            let empty = folder.appendingPathComponent("empty").path
            try require(["truncate", "-s", "64M", zeros])
            try require(["/bin/sh", "-c", "seq 1 9000000 > \(text)"])
            try require(["/bin/sh", "-c", "printf hello > \(short)"])
            try require(["truncate", "-s", "0", empty])
            for path in [zeros, text, short, empty] {
                try expect(Exit.notFound, saying: "not an AegisFS", from: ["mount", path, mount])
                try expect(Exit.notFound, from: ["status", path])
                try expect(Exit.notFound, from: ["check", path])
            }
            let missing = folder.appendingPathComponent("missing").path
            for arguments in [
                ["mount", missing, mount], ["status", missing], ["check", missing],
            ] {
                try expect(Exit.notFound, saying: "missing", from: arguments)
            }
            try expect(Exit.failed, from: ["mount", mount, mount])
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func truncatedImage() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            try require(["truncate", "-s", "40M", path])
            try expect(Exit.failed, saying: "cut short", from: ["mount", path, mount])
            try expect(Exit.failed, saying: "cut short", from: ["check", path])
            try require(["truncate", "-s", "64M", path])
            // The end of the volume, with two of the superblocks, is zero now; what is left is
            // enough.
            try AegisCommand.require("mount", path, mount)
            try AegisCommand.require("umount", mount)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func imageLargerThanTheVolume() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            try require(["truncate", "-s", "100M", path])
            try AegisCommand.require("mount", path, mount)
            try require(["touch", mount + "/file"])
            try AegisCommand.require("umount", mount)
            #expect(try AegisCommand.run("check", path).exitCode == 0)
        }
    }

    // MARK: Superblocks

    @Test(.enabled(if: TestMachine.canMount)) func eachSuperblockDamaged() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            try AegisCommand.require("mount", path, mount)
            try require(["cp", "/etc/services", mount])
            try AegisCommand.require("umount", mount)
            let pristine = path + ".pristine"
            try require(["cp", "--sparse=always", path, pristine])
            let file = ImageFile(path)
            let offsets = try file.superblockOffsets()
            let garbage = [UInt8](repeating: 0xA5, count: 4096)
            for offset in offsets {
                try file.write(garbage, at: offset)
                try AegisCommand.require("mount", path, mount)
                try require(["cmp", "/etc/services", mount + "/services"])
                try AegisCommand.require("umount", mount)
                try require(["cp", "--sparse=always", pristine, path])
            }
            for offset in offsets { try file.write(garbage, at: offset) }
            try expect(
                Exit.notFound, saying: "not an AegisFS volume", from: ["mount", path, mount])
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func unknownVersionAndFeatures() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            let file = ImageFile(path)
            let offsets = try file.superblockOffsets()
            let whole = try offsets.map { try file.read(at: $0, count: 4096) }
            func restore() throws {
                for (offset, block) in zip(offsets, whole) { try file.write(block, at: offset) }
            }
            try file.editSuperblocks { $0[8] = 99 }
            try expect(Exit.failed, saying: "version", "99", from: ["mount", path, mount])
            // One of before version 1.
            try file.editSuperblocks { $0[8] = 0 }
            try expect(
                Exit.failed, saying: "AEGIS-0044", "the aegisfs that made it",
                from: ["mount", path, mount])
            try restore()
            try file.editSuperblocks { $0[32 + 7] = 0x40 }
            try expect(
                Exit.failed, saying: "feature", "4000000000000000", from: ["mount", path, mount])
            try restore()
            // Unknown read-only compatible: may be read, not written.
            try file.editSuperblocks { $0[24 + 7] = 0x40 }
            try expect(Exit.failed, saying: "feature", "--read-only", from: ["mount", path, mount])
            try AegisCommand.require("mount", "--read-only", path, mount)
            #expect(try run(["touch", mount + "/file"]).exitCode != 0)
            try AegisCommand.require("umount", mount)
            try restore()
            // Unknown compatible bits are nobody's trouble.
            try file.editSuperblocks { $0[16 + 7] = 0x40 }
            try AegisCommand.require("mount", path, mount)
            try AegisCommand.require("umount", mount)
        }
    }

    // MARK: Busy, forbidden, in the way

    @Test(.enabled(if: TestMachine.canMount)) func busyTargetNamesItsHolder() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            let other = folder.appendingPathComponent("other").path
            try require(["mkdir", other])
            try AegisCommand.require("mount", path, mount)
            try expect(Exit.busy, saying: mount, from: ["mount", path, other])
            try expect(Exit.busy, saying: mount, from: ["format", "--force", path])
            // A mountpoint that is taken.
            let second = folder.appendingPathComponent("second.img").path
            try require(["truncate", "-s", "64M", second])
            try AegisCommand.require("format", "--quiet", second)
            try expect(Exit.busy, saying: mount, from: ["mount", second, mount])
            // Somebody works in it: it stays mounted.
            let user = try ChildProcess(["sleep", "60"], directory: URL(fileURLWithPath: mount))
            defer {
                user.signal(SIGKILL)
                _ = user.wait()
            }
            try expect(Exit.busy, from: ["umount", mount])
            user.signal(SIGKILL)
            _ = user.wait()
            try AegisCommand.require("umount", mount)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func mountpointMustFit() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            let missing = folder.appendingPathComponent("missing").path
            try expect(Exit.notFound, saying: missing, from: ["mount", path, missing])
            try expect(Exit.failed, saying: "not a directory", from: ["mount", path, path])
            try require(["touch", mount + "/something"])
            try expect(Exit.failed, saying: "not empty", from: ["mount", path, mount])
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func permissionIsNeeded() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            chmod(path, 0o600)
            let binary = folder.appendingPathComponent("aegisfs").path
            try require(["cp", AegisCommand.requirePath(), binary])
            try require(["chmod", "755", folder.path, binary])
            let result = try run(
                [
                    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "mount",
                    path, mount,
                ])
            #expect(result.exitCode == Exit.failed, "\(result.errors)")
            #expect(result.errors.lowercased().contains("permission"), "\(result.errors)")
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func withoutFuseItSaysSo() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            let hidden = "mount -t tmpfs none /dev && exec \"$0\" mount \"$1\" \"$2\""
            let result = try run(
                [
                    "unshare", "--mount", "/bin/sh", "-c", hidden, AegisCommand.requirePath(), path,
                    mount,
                ])
            #expect(result.exitCode == Exit.failed, "\(result.errors)")
            #expect(result.errors.contains("/dev/fuse"), "\(result.errors)")
        }
    }

    // MARK: Formatting

    @Test(.enabled(if: TestMachine.canMount)) func absurdSizes() throws {
        try withFolder { folder, _ in
            let path = folder.appendingPathComponent("new.img").path
            for size in ["abc", "-1", "1.5", "", "12Q", "99999999999999999999", "1GG"] {
                try expect(Exit.usage, from: ["format", "--size=\(size)", path])
            }
            try expect(Exit.failed, saying: "16", from: ["format", "--size", "15M", path])
            try expect(Exit.failed, saying: "small", from: ["format", "--size", "1B", path])
            #expect(try AegisCommand.run("format", "--size", "15E", path).exitCode != 0)
            #expect(!FileManager.default.fileExists(atPath: path), "a refused size leaves no image")
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func fullHostDuringFormat() throws {
        try withFolder { folder, mount in
            try require(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mount])
            defer { _ = try? run(["umount", mount]) }
            let path = mount + "/new.img"
            try expect(Exit.failed, saying: "space", from: ["format", "--size", "1", path])
        }
    }

    @Test(.enabled(if: TestMachine.canLoop)) func readOnlyDevice() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            let device = try require(["losetup", "--read-only", "--find", "--show", path])
                .trimmingCharacters(in: .whitespacesAndNewlines)
            defer { _ = try? run(["losetup", "--detach", device]) }
            try expect(Exit.failed, saying: "read-only", from: ["mount", device, mount])
            try expect(Exit.failed, from: ["format", "--force", device])
            try AegisCommand.require("mount", "--read-only", device, mount)
            #expect(try run(["touch", mount + "/file"]).exitCode != 0)
            try AegisCommand.require("umount", mount)
            #expect(try AegisCommand.run("check", device).exitCode == 0)
        }
    }

    /// Room for some of the first writes only, then for all of them: an image is a volume or none.
    @Test(.enabled(if: TestMachine.canMount)) func everyShortageDuringFormat() throws {
        try withFolder { folder, mount in
            let other = folder.appendingPathComponent("other").path
            try require(["mkdir", other])
            var made = 0
            for kilobytes in stride(from: 4, through: 2244, by: 224) {
                try require(["mount", "-t", "tmpfs", "-o", "size=\(kilobytes)k", "none", mount])
                defer { _ = try? run(["umount", mount]) }
                let path = mount + "/volume.img"
                try require(["truncate", "-s", "64M", path])
                let size = "--journal-size=2M"
                if try AegisCommand.run("format", "--force", "-q", size, path).exitCode == 0 {
                    made += 1
                    #expect(try AegisCommand.run("check", path).exitCode == 0)
                    // Again, over the volume that is there: nothing new is needed for that.
                    try AegisCommand.require("format", "--force", "-q", size, path)
                    continue
                }
                try expect(Exit.failed, saying: "space", from: ["format", "--force", size, path])
                try expect(Exit.notFound, from: ["mount", path, other])
                try expect(Exit.notFound, from: ["check", path])
            }
            #expect(made > 0 && made < 11, "\(made) of 11 sizes had room")
        }
    }

    /// The device refuses writes from one moment on: nothing is lost that was durable, nobody is
    /// told that a write succeeded, and the mount says what happened.
    @Test(.enabled(if: TestMachine.canLoop)) func deviceTurnsReadOnlyUnderAMount() throws {
        try withLoopDevice(size: "256M") { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try volume.mount()
            let directory = volume.directory.path
            try require(["cp", "/etc/services", directory])
            try require(["sync", directory + "/services"])

            try require(["blockdev", "--setro", device])
            defer { _ = try? run(["blockdev", "--setrw", device]) }
            let write = try run([
                "dd", "if=/dev/zero", "of=\(directory)/new", "bs=64k", "count=4", "conv=fsync",
            ])
            #expect(write.exitCode != 0)
            #expect(
                write.errors.contains("Input/output error")
                    || write.errors.contains("Read-only file system"), "\(write.errors)")
            // The next checkpoint ends all writing, whoever asks for it.
            _ = try AegisCommand.run("sync", directory)
            let touch = try run(["touch", directory + "/another"])
            #expect(touch.errors.contains("Read-only file system"), "\(touch.errors)")
            try require(["cmp", "/etc/services", directory + "/services"])
            let status = try AegisCommand.run("status", directory)
            #expect(status.exitCode == Exit.damaged)
            #expect(status.output.contains("suspended"), "\(status.output)")
            let unmount = try AegisCommand.run("umount", directory)
            #expect(unmount.exitCode == Exit.failed, "\(unmount.errors)")
            #expect(!MountTable.isMounted(volume.directory))

            try require(["blockdev", "--setrw", device])
            try volume.mount()
            try require(["cmp", "/etc/services", directory + "/services"])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// A known signature is named and needs `--force`; then no other tool finds its ghost.
    @Test(.enabled(if: TestMachine.canMount)) func formatSparesWhatIsThere() throws {
        try withFolder { folder, _ in
            let path = folder.appendingPathComponent("other.img").path
            try require(["truncate", "-s", "64M", path])
            try require(["mkfs.ext4", "-q", path])
            try expect(Exit.needsConfirmation, saying: "ext4", from: ["format", path])
            let plan = try expect(
                Exit.needsConfirmation, saying: "ext4", "nothing was changed",
                from: ["format", "--dry-run", path])
            #expect(plan.output.contains("would erase  ext4"))
            try require(["e2fsck", "-fn", path])
            #expect(try AegisCommand.run("format", "-n", "--force", path).exitCode == 0)
            try require(["e2fsck", "-fn", path])
            // In use, it says what would free it.
            let mount = folder.appendingPathComponent("mnt").path
            try require(["mount", "-o", "loop", path, mount])
            defer { _ = try? run(["umount", mount]) }
            try expect(Exit.busy, saying: "umount \(mount)", from: ["format", "--force", path])
            try require(["umount", mount])
            try AegisCommand.require("format", "--force", path)
            #expect(try run(["dumpe2fs", "-h", path]).exitCode != 0)
            // A volume of ours is somebody's too.
            try expect(Exit.needsConfirmation, saying: "AegisFS", from: ["format", path])
            #expect(try AegisCommand.run("check", path).exitCode == 0)
        }
    }

    /// A size below the file's own cuts the file, which is not done unasked.
    @Test(.enabled(if: TestMachine.canMount)) func formatDoesNotCutAnImageUnasked() throws {
        try withFolder { folder, _ in
            let path = folder.appendingPathComponent("large.img").path
            func size() throws -> UInt64 { try ImageFile(path).byteCount() }
            try require(["truncate", "-s", "64M", path])
            for extra in [[], ["--dry-run"]] {
                try expect(
                    Exit.needsConfirmation, saying: "cut from 64.0 MiB to 32.0 MiB",
                    from: ["format", "--size", "32M", path] + extra)
                #expect(try size() == 64 << 20)
            }
            let forced = try AegisCommand.run("format", "--force", "--size", "32M", path)
            #expect(forced.output.contains("cut  the image from 64.0 MiB"))
            #expect(try size() == 32 << 20)
            try AegisCommand.require("format", "--force", "--size", "48M", path)
            #expect(try size() == 48 << 20)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func readOnlyMounts() throws {
        try withFolder { folder, mount in
            let path = try image(folder)
            // As the helper of mount(8), too.
            let helper = folder.appendingPathComponent("mount.aegisfs").path
            try require(["ln", "-s", AegisCommand.requirePath(), helper])
            try require([helper, "-r", path, mount])
            #expect(try run(["touch", mount + "/file"]).exitCode != 0)
            try AegisCommand.require("umount", mount)
            try AegisCommand.require("mount", path, mount)
            for option in ["remount,ro", "remount,rw"] {
                try AegisCommand.require("mount", "-o", option, mount)
                let touched = try run(["touch", mount + "/file"])
                #expect((touched.exitCode == 0) == (option == "remount,rw"))
            }
            try AegisCommand.require("umount", mount)
        }
    }

    /// Who asks for progress as JSON gets a last line however short the check was.
    @Test(.enabled(if: TestMachine.canMount)) func progressHasALastLine() throws {
        try withFolder { folder, _ in
            let path = try image(folder)
            let plain = try AegisCommand.run("check", "--progress", "json", path)
            #expect(plain.exitCode == 0 && plain.errors.contains("\"type\":\"progress\""))
            #expect(!plain.output.contains("progress"))
            let stream = try AegisCommand.run("check", "--json", "--progress=json", path)
            let lines = stream.output.split(separator: "\n")
            #expect(lines.count >= 2 && stream.errors.isEmpty)
            #expect(lines.first?.contains("\"type\":\"progress\"") == true)
            #expect(lines.last?.contains("\"type\":\"summary\"") == true)
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func commandLineMistakes() throws {
        #expect(try AegisCommand.run().exitCode == Exit.usage)
        try expect(Exit.usage, saying: "mount", from: ["muont", "a", "b"])
        try expect(Exit.usage, from: ["format"])
        try expect(Exit.usage, from: ["mount", "only-one"])
        try expect(Exit.usage, saying: "--bogus", from: ["status", "--bogus", "x"])
        let help = try AegisCommand.run("--help")
        #expect(help.exitCode == 0 && help.errors.isEmpty && help.output.contains("format"))
    }
}
