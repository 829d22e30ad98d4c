/// Data in two copies: where they lie, what they cost, that everything that moves blocks about moves
/// both, and who reads the second when the first is bad.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct DataCopyTests {
    private let device = MemoryBlockDevice(byteCount: 200 << 20)
    private var random = SeededRandom(seed: 1)

    private func open(
        _ kind: ChecksumKind = .crc32c, copies: Int = 1, journal: UInt64? = nil
    ) throws -> Volume {
        var format = FormatOptions()
        format.checksumKind = kind
        format.dataCopies = copies
        format.journalByteCount = journal
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        return try reopen()
    }
    private func reopen() throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return try Volume.open(device, modules: .standard, options: options)
    }
    private func create(_ name: String, in volume: Volume) throws -> InodeNumber {
        let made = try Array(name.utf8).withView {
            try volume.fileSystem.create(
                $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        volume.fileSystem.release(made.inode, count: 1)
        return made.inode
    }
    private func write(
        _ volume: Volume, _ inode: InodeNumber, at offset: UInt64 = 0, _ bytes: [UInt8]
    ) throws {
        _ = try bytes.withView { try volume.fileSystem.write(inode, at: offset, $0) }
    }
    private func content(_ volume: Volume, _ inode: InodeNumber) throws -> [UInt8] {
        let size = try volume.fileSystem.attributes(of: inode).size
        let buffer = ByteBuffer(count: Int(size))
        let count = try volume.fileSystem.read(inode, at: 0, into: buffer.bytes)
        return buffer.view.slice(0, count).toArray()
    }
    private func extents(_ volume: Volume, _ inode: InodeNumber) throws -> [FileMap.Extent] {
        try volume.fileSystem.fileMap.extents(inode, 0..<(1 << 52))
    }
    private func free(_ volume: Volume) throws -> UInt64 {
        try volume.checkpoint()
        try volume.checkpoint()
        return volume.fileSystem.statistics().freeBlocks
    }
    private func spoil(_ place: BlockAddress, _ blocks: UInt64) throws {
        let junk = ByteBuffer(count: Int(blocks) << 12)
        try device.write(junk.view, at: place.block << 12)
    }

    @Test(arguments: ChecksumKind.allCases)
    func bothCopiesAreFarApartAndEitherWillDo(kind: ChecksumKind) throws {
        var random = random
        let volume = try open(kind, copies: 2)
        let empty = try free(volume)
        // Journaled with its data, written at once, and written in many pieces.
        var files: [(InodeNumber, [UInt8])] = []
        for (index, size) in [3000, 8192, 5 << 20, 300_000].enumerated() {
            let inode = try create("f\(index)", in: volume)
            let bytes = random.bytes(size)
            if index == 3 {
                for start in stride(from: 0, to: size, by: 49152) {
                    let part = Array(bytes[start..<min(start + 49152, size)])
                    try write(volume, inode, at: UInt64(start), part)
                }
            } else {
                try write(volume, inode, bytes)
            }
            files.append((inode, bytes))
        }
        try volume.synchronize()
        let used = empty - (try free(volume))
        let blocks = files.reduce(0) { $0 + 2 * blocksCovering($1.1.count) }
        #expect(used >= blocks && used < blocks + 64, "\(used) blocks for \(blocks)")
        for (inode, bytes) in files {
            let found = try extents(volume, inode)
            let attributes = try volume.fileSystem.attributes(of: inode)
            #expect(attributes.blocks512 == 16 * blocksCovering(bytes.count))
            for extent in found {
                try #require(extent.record.replicas.count == 2)
                let places = (extent.record.replicas[0].block, extent.record.replicas[1].block)
                let distance = max(places.0, places.1) - min(places.0, places.1)
                #expect(distance << 12 > device.byteCount / 4)
            }
            // Pieces join as they do with one copy.
            #expect(
                found.count <= 2 + bytes.count / Int(kind.maximumPlainExtentBlocks << 12) * 2)
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)

        for copy in 0..<2 {
            let volume = try reopen()
            for (inode, _) in files {
                for extent in try extents(volume, inode) {
                    try spoil(extent.record.replicas[copy], UInt64(extent.record.blocks))
                }
            }
            for (inode, bytes) in files { #expect(try content(volume, inode) == bytes) }
            // Written again, so that the next round has both.
            for (inode, bytes) in files { try write(volume, inode, bytes) }
            try volume.close()
        }
        let last = try reopen()
        for index in files.indices {
            try Array("f\(index)".utf8).withView { try last.fileSystem.unlink($0, in: .root) }
        }
        #expect(empty - (try free(last)) < 32)
        try last.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    private func blocksCovering(_ bytes: Int) -> UInt64 {
        UInt64(bytes + 4095) / 4096
    }

    /// A file refers to one copy here and two there, shares some with others, and is cut up.
    @Test(arguments: [UInt64(1), 2, 3]) func copiesMixAndAreShared(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let volume = try open(.xxh3)
        let fs = volume.fileSystem
        let empty = try free(volume)
        var files: [(InodeNumber, [UInt8])] = []
        for index in 0..<4 {
            files.append((try create("f\(index)", in: volume), []))
        }
        for step in 0..<400 {
            let index = random.below(files.count)
            let inode = files[index].0
            let offset = random.below(200) * (random.chance(1, in: 3) ? 1000 : 4096)
            let count = random.integer(in: 1...60_000)
            switch random.below(6) {
            case 0: try fs.setProperty(.copies, of: inode, random.pick(["1", "2", "default"]))
            case 1:
                var changes = AttributeChanges()
                changes.size = UInt64(offset)
                _ = try fs.setAttributes(of: inode, changes)
                var bytes = Array(files[index].1.prefix(offset))
                bytes += [UInt8](repeating: 0, count: offset - bytes.count)
                files[index].1 = bytes
            case 2:
                let other = (index + 1) % files.count
                let range = min(offset, files[other].1.count)
                let length = min(count, files[other].1.count - range)
                let to = range
                _ = try fs.copyRange(
                    from: files[other].0, at: UInt64(range), to: inode, at: UInt64(to),
                    count: UInt64(length))
                Self.put(Array(files[other].1[range..<range + length]), at: to, &files[index].1)
            case 3:
                try fs.allocate(
                    inode, at: UInt64(offset), count: UInt64(count),
                    random.chance(1, in: 2) ? [.punchHole, .keepSize] : [.zeroRange, .keepSize])
                let end = min(offset + count, files[index].1.count)
                if offset < end {
                    Self.put(
                        [UInt8](repeating: 0, count: end - offset), at: offset, &files[index].1)
                }
            default:
                let bytes = random.bytes(count)
                try write(volume, inode, at: UInt64(offset), bytes)
                Self.put(bytes, at: offset, &files[index].1)
            }
            if step % 50 == 49 {
                try volume.checkpoint()
                let report = try Checker.check(device, modules: .standard)
                #expect(report.isClean, "\(report.findings)")
            }
        }
        for (inode, bytes) in files { #expect(try content(volume, inode) == bytes) }
        for index in files.indices {
            try Array("f\(index)".utf8).withView { try fs.unlink($0, in: .root) }
        }
        #expect(empty - (try free(volume)) < 32)
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    private static func put(_ bytes: [UInt8], at offset: Int, _ target: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        if target.count < offset + bytes.count {
            target += [UInt8](repeating: 0, count: offset + bytes.count - target.count)
        }
        target.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    /// What is promised for two copies is there for two copies, and df says what fits.
    @Test func spaceIsCountedHonestly() throws {
        let volume = try open(copies: 2)
        let fs = volume.fileSystem
        let available = fs.statistics().availableBlocks
        let half = available / 2
        let inode = try create("f", in: volume)
        try fs.allocate(inode, at: 0, count: half << 12, [])
        #expect(try fs.attributes(of: inode).blocks512 == 2 * 8 * half)
        let left = fs.statistics().availableBlocks
        #expect(left <= available - half && left + 64 > available - half)
        // Fill the rest; the promise holds all the same.
        let filler = try create("filler", in: volume)
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        var position: UInt64 = 0
        while true {
            do throws(FSError) {
                _ = try piece.withView { (view) throws(FSError) in
                    try fs.write(filler, at: position, view)
                }
                position += 1 << 20
            } catch {
                #expect(error == .noSpace)
                break
            }
        }
        #expect(position > (left << 12) * 9 / 10, "much less than df promised")
        for start in stride(from: 0, to: half << 12, by: 1 << 20) {
            let count = min(1 << 20, (half << 12) - start)
            try write(volume, inode, at: start, Array(piece[..<Int(count)]))
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    @Test func propertiesAreInherited() throws {
        let volume = try open()
        let fs = volume.fileSystem
        let directory = try Array("dir".utf8).withView {
            try fs.create($0, in: .root, NewInode(mode: FileKind.directory.modeBits | 0o755))
        }
        #expect(try fs.property(.copies, of: directory.inode).text == "default 1")
        try fs.setProperty(.copies, of: directory.inode, "2")
        let file = try Array("file".utf8).withView {
            try fs.create($0, in: directory.inode, NewInode(mode: 0o100644))
        }
        let value = try fs.property(.copies, of: file.inode)
        #expect(value == PropertyValue(value: "2", isSet: true))
        #expect(PropertyValue(text: "default 2") == PropertyValue(value: "2", isSet: false))
        // Only its owner and root; and only values that it takes.
        func set(_ text: String, _ caller: AttributeCaller) throws(FSError) {
            try Array("aegisfs.copies".utf8).withView { (name) throws(FSError) in
                try Array(text.utf8).withView { (value) throws(FSError) in
                    try fs.setExtendedAttribute(
                        name, of: file.inode, value, .createOrReplace, caller: { caller })
                }
            }
        }
        #expect(throws: FSError.notPermitted) { try set("1", .user(77)) }
        #expect(throws: FSError.invalidArgument) { try set("3", .privileged) }
        try set("1", .user(0))
        #expect(try fs.property(.copies, of: file.inode).text == "1")
        let names = try fs.extendedAttributeNames(of: file.inode)
        #expect(names.isEmpty)
        // Of the volume: at its root only.
        #expect(throws: FSError.noSuchAttribute) {
            try fs.property(.scrubInterval, of: file.inode)
        }
        #expect(throws: FSError.notPermitted) {
            try fs.setProperty(.scrubInterval, of: .root, "1d", caller: .user(5))
        }
        for (text, shown) in [("90m", "90m"), ("48h", "2d"), ("14d", "2w"), ("never", "never")] {
            try fs.setProperty(.scrubInterval, of: .root, text)
            #expect(try fs.property(.scrubInterval, of: .root).value == shown)
        }
        for text in ["", "d", "0d", "-1d", "1", "99999999999w", "1y", "1 d"] {
            #expect(throws: FSError.invalidArgument) {
                try fs.setProperty(.scrubInterval, of: .root, text)
            }
        }
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }
}
