/// Snapshots as the "previous versions" of a Samba share, by the configuration that
/// docs/SEMANTICS.md shows.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct SambaTests {
    private static let server = "/usr/sbin/smbd"
    private static let canServe = TestMachine.can(
        "previous versions by Samba",
        TestMachine.mountObstacle
            ?? (access(server, X_OK) == 0 && (try? run(["smbclient", "--version"]))?.exitCode == 0
                ? nil : "no smbd, or no smbclient"))

    /// A client sees each version of a file with its size, and gets any of them, also of one that is gone.
    @Test(.enabled(if: canServe)) func previousVersions() throws {
        try withVolume(size: "256M") { volume, folder in
            try volume.mount(options: "snapdir=all")
            let share = volume.directory.appendingPathComponent("share")
            let file = share.appendingPathComponent("file")
            try require(["mkdir", "-m", "777", share.path])
            try require(["chmod", "755", folder.path])
            try Data("old".utf8).write(to: file)
            try Data("gone".utf8).write(to: share.appendingPathComponent("deleted"))
            try AegisCommand.require("snapshot", "create", volume.directory.path, "one")
            sleep(2)
            try Data("newest".utf8).write(to: file)
            try require(["rm", share.path + "/deleted"])
            try AegisCommand.require("snapshot", "create", volume.directory.path, "two")
            let moments = try FileManager.default.contentsOfDirectory(
                atPath: volume.directory.path + "/.snapshots/@GMT"
            ).sorted()
            #expect(moments.count == 2)

            let settings = try serverSettings(in: folder, share: share.path)
            let port = 20_000 + Int(getpid()) % 20_000
            let server = try ChildProcess([
                Self.server, "-F", "--no-process-group", "-s", settings, "-p", "\(port)",
            ])
            defer {
                server.signal(SIGTERM)
                _ = server.wait(seconds: 30)
            }
            func client(_ commands: String) throws -> ProcessResult {
                try run([
                    "smbclient", "//127.0.0.1/share", "-p", "\(port)", "-N", "-s", settings, "-c",
                    commands,
                ])
            }
            var info = try client("allinfo file")
            for _ in 0..<100 where info.exitCode != 0 {
                usleep(100_000)
                info = try client("allinfo file")
            }
            #expect(info.exitCode == 0, "\(info.output) \(info.errors)")
            for moment in moments { #expect(info.output.contains(moment)) }
            #expect(info.output.contains("size: 3") && info.output.contains("size: 6"))
            let got = folder.appendingPathComponent("got").path
            let oldest = try #require(moments.first)
            _ = try client("get \(oldest)/file \(got)")
            #expect(try String(contentsOfFile: got, encoding: .utf8) == "old")
            _ = try client("get \(oldest)/deleted \(got)")
            #expect(try String(contentsOfFile: got, encoding: .utf8) == "gone")
        }
    }

    private func serverSettings(in folder: URL, share: String) throws -> String {
        let own = folder.appendingPathComponent("samba")
        try FileManager.default.createDirectory(at: own, withIntermediateDirectories: true)
        let places = [
            "lock directory", "state directory", "cache directory", "private dir",
            "pid directory", "ncalrpc dir",
        ].map { "\($0) = \(own.path)" }.joined(separator: "\n")
        let text = """
            [global]
            server role = standalone server
            map to guest = Bad User
            bind interfaces only = yes
            interfaces = lo
            disable spoolss = yes
            log file = \(own.path)/log
            \(places)
            [share]
            path = \(share)
            guest ok = yes
            read only = no
            vfs objects = shadow_copy2
            shadow:snapdir = .snapshots/@GMT
            shadow:sort = desc
            """
        let path = own.appendingPathComponent("smb.conf").path
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }
}
