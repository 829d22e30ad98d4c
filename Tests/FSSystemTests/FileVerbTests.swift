/// The verbs about files and their compression, by the command: on images and mounts.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct FileVerbTests {
    @Test(.enabled(if: TestMachine.canMount)) func onAMount() throws {
        try withVolume(size: "512M") { volume, _ in
            try AegisCommand.require("property", "set", volume.target, "compression", "zstd:3")
            try volume.mount(options: "allow_other")
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
            // What a snapshot has is left alone by defragment, and not freed by deleting.
            try AegisCommand.require("snapshot", "create", root, "s")
            let left = try AegisCommand.require(
                "defragment", "--compression", "zstd:9", "\(root)/plain")
            #expect(left.contains("0 B rewritten") && left.contains("snapshots"), "\(left)")
            #expect(
                try AegisCommand.require("extents", "\(root)/plain/c").contains("in a snapshot"))
            let kept = try AegisCommand.require("usage", "\(root)/plain", "--json")
            #expect(kept.contains("\"exclusive_bytes\":0"), "\(kept)")
            // df and status are of one mind; a checkpoint in between may move what is free.
            func free() throws -> [Int] {
                try require(["stat", "-f", "-c", "%b %f", root])
                    .split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
            }
            try AegisCommand.require("sync", root)
            let before = try free()
            let status = try AegisCommand.require("status", root, "--json")
            let used = (before[0] - before[1]) * 4096
            #expect(try before != free() || status.contains("\"used_bytes\":\(used)"), "\(status)")

            for (arguments, code) in [
                (["extents", "/etc/hostname"], 10), (["extents", root], 1),
                (["dedup", "\(root)/plain"], 10), (["usage", "\(root)/missing"], 10),
                (["defragment", "--compression", "rar", root], 2),
                (["dedup", root, "/missing"], 10), (["dedup", root, "--memory", "4G"], 2),
            ] {
                let result = try run([path] + arguments)
                #expect(result.exitCode == Int32(code), "\(arguments): \(result.errors)")
            }
            // A path of the mount does, too; and who may not talk to the daemon is told so.
            try AegisCommand.require("dedup", root, "\(root)/plain")
            chmod(root, 0o755)
            let stranger = try run([
                "setpriv", "--reuid", "1234", "--clear-groups", path, "usage", "\(root)/plain",
            ])
            #expect(stranger.exitCode == 1 && stranger.errors.contains("as root"), "\(stranger)")
            try volume.unmount()
            // Offline, and only below a directory.
            try AegisCommand.require("dedup", volume.target, "/plain")
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// A file is copied within the volume in no time and takes no space; writing to either leaves the
    /// other. `AEGISFS_TEST_COPY_MIB` sets its size.
    @Test(.enabled(if: TestMachine.canMount)) func aCopyTakesNoSpace() throws {
        let mebibytes = TestMachine.count("AEGISFS_TEST_COPY_MIB", default: 128)
        try withVolume(size: "\(mebibytes * 2 + 512)M") { volume, _ in
            try volume.mount()
            let root = volume.directory.path
            func used() throws -> Int {
                for _ in 0...1 { try AegisCommand.require("sync", root) }
                let line = try require(["stat", "-f", "-c", "%b %f", root])
                let numbers = line.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
                return numbers[0] - numbers[1]
            }
            try require(["/bin/sh", "-c", "head -c \(mebibytes)M /dev/urandom > \(root)/a"])
            let sum = try require(["md5sum", "\(root)/a"]).prefix(32)
            let before = try used()
            let start = Date()
            try require(["cp", "\(root)/a", "\(root)/b"])
            let seconds = Date().timeIntervalSince(start)
            print("cp of \(mebibytes) MiB within the volume: \(Int(seconds * 1000)) ms")
            #expect(try used() - before < 1024)
            try require([
                "dd", "if=/dev/zero", "of=\(root)/b", "bs=1M", "count=1", "conv=notrunc",
                "status=none",
            ])
            #expect(try require(["md5sum", "\(root)/a"]).prefix(32) == sum)
            #expect(try used() - before < 2048)
            try require(["rm", "\(root)/a"])
            try require(["cmp", "-n", "1048576", "\(root)/b", "/dev/zero"])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// The verbs are about the files that a mount shows, be it a clone's.
    @Test(.enabled(if: TestMachine.canMount)) func onAMountOfAClone() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mount()
            let file = "\(volume.directory.path)/file"
            try AegisCommand.require("snapshot", "create", volume.directory.path, "s")
            try AegisCommand.require("snapshot", "clone", volume.directory.path, "s", "branch")
            try require(["/bin/sh", "-c", "seq 1 200000 > \(file)"])
            try volume.unmount()
            try volume.mount(options: "head=branch")
            try require(["/bin/sh", "-c", "head -c 1M /dev/urandom > \(file)"])
            let usage = try AegisCommand.require("usage", file, "--json")
            #expect(usage.contains("\"stored_bytes\":1048576"), "\(usage)")
            #expect(try AegisCommand.require("extents", file).contains("exclusive"))
            try AegisCommand.require("defragment", file)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// `mount -o dedup` and the property: the second copy takes no space; and ^C in an offline run
    /// leaves a volume that is closed in order, on which the next run finishes the work.
    @Test(.enabled(if: TestMachine.canMount)) func deduplicatesAsItIsWrittenAndStopsWhenAsked()
        throws
    {
        try withVolume(size: "512M") { volume, folder in
            try require(["/bin/sh", "-c", "head -c 20M /dev/urandom > \(folder.path)/source"])
            try volume.mount(options: "dedup=1M")
            let root = volume.directory.path
            for name in ["a", "b"] {
                try require(["cp", "\(folder.path)/source", "\(root)/\(name)"])
            }
            let usage = try AegisCommand.require("usage", "\(root)/b", "--json")
            #expect(usage.contains("\"exclusive_bytes\":0"), "\(usage)")
            #expect(try AegisCommand.require("property", "get", root, "dedup") == "on\n")
            try AegisCommand.require("property", "set", root, "dedup", "off")
            for index in 0..<8 {
                try require(["cp", "\(folder.path)/source", "\(root)/c\(index)"])
            }
            let path = try AegisCommand.requirePath()
            #expect(try run([path, "property", "set", root, "dedup", "much"]).exitCode == 2)
            try volume.unmount()
            #expect(
                try run([path, "mount", "-o", "dedup=1G", volume.target, root]).exitCode == 2)
            for delay in [20, 60, 120, 240] as [UInt32] {
                let child = try ChildProcess([path, "dedup", volume.target])
                usleep(delay * 1000)
                child.signal(SIGINT)
                let ended = child.wait(seconds: 30)
                #expect(
                    ended.exitCode == 0
                        || ended.exitCode == 130 && ended.errors.contains("until then stays"),
                    "\(ended.exitCode): \(ended.errors)")
                let status = try AegisCommand.require("status", volume.target, "--json")
                #expect(status.contains("\"was_cleanly_unmounted\":true"), "\(status)")
            }
            for delay in [10, 30, 60, 90] as [UInt32] {
                // Killed, it leaves what it has shared, and nothing half done.
                let child = try ChildProcess([path, "dedup", volume.target])
                usleep(delay * 1000)
                child.signal(SIGKILL)
                _ = child.wait(seconds: 30)
                #expect(try volume.check().exitCode == 0)
            }
            try AegisCommand.require("dedup", volume.target)
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            for index in 0..<8 {
                try require(["cmp", "\(folder.path)/source", "\(root)/c\(index)"])
            }
            let all = try AegisCommand.require("usage", root, "--json")
            #expect(all.contains("\"stored_bytes\":\(20 << 20)"), "\(all)")
        }
    }
}
