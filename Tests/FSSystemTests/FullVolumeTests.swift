/// A volume filled until nothing fits and emptied again, over and over: nothing but ENOSPC is
/// answered, nothing leaks, and what statfs called free could be written.
///
/// `AEGISFS_TEST_CYCLES` sets how many cycles run in this process, a tenth of them through a mount, and a fifth
/// as many volumes whose word is tested.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct FullVolumeTests {
    private static let cycles = TestMachine.count("AEGISFS_TEST_CYCLES", default: 50)
    private static let variants = (TestMachine.count("AEGISFS_TEST_CYCLES", default: 50) + 4) / 5
    private let file = NewInode(mode: FileKind.regular.modeBits | 0o644)

    private func volume(
        _ mebibytes: UInt64, _ format: FormatOptions = FormatOptions()
    ) throws -> (MemoryBlockDevice, Volume) {
        let device = MemoryBlockDevice(byteCount: mebibytes << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return (device, try Volume.open(device, modules: .standard, options: options))
    }

    private enum Kind: CaseIterable { case small, large, attributes, snapshots }

    /// Creates files until there is no space; returns their names and the bytes that went in.
    ///
    /// - Parameter afterFile: called behind each file.
    private func fill(
        _ fs: FileSystem, _ kind: Kind, size: Int, prefix: String = "file",
        afterFile: (Int) throws(FSError) -> Void = { (_) throws(FSError) in }
    ) throws -> (names: [[UInt8]], bytes: UInt64) {
        var names: [[UInt8]] = []
        var bytes: UInt64 = 0
        let content = [UInt8](repeating: 0xA7, count: size)
        do throws(FSError) {
            while true {
                let name = Array("\(prefix)\(names.count)".utf8)
                let inode = try name.withView { (name) throws(FSError) in
                    try fs.create(name, in: .root, file).inode
                }
                fs.release(inode, count: 1)
                names.append(name)
                switch kind {
                case .small, .snapshots:
                    _ = try content.withView { (view) throws(FSError) in
                        try fs.write(inode, at: 0, view)
                    }
                    bytes += UInt64(size)
                case .large:
                    for index in 0..<64 as Range<UInt64> {
                        _ = try content.withView { (view) throws(FSError) in
                            try fs.write(inode, at: index * UInt64(size), view)
                        }
                        bytes += UInt64(size)
                    }
                case .attributes:
                    for index in 0..<8 {
                        try Array("user.a\(index)".utf8).withView { (name) throws(FSError) in
                            try content.withView { (value) throws(FSError) in
                                try fs.setExtendedAttribute(
                                    name, of: inode, value, .createOrReplace)
                            }
                        }
                        bytes += UInt64(size)
                    }
                }
                try afterFile(names.count)
            }
        } catch { #expect(error == .noSpace) }
        return (names, bytes)
    }

    /// Writes block by block to a file of its own; returns how many bytes went in.
    private func fillUp(_ fs: FileSystem) throws -> UInt64 {
        let block = [UInt8](repeating: 0x3C, count: 4096)
        var bytes: UInt64 = 0
        do throws(FSError) {
            let inode = try Array("file0".utf8).withView { (name) throws(FSError) in
                try fs.lookup(name, in: .root).inode
            }
            let start: UInt64 = 1 << 40
            while true {
                try block.withView { (view) throws(FSError) in
                    _ = try fs.write(inode, at: start + bytes, view)
                }
                bytes += 4096
            }
        } catch { #expect(error == .noSpace) }
        return bytes
    }

    @Test func cycles() throws {
        let (device, volume) = try volume(256)
        let fs = volume.fileSystem
        func free() throws -> UInt64 {
            for _ in 0...1 { try volume.checkpoint() }
            return fs.statistics().freeBlocks
        }
        let before = try free()
        for round in 0..<Self.cycles {
            let kind = Kind.allCases[round % Kind.allCases.count]
            let size = [4096, 1 << 20, 20_000, 200_000][round % Kind.allCases.count]
            var moments: [[UInt8]] = []
            let (names, bytes) = try fill(fs, kind, size: size) { (number) throws(FSError) in
                guard kind == .snapshots, number % 40 == 0 else { return }
                let name = Array("moment\(number)".utf8)
                try volume.snapshotStore.create(SnapshotLabel(name: name))
                moments.append(name)
            }
            #expect(moments.count > 10 || kind != .snapshots)
            // Two copies of what lies in the tree, in leaves that are full by half to three quarters: the
            // volume's own hash says in which order the attributes come.
            #expect(bytes > (kind == .attributes ? 45 : 190) << 20, "round \(round), \(kind)")
            for name in names { try name.withView { try fs.unlink($0, in: .root) } }
            // Everything is deleted, and nothing has come back as long as they are there.
            if !moments.isEmpty { #expect(fs.statistics().availableBlocks < before / 4) }
            try volume.snapshotStore.delete(moments)
            _ = try volume.snapshotStore.sweep()
            let after = try free()
            #expect(before <= after + 64, "round \(round): \(before) before, \(after) after")
            if round % 10 == 0 {
                let report = try Checker.check(volume)
                #expect(report.findings.isEmpty, "round \(round): \(report.findings)")
            }
        }
        #expect(volume.status().state == .online)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// What statfs says is free can be written, within two in a hundred.
    @Test(arguments: [
        (32, 1 << 20), (64, 1 << 20), (256, 1 << 20), (256, 64 << 10), (1024, 1 << 20),
        (1024, 100_000),
    ])
    func statfsKeepsItsWord(mebibytes: UInt64, size: Int) throws {
        let (_, volume) = try volume(mebibytes)
        let promised = volume.fileSystem.statistics().availableBlocks
        var (_, bytes) = try fill(
            volume.fileSystem, size == 1 << 20 ? .large : .small, size: size)
        // What the last piece was too large for.
        bytes += try fillUp(volume.fileSystem)
        let rounding = size == 1 << 20 ? 1 : Double((size + 4095) / 4096 * 4096) / Double(size)
        let share = Double(bytes) * rounding / 4096 / Double(promised)
        #expect(share > 0.98 && share <= 1.01, "\(share) of what was promised")
        try volume.close()
    }

    /// The same for volumes of any size, checksum and number of copies, filled and half emptied before.
    @Test(arguments: 0..<variants)
    func statfsKeepsItsWordAnywhere(number: Int) throws {
        var random = SeededRandom(
            seed: UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1)) * 1000 + UInt64(number)
        )
        var options = FormatOptions()
        let kinds = [ChecksumKind.crc32c, .xxh3, .sha256]
        options.checksumKind = kinds[number % kinds.count]
        options.dataCopies = 1 + random.below(2)
        let (_, volume) = try volume(UInt64(random.integer(in: 24...160)), options)
        let fs = volume.fileSystem
        for round in 0..<random.below(4) {
            let (names, _) = try fill(
                fs, .small, size: random.pick([6000, 40_000, 300_000]), prefix: "round\(round)-")
            for name in names where round > 0 || random.chance(1, in: 2) {
                try name.withView { try fs.unlink($0, in: .root) }
            }
        }
        for _ in 0...1 { try volume.checkpoint() }
        let promised = fs.statistics().availableBlocks
        let what = "number \(number), \(options.checksumKind), \(options.dataCopies) copies"
        guard promised > 2000 else { return }
        let inode = try Array("last".utf8).withView { (name) throws(FSError) in
            try fs.create(name, in: .root, file).inode
        }
        var bytes: UInt64 = 0
        for piece in [random.pick([64 << 10, 256 << 10, 1 << 20]), 4096] {
            let content = random.bytes(piece)
            do throws(FSError) {
                while true {
                    _ = try content.withView { (view) throws(FSError) in
                        try fs.write(inode, at: bytes, view)
                    }
                    bytes += UInt64(piece)
                }
            } catch { #expect(error == .noSpace) }
        }
        // Of the last two thousand blocks the nodes of one more change are a larger share.
        let written = bytes >> 12
        #expect(
            written + 100 > promised * 98 / 100 && written < promised * 102 / 100,
            "\(written) of \(promised) blocks that were promised: \(what)")
        try volume.close()
    }

    @Test(.enabled(if: TestMachine.canMount)) func cyclesThroughAMount() throws {
        try withVolume(size: "256M") { volume, _ in
            try volume.mount()
            let mount = volume.directory.path
            func free() throws -> Int {
                _ = try AegisCommand.require("sync", mount)
                _ = try AegisCommand.require("sync", mount)
                let line = try require(["stat", "-f", "-c", "%f", mount])
                return Int(line.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1
            }
            let before = try free()
            for round in 0..<max(Self.cycles / 10, 3) {
                let work = [
                    "i=0; while head -c 4096 /dev/zero > \(mount)/f$i; do i=$((i+1)); "
                        + "test $i -lt 4000 || break; done; dd if=/dev/zero of=\(mount)/rest bs=1M",
                    "dd if=/dev/zero of=\(mount)/large bs=1M conv=fsync",
                ][round % 2]
                let result = try run(["/bin/sh", "-c", work + " 2>&1"], seconds: 120)
                #expect(result.output.contains("No space left"), "\(result.output.suffix(300))")
                #expect(!result.output.contains("Input/output error"))
                try require(["/bin/sh", "-c", "rm -rf \(mount)/*"])
                var after = try free()
                for _ in 0..<50 where after + 64 < before {
                    Thread.sleep(forTimeInterval: 0.2)
                    after = try free()
                }
                #expect(after + 64 >= before, "round \(round): \(before) before, \(after) after")
            }
            #expect(try AegisCommand.run("check", mount).exitCode == 0)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    /// Through a mount: with snapshots there, deleting brings no space back, the command refuses more
    /// snapshots and says which to drop, and dropping these always works.
    @Test(.enabled(if: TestMachine.canMount)) func snapshotsToDropAreNamed() throws {
        try withVolume(size: "96M") { volume, _ in
            try volume.mount()
            let mount = volume.directory.path
            func available() throws -> Int {
                let line = try require(["stat", "-f", "-c", "%a", mount])
                return Int(line.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1
            }
            let before = try available()
            for round in 0..<3 {
                let work = """
                    for i in $(seq 60); do head -c 200000 /dev/urandom > \(mount)/\(round).$i; done
                    """
                try require(["/bin/sh", "-c", work])
                _ = try AegisCommand.require("snapshot", "create", mount, "moment\(round)")
            }
            _ = try AegisCommand.require("snapshot", "hold", mount, "moment0", "kept")
            func fill(_ piece: String) throws {
                let work = "dd if=/dev/zero of=\(mount)/rest.\(piece) bs=\(piece) 2>&1"
                #expect(try run(["/bin/sh", "-c", work]).output.contains("No space left"))
            }
            try fill("64k")
            try fill("4k")
            // A loop of "snapshot, delete one file" gets nowhere, and eats nothing up. The checkpoint behind
            // the last write may leave room for a snapshot or two.
            var moments = (0..<3).map { "moment\($0)" }
            for index in 1...60 {
                let made = try AegisCommand.run("snapshot", "create", mount, "more\(index)")
                if made.exitCode == 0 {
                    moments.append("more\(index)")
                } else {
                    #expect(made.exitCode == 1 && made.errors.contains("AEGIS-0023"))
                    #expect(
                        made.errors.contains("aegisfs snapshot delete")
                            && made.errors.contains(" mo"), "\(made.errors)")
                }
                try require(["rm", "\(mount)/1.\(index)"])
            }
            #expect(moments.count < 10)
            try fill("2k")
            let status = try AegisCommand.run("status", mount)
            #expect(
                status.exitCode == 0 && status.output.contains("AEGIS-0361"), "\(status.output)")
            #expect(status.output.contains("aegisfs snapshot delete \(mount) mo"))
            #expect(!status.output.contains("moment0"))
            _ = try AegisCommand.require("snapshot", "release", mount, "moment0", "kept")
            for name in moments {
                _ = try AegisCommand.require("snapshot", "delete", mount, name, "--yes")
            }
            try require(["/bin/sh", "-c", "rm \(mount)/*"])
            var after = try available()
            for _ in 0..<100 where after + 200 < before {
                Thread.sleep(forTimeInterval: 0.2)
                _ = try AegisCommand.require("sync", mount)
                after = try available()
            }
            #expect(after + 200 >= before, "\(before) before, \(after) after")
            #expect(try AegisCommand.run("check", mount).exitCode == 0)
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }

    // MARK: The host

    /// The filesystem that holds an image is full: the volume stops writing and says so; when there is
    /// space again, everything that was acknowledged is there after a remount.
    @Test(.enabled(if: TestMachine.canMount)) func aFullHostLosesNothingAcknowledged() throws {
        try withTemporaryDirectory { folder in
            let host = folder.appendingPathComponent("host")
            try FileManager.default.createDirectory(at: host, withIntermediateDirectories: true)
            try require(["mount", "-t", "tmpfs", "-o", "size=96M", "tmpfs", host.path])
            defer { _ = try? run(["umount", "-l", host.path]) }
            let volume = try MountedVolume(size: "512M", in: host)
            defer { volume.cleanUp() }
            try volume.mount()
            let mount = volume.directory.path
            // What is kept outside is what the volume has acknowledged.
            let script = """
                i=0
                while head -c 500000 /dev/urandom > \(folder.path)/new; do
                    dd if=\(folder.path)/new of=\(mount)/f$i conv=fsync status=none || break
                    mv \(folder.path)/new \(folder.path)/kept$i
                    i=$((i+1))
                done
                """
            let result = try run(["/bin/sh", "-c", script + " 2>&1"], seconds: 120)
            #expect(result.output.contains("error") || result.output.contains("Read-only"))
            let status = try AegisCommand.run("status", mount)
            #expect(status.exitCode != 0 || status.output.lowercased().contains("read-only"))
            #expect(
                status.output.contains("errno 28") || status.output.contains("No space"),
                "\(status.output)")
            #expect(status.output.contains("AEGIS-0360"), "\(status.output)")
            #expect(try run(["touch", mount + "/more"]).exitCode != 0)
            let kept = try FileManager.default.contentsOfDirectory(atPath: folder.path)
                .filter { $0.hasPrefix("kept") }
            #expect(kept.count > 20)
            _ = try? AegisCommand.run("umount", mount)
            try require(["mount", "-o", "remount,size=700M", host.path])
            try volume.mount()
            for name in kept {
                let number = name.dropFirst(4)
                try require(["cmp", "\(folder.path)/\(name)", "\(mount)/f\(number)"])
            }
            try require(["touch", mount + "/more"])
            try volume.unmount()
            #expect(try volume.check().exitCode == 0)
        }
    }
}
