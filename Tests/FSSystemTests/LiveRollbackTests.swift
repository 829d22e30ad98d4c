/// `aegisfs snapshot rollback` under a mount: all at once, for whatever the kernel had in its caches; not
/// while anybody uses files.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct LiveRollbackTests {
    private func shell(_ line: String) throws { try require(["/bin/sh", "-c", line]) }
    private func output(_ line: String) throws -> String {
        try require(["/bin/sh", "-c", line]).trimmingCharacters(in: .whitespacesAndNewlines)
    }
    private func rollBack(_ volume: MountedVolume, _ name: String) throws -> ProcessResult {
        try AegisCommand.run("snapshot", "rollback", volume.directory.path, name, "--yes")
    }
    private func text(_ path: String) throws -> String { try output("cat \(path)") }

    /// Everything that the kernel may have kept: attributes, names, missing names, listings, pages,
    /// links, extended attributes, and what a name means at all.
    @Test(.enabled(if: TestMachine.canMount), arguments: [nil, "writeback"] as [String?])
    func cachesAreNoTrap(option: String?) throws {
        try withVolume(size: "1G") { volume, folder in
            try volume.mount(options: option)
            let live = volume.directory.path
            let copy = folder.appendingPathComponent("copy").path
            try shell(
                """
                cd \(live); mkdir -p a/b/c changes; echo old > a/b/c/file; echo old > file
                echo gone > only-old; ln -s a/b link; ln file hard; setfattr -n user.x -v old file
                head -c 2000000 /dev/urandom > data; echo f > changes/kind; chmod 640 a; touch -d 2001-01-01 a/b
                for n in $(seq 200); do echo $n > changes/f$n; done
                """)
            try shell("cp -a \(live) \(copy)")
            try AegisCommand.require("snapshot", "create", live, "old")
            try shell(
                """
                cd \(live); echo newer > a/b/c/file; echo newer > file; rm only-old; rm link; ln -s a link
                setfattr -n user.x -v new file; setfattr -n user.y -v new file; rm data; mkdir data
                echo x > data/x; rm changes/kind; mkfifo changes/kind; chmod 777 a; mkdir only-new
                echo n > only-new/file; rm changes/f1*; echo more > changes/new; mv a/b a/moved
                """)
            // Fill the caches, also with what is not there.
            try shell(
                "cd \(live); find . -ls > /dev/null; cat a/moved/c/file file > /dev/null; "
                    + "ls only-old a/b 2> /dev/null; getfattr -d file > /dev/null; readlink link")
            #expect(try output("rsync -aHAXnci --delete \(copy)/ \(live)/") != "")
            let before = try output("stat -c %i \(live)/file \(live)/a \(live)")
            let dry = try AegisCommand.run("snapshot", "rollback", live, "old", "--dry-run")
            #expect(dry.exitCode == 0 && dry.output.contains("would take"))
            #expect(try text("\(live)/file") == "newer")
            let done = try rollBack(volume, "old")
            #expect(done.exitCode == 0 && done.errors.contains("before-rollback"), "\(done.errors)")

            #expect(try text("\(live)/file") == "old")
            #expect(try run(["stat", "\(live)/only-new"]).exitCode != 0)
            #expect(
                try output("rsync -aHAXnci --delete --modify-window=-1 \(copy)/ \(live)/") == "")
            #expect(try output("cd \(live)/a/b/c; cat file; cd ..; pwd -P") == "old\n\(live)/a/b")
            // Files are the same ones, and go on as such; what was is kept.
            #expect(try output("stat -c %i \(live)/file \(live)/a \(live)") == before)
            let kept = try output("ls \(live)/.snapshots | grep before-rollback")
            #expect(try text("\(live)/.snapshots/\(kept)/file") == "newer")
            #expect(try text("\(live)/.snapshots/\(kept)/only-new/file") == "n")
            try shell(
                "cd \(live); echo after >> file; mkdir after; ln file after/link; mv a after/a")
            #expect(try text("\(live)/hard") == "old\nafter")
            #expect(try rollBack(volume, kept).exitCode == 0)
            #expect(try text("\(live)/file") == "newer")
            #expect(try text("\(live)/.snapshots/old/file") == "old")
            #expect(try rollBack(volume, "nothing").exitCode == 10)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            #expect(try text("\(live)/only-new/file") == "n")
            try volume.unmount()
        }
    }

    /// Open, mapped, worked in, mounted upon: refused with the name of who does it, then done.
    @Test(.enabled(if: TestMachine.canMount)) func refusedWhileInUse() throws {
        try withVolume(size: "256M") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            try shell("cd \(live); echo old > file; mkdir dir; truncate -s 10M image; echo x > s")
            try AegisCommand.require("snapshot", "create", live, "old")
            try shell("echo new > \(live)/file")

            func isRefused(_ pieces: String..., place: SourceLocation = #_sourceLocation) throws {
                for flag in ["--dry-run", "--yes"] {
                    let result = try AegisCommand.run("snapshot", "rollback", live, "old", flag)
                    #expect(result.exitCode == 11, "\(result.errors)", sourceLocation: place)
                    for piece in pieces {
                        #expect(
                            result.errors.contains(piece), "\(piece) in \(result.errors)",
                            sourceLocation: place)
                    }
                }
                #expect(try text("\(live)/file") == "new", sourceLocation: place)
            }
            let me = "pid \(getpid()) "

            let file = open(live + "/file", O_RDONLY)
            try isRefused(me, "\(live)/file")
            let memory = mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0)
            close(file)
            try isRefused(me, "\(live)/file")
            munmap(memory, 4096)

            let worker = try ChildProcess(["/bin/sh", "-c", "cd \(live)/dir; exec sleep 1000"])
            for _ in 0..<5000 where workingDirectory(worker) != "\(live)/dir" { usleep(1000) }
            try isRefused("pid \(worker.processID) ", "\(live)/dir")
            worker.signal(SIGKILL)
            _ = worker.wait()

            // By a bind mount, so that no path begins with the mountpoint.
            let bound = folder.appendingPathComponent("bound").path
            try shell("mkdir \(bound); mount --bind \(live) \(bound)")
            let other = open(bound + "/dir", O_RDONLY | O_DIRECTORY)
            try shell("umount -l \(bound)")
            try isRefused(me)
            close(other)

            try shell("mount -t tmpfs none \(live)/dir")
            try isRefused("tmpfs", "\(live)/dir")
            try shell("umount \(live)/dir")

            // What is below .snapshots stays as it is, and does not count.
            let snapshot = open(live + "/.snapshots/old/file", O_RDONLY)
            #expect(try rollBack(volume, "old").exitCode == 0)
            #expect(try text("\(live)/file") == "old")
            var bytes = [UInt8](repeating: 0, count: 16)
            #expect(pread(snapshot, &bytes, 16, 0) == 4)
            close(snapshot)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    private func workingDirectory(_ process: ChildProcess) -> String? {
        try? FileManager.default.destinationOfSymbolicLink(
            atPath: "/proc/\(process.processID)/cwd")
    }

    /// A descriptor that nobody can see is stale afterwards: it shows nothing of the tree that came, and changes
    /// neither.
    @Test(.enabled(if: TestMachine.canMount), arguments: [false, true])
    func hiddenDescriptorsAreStale(byRings: Bool) throws {
        if byRings, !RingTests.canRun { return }
        try withVolume(size: "256M") { volume, _ in
            volume.offersRings = byRings
            try volume.mount()
            let live = volume.directory.path
            try shell("cd \(live); head -c 3000000 /dev/zero | tr '\\0' o > file; mkdir dir")
            try AegisCommand.require("snapshot", "create", live, "old")
            try shell("cd \(live); head -c 3000000 /dev/zero | tr '\\0' n > file; echo x > dir/x")
            var ends: [Int32] = [-1, -1]
            #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            for (path, flags) in [("/file", O_RDWR), ("/dir", O_RDONLY | O_DIRECTORY)] {
                let opened = open(live + path, flags)
                #expect(opened >= 0)
                // The kernel goes on showing what it has in memory.
                _ = posix_fadvise(opened, 0, 0, POSIX_FADV_DONTNEED)
                #expect(DescriptorPassing.send(opened, over: ends[0]))
                close(opened)
            }
            let done = try rollBack(volume, "old")
            #expect(done.exitCode == 0, "\(done.errors)")
            let file = DescriptorPassing.receive(from: ends[1])
            let directory = DescriptorPassing.receive(from: ends[1])
            var byte: UInt8 = 0
            if pread(file, &byte, 1, 2_500_000) == 1 {
                #expect(byte == UInt8(ascii: "n"))
            } else {
                #expect(errno == ESTALE)
            }
            #expect(pwrite(file, "wrong", 5, 0) == -1 && errno == ESTALE)
            #expect(ftruncate(file, 0) == -1 && errno == ESTALE)
            #expect(openat(directory, "new", O_CREAT | O_RDWR, 0o600) == -1 && errno == ESTALE)
            #expect(unlinkat(directory, "x", 0) == -1)
            for descriptor in [file, directory] + ends { close(descriptor) }
            #expect(
                try output("tr -d o < \(live)/file | wc -c; wc -c < \(live)/file") == "0\n3000000")
            #expect(try output("ls \(live)/dir") == "")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Killed at any moment of it: one tree or the other.
    @Test(.enabled(if: TestMachine.canMount)) func killedInTheMiddle() throws {
        try withVolume(size: "512M") { volume, _ in
            let live = volume.directory.path
            try volume.mountInForeground()
            try shell("mkdir \(live)/d; for n in $(seq 50); do echo old > \(live)/d/f$n; done")
            try AegisCommand.require("snapshot", "create", live, "old")
            var random = SeededRandom(seed: 7)
            // At any moment of as long as it takes here, or a little later.
            let started = ContinuousClock.now
            #expect(try rollBack(volume, "old").exitCode == 0)
            let usual = ContinuousClock.now - started
            let milliseconds = Int(usual / .milliseconds(1)) + 1
            var outcomes: [String: Int] = [:]
            for round in 1...12 {
                let mark = "new\(round)"
                try shell(
                    "for n in $(seq 50); do echo \(mark) > \(live)/d/f$n; done; sync -f \(live)")
                try AegisCommand.require("sync", live)
                let killer = try volume.killDaemon(
                    afterSeconds: Double(random.below(milliseconds * 5 / 4)) / 1000)
                let result = try rollBack(volume, "old")
                _ = killer.wait(seconds: 30)
                try volume.killDaemon()
                #expect(try volume.check().exitCode == 0)
                try volume.mountInForeground()
                let found = try output("cat \(live)/d/f* | sort -u")
                #expect(found == "old" || found == mark, "\(found)")
                if result.exitCode == 0 { #expect(found == "old") }
                outcomes[found == "old" ? "old" : "new", default: 0] += 1
            }
            print("live rollback killed, trees found: \(outcomes)")
            try volume.killDaemon()
        }
    }

    /// Hundreds of changes, with snapshots and rollbacks against a model; every tree is compared by names,
    /// contents and sizes through the warm caches of the kernel.
    @Test(.enabled(if: TestMachine.canMount), arguments: 1...2 as ClosedRange<UInt64>)
    func againstAModel(seed: UInt64) throws {
        try withVolume(size: "512M") { volume, _ in
            try volume.mount()
            let root = volume.directory
            let files = FileManager.default
            var random = SeededRandom(seed: seed)
            var model: [String: String] = [:]
            var kept: [String: [String: String]] = [:]
            var rollbacks = 0
            for step in 1...300 {
                switch random.below(20) {
                case 0:
                    let name = "s\(step)"
                    try AegisCommand.require("snapshot", "create", root.path, name)
                    kept[name] = model
                case 1...3 where !kept.isEmpty:
                    let name = random.pick(kept.keys.sorted())
                    let result = try rollBack(volume, name)
                    #expect(result.exitCode == 0, "\(result.errors)")
                    model = kept[name] ?? [:]
                    rollbacks += 1
                    #expect(try contents(of: root) == model, "step \(step), seed \(seed)")
                case 4 where kept.count > 6:
                    let name = random.pick(kept.keys.sorted())
                    try AegisCommand.require("snapshot", "delete", root.path, name, "--yes")
                    kept[name] = nil
                case 5...7:
                    guard let path = model.keys.sorted().randomElement(using: &random) else {
                        break
                    }
                    try files.removeItem(at: root.appendingPathComponent(path))
                    model[path] = nil
                case 8...9:
                    guard let path = model.keys.sorted().randomElement(using: &random) else {
                        break
                    }
                    let other = "d\(random.below(4))/f\(random.below(12))"
                    guard path != other else { break }
                    try files.createDirectory(
                        at: root.appendingPathComponent(other).deletingLastPathComponent(),
                        withIntermediateDirectories: true)
                    #expect(rename("\(root.path)/\(path)", "\(root.path)/\(other)") == 0)
                    model[other] = model.removeValue(forKey: path)
                case 10:
                    // Names that are not there, for the kernel to remember.
                    for number in 0..<12 {
                        _ = files.fileExists(atPath: "\(root.path)/d\(number % 4)/f\(number)")
                    }
                default:
                    let folder = random.chance(1, in: 3) ? "" : "d\(random.below(4))/"
                    let path = "\(folder)f\(random.below(12))"
                    try files.createDirectory(
                        at: root.appendingPathComponent(path).deletingLastPathComponent(),
                        withIntermediateDirectories: true)
                    let text = String(
                        repeating: "\(seed) \(step) ", count: random.integer(in: 1...4000))
                    try Data(text.utf8).write(to: root.appendingPathComponent(path))
                    model[path] = text
                }
            }
            #expect(try contents(of: root) == model)
            #expect(rollbacks > 10)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
            try volume.mount()
            #expect(try contents(of: root) == model)
            try volume.unmount()
        }
    }

    private func contents(of root: URL) throws -> [String: String] {
        var found: [String: String] = [:]
        let files = FileManager.default
        for name in try files.subpathsOfDirectory(atPath: root.path) {
            var isDirectory: ObjCBool = false
            let path = root.path + "/" + name
            guard files.fileExists(atPath: path, isDirectory: &isDirectory) else {
                throw ProcessFailure("\(name) is listed, but not there")
            }
            if !isDirectory.boolValue {
                found[name] = try String(contentsOfFile: path, encoding: .utf8)
            }
        }
        return found
    }

    /// Beside programs that open, write and rename all the time: refused or done, never half.
    @Test(.enabled(if: TestMachine.canMount)) func besideWriters() throws {
        try withVolume(size: "512M") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let stop = folder.appendingPathComponent("stop").path
            try shell("mkdir \(live)/d; echo 0 > \(live)/d/a; echo 0 > \(live)/d/b")
            try AegisCommand.require("snapshot", "create", live, "start")
            // Each file is a whole number of lines of one number, or it was written to twice.
            let writer = """
                n=0; while ! test -e \(stop); do n=$((n+1))
                yes $n | head -n 2000 > \(live)/d/new$$ 2>/dev/null && mv \(live)/d/new$$ \(live)/d/w$$ 2>/dev/null
                find \(live) -type f -exec cat {} + > /dev/null 2>&1
                done
                """
            let writers = try (0..<2).map { _ in try ChildProcess(["/bin/sh", "-c", writer]) }
            var codes: [Int32: Int] = [:]
            for _ in 1...40 { codes[try rollBack(volume, "start").exitCode, default: 0] += 1 }
            try shell("touch \(stop)")
            for writer in writers { _ = writer.wait(seconds: 60) }
            print("live rollbacks beside writers, by exit code: \(codes)")
            #expect(Set(codes.keys).isSubset(of: [0, 11]))
            #expect(try output("cat \(live)/d/a \(live)/d/b") == "0\n0")
            for name in try output("ls \(live)/d").split(separator: "\n") where name.hasPrefix("w")
            {
                #expect(try output("sort -u \(live)/d/\(name) | wc -l") == "1")
            }
            let last = try rollBack(volume, "start")
            #expect(last.exitCode == 0, "\(last.errors)")
            #expect(try output("ls \(live)/d") == "a\nb")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }
}

/// Descriptors over a socket (unix(7), SCM_RIGHTS); on their way no process has them.
private enum DescriptorPassing {
    /// `struct cmsghdr` with one descriptor.
    private static let controlLength = 24

    static func send(_ descriptor: Int32, over socket: Int32) -> Bool {
        withMessage { message, control in
            control.storeBytes(of: 20, as: Int.self)
            control.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
            control.storeBytes(of: 1, toByteOffset: 12, as: Int32.self)
            control.storeBytes(of: descriptor, toByteOffset: 16, as: Int32.self)
            return sendmsg(socket, &message, 0) == 1
        }
    }

    static func receive(from socket: Int32) -> Int32 {
        withMessage { message, control in
            guard recvmsg(socket, &message, 0) == 1, message.msg_controllen >= 20 else { return -1 }
            return control.load(fromByteOffset: 16, as: Int32.self)
        }
    }

    private static func withMessage<R>(
        _ body: (inout msghdr, UnsafeMutableRawPointer) -> R
    ) -> R {
        var control = [UInt64](repeating: 0, count: controlLength / 8)
        var byte: UInt8 = 0
        return control.withUnsafeMutableBytes { control in
            withUnsafeMutableBytes(of: &byte) { byte in
                var part = iovec(iov_base: byte.baseAddress, iov_len: 1)
                return withUnsafeMutablePointer(to: &part) { part in
                    var message = msghdr()
                    message.msg_iov = part
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    return body(&message, control.baseAddress!)
                }
            }
        }
    }
}
