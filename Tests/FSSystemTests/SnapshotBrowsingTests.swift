/// `.snapshots` on a live mount: what is seen there, who sees it, and that nobody changes it.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct SnapshotBrowsingTests {
    private func shell(_ line: String) throws { try require(["/bin/sh", "-c", line]) }
    private func output(_ line: String) throws -> String {
        try require(["/bin/sh", "-c", line]).trimmingCharacters(in: .whitespacesAndNewlines)
    }
    private func fails(_ line: String, _ why: String, _ place: SourceLocation = #_sourceLocation)
        throws
    {
        let result = try run(["/bin/sh", "-c", "LC_ALL=C; export LC_ALL; \(line)"])
        #expect(
            result.exitCode != 0 && result.errors.contains(why), "\(line): \(result.errors)",
            sourceLocation: place)
    }

    /// A tree with one of everything.
    private func makeTree(in path: String) throws {
        try shell(
            """
            cd \(path); umask 022; mkdir -p docs/deep/deeper empty; echo one > docs/one
            head -c 3000000 /dev/urandom > docs/large; ln docs/large hard; ln -s docs/one soft
            truncate -s 50M sparse; printf end >> sparse; mkfifo pipe; mknod device c 1 3
            setfattr -n user.colour -v green docs/one; setfacl -m u:65534:r docs/large
            chmod 600 docs/one; chown 65534:65534 docs/deep; chmod 4755 hard
            for n in $(seq 300); do echo $n > docs/deep/deeper/file$n; done
            touch -d 2001-02-03 docs/deep/deeper/file7 docs
            """)
    }

    private func differences(_ a: String, _ b: String) throws -> String {
        try output("rsync -aHAXnci --delete --modify-window=-1 \(a)/ \(b)/")
    }

    /// Copied, packed, listed and compared by the tools of every day, while the head becomes another.
    @Test(.enabled(if: TestMachine.canMount)) func toolsReadIt() throws {
        try withVolume(size: "1G") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let copy = folder.appendingPathComponent("copy").path
            try makeTree(in: live)
            try shell("cp -a \(live) \(copy)")
            try AegisCommand.require("snapshot", "create", live, "monday")
            try shell("cd \(live); rm -r docs; echo other > hard; mkdir docs; echo two > docs/one")
            let monday = "\(live)/.snapshots/monday"

            #expect(try differences(copy, monday) == "")
            #expect(try differences(copy, live) != "")
            try shell("cd \(monday); test -f docs/one -a ! -e docs/two")
            try shell(
                "cp -a \(monday) \(folder.path)/cp; rsync -aHAX --modify-window=-1 \(monday)/ \(folder.path)/rs"
            )
            try shell(
                "cd \(folder.path); mkdir tar; tar -C \(monday) --xattrs --acls -c . | "
                    + "tar -C tar --xattrs --acls -xp")
            for name in ["cp", "rs", "tar"] {
                let found = try differences(copy, folder.appendingPathComponent(name).path)
                #expect(found == "", "\(name): \(found.prefix(2000))")
            }
            try shell("cd \(copy); find . | sort > ../a")
            try shell("cd \(monday); find . | sort | diff - \(folder.path)/a")
            try shell("cd \(monday)/docs/deep/deeper; test $(ls | wc -l) = 300; ls -la > /dev/null")
            #expect(
                try output("getfattr --only-values -n user.colour \(monday)/docs/one") == "green")
            #expect(try output("getfacl -cpn \(monday)/docs/large").contains("user:65534:r--"))
            try shell("stat -f \(monday); lsattr -d \(monday)/docs; getfattr -d \(live)/.snapshots")

            // Numbers: links of one file agree, snapshots and head do not, and a mount later all is the same.
            func number(_ path: String) throws -> String { try output("stat -c %i \(path)") }
            #expect(try number("\(monday)/hard") == number("\(monday)/docs/large"))
            #expect(try number("\(monday)/hard") != number("\(live)/hard"))
            #expect(try number(monday) == output("ls -di \(monday) | cut -d' ' -f1"))
            #expect(
                try output("ls -i \(monday) | awk '$2 == \"hard\" {print $1}'")
                    == number("\(monday)/hard"))
            let before = try number("\(monday)/docs/one")
            #expect(
                try output("cd \(monday)/docs; cd ..; pwd -P; cd ../..; pwd -P") == """
                    \(monday)
                    \(live)
                    """)
            try volume.unmount()
            try volume.mount()
            #expect(try number("\(monday)/docs/one") == before)
            #expect(try differences(copy, monday) == "")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Every change is refused, also one that the kernel makes in its cache first.
    @Test(.enabled(if: TestMachine.canMount)) func nothingChangesIt() throws {
        try withVolume(size: "1G") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let copy = folder.appendingPathComponent("copy").path
            try makeTree(in: live)
            try shell("cp -a \(live) \(copy)")
            try AegisCommand.require("snapshot", "create", live, "s")
            let readOnly = "Read-only file system"
            for line in [
                "touch docs/one", "rm docs/one", "mkdir new", "rmdir empty", "mv docs/one docs/two",
                "mv soft other", "chmod 777 hard", "chown 1 hard", "ln hard harder", "ln -s x y",
                "setfattr -n user.a -v b docs/one", "setfattr -x user.colour docs/one",
                "setfacl -b docs/large", "echo x > docs/one",
                "echo x | dd of=docs/one conv=notrunc",
                "truncate -s 1 docs/large", "fallocate -l 1M docs/one", "fallocate -p -l 4096 hard",
                "chattr +d docs/one", "echo x > new", "mknod p p", "touch -h soft",
                "mkdir ../new", "rmdir ../s", "mv ../s ../t", "touch ..", "touch ../new",
                "chmod 755 ..", "setfattr -n user.a -v b ..",
            ] {
                try fails("cd \(live)/.snapshots/s && \(line)", readOnly)
            }
            // From one tree into another: as between filesystems.
            try fails("ln \(live)/.snapshots/s/hard \(live)/linked", "cross-device")
            try fails("ln \(live)/hard \(live)/.snapshots/s/linked", "cross-device")
            #expect(rename("\(live)/.snapshots/s/soft", "\(live)/soft2") != 0 && errno == EXDEV)
            #expect(rename("\(live)/soft", "\(live)/.snapshots/s/soft2") != 0 && errno == EXDEV)
            try shell("cp --reflink=auto -p \(live)/.snapshots/s/docs/large \(live)/again")
            try shell("cmp \(live)/again \(copy)/docs/large; rm \(live)/again")
            // A mapping is written to before anybody can say no; the page does not stay.
            _ = try run([
                "perl", "-e",
                "open(F, '+<', $ARGV[0]) or die; syswrite(F, 'wrong', 5); close(F)",
                "\(live)/.snapshots/s/docs/large",
            ])
            try writeThroughMapping("\(live)/.snapshots/s/docs/large")
            for _ in 0..<200 where try differences(copy, "\(live)/.snapshots/s") != "" {
                usleep(10_000)
            }
            #expect(try differences(copy, "\(live)/.snapshots/s") == "")
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    private func writeThroughMapping(_ path: String) throws {
        let file = open(path, O_RDWR)
        #expect(file >= 0)
        defer { close(file) }
        let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        guard let memory, memory != MAP_FAILED else { throw ProcessFailure("mmap: \(errno)") }
        memory.storeBytes(of: 0xAA, as: UInt8.self)
        #expect(msync(memory, 4096, MS_SYNC) != 0)
        munmap(memory, 4096)
    }

    /// Root's alone unless the mount says otherwise, and inside the permissions of then.
    @Test(.enabled(if: TestMachine.canMount)) func whoSeesIt() throws {
        try withVolume(size: "256M") { volume, _ in
            let live = volume.directory.path
            func asNobody(_ line: String) throws -> Int32 {
                try run([
                    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c",
                    "cd \(live) && \(line)",
                ]).exitCode
            }
            try shell("chmod 755 \(volume.directory.deletingLastPathComponent().path)")
            try volume.mount(options: "snapdir=off")
            #expect(try run(["stat", live + "/.snapshots"]).exitCode != 0)
            try shell("cd \(live); chmod 755 .; echo open > open; echo closed > closed")
            try shell("cd \(live); chmod 600 closed; mkdir .snapshots; echo own > .snapshots/own")
            try AegisCommand.require("snapshot", "create", live, "s")
            try volume.unmount()

            try volume.mount()
            #expect(try output("stat -c %a:%u:%g \(live)/.snapshots") == "700:0:0")
            #expect(try asNobody("ls .snapshots") != 0)
            #expect(try asNobody("cat .snapshots/s/open") != 0)
            // A directory of the same name is hidden, and nothing happens to it; in a snapshot it is seen.
            #expect(try !output("ls -A \(live); ls -lA \(live)").contains(".snapshots"))
            #expect(try output("ls -A \(live)/.snapshots") == "s")
            #expect(try output("cat \(live)/.snapshots/s/.snapshots/own") == "own")
            try fails("mkdir \(live)/.snapshots", "File exists")
            try fails("rmdir \(live)/.snapshots", "not permitted")
            try fails("mv \(live)/.snapshots \(live)/x", "not permitted")
            try fails("mv -T \(live)/open \(live)/.snapshots", "directory")
            try volume.unmount()

            try volume.mount(options: "snapdir=owner")
            try shell("chown 65534:65534 \(live)")
            #expect(try output("stat -c %a:%u:%g \(live)/.snapshots") == "700:65534:65534")
            #expect(try asNobody("cat .snapshots/s/open") == 0)
            #expect(try asNobody("cat .snapshots/s/closed") != 0)
            try volume.unmount()

            try volume.mount(options: "snapdir=all")
            try shell("chown 0:0 \(live)")
            #expect(try output("stat -c %a:%u:%g \(live)/.snapshots") == "755:0:0")
            #expect(try asNobody("cat .snapshots/s/open") == 0)
            #expect(try asNobody("cat .snapshots/s/closed") != 0)
            #expect(try asNobody("touch .snapshots/x") != 0)
            try volume.unmount()

            try volume.mount(options: "snapdir=off")
            #expect(try output("cat \(live)/.snapshots/own") == "own")
            try volume.unmount()
            let wrong = try AegisCommand.run(
                "mount", "-o", "snapdir=everyone", volume.target, live)
            #expect(wrong.exitCode == 2 && wrong.errors.contains("snapdir"))
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// What the command does to snapshots is seen at once, and what is gone is not mistaken for another.
    @Test(.enabled(if: TestMachine.canMount)) func itFollowsTheTable() throws {
        try withVolume(size: "256M") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let all = live + "/.snapshots"
            func names() throws -> String {
                try output("ls -A \(all)").split(separator: "\n").joined(separator: " ")
            }
            #expect(try names() == "")
            for name in ["a", "b", "c"] {
                try shell(
                    "echo \(name) > \(live)/file; head -c 5000000 /dev/urandom > \(live)/data")
                try AegisCommand.require("snapshot", "create", live, name)
                #expect(try output("cat \(all)/\(name)/file") == name)
            }
            #expect(try names() == "a b c")
            try AegisCommand.require("snapshot", "rename", live, "b", "second")
            #expect(try names() == "a c second")
            #expect(try run(["cat", "\(all)/b/file"]).exitCode != 0)
            #expect(try output("cat \(all)/second/file") == "b")

            // No second mount is needed to see one, and the message says so.
            let second = folder.appendingPathComponent("second").path
            #expect(mkdir(second, 0o755) == 0)
            let refused = try AegisCommand.run("mount", "--snapshot", "a", volume.target, second)
            #expect(refused.exitCode == 11 && refused.errors.contains("\(all)/a"))

            // Open while it is deleted: what is cached stays right, the rest is an error.
            let file = open("\(all)/second/data", O_RDONLY)
            #expect(file >= 0)
            let checksum = try output("cksum < \(live)/data")
            try AegisCommand.require("snapshot", "delete", live, "second", "--yes", "--wait")
            #expect(try names() == "a c")
            #expect(try run(["cat", "\(all)/second/file"]).exitCode != 0)
            var byte: UInt8 = 0
            #expect(pread(file, &byte, 1, 4_500_000) == -1 && errno == ESTALE)
            close(file)
            // Its name again is another's.
            try AegisCommand.require("snapshot", "create", live, "second")
            #expect(try output("cat \(all)/second/file") == "c")
            #expect(try output("cksum < \(all)/second/data") == checksum)
            // A clone is no snapshot, but shows them.
            try AegisCommand.require("snapshot", "clone", live, "a", "branch")
            #expect(try names() == "a c second")
            try volume.unmount()
            try volume.mount(options: "head=branch")
            #expect(try output("cat \(live)/file \(all)/c/file") == "a\nc")
            try volume.unmount()
            try volume.mount(options: "snapshot=a")
            #expect(try run(["ls", all]).exitCode != 0)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// A file's handle finds the file of its snapshot, also after the kernel has forgotten that, and nothing
    /// once it is deleted; one of the head's is stale after a rollback.
    @Test(.enabled(if: TestMachine.canMount)) func handles() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            for name in ["one", "two"] {
                try shell("mkdir -p \(live)/d; echo \(name) > \(live)/d/file")
                try AegisCommand.require("snapshot", "create", live, name)
            }
            let program = """
                import ctypes, os, subprocess, sys
                libc = ctypes.CDLL(None, use_errno=True)
                live, command = sys.argv[1:]
                class Handle(ctypes.Structure):
                    _fields_ = [("n", ctypes.c_uint), ("t", ctypes.c_int), ("b", ctypes.c_ubyte * 128)]
                def handle(path):
                    h = Handle(); h.n = 128; mount = ctypes.c_int()
                    assert not libc.name_to_handle_at(-100, (live + path).encode(), ctypes.byref(h),
                        ctypes.byref(mount), 0)
                    return h
                def text(h):
                    open("/proc/sys/vm/drop_caches", "w").write("2")
                    root = os.open(live, os.O_RDONLY)
                    found = libc.open_by_handle_at(root, ctypes.byref(h), os.O_RDONLY)
                    code = ctypes.get_errno()
                    os.close(root)
                    if found < 0: return os.strerror(code)
                    text = os.read(found, 100).decode().strip()
                    os.close(found)
                    return text
                handles = [handle(p + "d/file") for p in ["/.snapshots/one/", "/.snapshots/two/", "/"]]
                print([text(h) for h in handles])
                subprocess.check_call([command, "snapshot", "rollback", live, "one", "--yes", "-q"])
                print([text(h) for h in handles])
                subprocess.check_call([command, "snapshot", "delete", live, "one", "--yes", "-q"])
                print([text(h) for h in handles])
                """
            let result = try require([
                "python3", "-c", program, live, AegisCommand.requirePath(),
            ])
            let stale = "'Stale file handle'"
            #expect(
                result == """
                    ['one', 'two', 'two']
                    ['one', 'two', \(stale)]
                    [\(stale), 'two', \(stale)]

                    """)
            try volume.unmount()
        }
    }

    /// `@GMT-…`, as Samba's shadow_copy2 looks for it.
    @Test(.enabled(if: TestMachine.canMount)) func namesByTime() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            try shell("mkdir \(live)/share; echo old > \(live)/share/file")
            try AegisCommand.require("snapshot", "create", live, "first")
            try shell("echo new > \(live)/share/file; sleep 1.1")
            try AegisCommand.require("snapshot", "create", live, "last")
            let created = try output(
                "\(AegisCommand.requirePath()) snapshot list --json \(live) | tr ',' '\\n' | "
                    + "sed -n 's/.*\"created\":\"\\(.*\\)\".*/\\1/p' | head -n 1")
            let alias = try output("date -u -d \(created) +@GMT-%Y.%m.%d-%H.%M.%S")
            #expect(try output("cat \(live)/.snapshots/\(alias)/share/file") == "old")
            #expect(try output("cat \(live)/.snapshots/@GMT/\(alias)/share/file") == "old")
            #expect(try output("ls \(live)/.snapshots") == "first\nlast")
            let listed = try output("ls \(live)/.snapshots/@GMT").split(separator: "\n")
            #expect(listed.count == 2 && listed.first.map(String.init) == alias)
            #expect(
                try output("cd \(live)/.snapshots/@GMT/\(alias)/share; cd ../..; pwd -P")
                    == live + "/.snapshots/@GMT")
            for wrong in [
                "@GMT-2001.01.01-00.00.00", "@GMT-2001.13.01-00.00.00", "@GMT-2001.01.01-00.00.0x",
                "@GMT-2001.02.30-00.00.00", "@GMT-", "@GMT-9999.99.99-99.99.99",
                alias.replacing(".", with: "-"),
            ] {
                #expect(try run(["stat", "\(live)/.snapshots/\(wrong)"]).exitCode != 0)
            }
            try AegisCommand.require("snapshot", "delete", live, "first", "--yes")
            #expect(try run(["stat", "\(live)/.snapshots/\(alias)"]).exitCode != 0)
            try volume.unmount()
        }
    }

    /// A thousand snapshots: listed, looked at and entered; each shows its own.
    @Test(.enabled(if: TestMachine.canMount)) func manyOfThem() throws {
        let count = 300
        try withVolume(size: "1G") { volume, _ in
            try volume.mount()
            let live = volume.directory.path
            for number in 1...count {
                try shell("mkdir -p \(live)/d; echo \(number) > \(live)/d/number")
                try AegisCommand.require("snapshot", "create", live, "s\(number)", "--no-sync")
            }
            #expect(try output("ls \(live)/.snapshots | wc -l") == "\(count)")
            #expect(try output("ls -l \(live)/.snapshots | grep -c ^d") == "\(count)")
            try shell(
                "cd \(live)/.snapshots; for n in $(seq \(count)); do "
                    + "test $(cat s$n/d/number) = $n || exit 1; done")
            #expect(try output("find \(live)/.snapshots -name number | wc -l") == "\(count)")
            #expect(
                try output("stat -c %i \(live)/.snapshots/*/d/number | sort -u | wc -l")
                    == "\(count)")
            try volume.unmount()
        }
    }

    /// Snapshots come and go while others read: what is read is right, or it is an error.
    @Test(.enabled(if: TestMachine.canMount), arguments: 1...2 as ClosedRange<UInt64>)
    func whileOthersGo(seed: UInt64) throws {
        try withVolume(size: "512M") { volume, folder in
            try volume.mount()
            let live = volume.directory.path
            let stop = folder.appendingPathComponent("stop").path
            let wrong = folder.appendingPathComponent("wrong").path
            // Every file of a snapshot names the round in which it was made, as all others there do.
            let reader = """
                cd \(live)/.snapshots
                while ! test -e \(stop); do
                  for s in *; do
                    test "$s" = '*' && continue
                    text=$(cat $s/a $s/d/b 2>/dev/null | sort -u | tr '\\n' ' ')
                    test -z "$text" -o "$text" = "$s " || echo "$s: $text" >> \(wrong)
                    find $s -ls > /dev/null 2>&1
                  done
                done
                """
            let readers = try (0..<2).map { _ in try ChildProcess(["/bin/sh", "-c", reader]) }
            var random = SeededRandom(seed: seed)
            var present: [String] = []
            try shell("mkdir \(live)/d")
            for round in 1...60 {
                let name = "r\(round)"
                try shell(
                    "echo \(name) > \(live)/new; cp \(live)/new \(live)/d/b; mv \(live)/new \(live)/a"
                )
                try AegisCommand.require("snapshot", "create", live, name)
                present.append(name)
                if present.count > 5 {
                    let gone = present.remove(at: random.below(present.count))
                    try AegisCommand.require("snapshot", "delete", live, gone, "--yes")
                }
            }
            try shell("touch \(stop)")
            for reader in readers { _ = reader.wait(seconds: 60) }
            #expect(!FileManager.default.fileExists(atPath: wrong))
            for name in present {
                #expect(try output("cat \(live)/.snapshots/\(name)/a") == name)
            }
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }
}
