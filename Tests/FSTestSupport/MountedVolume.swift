/// Volumes through the real `aegisfs` command and the kernel.
public import Foundation
internal import Glibc

/// What this machine can do, for tests that need more than a process.
public enum TestMachine {
    /// Why nothing can be mounted here; nil if it can.
    public static let mountObstacle: String? = {
        if AegisCommand.path == nil { return "no aegisfs beside the tests (AEGISFS_BINARY)" }
        if geteuid() != 0 { return "not root" }
        let descriptor = open("/dev/fuse", O_RDWR)
        if descriptor < 0 { return "no /dev/fuse" }
        close(descriptor)
        return nil
    }()

    /// Why no loop device can be set up here; nil if one can.
    public static let loopObstacle: String? =
        mountObstacle
        ?? ((try? run(["losetup", "--find"]).exitCode) == 0 ? nil : "no loop devices (losetup)")

    /// False says loudly which tests do not run; for `.enabled(if:)`.
    public static func can(_ what: String, _ obstacle: String?) -> Bool {
        guard let obstacle else { return true }
        print("SKIPPED: \(what): \(obstacle)")
        return false
    }

    public static let canMount = can("tests through a mount", mountObstacle)
    public static let canLoop = can("tests on a loop device", loopObstacle)

    /// A count that the long run may raise: an environment variable's value, else the default.
    public static func count(_ variable: String, default value: Int) -> Int {
        ProcessInfo.processInfo.environment[variable].flatMap(Int.init) ?? value
    }
}

/// A program of the package, as it was built.
public enum BuiltProgram {
    /// `variable`, or the product beside the test bundle; nil if there is none.
    static func find(_ name: String, variable: String? = nil) -> String? {
        var candidates: [String] = []
        if let variable, let given = ProcessInfo.processInfo.environment[variable] {
            candidates.append(given)
        }
        // The running program is the test bundle, which lies in the build's product folder; under
        // `swift test` it may be the toolchain's helper, whose arguments name the bundle.
        for argument in [Bundle.main.executablePath ?? ""] + CommandLine.arguments {
            let folder = URL(fileURLWithPath: argument).deletingLastPathComponent()
            candidates.append(folder.appendingPathComponent(name).path)
        }
        return candidates.first { access($0, X_OK) == 0 && !isDirectory($0) }
    }

    /// Writes by several ways, and examines what is there.
    public static func writers() throws -> String { try require("aegisfs-writers") }
    /// Runs the rules of POSIX, or compares two directories.
    public static func conformance() throws -> String { try require("aegisfs-conformance") }
    /// Mounts a volume on a simulated device.
    static func recorder() throws -> String { try require("aegisfs-recorder") }

    private static func require(_ name: String) throws -> String {
        guard let path = find(name) else { throw ProcessFailure("there is no \(name)") }
        return path
    }

    private static func isDirectory(_ path: String) -> Bool {
        var isDirectory: ObjCBool = false
        return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
            && isDirectory.boolValue
    }
}

/// The built command.
public enum AegisCommand {
    public static let path: String? = BuiltProgram.find("aegisfs", variable: "AEGISFS_BINARY")

    /// Runs `aegisfs ARGUMENTS`.
    public static func run(_ arguments: String..., seconds: Double = 300) throws -> ProcessResult {
        try FSTestSupport.run([requirePath()] + arguments, seconds: seconds)
    }

    /// Runs `aegisfs ARGUMENTS`, which must succeed.
    @discardableResult
    public static func require(_ arguments: String..., seconds: Double = 300) throws -> String {
        try FSTestSupport.require([requirePath()] + arguments, seconds: seconds)
    }

    public static func requirePath() throws -> String {
        guard let path else { throw ProcessFailure("there is no aegisfs command") }
        return path
    }
}

/// What is mounted where, from the kernel's table: asking the mount itself could hang.
public enum MountTable {
    public static func isMounted(_ directory: URL) -> Bool {
        guard let real = realpath(directory.deletingLastPathComponent().path, nil) else {
            return false
        }
        defer { free(real) }
        return points.contains(String(cString: real) + "/" + directory.lastPathComponent)
    }

    /// What is mounted in a folder or below it.
    public static func mounts(below folder: URL) -> [String] {
        guard let real = realpath(folder.path, nil) else { return [] }
        defer { free(real) }
        return points.filter { $0.hasPrefix(String(cString: real) + "/") }
    }

