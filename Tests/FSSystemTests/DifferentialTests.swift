/// The same random system calls, by four processes as root and two users, on AegisFS and on ext4:
/// results, error numbers and everything that can be seen of the tree are equal.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct DifferentialTests {
    private static let obstacle: String? =
        TestMachine.loopObstacle
        ?? ((try? run(["mkfs.ext4", "-V"]).exitCode) == 0 ? nil : "no mkfs.ext4")
    static let canRun = TestMachine.can("system calls beside ext4", obstacle)

    /// Calls of one sequence; more calls are more sequences.
    private static let callsOfASequence = 10_000

    @Test(.enabled(if: canRun)) func equalsExt4() throws {
        let calls = TestMachine.count("AEGISFS_TEST_CALLS", default: 20_000)
        let first = TestMachine.count("AEGISFS_TEST_SEED", default: 1)
        let program = try BuiltProgram.conformance()
        try withLoopDevice { device, folder in
            try withVolume { volume, _ in
                try volume.mount(options: "noatime")
                // Without the feature attributes end at 4 KiB.
                try require(["mkfs.ext4", "-q", "-O", "ea_inode", device])
                let control = folder.appendingPathComponent("ext4")
                try FileManager.default.createDirectory(
                    at: control, withIntermediateDirectories: true)
                try require(["mount", "-o", "noatime", device, control.path])
                defer { _ = try? run(["umount", "-l", control.path]) }
                for number in 0..<max(calls / Self.callsOfASequence, 1) {
                    let seed = first + number
                    let directories = try [volume.directory, control].map {
                        let directory = $0.appendingPathComponent("seed\(seed)")
                        try FileManager.default.createDirectory(
                            at: directory, withIntermediateDirectories: false)
                        return directory.path
                    }
                    let result = try run(
                        [program, "compare"] + directories
                            + ["\(seed)", "\(Self.callsOfASequence)"], seconds: 300)
                    #expect(
                        result.exitCode == 0,
                        "\(result.output.split(separator: "\n").prefix(3)) \(result.errors)")
                    for directory in directories { try require(["rm", "-rf", directory]) }
                }
                try volume.unmount()
                let checked = try volume.check()
                #expect(checked.exitCode == 0, "\(checked.output)\(checked.errors)")
            }
        }
    }

    /// The comparison can fail: two directories of which one keeps access times.
    @Test(.enabled(if: canRun)) func seesADifference() throws {
        let program = try BuiltProgram.conformance()
        try withLoopDevice { device, folder in
            try require(["mkfs.ext4", "-q", "-O", "ea_inode", device])
            let directory = folder.appendingPathComponent("ext4")
            try FileManager.default.createDirectory(
                at: directory, withIntermediateDirectories: true)
            try require(["mount", "-o", "strictatime", device, directory.path])
            defer { _ = try? run(["umount", "-l", directory.path]) }
            try withVolume { volume, _ in
                try volume.mount(options: "noatime")
                let result = try run(
                    [program, "compare", volume.directory.path, directory.path, "1", "10000"],
                    seconds: 300)
                #expect(result.exitCode == 1)
                #expect(result.output.contains("FAIL seed 1"))
            }
        }
    }
}
