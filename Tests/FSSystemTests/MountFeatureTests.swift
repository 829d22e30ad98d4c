/// What can be done with a mount besides files: other mounts of it, namespaces, its end on request.
internal import CTestLinux
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct MountFeatureTests {
    private static let shutDown: UInt = 0x8004_587D

    /// `FS_IOC_SHUTDOWN`: for root only; afterwards nothing changes any more, what was written before
    /// is there, and the next mount is as ever.
    @Test(.enabled(if: TestMachine.canMount)) func shutsDownOnRequest() throws {
        try withVolume(size: "128M") { volume, _ in
            try volume.mount()
            let file = volume.directory.appendingPathComponent("file")
            try Data("before".utf8).write(to: file)
            let ioctlByNobody = try run([
                "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e",
                "sysopen(F, $ARGV[0], 0); ioctl(F, 0x8004587D, $ARGV[0]) or die $!",
                volume.directory.path,
            ])
            #expect(ioctlByNobody.errors.contains("Operation not permitted"))
            let opened = open(file.path, O_RDWR)
            #expect(opened >= 0)
            var flags: UInt32 = 2
            #expect(ioctl(opened, Self.shutDown, &flags) == 0)
            #expect(write(opened, "x", 1) == -1 && errno == EROFS)
            #expect(fsync(opened) == -1 && errno == EIO)
            #expect(mkdir(volume.directory.path + "/directory", 0o755) == -1 && errno == EROFS)
            #expect(try String(contentsOf: file, encoding: .utf8) == "before")
            let status = try AegisCommand.run("status", volume.directory.path)
            #expect(status.output.contains("shut down on request"))
            close(opened)
            // The daemon says that it could not close the volume as it should.
            #expect(try AegisCommand.run("umount", volume.directory.path).exitCode != 0)
            try volume.mount()
            #expect(try String(contentsOf: file, encoding: .utf8) == "before")
            try Data("after".utf8).write(to: file)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// `mount -o remount,rw` of what was mounted read-only: at once a volume like any other; not while
    /// another reads it, and not if its journal was replayed in memory only.
    @Test(.enabled(if: TestMachine.canMount)) func readOnlyBecomesWritable() throws {
        try withVolume(size: "128M") { volume, folder in
            try becomesWritable(volume) { path in
                let second = folder.appendingPathComponent("second").path
                #expect(mkdir(second, 0o755) == 0)
                try AegisCommand.require("mount", "--read-only", volume.target, second)
                let refused = try AegisCommand.run("mount", "-o", "remount,rw", path)
                #expect(refused.exitCode == 11, "\(refused.errors)")
                #expect(mkdir(path + "/directory", 0o755) == -1 && errno == EROFS)
                try AegisCommand.require("umount", second)
            }
        }
    }
    @Test(.enabled(if: TestMachine.canLoop)) func aReadOnlyDeviceBecomesWritable() throws {
        try withLoopDevice(size: "128M") { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try becomesWritable(volume) { path in
                try require(["blockdev", "--setro", device])
                let refused = try AegisCommand.run("mount", "-o", "remount,rw", path)
                #expect(refused.exitCode != 0 && refused.errors.contains(device))
                #expect(mkdir(path + "/directory", 0o755) == -1 && errno == EROFS)
                try require(["blockdev", "--setrw", device])
            }
        }
    }
    private func becomesWritable(
        _ volume: MountedVolume, refusals: (_ path: String) throws -> Void
    ) throws {
        try volume.mount()
        let path = volume.directory.path
        try Data("before".utf8).write(to: URL(fileURLWithPath: path + "/file"))
        try volume.unmount()

        try volume.mountInForeground(options: "ro")
        let reader = open(path + "/file", O_RDONLY)
        #expect(mkdir(path + "/directory", 0o755) == -1 && errno == EROFS)
        try refusals(path)
        try AegisCommand.require("mount", "-o", "remount,rw", path)
        #expect(mkdir(path + "/directory", 0o755) == 0)
        var byte: UInt8 = 0
        #expect(pread(reader, &byte, 1, 2) == 1 && byte == UInt8(ascii: "f"))
        close(reader)
        let written = open(path + "/directory/new", O_RDWR | O_CREAT, 0o644)
        #expect(write(written, "after", 5) == 5 && fsync(written) == 0)
        close(written)
        try volume.killDaemon()

        // What the crash left in the journal is shown, and stays read-only.
        try volume.mount(options: "ro")
        #expect(try String(contentsOfFile: path + "/directory/new", encoding: .utf8) == "after")
        let refused = try AegisCommand.run("mount", "-o", "remount,rw", path)
        #expect(refused.exitCode == 1 && refused.errors.contains("journal to replay"))
        try volume.unmount()
        try volume.mount()
        #expect(try String(contentsOfFile: path + "/file", encoding: .utf8) == "before")
        try volume.unmount()
        #expect(try volume.check().exitCode == 0)
    }

    /// Two volumes at once; a bind mount of a part of one; names do not move between filesystems.
    @Test(.enabled(if: TestMachine.canMount)) func severalMounts() throws {
        try withVolume(size: "64M") { volume, folder in
            let other = try MountedVolume(image: "other.img", size: "64M", in: folder)
            defer { other.cleanUp() }
            try volume.mount()
            try other.mount()
            let part = folder.appendingPathComponent("part").path
            let inside = volume.directory.path + "/inside"
            for directory in [part, inside] { #expect(mkdir(directory, 0o755) == 0) }
            try require(["mount", "--bind", inside, part])
            defer { _ = try? run(["umount", "-l", part]) }
            try Data("text".utf8).write(to: URL(fileURLWithPath: part + "/file"))
            #expect(
                try String(contentsOfFile: inside + "/file", encoding: .utf8) == "text")
            #expect(rename(inside + "/file", other.directory.path + "/file") == -1)
            #expect(errno == EXDEV)
            #expect(link(inside + "/file", part + "/link") == -1 && errno == EXDEV)
            // Busy while a part of it is mounted elsewhere too; the data is one.
            try require(["umount", part])
            try other.unmount()
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// An id-mapped mount shows and stores the ids that its user namespace says.
    @Test(.enabled(if: TestMachine.canMount)) func idMappedMount() throws {
        try withVolume(size: "64M") { volume, folder in
            try volume.mount()
            let namespace = try ChildProcess(["unshare", "--user", "sleep", "60"])
            defer {
                namespace.signal(SIGKILL)
                _ = namespace.wait()
            }
            let process = "/proc/\(namespace.processID)"
            // Until the child is in its namespace these are the files of ours.
            let own = try FileManager.default.destinationOfSymbolicLink(
                atPath: "/proc/self/ns/user")
            while try FileManager.default.destinationOfSymbolicLink(atPath: process + "/ns/user")
                == own
            {
                usleep(2_000)
            }
            for map in ["uid_map", "gid_map"] {
                try Data("0 100000 65536".utf8).write(
                    to: URL(fileURLWithPath: "\(process)/\(map)"))
            }
            let mapped = folder.appendingPathComponent("mapped")
            try FileManager.default.createDirectory(at: mapped, withIntermediateDirectories: true)
            let names = open(process + "/ns/user", O_RDONLY)
            defer { close(names) }
            let failure = aegis_mount_mapped(volume.directory.path, mapped.path, names)
            #expect(failure == 0, "\(String(cString: strerror(failure)))")
            guard failure == 0 else { return }
            defer { _ = try? run(["umount", "-l", mapped.path]) }

            try Data("text".utf8).write(to: volume.directory.appendingPathComponent("file"))
            #expect(chmod(volume.directory.path, 0o777) == 0)
            let asUser = ["setpriv", "--reuid=100005", "--regid=100006", "--clear-groups"]
            try require(asUser + ["touch", mapped.path + "/touched"])
            #expect(owner(mapped.path + "/file") == [100000, 100000])
            #expect(owner(volume.directory.path + "/touched") == [5, 6])
            #expect(owner(mapped.path + "/touched") == [100005, 100006])
            #expect(try run(asUser + ["rm", "-f", mapped.path + "/file"]).exitCode == 0)
            try require(["umount", mapped.path])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    private func owner(_ path: String) -> [UInt32] {
        var status = stat()
        guard lstat(path, &status) == 0 else { return [] }
        return [status.st_uid, status.st_gid]
    }

    static let canMountAsUser = TestMachine.can(
        "mounts of an ordinary user",
        TestMachine.mountObstacle
            ?? (try? run(["setpriv", "--reuid=65534", "test", "-w", "/dev/fuse"])).flatMap {
                $0.exitCode == 0 ? nil : "/dev/fuse is not for everybody here"
            })

    /// An ordinary user mounts his own image in a namespace of his own.
    @Test(.enabled(if: canMountAsUser)) func ordinaryUserInHisNamespace() throws {
        try mountInANamespace([
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urm",
        ])
    }

    @Test(.enabled(if: TestMachine.canMount)) func rootInANamespace() throws {
        try mountInANamespace(["unshare", "-Urm"])
    }

    private func mountInANamespace(_ command: [String]) throws {
        try withVolume(size: "64M") { volume, folder in
            if command[0] == "setpriv" {
                for path in [folder.path, volume.target, volume.directory.path] {
                    #expect(chown(path, 65534, 65534) == 0)
                }
            }
            let aegisfs = try AegisCommand.requirePath()
            let script = """
                set -e
                "\(aegisfs)" mount "$1" "$2"
                echo text > "$2/file"
                test "$(stat -c %u "$2/file")" = 0
                "\(aegisfs)" status "$2" > /dev/null
                "\(aegisfs)" umount "$2"
                """
            let result = try run(
                command + ["sh", "-c", script, "sh", volume.target, volume.directory.path],
                environment: ["XDG_RUNTIME_DIR": folder.path], seconds: 60)
            #expect(result.exitCode == 0, "\(result.errors)")
            try volume.mount()
            #expect(
                try String(
                    contentsOf: volume.directory.appendingPathComponent("file"), encoding: .utf8)
                    == "text\n")
            try volume.unmount()
        }
    }
}