    private static var points: [String] {
        contents.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            return fields.count > 4 ? String(fields[4]) : nil
        }
    }

    /// Page by page to the end: Foundation takes the first short read of such a file for its end.
    private static var contents: String {
        let descriptor = open("/proc/self/mountinfo", O_RDONLY)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk[..<count]
        }
    }
}

/// An image or a device with a volume, and a directory to mount it on.
public final class MountedVolume {
    public let target: String
    public let directory: URL
    private var daemon: ChildProcess?

    /// Formats the image `name` in `folder`; nothing is mounted yet.
    public init(image name: String = "test.img", size: String = "1G", in folder: URL) throws {
        target = folder.appendingPathComponent(name).path
        directory = folder.appendingPathComponent(name + ".mnt")
        try require(["truncate", "-s", size, target])
        try AegisCommand.require("format", "--force", "--quiet", target)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    /// Formats a device that is already there.
    public init(device: String, in folder: URL) throws {
        target = device
        directory = folder.appendingPathComponent("device.mnt")
        try AegisCommand.require("format", "--force", "--quiet", target)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    public func mount(options: String? = nil) throws {
        let path = try AegisCommand.requirePath()
        let extra = options.map { ["-o", $0] } ?? []
        try require([path, "mount"] + extra + [target, directory.path])
        guard MountTable.isMounted(directory) else {
            throw ProcessFailure("aegisfs mount returned before \(directory.path) was mounted")
        }
    }

    public func unmount() throws {
        try AegisCommand.require("umount", directory.path)
        guard !MountTable.isMounted(directory) else {
            throw ProcessFailure("aegisfs umount left \(directory.path) mounted")
        }
    }

    /// Mounts with the daemon as a child, which `kill` may end at any time.
    public func mountInForeground(options: String? = nil) throws {
        let extra = options.map { ["-o", $0] } ?? []
        let child = try ChildProcess(
            [AegisCommand.requirePath(), "mount", "--foreground"] + extra + [
                target, directory.path,
            ])
        daemon = child
        let deadline = ContinuousClock.now + .seconds(300)
        while !MountTable.isMounted(directory) {
            guard child.isRunning, ContinuousClock.now < deadline else {
                throw ProcessFailure("no mount: \(child.wait(seconds: 1).errors)")
            }
            usleep(2_000)
        }
    }

    /// `kill -9` of the daemon, as soon as the pause is over.
    public func killDaemon(afterSeconds pause: Double) throws -> ChildProcess {
        guard let daemon else { throw ProcessFailure("no daemon in the foreground") }
        // The daemon is waited for only after this has ended, so its number stays its own.
        return try ChildProcess(["/bin/sh", "-c", "sleep \(pause); kill -9 \(daemon.processID)"])
    }

    /// `kill -9` of the daemon unless it has been; the dead mount is taken away.
    public func killDaemon() throws {
        guard let daemon else { throw ProcessFailure("no daemon in the foreground") }
        daemon.signal(SIGKILL)
        _ = daemon.wait()
        self.daemon = nil
        try require(["umount", "-l", directory.path])
    }

    /// Exit code and words of a full check; the volume must not be mounted.
    public func check() throws -> ProcessResult { try AegisCommand.run("check", target) }

    /// Takes everything down, however broken it is.
    public func cleanUp() {
        if MountTable.isMounted(directory) {
            _ = try? AegisCommand.run("umount", directory.path, seconds: 60)
        }
        if MountTable.isMounted(directory) {
            _ = try? run(["umount", "-l", directory.path], seconds: 30)
        }
        if let daemon { _ = daemon.wait(seconds: 30) }
        daemon = nil
    }
}

/// Lends a formatted volume that is not mounted yet; afterwards nothing of it is left.
public func withVolume<R>(
    size: String = "1G", _ body: (MountedVolume, URL) throws -> R
) throws -> R {
    try withTemporaryDirectory { folder in
        let volume = try MountedVolume(size: size, in: folder)
        defer { volume.cleanUp() }
        return try body(volume, folder)
    }
}

/// Lends a loop device over a sparse file.
public func withLoopDevice<R>(
    size: String = "1G", _ body: (String, URL) throws -> R
) throws -> R {
    try withTemporaryDirectory { folder in
        let image = folder.appendingPathComponent("loop.img").path
        try require(["truncate", "-s", size, image])
        let device = try require(["losetup", "--find", "--show", image])
            .trimmingCharacters(in: .whitespacesAndNewlines)
        defer { _ = try? run(["losetup", "--detach", device]) }
        return try body(device, folder)
    }
}
