/// `kill -9` of the daemon under load, again and again: the volume mounts again at once and by
/// itself, everything is there that a witness outside had been told is durable, and what is there
/// has no gap.
///
/// `AEGISFS_TEST_KILLS` sets how often.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct DaemonKillTests {
    static let kills = TestMachine.count("AEGISFS_TEST_KILLS", default: 25)
    private static let kinds = [
        "append", "create", "replace", "osync", "odsync", "msync", "bystander",
    ]

    @Test(.enabled(if: TestMachine.canMount)) func keepsWhatWasSynchronized() throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
        var random = SeededRandom(seed: seed)
        var rounds: [Round] = []
        var acknowledged = 0
        try withVolume(size: "1G") { volume, _ in
            for kill in 1...Self.kills {
                try volume.mountInForeground()
                for round in rounds {
                    let problem = try round.problem()
                    #expect(problem == nil, "seed \(seed), kill \(kill): \(problem ?? "")")
                }
                // What a few kills have not hurt is checked and makes room.
                if rounds.count > 3 { try rounds.removeFirst().remove() }
                let round = try Round(volume.directory, seed: seed << 20 | UInt64(kill))
                rounds.append(round)
                let load = try ChildProcess(["/bin/sh", "-c", Self.load(volume.directory, kill)])
                usleep(UInt32(10_000 + random.below(240_000)))
                try volume.killDaemon()
                load.signal(SIGKILL)
                _ = load.wait()
                acknowledged += round.finish()
                if kill % 5 == 0 {
                    let checked = try volume.check()
                    #expect(
                        checked.exitCode == 0, "kill \(kill): \(checked.output)\(checked.errors)")
                }
            }
            try volume.mountInForeground()
            for round in rounds { #expect(try round.problem() == nil) }
            try volume.unmount()
            volume.cleanUp()
            #expect(try volume.check().exitCode == 0)
            #expect(acknowledged >= Self.kills, "the witness hardly got to anything")
        }
    }

    /// What nobody synchronized is durable a second later.
    @Test(.enabled(if: TestMachine.canMount)) func isDurableByItself() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mountInForeground()
            let file = volume.directory.appendingPathComponent("file").path
            try require(["/bin/sh", "-c", "seq 1 50000 > \(file)"])
            usleep(1_500_000)
            try volume.killDaemon()
            try volume.mountInForeground()
            #expect(
                try require(["/bin/sh", "-c", "seq 1 50000 | cmp - \(file) && echo same"])
                    == "same\n")
            try volume.unmount()
            volume.cleanUp()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// What is there two steps too early, or with a byte changed, does not pass.
    @Test func theWitnessNoticesLosses() throws {
        try withTemporaryDirectory { folder in
            let program = try BuiltProgram.writers()
            for kind in Self.kinds {
                let writer = try PipedProcess([
                    program, "--stepwise", "write", folder.path, "3", kind,
                ])
                for step in 1...20 {
                    #expect(try writer.ask("go") == "\(kind) \(step)")
                }
                writer.end()
                func passes(_ steps: Int) throws -> Bool {
                    try run([program, "verify", folder.path, "3", "\(kind)=\(steps)"]).exitCode == 0
                }
                #expect(try passes(20) && passes(19), "\(kind)")
                #expect(try !passes(22), "\(kind): two steps are missing")
                #expect(try !passes(17), "\(kind): three steps too many")
                let directory = folder.appendingPathComponent(kind)
                for name in try FileManager.default.contentsOfDirectory(atPath: directory.path)
                where name != "c" {
                    let file = directory.appendingPathComponent(name)
                    var bytes = try Data(contentsOf: file)
                    bytes[bytes.count / 2] ^= 1
                    try bytes.write(to: file)
                }
                #expect(try !passes(20), "\(kind): a byte is wrong")
            }
        }
    }

    /// Creates, copies and removes until the mount is gone; nobody waits for it.
    private static func load(_ directory: URL, _ round: Int) -> String {
        """
        cd \(directory.path) || exit 1
        rm -rf load*
        n=0
        while mkdir load\(round)-$n; do
            cp -r /usr/include/linux/netfilter load\(round)-$n/ || exit 0
            [ $((n % 2)) = 0 ] || rm -rf load\(round)-$((n - 1)) || exit 0
            n=$((n + 1))
        done
        """
    }

    /// The writers between two kills, and what they were told.
    private final class Round {
        private let directory: URL
        private let seed: UInt64
        /// A store to a mapping whose daemon is gone ends the process: it has one of its own.
        private var writers: [ChildProcess] = []
        private var steps: [String: Int] = [:]

        init(_ parent: URL, seed: UInt64) throws {
            self.seed = seed
            directory = parent.appendingPathComponent("round-\(seed)")
            try FileManager.default.createDirectory(
                at: directory, withIntermediateDirectories: false)
            let program = try BuiltProgram.writers()
            for kinds in [DaemonKillTests.kinds.filter { $0 != "msync" }, ["msync"]] {
                writers.append(
                    try ChildProcess([program, "write", directory.path, String(seed)] + kinds))
            }
        }

        /// Waits for the writers, whose mount is gone; returns how many steps were acknowledged.
        func finish() -> Int {
            for writer in writers {
                let result = writer.wait()
                #expect(!result.isTimedOut, "a writer hangs in a dead mount")
                for line in result.output.split(separator: "\n") where !line.hasPrefix("#") {
                    let words = line.split(separator: " ")
                    steps[String(words[0])] = Int(words[1])
                }
            }
            writers = []
            return steps.values.reduce(0, +)
        }

        func problem() throws -> String? {
            let kinds = DaemonKillTests.kinds.map { "\($0)=\(steps[$0] ?? 0)" }
            let result = try run(
                [BuiltProgram.writers(), "verify", directory.path, String(seed)] + kinds)
            return result.exitCode == 0 ? nil : result.output + result.errors
        }

        func remove() throws { try require(["rm", "-rf", directory.path]) }
    }
}
