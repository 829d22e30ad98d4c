/// The golden image of disk version 1: a small volume with something of everything, written once, kept for
/// ever as its non-zero blocks, and read by every later build.
///
/// - Invariant: the image never changes. Whoever has changed the format so that it cannot be read, or holds
///   something else, has broken every volume of version 1 (`docs/FORMAT.md`, versions).
///
/// A new disk version gets an image of its own: `AEGISFS_WRITE_GOLDEN=1` writes one that is not there.
import FSModules
import FSTestSupport
import Foundation
import Testing

@testable import FSCore

@Suite struct GoldenImageTests {
    private static let byteCount: UInt64 = 20 << 20
    private static var path: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("GoldenImages/version-1.blocks")
    }

    @Test func everyByteOfTheGoldenImageIsUnderstood() throws {
        if ProcessInfo.processInfo.environment["AEGISFS_WRITE_GOLDEN"] != nil,
            !FileManager.default.fileExists(atPath: Self.path.path)
        {
            try Self.write()
        }
        let device = try Self.read()
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.isEmpty, "\(report.findings)")
        #expect(report.inodes == 315)

        var options = OpenOptions()
        options.readOnly = true
        let volume = try Volume.open(device, modules: .standard, options: options)
        let status = volume.status()
        #expect(status.diskVersion == 1)
        // A journal, snapshots, encoded extents, moved blocks.
        #expect(status.incompatibleFeatures == 0b1111)
        #expect(volume.remaps.movedBlocks > 0)
        #expect(status.label == "golden")
        #expect(status.uuid.description == "00112233-4455-4677-8899-aabbccddeeff")
        let fs = volume.fileSystem
        func lookup(_ name: String) throws -> Attributes {
            try Array(name.utf8).withView { try fs.lookup($0, in: .root) }
        }
        func bytes(_ inode: InodeNumber, _ count: Int) throws -> [UInt8] {
            let buffer = ByteBuffer(count: 1 << 20)
            let got = try fs.read(inode, at: 0, into: buffer.bytes)
            #expect(got == count)
            return buffer.view.slice(0, got).toArray()
        }
        let small = try lookup("small")
        #expect(try bytes(small.inode, 5) == Array("small".utf8))
        #expect(small.linkCount == 2)
        let large = try lookup("large")
        #expect(try bytes(large.inode, 300_000) == Self.pattern)
        #expect(large.modificationTime == Timestamp(seconds: -1, nanoseconds: 999_999_999))
        #expect(
            try fs.symbolicLinkTarget(of: lookup("symlink").inode) == Array("to/somewhere".utf8))
        let value = try Array("user.long".utf8).withView {
            try fs.extendedAttribute($0, of: small.inode)
        }
        #expect(value == Array(Self.pattern.prefix(20_000)))
        let device1 = try lookup("device")
        #expect(device1.device == DeviceNumber(major: 7, minor: 300))
        let double = try lookup("double")
        #expect(double.blocks512 == 2 * large.blocks512)
        #expect(try bytes(double.inode, 300_000) == Self.pattern)
        let copies = try fs.property(.copies, of: double.inode)
        #expect(copies == PropertyValue(value: "2", isSet: true))
        #expect(try fs.property(.scrubInterval, of: .root).value == "30d")
        let directory = try lookup("directory")
        #expect(directory.size == 300)
        #expect(try bytes(lookup("shared").inode, 300_000) == Self.pattern)
        let packed = try lookup("packed")
        #expect(try bytes(packed.inode, 400_000) == Self.compressible)
        #expect(packed.blocks512 < 400)
        // A snapshot: the file was another then, and one that was deleted is there.
        let moment = try volume.snapshotStore.files(of: Array("moment".utf8))
        func before(_ name: String, _ count: Int) throws -> [UInt8] {
            let inode = try Array(name.utf8).withView { try moment.lookup($0, in: .root) }.inode
            let buffer = ByteBuffer(count: 1 << 20)
            return buffer.view.slice(0, try moment.read(inode, at: 0, into: buffer.bytes)).toArray()
        }
        #expect(try before("small", 3) == Array("old".utf8))
        #expect(try before("gone", 300_000) == Self.pattern.reversed())
        let clone = try volume.snapshotStore.files(ofClone: Array("clone".utf8))
        #expect(
            try Array("only here".utf8).withView { try clone.lookup($0, in: .root) }.size == 0)
        try volume.close()
    }

    private static let pattern = (0..<300_000).map {
        UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8)
    }

    private static let compressible = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 >> 9) }

    private static func write() throws {
        // Larger at first, so that shrinking moves something.
        let device = MemoryBlockDevice(byteCount: 32 << 20)
        var format = FormatOptions()
        format.label = "golden"
        format.uuid = VolumeUUID(high: 0x0011_2233_4455_4677, low: 0x8899_AABB_CCDD_EEFF)
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let fs = volume.fileSystem
        func make(_ name: String, _ mode: UInt32, in directory: InodeNumber = .root) throws
            -> InodeNumber
        {
            var new = NewInode(mode: mode)
            new.device = DeviceNumber(major: 7, minor: 300)
            let made = try Array(name.utf8).withView { try fs.create($0, in: directory, new) }
            fs.release(made.inode, count: 1)
            return made.inode
        }
        func remove(_ name: String) throws {
            try Array(name.utf8).withView { try fs.unlink($0, in: .root) }
        }
        // Takes what is in front, from where data begins.
        let filler = try make("filler", 0o100644)
        for part in 0..<14 as Range<UInt64> {
            _ = try [UInt8](repeating: 0, count: 1 << 20).withView {
                try fs.write(filler, at: part << 20, $0)
            }
        }
        let small = try make("small", 0o100644)
        _ = try Array("old".utf8).withView { try fs.write(small, at: 0, $0) }
        let gone = try make("gone", 0o100644)
        _ = try Array(pattern.reversed()).withView { try fs.write(gone, at: 0, $0) }
        try remove("filler")
        try volume.snapshotStore.create(SnapshotLabel(name: Array("moment".utf8)))
        try volume.snapshotStore.clone(
            Array("moment".utf8), as: SnapshotLabel(name: Array("clone".utf8)))
        let clone = try volume.snapshotStore.files(ofClone: Array("clone".utf8))
        _ = try Array("only here".utf8).withView {
            try clone.create($0, in: .root, NewInode(mode: 0o100644))
        }
        try remove("gone")
        _ = try Array("small".utf8).withView { try fs.write(small, at: 0, $0) }
        _ = try Array("second name".utf8).withView { try fs.link(small, as: $0, in: .root) }
        try Array("user.long".utf8).withView { name in
            try Array(pattern.prefix(20_000)).withView {
                try fs.setExtendedAttribute(name, of: small, $0, .createOrReplace)
            }
        }
        let large = try make("large", 0o100600)
        _ = try pattern.withView { try fs.write(large, at: 0, $0) }
        var times = AttributeChanges()
        times.modificationTime = .at(Timestamp(seconds: -1, nanoseconds: 999_999_999))
        _ = try fs.setAttributes(of: large, times)
        _ = try Array("symlink".utf8).withView { name in
            try Array("to/somewhere".utf8).withView {
                try fs.createSymbolicLink(name, in: .root, target: $0, userID: 1, groupID: 2)
            }
        }
        _ = try make("device", 0o020640)
        _ = try make("fifo", 0o010640)
        let double = try make("double", 0o100644)
        try fs.setProperty(.copies, of: double, "2")
        _ = try pattern.withView { try fs.write(double, at: 0, $0) }
        try fs.setProperty(.scrubInterval, of: .root, "30d")
        let packed = try make("packed", 0o100644)
        try fs.setProperty(.compression, of: packed, "zstd")
        _ = try compressible.withView { try fs.write(packed, at: 0, $0) }
        let shared = try make("shared", 0o100644)
        _ = try fs.copyRange(from: large, at: 0, to: shared, at: 0, count: 300_000)
        let directory = try make("directory", 0o040755)
        for index in 0..<300 { _ = try make("entry-\(index)", 0o100644, in: directory) }
        let sparse = try make("sparse", 0o100644)
        try fs.allocate(sparse, at: 1 << 20, count: 1 << 20, [])
        _ = try volume.resize(.bytes(byteCount))
        try volume.close()

        var file = Data()
        let block = ByteBuffer(count: 4096)
        for number in 0..<byteCount >> 12 {
            try device.read(into: block.bytes, at: number << 12)
            guard !block.view.isAllZero else { continue }
            withUnsafeBytes(of: number.littleEndian) { file.append(contentsOf: $0) }
            file.append(contentsOf: block.view.toArray())
        }
        try FileManager.default.createDirectory(
            at: path.deletingLastPathComponent(), withIntermediateDirectories: true)
        try file.write(to: path)
    }

    private static func read() throws -> MemoryBlockDevice {
        let device = MemoryBlockDevice(byteCount: byteCount)
        let file = [UInt8](try Data(contentsOf: path))
        #expect(file.count % 4104 == 0)
        for start in stride(from: 0, to: file.count, by: 4104) {
            let number = file[start..<start + 8].reversed().reduce(0 as UInt64) {
                $0 << 8 | UInt64($1)
            }
            try Array(file[start + 8..<start + 4104]).withView {
                try device.write($0, at: number << 12)
            }
        }
        return device
    }
}
