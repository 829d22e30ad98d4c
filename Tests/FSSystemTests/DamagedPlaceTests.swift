/// An image with damage at every kind of place, by the command: it mounts and what can be read is right, or
/// it is refused with a sentence; nothing crashes, and where a second copy is good nothing is missing.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct DamagedPlaceTests {
    private static let fileCount = 30_000

    /// Something on the device, by the first blocks of its copies.
    private struct Place {
        var name: String
        var copies: [UInt64]
        var blocks: UInt64 = 1
    }

    @Test(.enabled(if: TestMachine.canMount)) func itMountsOrRefuses() throws {
        try withVolume(size: "256M") { volume, folder in
            try fill(volume.target)
            let places = try places(volume.target)
            #expect(
                Set(places.map(\.name)) == [
                    "superblock", "bitmap", "root", "inner node", "leaf", "journal",
                    "data in two copies", "data in one copy",
                ])
            let whole = folder.appendingPathComponent("whole.img").path
            try require(["cp", "--sparse=always", volume.target, whole])
            for place in places {
                let zeros = [UInt8](repeating: 0, count: 4096)
                for (count, bytes) in [
                    (1, garbage()), (place.copies.count, zeros), (place.copies.count, garbage()),
                ] {
                    try require(["cp", "--sparse=always", whole, volume.target])
                    for copy in place.copies.prefix(count) {
                        for block in copy..<copy + place.blocks {
                            try ImageFile(volume.target).write(bytes, at: block * 4096)
                        }
                    }
                    try examine(volume, place.name, hasGoodCopy: count < place.copies.count)
                }
            }
        }
    }

    private func garbage() -> [UInt8] {
        var random = SeededRandom(seed: 8)
        return random.bytes(4096)
    }

    /// Ends by itself, with a documented code, and says why if it failed.
    private func run(_ arguments: String..., place: String) throws -> ProcessResult {
        let result = try FSTestSupport.run([AegisCommand.requirePath()] + arguments, seconds: 120)
        let what = "\(place): aegisfs \(arguments[0]): \(result.exitCode) \(result.errors)"
        #expect([0, 1, 3, 4, 10].contains(result.exitCode) && !result.isTimedOut, "\(what)")
        if result.exitCode == 1 || result.exitCode == 10 {
            #expect(result.errors.contains("[AEGIS-") && result.errors.count > 40, "\(what)")
        }
        return result
    }

    private func examine(_ volume: MountedVolume, _ place: String, hasGoodCopy: Bool) throws {
        let image = volume.target
        let checked = try run("check", image, place: place)
        if !place.hasPrefix("data"), place != "journal" {
            #expect(checked.exitCode != 0, "\(place)")
        }
        _ = try run("status", image, place: place)
        let mounted = try run("mount", image, volume.directory.path, place: place)
        if hasGoodCopy { #expect(mounted.exitCode == 0, "\(place): \(mounted.errors)") }
        if mounted.exitCode == 0 { try use(volume, place, hasGoodCopy: hasGoodCopy) }
        let repaired = try run("check", "--repair", "--yes", image, place: place)
        if repaired.exitCode != 10 {
            // With damage that has no good copy something may be lost; it is said what.
            #expect([0, 3, 4].contains(repaired.exitCode), "\(place)")
            #expect(
                repaired.output.contains("; lost: ") == (repaired.exitCode == 3),
                "\(place): \(repaired.output.suffix(300))")
            #expect(try run("check", image, place: place).exitCode == 0, "\(place)")
        }
    }

    private func use(_ volume: MountedVolume, _ place: String, hasGoodCopy: Bool) throws {
        let image = volume.target
        let wrong = try readAll(volume.directory.path)
        #expect(wrong.bytes == 0, "\(place)")
        if hasGoodCopy { #expect(wrong.missing == 0, "\(place)") }
        let scrubbed = try run("scrub", volume.directory.path, place: place)
        if hasGoodCopy { #expect([0, 4].contains(scrubbed.exitCode), "\(place)") }
        let status = try run("status", volume.directory.path, place: place)
        #expect([0, 3].contains(status.exitCode), "\(place): \(status.errors)")
        // Without a bitmap for a part of the device the volume may have become read-only, and says so.
        let unmounted = try run("umount", volume.directory.path, place: place)
        #expect(unmounted.exitCode == 0 || !hasGoodCopy, "\(place)")
        #expect(!MountTable.isMounted(volume.directory), "\(place)")
        if hasGoodCopy { #expect(try run("check", image, place: place).exitCode == 0, "\(place)") }
    }

    // MARK: The volume

    private static func content(_ index: Int) -> [UInt8] {
        [UInt8](
            repeating: UInt8(truncatingIfNeeded: index),
            count: index % 49 == 0 && index < 300 ? 50_000 : index % 7)
    }

    private func fill(_ path: String) throws {
        try ImageFile(path).withVolume { volume in
            let fs = volume.fileSystem
            for index in 0..<Self.fileCount {
                let inode = try Array("file-\(index)".utf8).withView {
                    try fs.create($0, in: .root, NewInode(mode: 0o100644)).inode
                }
                fs.release(inode, count: 1)
                if index < 4 { try fs.setProperty(.copies, of: inode, "2") }
                _ = try Self.content(index).withView { try fs.write(inode, at: 0, $0) }
            }
        }
    }

    /// Files whose bytes are wrong, and of which something cannot be had.
    private func readAll(_ directory: String) throws -> (bytes: Int, missing: Int) {
        var found = (bytes: 0, missing: 0)
        for index in stride(from: 0, to: Self.fileCount, by: 49) {
            let path = "\(directory)/file-\(index)"
            guard let file = fopen(path, "r") else {
                found.missing += 1
                continue
            }
            defer { fclose(file) }
            let wanted = Self.content(index)
            var got = [UInt8](repeating: 0, count: wanted.count + 1)
            let count = fread(&got, 1, got.count, file)
            if ferror(file) != 0 || count < wanted.count {
                found.missing += 1
            } else if Array(got.prefix(count)) != wanted {
                found.bytes += 1
            }
        }
        return found
    }

    private func places(_ path: String) throws -> [Place] {
        let device = try FileBlockDevice(path: path, access: .readOnly, lock: false)
        defer { device.close() }
        var options = OpenOptions()
        options.readOnly = true
        let volume = try Volume.open(device, modules: .standard, options: options)
        defer { try? volume.close() }
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        let copies = try ImageFile(path).superblockOffsets().map { $0 / 4096 }
        var places = [
            Place(name: "superblock", copies: copies),
            Place(name: "journal", copies: [superblock.journalExtents[0].start.block]),
        ]
        let slot = try volume.allocator.store.entry(ofRegion: 0).liveSlot
        let bitmap = volume.layout.bitmapPlaces(.leaf, index: 0, slot: slot)
        places.append(Place(name: "bitmap", copies: [bitmap.0, bitmap.1]))
        var expected = NodeValidator.Expectation(
            pointer: superblock.headRoot, tree: .files, lower: nil, upper: nil)
        #expect(superblock.headRoot.level == 2)
        for name in ["root", "inner node", "leaf"] {
            let replicas = expected.pointer.replicas
            places.append(
                Place(
                    name: name, copies: (0..<replicas.count).map { replicas[$0].block }, blocks: 4))
            let page = try volume.nodes.read(expected)
            if page.level > 0 { expected = try expected.child(page.node, page.node.count / 2) }
        }
        for (name, file) in [("data in two copies", "file-0"), ("data in one copy", "file-49")] {
            let fs = volume.fileSystem
            let inode = try Array(file.utf8).withView { try fs.lookup($0, in: .root).inode }
            let extent = try #require(try fs.fileMap.extents(inode, 0..<(1 << 30)).first)
            let replicas = extent.record.replicas
            places.append(
                Place(
                    name: name, copies: (0..<replicas.count).map { replicas[$0].block }, blocks: 3))
        }
        return places
    }
}
