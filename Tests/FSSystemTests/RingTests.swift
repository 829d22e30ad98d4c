/// Requests by io_uring: that they come so if and only if the kernel offers it, and that everything that
/// ends a mount or a request ends it there too. What the requests do is tested by the model and the
/// rules of POSIX over the rings.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct RingTests {
    static let canRun = TestMachine.can("requests by io_uring", KernelRings.obstacle)

    /// - Parameter options: nil if nothing is asked for.
    @Test(
        .enabled(if: canRun),
        arguments: [
            (false, nil, "/dev/fuse"), (false, "io_uring", "/dev/fuse"), (true, nil, "io_uring"),
            (true, "io_uring", "io_uring"), (true, "noio_uring", "/dev/fuse"),
        ] as [(Bool, String?, String)])
    func followsTheKernelAndTheOption(
        offers: Bool, options: String?, transport: String
    ) throws {
        // Somebody may have it on for all.
        if !offers, options == nil, try isOfferedAnyhow() { return }
        try withVolume(size: "64M") { volume, _ in
            volume.offersRings = offers
            try volume.mount(options: options)
            try write(volume, "file", bytes: 100_000)
            #expect(try self.transport(volume) == transport)
            let words = try AegisCommand.require("status", volume.directory.path)
            #expect(words.contains("requests by \(transport)"))
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    private func isOfferedAnyhow() throws -> Bool {
        try String(contentsOfFile: "/sys/module/fuse/parameters/enable_uring", encoding: .utf8)
            .hasPrefix("Y")
    }

    private func transport(_ volume: MountedVolume) throws -> String? {
        try AegisCommand.require("status", "--json", volume.directory.path)
            .firstMatch(of: /"transport": ?"([^"]+)"/).map {
                String($0.1).replacingOccurrences(of: "\\/", with: "/")
            }
    }

    private func withRings(_ body: (MountedVolume, String) throws -> Void) throws {
        try withVolume(size: "512M") { volume, _ in
            volume.offersRings = true
            try body(volume, volume.directory.path)
            if MountTable.isMounted(volume.directory) { try volume.unmount() }
            volume.cleanUp()
            let checked = try volume.check()
            #expect(checked.exitCode == 0, "\(checked.output)\(checked.errors)")
        }
    }

    private func write(_ volume: MountedVolume, _ name: String, bytes: Int) throws {
        let path = volume.directory.appendingPathComponent(name).path
        try require(["/bin/sh", "-c", "head -c \(bytes) /dev/urandom > \(path)"])
    }

    /// Large and small requests keep their bytes, read from the daemon and not from the cache; a
    /// listing longer than one reply is whole; more callers than threads all get on.
    @Test(.enabled(if: canRun)) func keepsBytesAndNames() throws {
        try withRings { volume, path in
            try volume.mount()
            #expect(try transport(volume) == "io_uring")
            for (number, bytes) in [1, 4096, 131_072, 1_048_576, 5_000_001].enumerated() {
                try write(volume, "file\(number)", bytes: bytes)
            }
            try require([
                "/bin/sh", "-c",
                "mkdir \(path)/names && cd \(path)/names && seq -f name-with-length-%06g 3000 | xargs touch",
            ])
            let before = try require(["/bin/sh", "-c", "cd \(path) && sha256sum file* && ls names"])
            try volume.unmount()
            try volume.mount()
            #expect(
                try require(["/bin/sh", "-c", "cd \(path) && sha256sum file* && ls names"])
                    == before)
            // Each waits for the device with its own fsync.
            try require([
                "/bin/sh", "-c",
                "cd \(path) && seq 100 | xargs -P 100 -I@ dd if=/dev/zero of=sync@ bs=4k count=4 "
                    + "oflag=sync status=none && test $(ls sync* | wc -l) = 100",
            ])
            // What was unlinked is given up by the kernel with FORGET, on the other way.
            try require(["/bin/sh", "-c", "rm -rf \(path)/names \(path)/sync*"])
            let status = try AegisCommand.require("status", "--json", path)
            #expect(status.firstMatch(of: /"unlinked_inodes": ?0\D/) != nil, "\(status)")
        }
    }

    /// `kill -9` under load: callers get an error at once, the volume mounts again and is whole.
    @Test(.enabled(if: canRun)) func survivesKills() throws {
        try withRings { volume, path in
            for round in 1...5 {
                try volume.mountInForeground()
                let load = try ChildProcess([
                    "/bin/sh", "-c",
                    "cd \(path) && seq 3 | xargs -P 3 -I@ sh -c 'for i in $(seq 100000); do "
                        + "echo $i > \(round)-@-$i && sync \(round)-@-$i || exit; done'",
                ])
                usleep(150_000)
                try volume.killDaemon()
                #expect(!load.wait(seconds: 20).isTimedOut, "a caller hangs")
            }
            try volume.mountInForeground()
            #expect(try !require(["ls", path]).isEmpty)
        }
    }

    /// The kernel is told to drop what it holds of a file until the refusal has reached the writer.
    @Test(.enabled(if: canRun)) func refusedWritersGoOn() throws {
        try withRings { volume, path in
            try volume.mountInForeground()
            try write(volume, "file", bytes: 100_000)
            try AegisCommand.require("snapshot", "create", path, "old")
            let writer = try ChildProcess([
                "/bin/sh", "-c", "printf wrong 1<>\(path)/.snapshots/old/file",
            ])
            let result = writer.wait(seconds: 20)
            if result.isTimedOut { try volume.killDaemon() }
            #expect(!result.isTimedOut && result.exitCode != 0, "\(result.errors)")
        }
    }

    /// The daemon is told to end while somebody works in the mount.
    @Test(.enabled(if: canRun)) func endsWhileInUse() throws {
        try withRings { volume, path in
            try volume.mount()
            let pid = try #require(
                AegisCommand.require("status", "--json", path).firstMatch(of: /"pid": ?(\d+)/)
                    .flatMap { Int32($0.1) })
            let load = try ChildProcess([
                "/bin/sh", "-c",
                "cd \(path) && for i in $(seq 1000000); do echo $i > f$i || exit; done",
            ])
            usleep(100_000)
            kill(pid, SIGTERM)
            #expect(!load.wait(seconds: 30).isTimedOut, "a caller hangs")
            for _ in 0..<1500 where kill(pid, 0) == 0 { usleep(20_000) }
            #expect(kill(pid, 0) != 0, "the daemon does not end")
            #expect(!MountTable.isMounted(volume.directory))
        }
    }

    /// Aborting the connection in the kernel's control filesystem ends daemon and callers.
    @Test(.enabled(if: canRun)) func endsWhenAborted() throws {
        try withRings { volume, path in
            try volume.mountInForeground()
            var status = stat()
            #expect(stat(path, &status) == 0)
            let connection = "/sys/fs/fuse/connections/\(status.st_dev & 0xFF)/abort"
            guard access(connection, W_OK) == 0 else {
                print("SKIPPED: abort: no \(connection)")
                return
            }
            try write(volume, "file", bytes: 1 << 20)
            try require(["/bin/sh", "-c", "echo 1 > \(connection)"])
            #expect(try run(["stat", path + "/file"], seconds: 20).exitCode == 1)
            _ = try? run(["umount", "-l", path])
            volume.cleanUp()
        }
    }

    /// Somebody who waits for an answer can be killed, and the mount goes on.
    @Test(.enabled(if: canRun)) func waitersCanBeKilled() throws {
        try withRings { volume, path in
            try volume.mountInForeground()
            try write(volume, "file", bytes: 1 << 20)
            for _ in 0..<30 {
                let child = try ChildProcess([
                    "/bin/sh", "-c",
                    "cd \(path) && exec dd if=/dev/zero of=synced bs=4k count=100000 oflag=sync "
                        + "conv=notrunc status=none",
                ])
                usleep(15_000)
                child.signal(SIGKILL)
                #expect(!child.wait(seconds: 20).isTimedOut)
            }
            try require(["cmp", "-n", "1000000", path + "/file", path + "/file"])
        }
    }
}
