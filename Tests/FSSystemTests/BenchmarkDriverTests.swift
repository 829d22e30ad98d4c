/// The benchmark driver works: every workload runs on every target that this machine has, figures,
/// tables and charts are written, and nothing is left behind. No time is judged.
///
/// - Invariant: the driver's folder lies in the test's own, so that what it leaves is seen there.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct BenchmarkDriverTests {
    private static let driver = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("scripts/bench/bench").path
    private static let canBench = TestMachine.can(
        "the benchmark driver",
        TestMachine.loopObstacle
            ?? ((try? run(["cc", "--version"]).exitCode) == 0 ? nil : "no C compiler (cc)"))

    private struct Row: Decodable {
        var workload: String
        var target: String
        var ratePerSecond: Double?
        var failures: [String]?
    }

    private struct Document: Decodable {
        var targets: [String]
        var summary: [Row]
    }

    private func document(_ family: String, in folder: URL) throws -> Document {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(
            Document.self, from: Data(contentsOf: folder.appendingPathComponent(family + ".json")))
    }

    private func words(_ folder: URL, _ more: [String]) throws -> [String] {
        [
            Self.driver, "--smoke", "--aegisfs", try AegisCommand.requirePath(), "--work",
            folder.appendingPathComponent("work").path,
        ] + more
    }

    private func expectNothingLeft(in folder: URL) throws {
        #expect(MountTable.mounts(below: folder) == [])
        let devices = try require(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"])
        #expect(!devices.contains(folder.lastPathComponent), "\(devices)")
        let left = try FileManager.default.contentsOfDirectory(
            atPath: folder.appendingPathComponent("work").path)
        #expect(left == [])
    }

    /// The whole smoke form.
    @Test(.enabled(if: canBench)) func everyWorkloadRuns() throws {
        try withTemporaryDirectory { folder in
            let output = folder.appendingPathComponent("figures")
            let result = try run(words(folder, ["--output", output.path]), seconds: 400)
            #expect(result.exitCode == 0, "\(result.errors.suffix(2000))")
            for line in result.errors.split(separator: "\n") where line.hasPrefix("SKIPPED") {
                print(line)
            }
            // Not those for which a program is missing.
            for family in ["metadata", "trees", "data", "durable", "volume", "growth"]
            where !result.errors.contains("SKIPPED: \(family):") {
                let rows = try document(family, in: output).summary.filter {
                    $0.target == "aegisfs"
                }
                #expect(!rows.isEmpty)
                for row in rows { #expect(row.ratePerSecond ?? 0 > 0, "\(row)") }
            }
            try expectNothingLeft(in: folder)
        }
    }

    /// Two builds beside each other, and a workload with what it needs.
    @Test(.enabled(if: canBench)) func twoBuildsAreCompared() throws {
        try withTemporaryDirectory { folder in
            let output = folder.appendingPathComponent("figures")
            let command = try AegisCommand.requirePath()
            try require(
                words(
                    folder,
                    [
                        "--compare", command, command, "--targets", "aegisfs", "--families",
                        "metadata", "--workloads", "read 4k", "--output", output.path,
                    ]))
            let document = try document("metadata", in: output)
            #expect(document.targets == ["aegisfs before", "aegisfs after"])
            let workloads = Set(document.summary.map(\.workload))
            #expect(workloads == ["create", "unlink", "create 4k", "read 4k"])
            try expectNothingLeft(in: folder)
        }
    }

    /// Control-C while volumes are mounted: they are not any more, and the exit code says why.
    @Test(.enabled(if: canBench)) func interruptsLeaveNothing() throws {
        try withTemporaryDirectory { folder in
            let driver = try ChildProcess(words(folder, ["--families", "durable"]))
            while driver.isRunning, MountTable.mounts(below: folder).isEmpty { usleep(20_000) }
            driver.signal(SIGINT)
            let result = driver.wait(seconds: 120)
            #expect(result.exitCode == 130 && !result.isTimedOut, "\(result.errors.suffix(2000))")
            try expectNothingLeft(in: folder)
        }
    }
}
