/// The verbs about files and their compression, by the command: on images and mounts.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct FileVerbTests {
    @Test(.enabled(if: TestMachine.canMount)) func onAMount() throws {
        try withVolume(size: "512M") { volume, _ in
            try AegisCommand.require("property", "set", volume.target, "compression", "zstd:3")
            try volume.mount()
            let root = volume.directory.path
            try require(["/bin/sh", "-c", "seq 1 400000 > \(root)/a; cat \(root)/a > \(root)/b"])
            try require(["mkdir", "\(root)/plain"])
            try AegisCommand.require("property", "set", "\(root)/plain", "compression", "none")
            try require(["/bin/sh", "-c", "seq 1 400000 > \(root)/plain/c"])
            let stored = try #require(
                UInt64(
                    require(["stat", "-c", "%b", "\(root)/a"]).trimmingCharacters(in: .newlines)))
            let size = try #require(
                UInt64(
                    require(["stat", "-c", "%s", "\(root)/a"]).trimmingCharacters(in: .newlines)))
            #expect(stored * 512 < size / 2)
            #expect(try AegisCommand.require("extents", "\(root)/a").contains("zstd"))
            #expect(try require(["lsattr", "\(root)/a"]).contains("c"))
            try require(["chattr", "+m", "\(root)/a"])
            #expect(
                try AegisCommand.require("property", "get", "\(root)/a", "compression") == "none\n")

            // b is shared with a; c is stored otherwise, all but its end.
            let dedup = try AegisCommand.require("dedup", root, "--json", "--memory", "1M")
            #expect(dedup.contains("\"is_complete\":true"))
            let extents = try AegisCommand.require("extents", "\(root)/b")
            #expect(extents.contains("2, shared") && !extents.contains("exclusive"))
            let usage = try AegisCommand.require("usage", "\(root)/a", "\(root)/b", "--json")
            #expect(usage.contains("\"logical_bytes\":\(2 * ((size + 4095) / 4096 * 4096))"))
            let all = try AegisCommand.require("usage", root, "--json")
            #expect(all.contains("\"shared_bytes\":0"))
            #expect(try AegisCommand.require("extents", "\(root)/plain/c").contains("plain"))
            try AegisCommand.require("defragment", "--compression", "lz4", "\(root)/plain")
            #expect(try AegisCommand.require("extents", "\(root)/plain/c").contains("lz4"))
            try require(["cmp", "\(root)/a", "\(root)/plain/c"])
            try require(["rm", "\(root)/a"])
            try require(["cmp", "\(root)/b", "\(root)/plain/c"])

            let path = try AegisCommand.requirePath()
            for (arguments, code) in [
                (["extents", "/etc/hostname"], 10), (["usage", "\(root)/missing"], 10),
                (["defragment", "--compression", "rar", root], 2),
                (["dedup", root, "/missing"], 1), (["dedup", root, "--memory", "4G"], 2),
            ] {
                let result = try run([path] + arguments)
                #expect(result.exitCode == Int32(code), "\(arguments): \(result.errors)")
            }
            try volume.unmount()
            // Offline, and only below a directory.
            try AegisCommand.require("dedup", volume.target, "/plain")
            #expect(try volume.check().exitCode == 0)
        }
    }
}
