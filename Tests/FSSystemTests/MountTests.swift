/// The main job through the real command and the kernel: format, mount, use, unmount, mount again,
/// compare, check.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct MountTests {
    // MARK: README

    /// The lines of the README work as they are written there.
    @Test(.enabled(if: TestMachine.canMount)) func readmeLinesWork() throws {
        try withTemporaryDirectory { folder in
            let tools = URL(fileURLWithPath: try AegisCommand.requirePath())
                .deletingLastPathComponent().path
            let path = tools + ":" + (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin")
            func shell(_ line: String) throws {
                let result = try run(
                    ["/bin/sh", "-c", line], environment: ["PATH": path], directory: folder)
                #expect(result.exitCode == 0, "\(line): \(result.errors)")
            }
            let mount = folder.appendingPathComponent("mnt")
            defer { _ = try? run(["umount", "-l", mount.path]) }
            try shell("truncate -s 1G test.img")
            try shell("aegisfs format test.img --size 1")
            try shell("mkdir mnt")
            try shell("aegisfs mount test.img mnt")
            #expect(MountTable.isMounted(mount))
            try shell("echo hello > mnt/greeting && mkdir mnt/dir && ln mnt/greeting mnt/dir/link")
            try shell("fusermount3 -u mnt")
            #expect(!MountTable.isMounted(mount))
            // The daemon may still be writing; a mount waits for that, and finds everything.
            try shell("aegisfs mount test.img mnt")
            try shell("test \"$(cat mnt/dir/link)\" = hello")
            try shell("aegisfs umount mnt")
            try shell("aegisfs check test.img")
        }
    }

    // MARK: A tree

    static let canCompareTrees = TestMachine.can(
        "comparing trees",
        TestMachine.mountObstacle
            ?? ((try? run(["rsync", "--version"]))?.exitCode == 0 ? nil : "no rsync"))

    /// A tree goes in by tar and is the same in every respect after an unmount; and the comparison
    /// sees one byte, one mode, one attribute, one nanosecond.
    @Test(.enabled(if: canCompareTrees)) func keepsATree() throws {
        try withVolume(size: "2G") { volume, folder in
            let source = folder.appendingPathComponent("source")
            try makeTree(at: source)
            let archive = folder.appendingPathComponent("tree.tar").path
            let attributes = ["--xattrs", "--xattrs-include=*", "--acls"]
            try require(["tar", "cf", archive, "-C", source.path] + attributes + ["."])

            try volume.mount()
            try require(
                ["tar", "xpf", archive, "-C", volume.directory.path] + attributes, seconds: 300)
            try volume.unmount()
            let checked = try volume.check()
            #expect(checked.exitCode == 0, "\(checked.output)\(checked.errors)")
            try volume.mount()
            #expect(try differences(source, volume.directory) == "")

            let control = volume.directory.appendingPathComponent("control").path
            try require(
                ["/bin/sh", "-c", "printf X | dd of=\(control)/byte conv=notrunc status=none"])
            try require(["chmod", "0640", "\(control)/mode"])
            try require(["setfattr", "-n", "user.control", "-v", "other", "\(control)/attribute"])
            try require(["touch", "-d", "2001-02-03 04:05:06.000000001", "\(control)/time"])
            let lines = try differences(source, volume.directory).split(separator: "\n")
            #expect(lines.count == 4, "\(lines)")
            for name in ["byte", "mode", "attribute", "time"] {
                #expect(lines.contains { $0.hasSuffix("control/\(name)") }, "\(name)")
            }

            // Half of it away again, then everything.
            try require(["/bin/sh", "-c", "rm -rf \(volume.directory.path)/[a-m]*"])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try require(["find", volume.directory.path, "-mindepth", "1", "-delete"])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// What `rsync` would have to change: nothing, if the trees are the same.
    private func differences(_ source: URL, _ target: URL) throws -> String {
        try require(
            [
                "rsync", "-aHAXnci", "--delete", "--modify-window=-1", source.path + "/",
                target.path + "/",
            ], seconds: 300)
    }

    /// Everything that a tree can have: what random operations leave on the host (every kind of
    /// inode, odd names, links, holes, attributes), real files, and the four of the control.
    private func makeTree(at root: URL) throws {
        for folder in ["", "random", "control"] {
            try FileManager.default.createDirectory(
                at: root.appendingPathComponent(folder), withIntermediateDirectories: true)
        }
        let random = root.appendingPathComponent("random")
        chmod(random.path, 0o755)
        let executor = MountedExecutor(random, trustsDirectorySizes: false)
        var profile = OperationProfile.mounted
        profile.largestExtendedAttribute = 500
        profile.leavesWhiteouts = false
        profile.population = 400
        try RandomSession(seed: 3, profile: profile, executor: executor).run(4000)
        executor.dropHandles()
        // An archive has no sockets.
        try require(["find", random.path, "-type", "s", "-delete"])
        try require(["cp", "-a", "/usr/include", root.appendingPathComponent("include").path])
        for name in ["byte", "mode", "attribute", "time"] {
            let file = root.appendingPathComponent("control/\(name)").path
            try require(["/bin/sh", "-c", "head -c 70000 /dev/zero > \(file)"])
            try require(["chmod", "4711", file])
            try require(["setfattr", "-n", "user.control", "-v", "value", file])
            try require(["touch", "-d", "2001-02-03 04:05:06.000000000", file])
        }
        _ = try run(["setfacl", "-m", "u:1234:rw,g:99:r", "\(root.path)/control/attribute"])
        _ = try run(["setfacl", "-d", "-m", "u:1234:rwx", "\(root.path)/control"])
    }

    // MARK: Against the model

    /// Random operations through the kernel, also after remounts.
    @Test(.enabled(if: TestMachine.canMount), arguments: [UInt64(1), 2, 3])
    func agreesWithTheModel(seed: UInt64) throws {
        try agreesWithTheModel(seed: seed, byRings: false)
    }
    @Test(.enabled(if: RingTests.canRun), arguments: [UInt64(4), 5, 6])
    func agreesWithTheModelByRings(seed: UInt64) throws {
        try agreesWithTheModel(seed: seed, byRings: true)
    }
    private func agreesWithTheModel(seed: UInt64, byRings: Bool) throws {
        let operations = TestMachine.count("AEGISFS_TEST_MOUNT_OPS", default: 9000) / 3
        try withVolume { volume, _ in
            volume.offersRings = byRings
            try volume.mount()
            chmod(volume.directory.path, 0o755)
            let executor = MountedExecutor(volume.directory)
            let session = RandomSession(seed: seed, profile: .mounted, executor: executor)
            session.betweenOperations = { number in
                guard number % 1000 == 0 else { return }
                session.dropHandles()
                executor.dropHandles()
                try volume.unmount()
                let checked = try volume.check()
                if checked.exitCode != 0 { throw session.divergence("check: \(checked.output)") }
                try volume.mount()
            }
            try session.run(operations)
            try session.compareTrees()
            executor.dropHandles()
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    // MARK: Devices

    @Test(.enabled(if: TestMachine.canLoop)) func worksOnALoopDevice() throws {
        try withLoopDevice { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try volume.mount()
            let copy = volume.directory.appendingPathComponent("services").path
            try require(["cp", "-a", "/etc/services", copy])
            // Who else wants the device is told so at once.
            let second = try AegisCommand.run("format", "--force", device)
            #expect(second.exitCode == 11, "\(second.errors)")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try require(["cmp", "/etc/services", copy])
            try volume.unmount()
        }
    }

    /// `umount` has everything on the device and the device free when it returns.
    @Test(.enabled(if: TestMachine.canMount)) func unmountMeansFinished() throws {
        try withVolume(size: "256M") { volume, folder in
            let copy = folder.appendingPathComponent("copy.img").path
            for round in 1...3 {
                try volume.mount()
                let file = volume.directory.appendingPathComponent("file\(round)").path
                try require(["/bin/sh", "-c", "head -c 20000000 /dev/urandom > \(file)"])
                let sum = try require(["/bin/sh", "-c", "sha256sum < \(file)"])
                try volume.unmount()
                try require(["cp", "--sparse=always", volume.target, copy])
                let mount = folder.appendingPathComponent("copy\(round)")
                try FileManager.default.createDirectory(
                    at: mount, withIntermediateDirectories: true)
                try AegisCommand.require("mount", copy, mount.path)
                defer { _ = try? AegisCommand.run("umount", mount.path) }
                #expect(
                    try require(["/bin/sh", "-c", "sha256sum < \(mount.path)/file\(round)"]) == sum)
            }
        }
    }
}
