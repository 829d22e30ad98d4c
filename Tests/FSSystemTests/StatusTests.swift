/// What `aegisfs status` says of volumes that are not as they should be: each time what is wrong, an id
/// to look up, and what to do.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct StatusTests {
    private static let damaged: Int32 = 3

    private func status(
        _ target: String, _ code: Int32, saying words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let result = try AegisCommand.run("status", target)
        #expect(result.exitCode == code, "\(result.errors)", sourceLocation: sourceLocation)
        for word in words {
            #expect(
                result.output.contains(word), "no \"\(word)\" in \(result.output)",
                sourceLocation: sourceLocation)
        }
    }

    /// The health column of the list, for one device.
    private func health(_ device: String) throws -> String? {
        let line = try AegisCommand.require("status", "--no-header").split(separator: "\n")
            .first { $0.hasPrefix(device + " ") }
        let columns = line?.split(separator: " ").map(String.init) ?? []
        // Device, label, pid and mode before it, the mountpoint behind it.
        return columns.count > 5 ? columns[4..<(columns.count - 1)].joined(separator: " ") : nil
    }

    /// A daemon that was stopped answers nobody: everybody is told so soon, and it goes on afterwards.
    @Test(.enabled(if: TestMachine.canMount)) func aStoppedDaemonIsTold() throws {
        try withVolume(size: "64M") { volume, _ in
            try volume.mount()
            let shown = try AegisCommand.require("status", "--json", volume.target)
            let pid = try #require(shown.firstMatch(of: /"pid":(\d+)/).flatMap { Int32($0.1) })
            kill(pid, SIGSTOP)
            defer { kill(pid, SIGCONT) }
            for target in [volume.target, volume.directory.path, volume.directory.path + "/"] {
                for verb in ["status", "scrub", "check", "sync"] {
                    let result = try AegisCommand.run(verb, target, seconds: 60)
                    expect(
                        result, 1, "the daemon (pid \(pid)) is stopped", "kill -CONT", "AEGIS-")
                }
            }
            #expect(try health(volume.target) == "no answer")
            kill(pid, SIGCONT)
            try status(volume.directory.path, 0)
            try volume.unmount()
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func aDamagedSuperblockCopyIsShown() throws {
        try withVolume(size: "64M") { volume, _ in
            let file = ImageFile(volume.target)
            try status(volume.target, 0, saying: "not mounted")
            try volume.mount()
            #expect(try health(volume.target) == "ok")
            let list = try AegisCommand.require("status", "--json")
            #expect(list.contains("\"health\":\"ok\"") && list.contains(volume.target))
            try volume.unmount()
            for (index, offset) in try file.superblockOffsets().enumerated() {
                let whole = try file.read(at: offset, count: 4096)
                var copy = whole
                if index % 2 == 0 {
                    copy[200] ^= 1
                } else {
                    copy = [UInt8](repeating: 0, count: 4096)
                }
                try file.write(copy, at: offset)
                try status(
                    volume.target, Self.damaged, saying: "AEGIS-1001", "block \(offset / 4096)",
                    "action: Mount it for writing")
                try file.write(whole, at: offset)
                try status(volume.target, 0)
            }
            // While it is mounted; nothing is dirty, so nothing writes it anew.
            try volume.mount()
            let offset = try file.superblockOffsets()[0]
            try file.write([UInt8](repeating: 0xA5, count: 4096), at: offset)
            try status(
                volume.directory.path, Self.damaged, saying: "AEGIS-1001", "action: None is needed")
            #expect(try health(volume.target) == "damaged")
            let json = try AegisCommand.run("status", "--json", volume.target).output
            for part in ["\"problems\":[{", "\"see\":\"AEGIS-1001\"", "\"is_damaged\":true"] {
                #expect(json.contains(part), "\(json)")
            }
            let checked = try AegisCommand.run("check", volume.target)
            #expect(checked.exitCode == Self.damaged && checked.output.contains("AEGIS-1001"))
            for name in ["one", "two"] {
                try require(["touch", volume.directory.appendingPathComponent(name).path])
                // It makes a checkpoint.
                _ = try AegisCommand.run("check", volume.target)
            }
            try status(volume.target, 0, saying: "online")
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func aDetachedMountIsNotOnline() throws {
        try withVolume(size: "64M") { volume, _ in
            try volume.mount()
            let user = try ChildProcess(["sleep", "60"], directory: volume.directory)
            defer {
                user.signal(SIGKILL)
                _ = user.wait()
            }
            try AegisCommand.require("umount", "--lazy", volume.directory.path)
            try status(volume.target, 0, saying: "state: detached", "AEGIS-0034", "action: End")
            #expect(try health(volume.target) == "detached")
            user.signal(SIGKILL)
            _ = user.wait()
            // Waits for the daemon, which has nobody left to serve.
            _ = try AegisCommand.run("umount", volume.target)
            try status(volume.target, 0, saying: "state: not mounted")
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func anImageThatIsGoneIsMissed() throws {
        try withVolume(size: "64M") { volume, _ in
            try volume.mount()
            let moved = volume.target + " (deleted)"
            try require(["mv", volume.target, moved])
            for target in [volume.target, moved, volume.directory.path] {
                try status(target, 0, saying: "moved to \(moved)", "AEGIS-0029")
            }
            #expect(try health(volume.target) == "moved")
            try require(["rm", moved])
            for target in [volume.target, volume.directory.path] {
                try status(target, Self.damaged, saying: "was deleted", "action: Copy what is on")
            }
            #expect(try health(volume.target) == "no image")
            try AegisCommand.require("umount", volume.target)
            #expect(try AegisCommand.run("status", volume.target).exitCode == 10)
        }
    }
}
