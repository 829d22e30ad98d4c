/// Moved blocks stay shared: a volume with a hundred snapshots and with reflinks uses as much after it
/// was shrunk as before, and every one of them shows what it showed.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct ResizeSnapshotTests {
    private final class Rig {
        let device: MemoryBlockDevice
        let volume: Volume
        var random: SeededRandom
        var files: [String: [UInt8]] = [:]
        var moments: [(name: [UInt8], files: [String: [UInt8]])] = []

        init(mebibytes: UInt64, seed: UInt64) throws {
            device = MemoryBlockDevice(byteCount: mebibytes << 20)
            random = SeededRandom(seed: seed)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            volume = try Volume.open(device, modules: .standard, options: options)
        }

        func inode(_ name: String, in fs: FileSystem) throws -> InodeNumber {
            let found = try Array(name.utf8).withView { (name) throws(FSError) in
                try fs.lookup(name, in: .root)
            }
            fs.release(found.inode, count: 1)
            return found.inode
        }

        func make(_ name: String) throws -> InodeNumber {
            let made = try Array(name.utf8).withView { (name) throws(FSError) in
                try volume.fileSystem.create(
                    name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            volume.fileSystem.release(made.inode, count: 1)
            return made.inode
        }

        func write(_ name: String, bytes: Int) throws {
            let content = random.bytes(bytes)
            let inode = try make(name)
            _ = try content.withView { (view) throws(FSError) in
                try volume.fileSystem.write(inode, at: 0, view)
            }
            files[name] = content
        }

        /// Writes over a part of a file: the blocks before are a snapshot's from then on.
        func change(_ name: String) throws {
            guard var content = files[name], content.count > 8192 else { return }
            let start = random.below(content.count - 4096)
            let part = random.bytes(4096)
            content.replaceSubrange(start..<start + 4096, with: part)
            let inode = try inode(name, in: volume.fileSystem)
            _ = try part.withView { (view) throws(FSError) in
                try volume.fileSystem.write(inode, at: UInt64(start), view)
            }
            files[name] = content
        }

        func share(_ name: String, with other: String) throws {
            let to = try make(name)
            let content = files[other] ?? []
            _ = try volume.fileSystem.copyRange(
                from: inode(other, in: volume.fileSystem), at: 0, to: to, at: 0,
                count: UInt64(content.count))
            files[name] = content
        }

        func remove(_ name: String) throws {
            try Array(name.utf8).withView { (name) throws(FSError) in
                try volume.fileSystem.unlink(name, in: .root)
            }
            files[name] = nil
        }

        func snapshot(_ name: String) throws {
            try volume.snapshotStore.create(SnapshotLabel(name: Array(name.utf8)))
            moments.append((Array(name.utf8), files))
        }

        func used() throws -> UInt64 {
            for _ in 0...1 { try volume.checkpoint(force: true) }
            let figures = volume.fileSystem.statistics()
            return figures.totalBlocks - figures.freeBlocks - UInt64(volume.pool.count) * 8
        }

        func verify(_ fs: FileSystem, _ expected: [String: [UInt8]], _ what: String) throws {
            for (name, content) in expected {
                let buffer = ByteBuffer(count: max(content.count, 1))
                let count = try fs.read(inode(name, in: fs), at: 0, into: buffer.bytes)
                #expect(
                    count == content.count && buffer.view.slice(0, count).toArray() == content,
                    "\(what): \(name)")
            }
        }

        func verifyAll() throws {
            try verify(volume.fileSystem, files, "the head")
            for moment in moments {
                try verify(
                    volume.snapshotStore.files(of: moment.name), moment.files,
                    String(decoding: moment.name, as: UTF8.self))
            }
            let findings = try Checker.check(volume).findings
            #expect(findings.isEmpty, "\(findings.prefix(3))")
        }
    }

    @Test(arguments: [1, 2] as [UInt64]) func aHundredSnapshotsStayShared(seed: UInt64) throws {
        let rig = try Rig(mebibytes: 192, seed: seed)
        for index in 0..<30 {
            try rig.write("file\(index)", bytes: rig.random.pick([9000, 100_000, 900_000]))
        }
        for index in 0..<5 { try rig.share("shared\(index)", with: "file\(index)") }
        for index in 0..<100 {
            try rig.snapshot("moment\(index)")
            try rig.change("file\(rig.random.below(30))")
            if index % 7 == 0 { try rig.write("late\(index)", bytes: 50_000) }
            if index % 9 == 4 {
                let name = "late\(index / 7 * 7)"
                if rig.files[name] != nil { try rig.remove(name) }
            }
        }
        let before = try rig.used()
        let figures = try rig.volume.snapshotStore.figures().map(\.uniqueBlocks)
        let plan = try rig.volume.resize(.minimum)
        #expect(plan.newBytes < 140 << 20 && plan.movedBytes > 0, "\(plan)")
        let moved = rig.volume.remaps.movedBlocks
        #expect(moved > 0)
        // More are the entries alone that say where the blocks are now.
        let after = try rig.used()
        let entries = UInt64(rig.volume.remaps.sources(in: 0..<1 << 40).count)
        #expect(
            after <= before + entries / 50 + 64 && after + 64 >= before,
            "\(before) before, \(after) after, \(entries) entries")
        #expect(try rig.volume.snapshotStore.figures().map(\.uniqueBlocks) == figures)
        try rig.verifyAll()

        // Back again, everything comes home; and without the snapshots their space comes back.
        _ = try rig.volume.resize(.bytes(192 << 20))
        #expect(rig.volume.remaps.movedBlocks == 0)
        #expect(try rig.used() <= before + 64)
        try rig.verifyAll()
        try rig.volume.snapshotStore.delete(rig.moments.map(\.name))
        _ = try rig.volume.snapshotStore.sweep()
        rig.moments = []
        for name in Array(rig.files.keys) { try rig.remove(name) }
        let journal = rig.volume.superblock.journalExtents.reduce(0) { $0 + $1.count }
        #expect(try rig.used() < journal + 200)
        try rig.volume.close()
        #expect(try checkerProblem(rig.device) == nil)
    }
}
