/// `kill -9` of the daemon under load: the volume mounts again by itself, the checker finds
/// nothing, and everything is there that a witness outside had been told is durable.
///
/// `AEGISFS_TEST_KILLS` sets how often.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct DaemonKillTests {
    static let kills = TestMachine.count("AEGISFS_TEST_KILLS", default: 10)

    @Test(.enabled(if: TestMachine.canMount)) func keepsWhatWasSynchronized() throws {
        try withVolume(size: "1G") { volume, _ in
            var random = SeededRandom(
                seed: UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1)))
            var witness = Witness(directory: volume.directory)
            for kill in 1...Self.kills {
                try volume.mountInForeground()
                let load = try ChildProcess(["/bin/sh", "-c", Self.load(volume.directory, kill)])
                let delay = 0.05 + Double(random.below(900)) / 1000
                let killer = try volume.killDaemon(afterSeconds: delay)
                let before = witness.acknowledged.count
                witness.writeUntilFailure(round: kill)
                _ = killer.wait()
                try volume.killDaemon()
                load.signal(SIGKILL)
                _ = load.wait(seconds: 30)

                let checked = try volume.check()
                #expect(checked.exitCode == 0, "kill \(kill): \(checked.output)\(checked.errors)")
                try volume.mountInForeground()
                let lost = witness.missing()
                let fresh = witness.acknowledged.count - before
                #expect(
                    lost.isEmpty,
                    "kill \(kill) after \(delay) s: lost \(lost) of \(before) and \(fresh) new")
                try require(
                    [
                        "find", volume.directory.path, "-maxdepth", "1", "-name", "load*", "-exec",
                        "rm", "-rf", "{}", "+",
                    ])
                try volume.unmount()
                volume.cleanUp()
            }
            #expect(witness.acknowledged.count >= Self.kills)
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// What nobody synchronized is durable five seconds later.
    @Test(.enabled(if: TestMachine.canMount)) func checkpointsByItself() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mountInForeground()
            let file = volume.directory.appendingPathComponent("file").path
            try require(["/bin/sh", "-c", "seq 1 50000 > \(file)"])
            usleep(6_500_000)
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

    /// Creates, copies and removes until the mount is gone.
    private static func load(_ directory: URL, _ round: Int) -> String {
        """
        cd \(directory.path) || exit 1
        n=0
        while mkdir load\(round)-$n; do
            cp -r /usr/include/linux load\(round)-$n/ || exit 0
            [ $((n % 2)) = 0 ] || rm -rf load\(round)-$((n - 1)) || exit 0
            n=$((n + 1))
        done
        """
    }

    /// Writes files and notes those for which fsync returned.
    private struct Witness {
        let directory: URL
        var acknowledged: [(name: String, seed: UInt64, count: Int)] = []

        mutating func writeUntilFailure(round: Int) {
            var number = 0
            while true {
                number += 1
                let name = "witness-\(round)-\(number)"
                let payload = Payload(
                    .random, seed: UInt64(round << 32 | number), count: 1 + number * 977 % 60_000)
                let path = directory.appendingPathComponent(name).path
                let descriptor = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o644)
                guard descriptor >= 0 else { return }
                defer { close(descriptor) }
                let isDurable = payload.bytes.withUnsafeBytes {
                    write(descriptor, $0.baseAddress, $0.count) == $0.count
                        && fsync(descriptor) == 0
                }
                guard isDurable else { return }
                acknowledged.append((name, payload.seed, payload.count))
            }
        }

        /// The acknowledged files that are not there as they were written.
        func missing() -> [String] {
            acknowledged.filter { file in
                let path = directory.appendingPathComponent(file.name).path
                let wanted = Payload(.random, seed: file.seed, count: file.count).bytes
                return FileManager.default.contents(atPath: path).map { [UInt8]($0) } != wanted
            }.map(\.name)
        }
    }
}
