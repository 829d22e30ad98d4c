/// Large reads ask the device for exactly the file's blocks, each once, and ahead only where somebody
/// reads on.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct ReadAheadTests {
    /// Notes what it was told to fetch.
    private final class Device: BlockDevice, @unchecked Sendable {
        let device: MemoryBlockDevice
        private let lock = Mutex()
        private var fetched: [Range<UInt64>] = []
        init(byteCount: UInt64) { device = MemoryBlockDevice(byteCount: byteCount) }

        var byteCount: UInt64 { device.byteCount }
        var sectorSize: Int { device.sectorSize }
        var name: String { device.name }
        var isReadOnly: Bool { false }
        func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
            try device.read(into: target, at: offset)
        }
        func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
            try device.write(source, at: offset)
        }
        func flush() throws(FSError) {}
        func discard(at offset: UInt64, count: UInt64) throws(FSError) {}
        func prefetch(at offset: UInt64, count: UInt64) {
            lock.withLock { fetched.append(offset >> 12..<(offset + count) >> 12) }
        }
        func takeFetched() -> [Range<UInt64>] {
            lock.withLock {
                defer { fetched = [] }
                return fetched
            }
        }
    }

    /// Two files written in turns, so that each lies in many runs.
    private func twoFiles(
        _ device: Device, compression: String? = nil
    ) throws -> (volume: Volume, inode: InodeNumber) {
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let inodes = try ["one", "other"].map { name in
            try Array(name.utf8).withView { (name) throws(FSError) in
                try volume.fileSystem.create(
                    name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644)
                ).inode
            }
        }
        if let compression {
            for inode in inodes {
                try volume.fileSystem.setProperty(.compression, of: inode, compression)
            }
        }
        let piece = (0..<256 << 10).map { UInt8(truncatingIfNeeded: $0 >> 7) }
        for index in 0..<80 as Range<UInt64> {
            for inode in inodes {
                _ = try piece.withView { (view) throws(FSError) in
                    try volume.fileSystem.write(inode, at: index * UInt64(piece.count), view)
                }
            }
        }
        try volume.checkpoint(force: true)
        _ = device.takeFetched()
        return (volume, inodes[0])
    }

    private func read(
        _ volume: Volume, _ inode: InodeNumber, at offset: UInt64, _ count: Int
    ) throws {
        let buffer = ByteBuffer(count: count)
        #expect(try volume.fileSystem.read(inode, at: offset, into: buffer.bytes) == count)
    }

    private func blocks(_ volume: Volume, _ inode: InodeNumber) throws -> [UInt64] {
        try volume.fileSystem.fileMap.extents(inode, 0..<1 << 40)
            .flatMap { Array($0.record.storedRun(0).blocks) }.sorted()
    }

    @Test(arguments: [nil, "zstd"] as [String?], [128 << 10, 512 << 10, 1 << 20])
    func everyBlockIsAskedForOnce(compression: String?, size: Int) throws {
        let device = Device(byteCount: 128 << 20)
        let (volume, inode) = try twoFiles(device, compression: compression)
        let extents = try volume.fileSystem.fileMap.extents(inode, 0..<1 << 40).count
        #expect(extents >= 80)
        let end: UInt64 = 80 * 256 << 10
        for offset in stride(from: 0, to: end, by: size) {
            try read(volume, inode, at: offset, size)
        }
        let fetched = device.takeFetched().flatMap { Array($0) }
        #expect(try fetched.sorted() == blocks(volume, inode))
        try volume.close()
    }

    @Test func nobodyElsesReadIsGuessed() throws {
        let device = Device(byteCount: 128 << 20)
        let (volume, inode) = try twoFiles(device)
        // Backwards, and by leaps: what is read is fetched, and nothing besides.
        for part in [60, 40, 20, 70, 33] as [UInt64] {
            try read(volume, inode, at: part * 256 << 10, 256 << 10)
            #expect(device.takeFetched().reduce(0) { $0 + $1.count } == 64)
        }
        // Small reads of one run ask for nothing.
        try read(volume, inode, at: 5 * 256 << 10, 16 << 10)
        #expect(device.takeFetched().isEmpty)
        // Whoever begins at the start, or goes on, gets more and more ahead, up to 8 MiB.
        for part in 0..<30 as Range<UInt64> {
            try read(volume, inode, at: part * 512 << 10, 512 << 10)
        }
        let ahead = device.takeFetched().reduce(0) { $0 + $1.count } - 30 * 128
        #expect((1...2048).contains(ahead), "\(ahead)")
        try volume.close()
    }

    /// A file in one run is left to the page cache below, which knows how to read along the device.
    @Test func oneRunIsLeftAlone() throws {
        let device = Device(byteCount: 128 << 20)
        let (volume, _) = try twoFiles(device)
        let made = try Array("solid".utf8).withView { (name) throws(FSError) in
            try volume.fileSystem.create(
                name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        for index in 0..<8 as Range<UInt64> {
            _ = try piece.withView { (view) throws(FSError) in
                try volume.fileSystem.write(made.inode, at: index << 20, view)
            }
        }
        for index in 0..<8 as Range<UInt64> {
            try read(volume, made.inode, at: index << 20, 1 << 20)
        }
        #expect(device.takeFetched().isEmpty)
        try volume.close()
    }

    /// Requests of one reader that come in another order are his all the same.
    @Test func readersAreKnownInAnyOrder() {
        let readers = SequentialReaders()
        let inode = InodeNumber(99)
        #expect(readers.window(inode, 0..<256) == 0..<1280)
        #expect(readers.window(inode, 512..<768) == 1280..<2816)
        #expect(readers.window(inode, 256..<512).isEmpty)
        #expect(readers.window(inode, 768..<1024).isEmpty)
        #expect(readers.window(inode, 1024..<2048) == 2816..<4096)
        // Another place.
        #expect(readers.window(inode, 100_000..<100_256) == 100_000..<100_256)
        #expect(readers.window(inode, 100_256..<100_512) == 100_256..<100_768)
    }
}
