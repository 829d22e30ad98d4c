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
