/// The golden image of this disk version: a small volume written once, kept as its non-zero blocks,
/// and read by every later build. A change of the format makes it unreadable or changes what it
/// holds; then version, fingerprints and image change together.
///
/// `AEGISFS_WRITE_GOLDEN=1` writes it anew.
import FSModules
import FSTestSupport
import Foundation
import Testing

@testable import FSCore

@Suite struct GoldenImageTests {
    private static let byteCount: UInt64 = 16 << 20
    private static var path: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("GoldenImages/version-\(DiskFormat.version).blocks")
    }

    @Test func everyByteOfTheGoldenImageIsUnderstood() throws {
        if ProcessInfo.processInfo.environment["AEGISFS_WRITE_GOLDEN"] != nil { try Self.write() }
        let device = try Self.read()
        let report = try Checker.check(device, modules: .standard)
        #expect(report.findings.isEmpty, "\(report.findings)")
        #expect(report.inodes == 309)

        var options = OpenOptions()
        options.readOnly = true
        let volume = try Volume.open(device, modules: .standard, options: options)
        let status = volume.status()
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
        try volume.close()
    }

    private static let pattern = (0..<300_000).map {
        UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8)
    }

    private static func write() throws {
        let device = MemoryBlockDevice(byteCount: byteCount)
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
        let small = try make("small", 0o100644)
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
        let directory = try make("directory", 0o040755)
        for index in 0..<300 { _ = try make("entry-\(index)", 0o100644, in: directory) }
        let sparse = try make("sparse", 0o100644)
        try fs.allocate(sparse, at: 1 << 20, count: 1 << 20, [])
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
