/// A mounted volume on a device in memory that remembers every write and flush, in a process of its
/// own; and what a power cut at any moment leaves, mounted again by the command.
public import Foundation

public final class RecordedMount {
    public enum Cut: String, CaseIterable, Sendable {
        /// What of the writes since the last flush is on the medium.
        case nothing, everything, subset
    }

    public let directory: URL
    private let folder: URL
    private let recorder: PipedProcess

    public init(mebibytes: Int, in folder: URL) throws {
        self.folder = folder
        directory = folder.appendingPathComponent("recorded")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        recorder = try PipedProcess([
            BuiltProgram.recorder(), String(mebibytes), directory.path,
        ])
        let answer = try recorder.readLine()
        guard answer == "ready" else { throw ProcessFailure("the recorder: \(answer)") }
    }

    /// How many writes and flushes the device has seen.
    public func position() throws -> Int {
        let answer = try recorder.ask("position")
        guard let position = Int(answer) else { throw ProcessFailure("position \(answer)") }
        return position
    }

    /// The positions right behind each flush.
    public func flushes() throws -> [Int] {
        try recorder.ask("flushes").split(separator: " ").compactMap { Int($0) }
    }

    /// From now on the device only says that it flushes.
    public func dropFlushes() throws { _ = try recorder.ask("drop") }

    public func unmount() throws { _ = try recorder.ask("unmount") }

    /// Mounts what a power cut at `position` leaves, and lends the mount. Afterwards the volume must
    /// unmount, and `checks` it must be without a finding.
    public func withRecovered<R>(
        at position: Int, _ cut: Cut, seed: UInt64, checks: Bool, _ body: (URL) throws -> R
    ) throws -> R {
        let image = folder.appendingPathComponent("cut.img").path
        let mount = folder.appendingPathComponent("cut.mnt")
        try FileManager.default.createDirectory(at: mount, withIntermediateDirectories: true)
        defer {
            if MountTable.isMounted(mount) { _ = try? run(["umount", "-l", mount.path]) }
            try? FileManager.default.removeItem(atPath: image)
        }
        _ = try recorder.ask("image \(position) \(cut.rawValue) \(seed) \(image)")
        try AegisCommand.require("mount", image, mount.path)
        let result: R
        do { result = try body(mount) } catch {
            _ = try? AegisCommand.run("umount", mount.path)
            throw error
        }
        try AegisCommand.require("umount", mount.path)
        if checks { try AegisCommand.require("check", image) }
        return result
    }

    /// Takes everything down, however broken it is.
    public func cleanUp() {
        recorder.end()
        if MountTable.isMounted(directory) { _ = try? run(["umount", "-l", directory.path]) }
    }
}
