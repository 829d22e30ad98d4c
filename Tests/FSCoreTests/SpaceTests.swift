/// A small volume filled to the brim and emptied again: deleting always works, and everything comes
/// back.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct SpaceTests {
    private let file = NewInode(mode: FileKind.regular.modeBits | 0o644)

    private func volume(_ mebibytes: UInt64) throws -> (MemoryBlockDevice, Volume) {
        let device = MemoryBlockDevice(byteCount: mebibytes << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return (device, try Volume.open(device, modules: .standard, options: options))
    }

    /// Writes until there is no space; returns how much went in.
    private func fill(_ fs: FileSystem, _ inode: InodeNumber, piece: Int) throws -> UInt64 {
        let bytes = [UInt8](repeating: 0x5A, count: piece)
        var offset: UInt64 = 0
        while true {
            do throws(FSError) {
                _ = try bytes.withView { (view) throws(FSError) in
                    try fs.write(inode, at: offset, view)
                }
                offset += UInt64(piece)
            } catch {
                #expect(error == .noSpace)
                return offset
            }
        }
    }

    /// A file cut into thousands of extents on a full volume, unlinked while it is held: its last
    /// reference frees it all the same.
    @Test(arguments: [16, 64] as [UInt64])
    func aFragmentedFileIsReclaimedOnAFullVolume(mebibytes: UInt64) throws {
        var random = SeededRandom(seed: mebibytes)
        let (device, volume) = try volume(mebibytes)
        let fs = volume.fileSystem
        try volume.checkpoint()
        let before = fs.statistics().freeBlocks
        for round in 0..<3 {
            let big = try Array("big".utf8).withView { try fs.create($0, in: .root, file) }
            let size = try fill(fs, big.inode, piece: 256 << 10)
            #expect(size > mebibytes << 19)
            for _ in 0..<400 {
                let bytes = random.bytes(random.integer(in: 1...20_000))
                let offset = UInt64(random.below(Int(size) - 20_000))
                _ = try? bytes.withView { try fs.write(big.inode, at: offset, $0) }
            }
            for offset in stride(from: 0, to: size, by: 65536) {
                try fs.allocate(big.inode, at: offset, count: 8192, [.punchHole, .keepSize])
            }
            try Array("big".utf8).withView { try fs.unlink($0, in: .root) }
            fs.release(big.inode, count: 1)
            #expect(fs.orphans.count == 0, "round \(round)")
            try volume.checkpoint()
            let after = fs.statistics().freeBlocks
            #expect(
                before - min(after, before) <= 64,
                "round \(round): \(before) before, \(after) after")
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).findings.isEmpty)
    }

    /// Small files until nothing fits, then all of them deleted; three times over.
    @Test func smallFilesFillAndFree() throws {
        let (device, volume) = try volume(24)
        let fs = volume.fileSystem
        try volume.checkpoint()
        let before = fs.statistics().freeBlocks
        for round in 0..<3 {
            var count = 0
            filling: while true {
                let content = [UInt8](repeating: 7, count: 1 + count % 6000)
                do throws(FSError) {
                    let made = try Array("f\(count)".utf8).withView { (name) throws(FSError) in
                        try fs.create(name, in: .root, file)
                    }
                    fs.release(made.inode, count: 1)
                    count += 1
                    _ = try content.withView { (view) throws(FSError) in
                        try fs.write(made.inode, at: 0, view)
                    }
                } catch {
                    #expect(error == .noSpace)
                    break filling
                }
            }
            #expect(count > 2000)
            for index in 0..<count {
                try Array("f\(index)".utf8).withView { try fs.unlink($0, in: .root) }
            }
            try volume.checkpoint()
            let after = fs.statistics().freeBlocks
            #expect(
                before - min(after, before) <= 64,
                "round \(round): \(before) before, \(after) after")
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).findings.isEmpty)
    }

    @Test func fallocateAndCopyTakeSetUserIDAway() throws {
        let (_, volume) = try volume(16)
        let fs = volume.fileSystem
        func make(_ name: String) throws -> InodeNumber {
            let inode = try Array(name.utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: 0o106777))
            }.inode
            _ = try [UInt8](repeating: 1, count: 9000).withView { try fs.write(inode, at: 0, $0) }
            return inode
        }
        for mode in [[], [.punchHole, .keepSize], [.zeroRange]] as [AllocationMode] {
            let inode = try make("allocated-\(mode.rawValue)")
            #expect(try fs.attributes(of: inode).mode & 0o7777 == 0o6777)
            try fs.allocate(inode, at: 0, count: 4096, mode, by: OrdinaryUser(process: 0))
            #expect(try fs.attributes(of: inode).mode & 0o7777 == 0o777)
        }
        let source = try make("source")
        let target = try make("target")
        #expect(
            try fs.copyRange(
                from: source, at: 0, to: target, at: 0, count: 9000, by: OrdinaryUser(process: 0))
                == 9000)
        #expect(try fs.attributes(of: target).mode & 0o7777 == 0o777)
        #expect(try fs.attributes(of: source).mode & 0o7777 == 0o6777)
        try volume.close()
    }

    @Test(arguments: [
        ("foo", FSError.notSupported), ("user.", .invalidArgument), ("system.foo", .notSupported),
        ("foo.bar", .notSupported),
    ])
    func attributeNamespacesAreThoseOfLinux(name: String, error: FSError) throws {
        let (_, volume) = try volume(16)
        #expect(throws: error) {
            try Array(name.utf8).withView { name in
                try [1].withView {
                    try volume.fileSystem.setExtendedAttribute(
                        name, of: .root, $0, .createOrReplace)
                }
            }
        }
        try volume.close()
    }

    /// The largest range that fallocate(2) can name is refused at once, not listed first.
    @Test(.timeLimit(.minutes(15))) func theLargestPromiseIsRefused() throws {
        let (_, volume) = try volume(64)
        let fs = volume.fileSystem
        let made = try Array("file".utf8).withView { try fs.create($0, in: .root, file) }
        try volume.checkpoint()
        let before = fs.statistics().availableBlocks
        for count in [DiskFormat.maximumFileSize, 1 << 40, 65 << 20] {
            #expect(throws: FSError.noSpace) {
                try fs.allocate(made.inode, at: 0, count: count, [])
            }
        }
        #expect(fs.statistics().availableBlocks >= before)
        try volume.close()
    }
}
