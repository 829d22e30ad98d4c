/// Encoded extents: what they save, that whatever is done to them leaves the bytes right and the
/// space bounded, and that damaged or hostile ones end in an error.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct CompressionTests {
    static let codecs: [any Codec] = [LZ4Codec(), ZstdCodec(), ZlibCodec()]
    static let settings: [CompressionSetting] = [
        .codec(.lz4, level: 1), .codec(.lz4, level: 9), .codec(.zstd, level: 1), .standard,
        .codec(.zlib, level: 3),
    ]

    /// A volume in memory, with files by name.
    private struct Rig {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        var volume: Volume
        var fs: FileSystem { volume.fileSystem }

        init(_ compression: CompressionSetting = .standard, copies: Int = 1) throws {
            var format = FormatOptions()
            format.dataCopies = copies
            _ = try VolumeFormatter.format(device, modules: .standard, options: format)
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            options.compression = compression
            volume = try Volume.open(device, modules: .standard, options: options)
        }

        func create(
            _ name: String, kind: FileKind = .regular, in directory: InodeNumber = .root
        ) throws -> InodeNumber {
            let made = try Array(name.utf8).withView {
                try fs.create($0, in: directory, NewInode(mode: kind.modeBits | 0o644))
            }
            fs.release(made.inode, count: 1)
            return made.inode
        }
        func write(_ inode: InodeNumber, at offset: Int, _ bytes: [UInt8]) throws {
            _ = try bytes.withView { try fs.write(inode, at: UInt64(offset), $0) }
        }
        func content(_ inode: InodeNumber) throws -> [UInt8] {
            let buffer = ByteBuffer(count: Int(try fs.attributes(of: inode).size))
            let count = try fs.read(inode, at: 0, into: buffer.bytes)
            return buffer.view.slice(0, count).toArray()
        }
        func blocks(_ inode: InodeNumber) throws -> UInt64 {
            try fs.attributes(of: inode).blocks512 / 8
        }
        func extents(_ inode: InodeNumber) throws -> [FileMap.Extent] {
            try fs.fileMap.extents(inode, 0..<1 << 51)
        }
        func freeBlocks() throws -> UInt64 {
            try volume.checkpoint()
            try volume.checkpoint()
            return fs.statistics().freeBlocks
        }
        func findings() throws -> [CheckFinding] {
            try volume.checkpoint()
            return try Checker.check(volume).findings
        }
    }

    private static func text(_ seed: UInt64, _ count: Int) -> [UInt8] {
        Payload(.text, seed: seed, count: count).bytes
    }

    // MARK: Codecs

    @Test func codecsRestoreWhatTheyEncoded() {
        var random = SeededRandom(seed: 1)
        for codec in Self.codecs {
            for level in codec.kind.levels {
                for count in [8192, 20_480, 131_072] {
                    for pattern in [Payload.Pattern.text, .zeros, .repeating] {
                        let bytes = Payload(pattern, seed: random.next(), count: count).bytes
                        let room = ByteBuffer(count: count - 4096)
                        let decoded = ByteBuffer(count: count)
                        let length = bytes.withView {
                            codec.encode($0, into: room.bytes, level: level)
                        }
                        guard let length else {
                            Issue.record("\(codec.kind):\(level), \(count) of \(pattern)")
                            continue
                        }
                        let isRight = codec.decode(room.view.slice(0, length), into: decoded.bytes)
                        #expect(isRight && decoded.view.toArray() == bytes)
                    }
                }
            }
        }
    }

    /// Random bytes are given up at once, also where they are followed by what could be compressed.
    @Test func incompressibleDataIsNotEncoded() {
        var random = SeededRandom(seed: 2)
        for codec in Self.codecs {
            let bytes = random.bytes(131_072)
            let room = ByteBuffer(count: 131_072 - 4096)
            #expect(bytes.withView { codec.encode($0, into: room.bytes, level: 3) } == nil)
            // Looks random, byte by byte, but says everything four times.
            let piece = Array(bytes[..<16_384])
            let repeated = piece + piece + piece + piece
            let half = ByteBuffer(count: 65_536 - 4096)
            #expect(repeated.withView { codec.encode($0, into: half.bytes, level: 3) } != nil)
        }
    }

    /// Encoded bytes that somebody has changed decode to something as long as the target, or not at
    /// all; what lies behind the target stays as it was.
    @Test(arguments: 0..<3) func decodersTakeAnything(number: Int) {
        let codec = Self.codecs[number]
        var random = SeededRandom(seed: UInt64(number))
        let count = 65_536
        let guardCount = 4096
        let target = ByteBuffer(count: count + guardCount)
        var refused = 0
        let rounds = TestMachine.count("AEGISFS_TEST_DECODES", default: 4000)
        for round in 0..<rounds {
            let bytes = Payload(.text, seed: UInt64(round), count: count).bytes
            let room = ByteBuffer(count: count - 4096)
            let length = bytes.withView { codec.encode($0, into: room.bytes, level: 1) } ?? 4096
            for _ in 0..<random.integer(in: 1...6) {
                let at =
                    random.chance(1, in: 2) ? random.below(min(length, 24)) : random.below(length)
                room.bytes[at] = UInt8(random.below(256))
            }
            let cut = random.chance(1, in: 4) ? random.integer(in: 1...length) : length
            // Also into targets that are too small or too large for what is in it.
            let size = random.weighted([(4, count), (1, count - 4096), (1, 4096)])
            target.bytes.slice(size, guardCount).zeroAll()
            if !codec.decode(room.view.slice(0, cut), into: target.bytes.slice(0, size)) {
                refused += 1
            }
            #expect(target.view.slice(size, guardCount).isAllZero)
        }
        #expect(refused > rounds / 4)
        // A bomb: 128 KiB of zeros in a few bytes, for a target of one block.
        let zeros = ByteBuffer(count: 131_072)
        let room = ByteBuffer(count: 8192)
        let length = codec.encode(zeros.view, into: room.bytes, level: 1)!
        #expect(!codec.decode(room.view.slice(0, length), into: target.bytes.slice(0, 4096)))
    }

    // MARK: Files

    @Test(arguments: settings) func dataTakesLessSpace(setting: CompressionSetting) throws {
        let rig = try Rig(setting)
        let bytes = Self.text(1, 3 << 20 + 777)
        let file = try rig.create("text")
        for offset in stride(from: 0, to: bytes.count, by: 1 << 20) {
            try rig.write(
                file, at: offset, Array(bytes[offset..<min(offset + 1 << 20, bytes.count)]))
        }
        #expect(try rig.content(file) == bytes)
        let plainBlocks = UInt64(bytes.count + 4095) / 4096
        #expect(try rig.blocks(file) < plainBlocks / 2)
        // A block at a time, from every extent.
        for offset in stride(from: 3000, to: bytes.count - 5000, by: 40_000) {
            let part = ByteBuffer(count: 5000)
            #expect(try rig.fs.read(file, at: UInt64(offset), into: part.bytes) == 5000)
            #expect(part.view.toArray() == Array(bytes[offset..<offset + 5000]))
        }
        var random = SeededRandom(seed: 3)
        let noise = try rig.create("noise")
        let noiseBytes = random.bytes(1 << 20)
        try rig.write(noise, at: 0, noiseBytes)
        #expect(try rig.blocks(noise) == 256)
        #expect(try rig.extents(noise).allSatisfy { $0.record.encoding == nil })
        #expect(try rig.findings().isEmpty)
        try rig.volume.close()
        // Without a word about compression what is there is still read.
        let again = try Volume.open(rig.device, modules: .standard)
        defer { try? again.close() }
        let buffer = ByteBuffer(count: bytes.count)
        #expect(try again.fileSystem.read(file, at: 0, into: buffer.bytes) == bytes.count)
        #expect(buffer.view.toArray() == bytes)
    }

    /// The bit is durable before the first encoded extent, and only then.
    @Test func theFeatureBitComesFirst() throws {
        let rig = try Rig()
        func isSet() throws -> Bool {
            try SuperblockStore.newest(rig.device, modules: .standard).incompatible
                & DiskFormat.Incompatible.encodedExtents != 0
        }
        let file = try rig.create("file")
        try rig.write(file, at: 0, Self.text(1, 3000))
        try rig.volume.checkpoint()
        #expect(try !isSet())
        try rig.write(file, at: 0, Self.text(1, 30_000))
        #expect(try isSet())
        #expect(try rig.findings().isEmpty)
        try rig.volume.close()
    }

    /// Small writes at the end come together into large extents.
    @Test(arguments: [100, 4096, 5000, 10_240]) func appendsAreGathered(piece: Int) throws {
        let rig = try Rig()
        let bytes = Self.text(7, 1 << 20)
        let (gathered, whole) = (try rig.create("gathered"), try rig.create("whole"))
        for offset in stride(from: 0, to: bytes.count, by: piece) {
            try rig.write(
                gathered, at: offset, Array(bytes[offset..<min(offset + piece, bytes.count)]))
        }
        try rig.write(whole, at: 0, bytes)
        #expect(try rig.content(gathered) == bytes)
        #expect(try rig.blocks(gathered) <= rig.blocks(whole) + 2)
        #expect(try rig.findings().isEmpty)
        try rig.volume.close()
    }

    /// For what a file has left of an encoded extent it holds no more than that is long.
    private func checkBound(_ rig: Rig, _ inode: InodeNumber, _ step: Int) throws {
        struct Whole: Hashable {
            var address: BlockAddress
            var start: Int64
        }
        var live: [Whole: UInt32] = [:]
        var stored: [Whole: UInt32] = [:]
        var held: UInt64 = 0
        for extent in try rig.extents(inode) {
            held += extent.record.heldBlocks
            guard let encoding = extent.record.encoding else { continue }
            let whole = Whole(
                address: extent.record.replicas.first,
                start: Int64(extent.block) - Int64(encoding.skip))
            live[whole, default: 0] += extent.record.blocks
            stored[whole] = encoding.storedBlocks
        }
        for (whole, blocks) in stored { try #require(live[whole]! >= blocks, "step \(step)") }
        try #require(rig.blocks(inode) == held, "step \(step)")
    }

    /// Random writes, punches, truncates and copies among a few files, against arrays.
    @Test(arguments: settings, 1...3 as ClosedRange<UInt64>)
    func randomOperations(setting: CompressionSetting, seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rig = try Rig(setting, copies: seed == 3 ? 2 : 1)
        let inodes = try (0..<4).map { try rig.create("file\($0)") }
        var models = [[UInt8]](repeating: [], count: 4)
        let empty = try rig.freeBlocks()
        func grow(_ index: Int, to count: Int) {
            guard models[index].count < count else { return }
            models[index] += [UInt8](repeating: 0, count: count - models[index].count)
        }
        let steps = TestMachine.count("AEGISFS_TEST_COMPRESSED_STEPS", default: 500)
        for step in 0..<steps {
            let target = random.below(4)
            let limit = 700_000
            switch random.below(10) {
            case 0..<4:
                let count = 1 + random.below(random.pick([300, 9000, 60_000, 400_000]))
                let pattern = random.weighted([
                    (6, Payload.Pattern.text), (2, .random), (1, .zeros), (1, .repeating),
                ])
                let bytes = Payload(pattern, seed: random.next(), count: count).bytes
                var offset = random.chance(1, in: 4) ? models[target].count : random.below(limit)
                if random.chance(1, in: 2) { offset &= ~4095 }
                grow(target, to: offset + count)
                models[target].replaceSubrange(offset..<offset + count, with: bytes)
                try rig.write(inodes[target], at: offset, bytes)
            case 4:
                let size = random.below(limit)
                grow(target, to: size)
                models[target].removeSubrange(size...)
                try rig.fs.truncate(inodes[target], to: UInt64(size))
            case 5:
                let offset = random.below(limit)
                let count = 1 + random.below(90_000)
                try rig.fs.allocate(
                    inodes[target], at: UInt64(offset), count: UInt64(count),
                    random.pick([[.punchHole, .keepSize], [.zeroRange, .keepSize]]))
                for index in offset..<min(offset + count, max(models[target].count, offset)) {
                    models[target][index] = 0
                }
            default:
                let source = random.below(4)
                let isAligned = random.chance(3, in: 4)
                func place() -> Int {
                    isAligned ? random.below(limit / 4096) * 4096 : random.below(limit)
                }
                let (from, to, count) = (place(), place(), 1 + random.below(400_000))
                let available = max(0, min(count, models[source].count - from))
                if source == target, abs(from - to) < available { continue }
                let copied = try rig.fs.copyRange(
                    from: inodes[source], at: UInt64(from), to: inodes[target], at: UInt64(to),
                    count: UInt64(count))
                #expect(copied == UInt64(available), "step \(step)")
                guard available > 0 else { continue }
                grow(target, to: to + available)
                models[target].replaceSubrange(
                    to..<to + available, with: models[source][from..<from + available])
            }
            try checkBound(rig, inodes[target], step)
            if step % 60 == 59 { try rig.volume.checkpoint() }
            if step % 100 == 99 {
                for (inode, model) in zip(inodes, models) {
                    try #require(rig.content(inode) == model, "step \(step)")
                }
                let findings = try rig.findings()
                try #require(findings.isEmpty, "step \(step): \(findings.prefix(3))")
            }
        }
        for index in 0..<4 {
            try Array("file\(index)".utf8).withView { try rig.fs.unlink($0, in: .root) }
        }
        #expect(empty - min(empty, try rig.freeBlocks()) < 16)
        try rig.volume.close()
        #expect(try Checker.check(rig.device, modules: .standard).isClean)
    }

    // MARK: Damage

    /// Stored bytes that are damaged are an error that names the file; those whose sums are right, too.
    @Test(arguments: [false, true]) func damagedDataIsAnError(withRightSums: Bool) throws {
        let rig = try Rig()
        let file = try rig.create("file")
        try rig.write(file, at: 0, Self.text(1, 131_072))
        try rig.write(file, at: 131_072, Self.text(2, 131_072))
        try rig.volume.checkpoint()
        let extent = try rig.extents(file)[0]
        let block = ByteBuffer(count: 4096)
        let place = extent.record.replicas.first.block << 12
        try rig.device.read(into: block.bytes, at: place)
        for index in stride(from: 0, to: 4096, by: 7) { block.bytes[index] ^= 0x5A }
        try rig.device.write(block.view, at: place)
        if withRightSums {
            var record = extent.record
            record.sums.replaceSubrange(0..<4, with: rig.fs.fileMap.sums(block.view))
            let transaction = Transaction()
            transaction.put(FileMap.key(file, extent.block), record.encoded())
            try rig.volume.commit(transaction, .ordinary)
        }
        let buffer = ByteBuffer(count: 131_072)
        #expect {
            _ = try rig.fs.read(file, at: 4096, into: buffer.bytes)
        } throws: { error in
            guard case .corrupt(let what)? = error as? FSError else { return false }
            return what.structure == .data && what.location == file.rawValue
        }
        #expect(try rig.fs.read(file, at: 131_072, into: buffer.bytes) == 131_072)
        #expect(buffer.view.toArray() == Self.text(2, 131_072))
        try rig.volume.close()
    }

    @Test func checkNoticesTheMissingFeatureBit() throws {
        let rig = try Rig()
        let file = try rig.create("file")
        try rig.write(file, at: 0, Self.text(1, 131_072))
        try rig.volume.close()
        var superblock = try SuperblockStore.newest(rig.device, modules: .standard)
        superblock.incompatible &= ~DiskFormat.Incompatible.encodedExtents
        try SuperblockStore.write(superblock, to: rig.device, modules: .standard)
        let report = try Checker.check(rig.device, modules: .standard)
        #expect(report.findings.map(\.issue) == [.encodedWithoutFeature])
    }

    // MARK: The property

    @Test func thePropertyIsInheritedAndHasThreeNames() throws {
        let rig = try Rig(.inherited)
        let directory = try rig.create("dir", kind: .directory)
        let name = Array("btrfs.compression".utf8)
        func attribute(_ inode: InodeNumber) throws -> String {
            try name.withView { name in
                String(decoding: try rig.fs.extendedAttribute(name, of: inode), as: UTF8.self)
            }
        }
        func set(_ inode: InodeNumber, _ text: String) throws {
            try name.withView { name in
                try Array(text.utf8).withView {
                    try rig.fs.setExtendedAttribute(name, of: inode, $0, .createOrReplace)
                }
            }
        }
        try set(directory, "zstd:7")
        let file = try rig.create("file", in: directory)
        func property() throws -> PropertyValue { try rig.fs.property(.compression, of: file) }
        #expect(try property() == PropertyValue(value: "zstd:7", isSet: true))
        #expect(try attribute(file) == "zstd:7")
        // Backups do not carry it elsewhere.
        #expect(try rig.fs.extendedAttributeNames(of: file).isEmpty)
        #expect(try rig.fs.attributes(of: file).flags == InodeFlags.compressed)
        try rig.write(file, at: 0, Self.text(1, 131_072))
        #expect(try rig.blocks(file) < 20)

        // chattr -c takes it away, +m says no, +c the usual one.
        try rig.fs.setFlags(of: file, 0, projectID: nil)
        #expect(throws: FSError.noSuchAttribute) { try attribute(file) }
        try rig.fs.setFlags(of: file, InodeFlags.notCompressed, projectID: nil)
        #expect(try attribute(file) == "none")
        try rig.fs.setFlags(of: file, InodeFlags.compressed | InodeFlags.noDump, projectID: nil)
        #expect(try property() == PropertyValue(value: "zstd:3", isSet: true))
        #expect(
            try rig.fs.attributes(of: file).flags == InodeFlags.compressed | InodeFlags.noDump)
        let both = InodeFlags.compressed | InodeFlags.notCompressed
        try rig.fs.setFlags(of: file, both, projectID: nil)
        #expect(try attribute(file) == "none")
        try rig.fs.setFlags(of: file, 0, projectID: nil)
        #expect(throws: FSError.invalidArgument) {
            try rig.fs.setFlags(of: file, both, projectID: nil)
        }
        #expect(throws: FSError.invalidArgument) { try set(file, "rar") }
        #expect(throws: FSError.invalidArgument) { try set(file, "zstd:40") }
        try set(file, "lzo")
        #expect(try attribute(file) == "lz4")
        try name.withView { try rig.fs.removeExtendedAttribute($0, of: file) }
        #expect(try property() == PropertyValue(value: "none", isSet: false))
        try set(file, "")
        #expect(throws: FSError.invalidArgument) { try set(file, "inherit") }
        #expect(try rig.findings().isEmpty)
        try rig.volume.close()
    }

    @Test func theFileComesBeforeTheMountAndTheMountBeforeTheVolume() throws {
        let device = MemoryBlockDevice(byteCount: 32 << 20)
        var format = FormatOptions()
        format.compression = .codec(.zlib, level: 2)
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        for (mounted, own, expected) in [
            (
                CompressionSetting.inherited, CompressionSetting.inherited,
                CodecKind.zlib as CodecKind?
            ),
            (.codec(.lz4, level: 1), .inherited, .lz4), (.none, .inherited, nil),
            (.codec(.lz4, level: 1), .standard, .zstd), (.standard, .none, nil),
        ] {
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            options.compression = mounted
            let volume = try Volume.open(device, modules: .standard, options: options)
            let made = try Array("\(mounted)\(own)".utf8).withView {
                try volume.fileSystem.create($0, in: .root, NewInode(mode: 0o100644))
            }
            try volume.fileSystem.setProperty(
                .compression, of: made.inode, own == .inherited ? "default" : "\(own)")
            _ = try Self.text(1, 131_072).withView {
                try volume.fileSystem.write(made.inode, at: 0, $0)
            }
            let extent = try volume.fileSystem.fileMap.extents(made.inode, 0..<100)[0]
            #expect(extent.record.encoding?.codec == expected, "\(mounted), \(own)")
            volume.fileSystem.release(made.inode, count: 1)
            try volume.close()
        }
    }
}
