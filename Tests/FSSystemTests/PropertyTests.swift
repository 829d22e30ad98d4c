/// `aegisfs property` and the choices of `format`, by the command: on images, devices and mounts.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct PropertyTests {
    private func value(_ path: String, _ name: String) throws -> String {
        try AegisCommand.require("property", "get", path, name)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    @Test(.enabled(if: TestMachine.canMount)) func liveAndOffline() throws {
        try withVolume(size: "256M") { volume, _ in
            try AegisCommand.require("property", "set", volume.target, "copies", "2")
            try AegisCommand.require("property", "set", volume.target, "scrub-interval", "30d")
            #expect(try value(volume.target, "copies") == "2")
            try volume.mount()
            let root = volume.directory.path
            #expect(try value(root, "scrub-interval") == "30d")
            #expect(try value(volume.target, "copies") == "2")
            let file = root + "/file"
            try require(["/bin/sh", "-c", "head -c 1000000 /dev/urandom > \(file); sync \(file)"])
            let blocks = try require(["stat", "-c", "%b", file])
            #expect(blocks == "\(2 * 245 * 8)\n")
            #expect(try value(file, "copies") == "2")
            try AegisCommand.require("property", "set", file, "copies", "default")
            #expect(try value(file, "copies") == "1")
            let list = try AegisCommand.require("property", "list", file)
            #expect(list.contains("default") && !list.contains("scrub-interval"))
            let json = try AegisCommand.require("property", "list", root, "--json")
            #expect(
                json.contains("\"name\":\"scrub-interval\"")
                    && json.contains("\"source\":\"local\""))
            // Backups do not see them.
            #expect(try require(["getfattr", "-d", "-m", "-", root + "/file"]).isEmpty)
            #expect(
                try require(["getfattr", "--only-values", "-n", "aegisfs.copies", root]) == "2")

            for (arguments, code) in [
                (["get", file, "scrub-interval"], 1), (["set", file, "scrub-interval", "1d"], 1),
                (["set", file, "copies", "7"], 2), (["get", file, "nothing"], 2),
                (["get", root + "/missing", "copies"], 10),
                (["set", "/etc/hostname", "copies", "1"], 10),
            ] {
                let path = try AegisCommand.requirePath()
                let result = try run([path, "property"] + arguments)
                #expect(result.exitCode == code, "\(arguments): \(result.errors)")
            }
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            #expect(try value(volume.target, "scrub-interval") == "30d")
        }
    }

    /// The kernel knows nothing of our prefix: who may write a file may not for that set how it is
    /// kept.
    @Test(.enabled(if: TestMachine.canMount)) func onlyTheOwnerSets() throws {
        try withVolume(size: "128M") { volume, _ in
            try volume.mount(options: "allow_other")
            let file = volume.directory.path + "/file"
            chmod(volume.directory.path, 0o777)
            try require(["/bin/sh", "-c", "touch \(file) && chmod 666 \(file)"])
            func set(_ user: String) throws -> Int32 {
                try run([
                    "setpriv", "--reuid", user, "--clear-groups", "setfattr", "-n",
                    "aegisfs.copies", "-v", "2", file,
                ]).exitCode
            }
            #expect(try set("1234") != 0)
            #expect(try value(file, "copies") == "1")
            try require(["chown", "1234", file])
            #expect(try set("1234") == 0)
            #expect(try value(file, "copies") == "2")
            #expect(
                try run([
                    "setpriv", "--reuid", "1234", "--clear-groups", "setfattr", "-n",
                    "aegisfs.scrub-interval", "-v", "1d", volume.directory.path,
                ]).exitCode != 0)
            try volume.unmount()
        }
    }

    @Test(
        .enabled(if: TestMachine.canLoop), arguments: ["crc32c", "xxh3", "sha256"])
    func everyChecksumOnALoopDevice(kind: String) throws {
        try withLoopDevice(size: "256M") { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            let text = try AegisCommand.require(
                "format", "--force", "--checksum", kind, "--copies", "2", device)
            #expect(text.contains(kind) && text.contains("2 copies"))
            try volume.mount()
            let copy = volume.directory.appendingPathComponent("services").path
            try require(["cp", "/etc/services", copy])
            let status = try AegisCommand.require("status", volume.directory.path)
            #expect(status.contains(kind) && status.contains("2 data copies"))
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            try require(["cmp", "/etc/services", copy])
            try volume.unmount()
        }
    }
}
