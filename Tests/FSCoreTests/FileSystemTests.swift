/// The main paths of `FileSystem` over a device in memory: make, write, read back after a remount.
import FSCore
import FSModules
import Testing

private func withVolume(
    bytes: UInt64 = 256 << 20, _ body: (MemoryBlockDevice, Volume) throws -> Void
) throws {
    let device = MemoryBlockDevice(byteCount: bytes)
    _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
    var options = OpenOptions()
    options.checkpointIntervalMilliseconds = 0
    let volume = try Volume.open(device, modules: .standard, options: options)
    try body(device, volume)
}

private func named<R>(_ name: String, _ body: (ByteView) throws -> R) rethrows -> R {
    try Array(name.utf8).withView { try body($0) }
}

private func reopen(_ device: MemoryBlockDevice) throws -> Volume {
    var options = OpenOptions()
    options.checkpointIntervalMilliseconds = 0
    return try Volume.open(device, modules: .standard, options: options)
}

private let file = NewInode(mode: FileKind.regular.modeBits | 0o644)
private let directory = NewInode(mode: FileKind.directory.modeBits | 0o755)

@Test func aFileSurvivesARemount() throws {
    try withVolume { device, volume in
        let fs = volume.fileSystem
        let made = try named("hello") { try fs.create($0, in: .root, file) }
        let text = Array("some bytes".utf8)
        #expect(try text.withView { try fs.write(made.inode, at: 3, $0) } == text.count)
        try volume.close()

        let again = try reopen(device)
        let found = try named("hello") { try again.fileSystem.lookup($0, in: .root) }
        #expect(found.size == 13)
        let buffer = ByteBuffer(count: 4096)
        let count = try again.fileSystem.read(found.inode, at: 0, into: buffer.bytes)
        #expect(buffer.view.slice(0, count).toArray() == [0, 0, 0] + text)
        try again.close()
    }
}

@Test func manyNamesInOneDirectory() throws {
    try withVolume { device, volume in
        let fs = volume.fileSystem
        let count = 20_000
        for index in 0..<count {
            let made = try named("file-\(index)") { try fs.create($0, in: .root, file) }
            fs.release(made.inode, count: 1)
        }
        try volume.close()
        let again = try reopen(device)
        var names: Set<String> = []
        try again.fileSystem.readDirectory(.root, after: 0, withAttributes: false) { entry, _ in
            names.insert(String(decoding: entry.name.toArray(), as: UTF8.self))
            return true
        }
        #expect(names.count == count + 2)
        for index in 0..<count {
            try named("file-\(index)") { try again.fileSystem.unlink($0, in: .root) }
        }
        #expect(try again.fileSystem.attributes(of: .root).size == 0)
        let free = again.fileSystem.statistics().freeBlocks
        try again.close()
        let last = try reopen(device)
        #expect(last.fileSystem.statistics().freeBlocks >= free)
        try last.close()
    }
}

@Test func largeFilesKeepTheirBytes() throws {
    try withVolume { device, volume in
        let fs = volume.fileSystem
        let made = try named("large") { try fs.create($0, in: .root, file) }
        var random = SystemRandomNumberGenerator()
        var expected = [UInt8](repeating: 0, count: 3 << 20)
        for _ in 0..<200 {
            let count = Int.random(in: 1...50_000, using: &random)
            let offset = Int.random(in: 0...expected.count - count, using: &random)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            expected.replaceSubrange(offset..<offset + count, with: bytes)
            _ = try bytes.withView { try fs.write(made.inode, at: UInt64(offset), $0) }
            if Int.random(in: 0..<20, using: &random) == 0 { try volume.checkpoint() }
        }
        try volume.close()
        let again = try reopen(device)
        let size = Int(try again.fileSystem.attributes(of: made.inode).size)
        let buffer = ByteBuffer(count: expected.count)
        #expect(try again.fileSystem.read(made.inode, at: 0, into: buffer.bytes) == size)
        #expect(buffer.view.slice(0, size).toArray() == Array(expected.prefix(size)))
        var change = AttributeChanges()
        change.size = 100_001
        _ = try again.fileSystem.setAttributes(of: made.inode, change)
        change.size = 200_000
        _ = try again.fileSystem.setAttributes(of: made.inode, change)
        let tail = ByteBuffer(count: 200_000)
        _ = try again.fileSystem.read(made.inode, at: 0, into: tail.bytes)
        #expect(tail.view.slice(100_001, 99_999).isAllZero)
        #expect(tail.view.slice(0, 100_001).toArray() == Array(expected.prefix(100_001)))
        try again.close()
    }
}

/// EMLINK, at a limit that can be reached: for hard links, for directories made and moved in.
@Test func linksEndAtTheLimit() throws {
    let device = MemoryBlockDevice(byteCount: 256 << 20)
    _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
    var options = OpenOptions()
    options.checkpointIntervalMilliseconds = 0
    options.linkLimit = 5
    let volume = try Volume.open(device, modules: .standard, options: options)
    let fs = volume.fileSystem
    let made = try named("file") { try fs.create($0, in: .root, file) }
    for number in 2...5 {
        _ = try named("link\(number)") { try fs.link(made.inode, as: $0, in: .root) }
    }
    #expect(throws: FSError.tooManyLinks) {
        _ = try named("one more") { try fs.link(made.inode, as: $0, in: .root) }
    }
    try named("link2") { try fs.unlink($0, in: .root) }
    _ = try named("one more") { try fs.link(made.inode, as: $0, in: .root) }

    let parent = try named("parent") { try fs.create($0, in: .root, directory) }.inode
    let other = try named("other") { try fs.create($0, in: .root, directory) }.inode
    for number in 1...3 { _ = try named("\(number)") { try fs.create($0, in: parent, directory) } }
    #expect(throws: FSError.tooManyLinks) {
        _ = try named("4") { try fs.create($0, in: parent, directory) }
    }
    _ = try named("4") { try fs.create($0, in: other, directory) }
    #expect(throws: FSError.tooManyLinks) {
        try named("4") { try fs.rename($0, in: other, to: $0, in: parent, []) }
    }
    // A file is no link of its directory, and replacing a directory adds none.
    _ = try named("file") { try fs.create($0, in: parent, file) }
    try named("4") { name in
        try named("3") { try fs.rename(name, in: other, to: $0, in: parent, []) }
    }
    try volume.close()
    #expect(try Checker.check(device, modules: .standard).findings.isEmpty)
}
