/// `aegisfs resize` as users call it: on images and loop devices, mounted and not, beside a load, with
/// its refusals and their exit codes.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct ResizeMountTests {
    private func size(_ path: String) throws -> Int {
        try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? -1
    }

    private func total(_ directory: URL) throws -> Int {
        let line = try require(["stat", "-f", "-c", "%b", directory.path])
        return Int(line.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1
    }

    @Test(.enabled(if: TestMachine.canMount)) func changesAnImage() throws {
        try withVolume(size: "256M") { volume, folder in
            let image = volume.target
            try volume.mount()
            let mount = volume.directory.path
            try require(["/bin/sh", "-c", "head -c 50M /dev/urandom > \(folder.path)/source"])
            try require(["cp", folder.path + "/source", mount + "/file"])
            let before = try total(volume.directory)

            // Live: statfs knows at once, and the image is as long as the volume.
            _ = try AegisCommand.require("resize", mount, "+256M")
            #expect(try size(image) == 512 << 20)
            #expect(try total(volume.directory) >= before + 256 << 8 - 64)

            let plan = try AegisCommand.require("resize", mount, "min", "--dry-run", "--json")
            #expect(plan.contains("\"is_dry_run\":true") && plan.contains("minimum_bytes"))
            let words = try AegisCommand.require("resize", mount, "128M", "--dry-run")
            #expect(
                words.contains("would go from 512.0 MiB to 128.0 MiB, moving")
                    && words.contains("the smallest possible is"), "\(words)")
            #expect(try size(image) == 512 << 20)
            // Without a terminal to ask on.
            #expect(try AegisCommand.run("resize", mount, "128M").exitCode == 13)
            let small = try AegisCommand.run("resize", mount, "32M", "--yes")
            #expect(small.exitCode == 1 && small.errors.contains("AEGIS-0350"))
            #expect(try AegisCommand.run("resize", mount, "much").exitCode == 2)
            #expect(try AegisCommand.run("resize", mount, "1M", "--yes").exitCode == 1)
            _ = try AegisCommand.require("resize", mount, "-384M", "--yes", "--quiet")
            #expect(try size(image) == 128 << 20)
            try require(["cmp", folder.path + "/source", mount + "/file"])
            #expect(try AegisCommand.run("check", mount).exitCode == 0)

            // Killed right behind it, and not mounted.
            try volume.unmount()
            try volume.mountInForeground()
            _ = try AegisCommand.require("resize", mount, "300M")
            _ = try AegisCommand.require("resize", mount, "150M", "--yes")
            try volume.killDaemon()
            try volume.mount()
            try require(["cmp", folder.path + "/source", mount + "/file"])
            try volume.unmount()
            let told = try AegisCommand.require("resize", image, "min", "--dry-run", "--json")
            #expect(try size(image) == 150 << 20)
            _ = try AegisCommand.require("resize", image, "min", "--yes")
            #expect(try size(image) < 100 << 20)
            #expect(try told.contains("\"new_bytes\":\(size(image)),"), "\(told)")
            #expect(try volume.check().exitCode == 0)
            try require(["truncate", "-s", "1G", image])
            _ = try AegisCommand.require("resize", image, "max")
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try require(["cmp", folder.path + "/source", mount + "/file"])
        }
    }

    /// A signal at any moment of a shrink: what the exit status says is what the size is.
    @Test(.enabled(if: TestMachine.canMount), arguments: [false, true])
    func interruptedAtAnyMoment(isMounted: Bool) throws {
        try withVolume(size: "256M") { volume, folder in
            let image = volume.target
            try volume.mount()
            let source = "\(folder.path)/source"
            try require(["/bin/sh", "-c", "head -c 40M /dev/urandom > \(source)"])
            let file = volume.directory.path + "/file"
            try require(["cp", source, file])
            if !isMounted { try volume.unmount() }
            let target = isMounted ? volume.directory.path : image
            let path = try AegisCommand.requirePath()
            for delay in [0, 10, 20, 30, 45, 60, 90, 150] as [UInt32] {
                let child = try ChildProcess([path, "resize", target, "90M", "--yes"])
                usleep(delay * 1000)
                child.signal(SIGINT)
                let ended = child.wait(seconds: 60)
                let isSmall = try size(image) == 90 << 20
                switch ended.exitCode {
                case 0: #expect(isSmall)
                case 130:
                    #expect(try size(image) == 256 << 20)
                    // Silent if the signal came before it was watched for.
                    #expect(
                        ended.errors.isEmpty || ended.errors.contains("has its old size"),
                        "\(ended.errors)")
                default: Issue.record("\(ended.exitCode): \(ended.errors)")
                }
                if isSmall { try AegisCommand.require("resize", target, "256M", "--yes") }
            }
            if !isMounted { try volume.mount() }
            try require(["cmp", source, file])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// The device grows under a mount; its size is its own.
    @Test(.enabled(if: TestMachine.canLoop)) func followsALoopDevice() throws {
        try withTemporaryDirectory { folder in
            let file = folder.appendingPathComponent("device").path
            try require(["truncate", "-s", "256M", file])
            let device = try require(["losetup", "--find", "--show", file])
                .trimmingCharacters(in: .whitespacesAndNewlines)
            defer { _ = try? run(["losetup", "-d", device]) }
            _ = try AegisCommand.require("format", device)
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try volume.mount()
            let before = try total(volume.directory)
            #expect(try AegisCommand.run("resize", volume.directory.path, "+1G").exitCode == 1)
            try require(["truncate", "-s", "512M", file])
            try require(["losetup", "-c", device])
            _ = try AegisCommand.require("resize", volume.directory.path, "max")
            #expect(try total(volume.directory) >= before + 256 << 8 - 64)
            try require(
                ["/bin/sh", "-c", "head -c 300M /dev/urandom > \(volume.directory.path)/file"])
            try require(["rm", volume.directory.path + "/file"])
            _ = try AegisCommand.require("resize", volume.directory.path, "200M", "--yes")
            #expect(try total(volume.directory) < 200 << 8)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Several sizes while programs write, read and delete; what they promised is there.
    /// `AEGISFS_TEST_RESIZES` sets how many.
    @Test(.enabled(if: TestMachine.canMount)) func underLoad() throws {
        try withVolume(size: "512M") { volume, folder in
            try volume.mount()
            let mount = volume.directory.path
            let script = """
                set -e
                for i in $(seq 1 100000); do
                    test ! -e \(folder.path)/stop || exit 0
                    f=\(mount)/f$((i % 7)).$1
                    head -c $((i * 37123 % 3000000)) /dev/urandom > \(folder.path)/c.$1
                    cp \(folder.path)/c.$1 $f
                    cmp \(folder.path)/c.$1 $f
                    test $((i % 3)) -ne 0 || rm $f
                done
                """
            let writers = try (0..<2).map {
                try ChildProcess(["/bin/sh", "-c", script, "load", "\($0)"])
            }
            var random = SeededRandom(
                seed: UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1)))
            for _ in 0..<TestMachine.count("AEGISFS_TEST_RESIZES", default: 8) {
                let megabytes = random.integer(in: 120...900)
                _ = try AegisCommand.require("resize", mount, "\(megabytes)M", "--yes", "--quiet")
                #expect(try size(volume.target) == megabytes << 20)
                Thread.sleep(forTimeInterval: 0.2)
            }
            try require(["touch", folder.path + "/stop"])
            for writer in writers { #expect(writer.wait().exitCode == 0) }
            #expect(try AegisCommand.run("check", mount).exitCode == 0)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }
}
