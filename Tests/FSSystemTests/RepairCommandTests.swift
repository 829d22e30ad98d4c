/// `aegisfs check --repair` and `fsck.aegisfs -p` on images and loop devices: what they ask, say, change and
/// return; and that a kill in the middle does no harm.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct RepairCommandTests {
    private func fill(_ path: String, files: Int) throws {
        try ImageFile(path).withVolume { volume in
            let fs = volume.fileSystem
            for index in 0..<files {
                let made = try Array("file-\(index)".utf8).withView {
                    try fs.create($0, in: .root, NewInode(mode: 0o100644))
                }
                _ = try [UInt8](repeating: UInt8(index % 251), count: 100 + index * 20).withView {
                    try fs.write(made.inode, at: 0, $0)
                }
                fs.release(made.inode, count: 1)
            }
        }
    }

    /// A file loses its name, another one has a wrong count of links, and blocks are leaked.
    private func damage(_ path: String) throws {
        try ImageFile(path).withVolume { volume in
            let fs = volume.fileSystem
            let transaction = Transaction()
            let lost = Array("file-3".utf8)
            transaction.delete(Key(.root, .directoryEntry, lost.withView { fs.hash($0) }))
            let other = try Array("file-4".utf8).withView { try fs.lookup($0, in: .root).inode }
            var record = try fs.record(of: other)
            record.linkCount = 7
            transaction.put(other, record)
            transaction.publish(try volume.allocator.allocateData(5, goal: nil, leaving: .nothing))
            _ = try volume.commit(
                Volume.Recording(transaction, [], .emergency, .upkeep), freezing: nil)
        }
    }

    private func bytes(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    @Test func anImageIsRepaired() throws {
        try withVolume(size: "64M") { volume, _ in
            let image = volume.target
            try fill(image, files: 40)
            expect(try AegisCommand.run("check", "--repair", image), 0, "clean")
            try damage(image)
            let ids = ["AEGIS-1308", "AEGIS-1303", "AEGIS-1203"]
            let found = try AegisCommand.run("check", image)
            expect(found, 3, ids[0], ids[1], ids[2])

            let before = try bytes(image)
            let plan = try AegisCommand.run("check", "--repair", image)
            expect(plan, 13, "AEGIS-0253", "would be repaired", "nothing was changed", ids[0])
            let trial = try AegisCommand.run("check", "--repair", "--dry-run", image)
            expect(trial, 3, "can be repaired; nothing was changed", "lost+found", ids[1])
            #expect(try bytes(image) == before)

            let done = try AegisCommand.run("check", "--repair", "--yes", "--json", image)
            expect(
                done, 4, "\"is_repaired\":true", "\"found_damage\":true", "\"salvaged_inodes\":1",
                "\"lost\":{\"attributes\":0,\"bytes\":0,",
                "\"is_dry_run\":false", ids[0], ids[1], ids[2])
            expect(try AegisCommand.run("check", image), 0, "clean")
            expect(try AegisCommand.run("check", "--repair", "--yes", image), 0, "clean")
            try ImageFile(image).withVolume { volume in
                let fs = volume.fileSystem
                let directory = try Array("lost+found".utf8).withView {
                    try fs.lookup($0, in: .root).inode
                }
                var names: [String] = []
                try fs.readDirectory(directory, after: 2, withAttributes: false) { entry, _ in
                    names.append(String(decoding: entry.name.toArray(), as: UTF8.self))
                    return true
                }
                #expect(names.count == 1 && names[0].hasPrefix("#"))
            }
            expect(try AegisCommand.run("check", "--yes", image), 2, "--repair")
        }
    }

    /// With every checksum, and where nothing more fits.
    @Test(arguments: ["crc32c", "xxh3", "sha256"], [false, true])
    func whateverTheVolumeIs(checksum: String, isFull: Bool) throws {
        try withVolume(size: "64M") { volume, _ in
            let image = volume.target
            try AegisCommand.require(
                "format", "--force", "--quiet", "--checksum", checksum, image)
            try fill(image, files: 40)
            if isFull { try fillUp(image) }
            try damage(image)
            expect(try AegisCommand.run("check", image), 3, "AEGIS-1308", "AEGIS-1303")
            expect(
                try AegisCommand.run("check", "--repair", "--yes", image), 4, "repaired",
                "lost+found")
            expect(try AegisCommand.run("check", image), 0, "clean")
            expect(try AegisCommand.run("scrub", image), 0, "no errors")
        }
    }

    /// A file takes all that writes may take.
    private func fillUp(_ path: String) throws {
        try ImageFile(path).withVolume { volume in
            let made = try Array("filler".utf8).withView {
                try volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
            }
            var position: UInt64 = 0
            for size in [1 << 20, 4096] {
                let piece = [UInt8](repeating: 7, count: size)
                while let count = try? piece.withView({
                    try volume.fileSystem.write(made.inode, at: position, $0)
                }) {
                    position += UInt64(count)
                }
            }
            volume.fileSystem.release(made.inode, count: 1)
            #expect(position > 16 << 20)
        }
    }

    /// An inner node and a leaf with parts of files are lost: that is told, by path, and stays told.
    @Test(.enabled(if: TestMachine.canMount)) func lossesAreTold() throws {
        try withVolume(size: "100M") { volume, folder in
            let image = volume.target
            let root = volume.directory.path
            try scatter(image)
            for block in try rootAndLeaf(image) {
                try ImageFile(image).write(
                    [UInt8](repeating: 0x5A, count: 100), at: block * 4096)
            }
            try require(["cp", "--sparse=always", image, folder.path + "/copy.img"])
            let trial = try AegisCommand.run("check", "--repair", "--dry-run", image)
            expect(trial, 3, "would be lost: up to", "/scattered-", "; lost: up to")
            let done = try AegisCommand.run("check", "--repair", "--yes", image)
            expect(done, 3, "lost: up to", "/scattered-", "repaired, and clean now; lost: up to")
            #expect(!done.output.contains("would be lost"))
            expect(try AegisCommand.run("check", image), 0, "clean", "'aegisfs status' names")
            expect(try AegisCommand.run("check", "--repair", "--yes", image), 0, "clean")
            expect(try AegisCommand.run("status", image), 3, "/scattered-")
            expect(try AegisCommand.run("scrub", image), 3, "without a good copy")
            try volume.mount()
            let reading = try run(["/bin/sh", "-c", "cat \(root)/scattered-* > /dev/null"])
            #expect(reading.exitCode != 0 && reading.errors.contains("Input/output error"))
            // What is read is never zeros.
            expect(
                try run([
                    "/bin/sh", "-c",
                    "for f in \(root)/scattered-*; do dd if=$f bs=4096 conv=noerror status=none "
                        + "2> /dev/null; done | tr -d abc | wc -c",
                ]), 0, "0\n")
            try volume.unmount()

            let fsck = folder.appendingPathComponent("fsck.aegisfs").path
            try FileManager.default.createSymbolicLink(
                atPath: fsck, withDestinationPath: try AegisCommand.requirePath())
            let preened = try run([fsck, "-p", folder.path + "/copy.img"], seconds: 60)
            expect(preened, 1, "lost: up to", "/scattered-")
        }
    }

    /// Three files written in turns, so that each lies in hundreds of extents.
    private func scatter(_ path: String) throws {
        try ImageFile(path).withVolume { try Self.scatter(in: $0.fileSystem) }
    }

    private static func scatter(in fs: FileSystem) throws {
        var inodes: [InodeNumber] = []
        for name in ["a", "b", "c"] {
            let made = try Array("scattered-\(name)".utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: 0o100644))
            }
            inodes.append(made.inode)
        }
        for piece in 0..<500 {
            for (index, inode) in inodes.enumerated() {
                let bytes = [UInt8](repeating: 97 + UInt8(index), count: 4096)
                _ = try bytes.withView { try fs.write(inode, at: UInt64(piece) << 12, $0) }
            }
        }
        for inode in inodes { fs.release(inode, count: 1) }
    }

    /// First blocks of both copies of the root and of a leaf in the middle.
    private func rootAndLeaf(_ path: String) throws -> [UInt64] {
        let device = try FileBlockDevice(path: path, access: .readOnly, lock: false)
        defer { device.close() }
        var options = OpenOptions()
        options.readOnly = true
        let volume = try Volume.open(device, modules: .standard, options: options)
        defer { try? volume.close() }
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let root = NodeValidator.Expectation(
            pointer: superblock.headRoot, tree: .files, lower: nil, upper: nil)
        let page = try volume.nodes.read(root)
        #expect(page.level == 1 && page.node.count > 4)
        let leaf = try root.child(page.node, page.node.count / 2)
        return [root.pointer, leaf.pointer].flatMap { pointer in
            (0..<pointer.replicas.count).map { pointer.replicas[$0].block }
        }
    }

    /// What a crash leaves in the journal is no damage.
    @Test(.enabled(if: TestMachine.canMount)) func aCrashIsNoFinding() throws {
        try withVolume(size: "128M") { volume, folder in
            let image = volume.target
            try volume.mountInForeground()
            let root = volume.directory.path
            try require([
                "/bin/sh", "-c",
                "for i in $(seq 200); do echo $i > \(root)/f$i; done; cp -r /usr/include/linux \(root)/t;"
                    + " sync -f \(root); rm \(root)/f1*; cp \(root)/t/fs.h \(root)/g; sync \(root)/g",
            ])
            try volume.killDaemon()
            expect(try AegisCommand.run("check", image), 0, "clean", "in the journal")
            let trial = try AegisCommand.run("check", "--repair", "--dry-run", image)
            expect(trial, 0, "clean", "would be brought back")
            try require(["cp", "--sparse=always", image, folder.path + "/copy.img"])
            let done = try AegisCommand.run("check", "--repair", "--yes", image)
            expect(done, 0, "clean", "were brought back")
            #expect(!done.output.contains("AEGIS-1"), "\(done.output)")
            expect(try AegisCommand.run("check", image), 0, "clean")

            let fsck = folder.appendingPathComponent("fsck.aegisfs").path
            try FileManager.default.createSymbolicLink(
                atPath: fsck, withDestinationPath: try AegisCommand.requirePath())
            expect(try run([fsck, "-p", folder.path + "/copy.img"], seconds: 60), 0)
            try volume.mount()
            try require(["/bin/sh", "-c", "test -e \(root)/g && test ! -e \(root)/f1"])
            try volume.unmount()
        }
    }

    @Test(.enabled(if: TestMachine.canLoop)) func aLoopDeviceIsRepaired() throws {
        try withLoopDevice(size: "64M") { device, folder in
            let volume = try MountedVolume(device: device, in: folder)
            defer { volume.cleanUp() }
            try fill(device, files: 40)
            try damage(device)
            expect(try AegisCommand.run("check", "--repair", device), 13, "AEGIS-0253")
            expect(try AegisCommand.run("check", "--repair", "--yes", device), 4, "repaired")
            expect(try AegisCommand.run("check", device), 0, "clean")
            try volume.mount()
            try require([
                "/bin/sh", "-c", "test $(ls '\(volume.directory.path)/lost+found' | wc -l) = 1",
            ])
            try volume.unmount()
        }
    }

    @Test func fsckRepairs() throws {
        try withVolume(size: "64M") { volume, directory in
            let image = volume.target
            try fill(image, files: 10)
            let fsck = directory.appendingPathComponent("fsck.aegisfs").path
            try FileManager.default.createSymbolicLink(
                atPath: fsck, withDestinationPath: try AegisCommand.requirePath())
            for (option, code) in [("-p", 0), ("-n", 4), ("-p", 1), ("-y", 0)] as [(String, Int32)]
            {
                if option == "-n" { try damage(image) }
                expect(try run([fsck, option, image], seconds: 60), code)
            }
        }
    }

    @Test(.enabled(if: TestMachine.canMount)) func aMountIsNotRepaired() throws {
        try withVolume(size: "64M") { volume, _ in
            try volume.mount()
            for target in [volume.target, volume.directory.path] {
                expect(
                    try AegisCommand.run("check", "--repair", "--yes", target), 11, "mounted",
                    "umount")
            }
            try volume.unmount()
            expect(try AegisCommand.run("check", "--repair", "--yes", volume.target), 0)
        }
    }

    /// What `kill -9` leaves of a repair is repaired by the next one.
    @Test func aKilledRepairIsDoneAgain() throws {
        try withVolume(size: "256M") { volume, _ in
            let image = volume.target
            try fill(image, files: 3000)
            var kills = 0
            for pause in [2000, 5000, 10000, 20000, 40000, 80000] as [UInt32] {
                try damageMuch(image)
                let command = Process()
                command.executableURL = URL(fileURLWithPath: try AegisCommand.requirePath())
                command.arguments = ["check", "--repair", "--yes", "-q", image]
                command.standardOutput = FileHandle.nullDevice
                try command.run()
                usleep(pause)
                kill(command.processIdentifier, SIGKILL)
                command.waitUntilExit()
                if command.terminationReason == .uncaughtSignal { kills += 1 }
                let again = try AegisCommand.run("check", "--repair", "--yes", "-q", image)
                #expect([0, 4].contains(again.exitCode), "\(again.output.suffix(400))")
                expect(try AegisCommand.run("check", image), 0, "clean")
            }
            #expect(kills > 0)
        }
    }

    /// Every hundredth file that still has its name loses it, and every record's block count is wrong.
    private func damageMuch(_ path: String) throws {
        try ImageFile(path).withVolume { volume in
            let fs = volume.fileSystem
            for index in 0..<3000 {
                let name = Array("file-\(index)".utf8)
                guard let found = try? name.withView({ try fs.lookup($0, in: .root) }) else {
                    continue
                }
                let transaction = Transaction()
                if index % 100 == 0 {
                    transaction.delete(Key(.root, .directoryEntry, name.withView { fs.hash($0) }))
                } else {
                    var record = try fs.record(of: found.inode)
                    record.blocks += 5
                    transaction.put(found.inode, record)
                }
                _ = try volume.commit(
                    Volume.Recording(transaction, [], .emergency, .upkeep), freezing: nil)
                fs.release(found.inode, count: 1)
            }
        }
    }
}
