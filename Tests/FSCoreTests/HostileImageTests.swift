/// Hostile images: nodes, superblocks and bitmap blocks are changed (`HostileMutations`) and every
/// checksum up to the superblock made right again (`SealedImage`), so that only validation stands
/// between the bytes and the program. Each image is opened, walked, changed, closed and checked. Any
/// error is fine; a trap, a hang or runaway memory is not.
///
/// The seed of the image that is being tried stands in the file named at the start, in case the
/// process does not live to tell. `AEGISFS_TEST_HOSTILE_IMAGES` and `AEGISFS_TEST_SEED` set number and seed.
import FSModules
import FSTestSupport
import Foundation
import Glibc
import Testing

@testable import FSCore

@Suite struct HostileImageTests {
    /// How much more memory one image may take than any before it.
    private static let memoryLimitKilobytes = 256 << 10

    @Test func hostileImagesNeverTrap() throws {
        let images = TestMachine.count("AEGISFS_TEST_HOSTILE_IMAGES", default: 5000)
        let first = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
        let current = FileManager.default.temporaryDirectory
            .appendingPathComponent("aegisfs-hostile-\(ProcessInfo.processInfo.processIdentifier)")
        let note = open(current.path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        print("hostile images: the current seed is in \(current.path)")
        defer {
            close(note)
            try? FileManager.default.removeItem(at: current)
        }

        let image = try SealedImage()
        var opened = 0
        var largest = peakKilobytes()
        for seed in first..<first + UInt64(images) {
            let text = Array("\(seed)\n".utf8)
            _ = pwrite(note, text, text.count, 0)
            var random = SeededRandom(seed: seed)
            image.mutate(&random)
            let start = monotonicNanoseconds()
            if use(image.device, &random) { opened += 1 }
            let milliseconds = (monotonicNanoseconds() - start) / 1_000_000
            #expect(milliseconds < 10_000, "seed \(seed) took \(milliseconds) ms")
            let peak = peakKilobytes()
            #expect(peak - largest < Self.memoryLimitKilobytes, "seed \(seed) took \(peak) KiB")
            largest = peak
        }
        // A mutation that is always refused at once would test nothing behind the first check.
        #expect(opened > images / 10)
        print("hostile images: \(images) tried, \(opened) could be opened")
    }

    /// Without a mutation the image must be whole, or every other test of this suite would look at
    /// nothing but the first check.
    @Test func sealedImageIsWhole() throws {
        let image = try SealedImage()
        for index in image.nodes.indices { _ = image.page(index) }
        image.editBitmap(.leaf, countsFollow: true) { _ in }
        image.seal(pointersFollow: true)
        image.writeSuperblock()
        #expect(image.superblock.headRoot.level == 2)
        var findings = try Checker.check(image.device, modules: .standard).findings
        #expect(findings.isEmpty, "\(findings)")
        var random = SeededRandom(seed: 1)
        #expect(use(image.device, &random))
        findings = try Checker.check(image.device, modules: .standard).findings
        #expect(findings.isEmpty, "\(findings)")
    }

    private func peakKilobytes() -> Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss
    }

    /// Opens, walks, changes, closes and checks; true if the volume could be opened.
    private func use(_ device: any BlockDevice, _ random: inout SeededRandom) -> Bool {
        _ = Inspector.superblocks(device, modules: .standard)
        _ = try? Inspector.tree(device, modules: .standard, depth: 8)
        _ = try? Checker.check(device, modules: .standard)
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.cacheBytes = 4 << 20
        guard let volume = try? Volume.open(device, modules: .standard, options: options) else {
            return false
        }
        let fs = volume.fileSystem
        var budget = 400
        walk(fs, .root, depth: 0, &budget)
        change(fs, &random)
        // They cost more than all the rest.
        if random.chance(1, in: 4) { useSnapshots(volume, &random) }
        _ = volume.status()
        _ = try? volume.checkpoint()
        _ = try? Checker.check(volume)
        _ = try? volume.close()
        return true
    }

    /// Lists, compares, sends, restores from, makes and deletes snapshots.
    private func useSnapshots(_ volume: Volume, _ random: inout SeededRandom) {
        let store = volume.snapshotStore
        _ = try? store.figures()
        let names = store.snapshotNames
        if let first = names.first, let last = names.last {
            _ = try? store.difference(from: first, to: nil)
            _ = try? StreamSender.run(store, last, from: first == last ? nil : first) { _ in }
            _ = try? store.history(of: "/large")
        }
        restore(volume)
        let label = SnapshotLabel(name: Array("made".utf8))
        switch random.below(4) {
        case 0: _ = try? store.create(label)
        case 1: if let name = names.first { _ = try? store.clone(name, as: label) }
        case 2: if let name = names.last { _ = try? store.rollback(to: name, keeping: label) }
        default: break
        }
        for name in names where random.chance(1, in: 2) { try? store.delete([name]) }
        var steps = 20
        _ = try? store.sweep {
            steps -= 1
            return steps < 0
        }
    }

    /// What the image's snapshots have comes back, some of it.
    private func restore(_ volume: Volume) {
        let store = volume.snapshotStore
        for (number, snapshot) in store.snapshotNames.prefix(2).enumerated() {
            var budget = 20
            for path in ["/dir", "/large"] {
                let name = Array("\(Snapshots.temporaryPrefix)\(number)".utf8)
                let copy = try? store.copy(
                    path, from: snapshot, to: volume.fileSystem, as: name, in: .root,
                    verifies: true
                ) { _ in
                    budget -= 1
                    return budget > 0
                }
                guard let copy else { continue }
                _ = try? store.place(
                    name, copy, as: Array("dir".utf8), in: .root, of: volume.fileSystem,
                    replaces: true)
            }
        }
        for damage in volume.damage().prefix(2) { _ = store.survivors(of: damage) }
        _ = try? store.blocksToGive()
    }

    private func walk(_ fs: FileSystem, _ directory: InodeNumber, depth: Int, _ budget: inout Int) {
        guard depth < 40, budget > 0 else { return }
        var found: [(InodeNumber, FileKind)] = []
        try? fs.readDirectory(directory, after: 0, withAttributes: true) { entry, attributes in
            guard found.count < 200 else { return false }
            if entry.cookie > 2, attributes != nil { found.append((entry.inode, entry.kind)) }
            return true
        }
        let buffer = ByteBuffer(count: 65536)
        for (inode, _) in found where budget > 0 {
            budget -= 1
            let attributes = try? fs.attributes(of: inode)
            _ = try? fs.read(inode, at: 0, into: buffer.bytes)
            if let size = attributes?.size, size > 65536 {
                _ = try? fs.read(inode, at: size - 65536, into: buffer.bytes)
            }
            _ = try? fs.symbolicLinkTarget(of: inode)
            _ = try? fs.nextData(inode, from: 0)
            _ = try? fs.nextHole(inode, from: 0)
            if let names = try? fs.extendedAttributeNames(of: inode) {
                for name in names.split(separator: 0) {
                    _ = try? Array(name).withView { try fs.extendedAttribute($0, of: inode) }
                }
            }
            if attributes?.kind == .directory { walk(fs, inode, depth: depth + 1, &budget) }
            fs.release(inode, count: 1)
        }
    }

    /// An offset in a file: a usual one, or seldom where arithmetic is at its end.
    private static func offset(_ usual: Int, _ random: inout SeededRandom) -> UInt64 {
        guard random.chance(1, in: 8) else { return UInt64(random.below(usual)) }
        return random.pick([1 << 32, 1 << 52, 1 << 62, DiskFormat.maximumFileSize - 4096, .max])
    }

    private static let names =
        (0..<12).map { "name-\($0)" } + ["a", "b", "dir", "link", "large", "sparse", "link-7"]

    private func change(_ fs: FileSystem, _ random: inout SeededRandom) {
        let names = Self.names
        let bytes = random.bytes(9000)
        for _ in 0..<30 {
            let name = Array(random.pick(names).utf8)
            let other = Array(random.pick(names).utf8)
            let choice = random.below(9)
            name.withView { name in
                let found = try? fs.lookup(name, in: .root)
                let inode = found?.inode ?? .root
                defer { if found != nil { fs.release(inode, count: 1) } }
                switch choice {
                case 0:
                    let new = NewInode(mode: FileKind.regular.modeBits | 0o644)
                    if let made = try? fs.create(name, in: .root, new) {
                        fs.release(made.inode, count: 1)
                    }
                case 1: try? fs.unlink(name, in: .root)
                case 2: try? fs.removeDirectory(name, in: .root)
                case 3:
                    let offset = Self.offset(100_000, &random)
                    _ = try? bytes.withView { try fs.write(inode, at: offset, $0) }
                case 4:
                    var changes = AttributeChanges()
                    changes.size = Self.offset(50_000, &random)
                    _ = try? fs.setAttributes(of: inode, changes)
                case 5:
                    try? other.withView { try fs.rename(name, in: .root, to: $0, in: .root, []) }
                case 6:
                    _ = try? bytes.withView { value in
                        try Array("user.x".utf8).withView { name in
                            try fs.setExtendedAttribute(
                                name, of: inode, value.slice(0, 100), .createOrReplace)
                        }
                    }
                case 7:
                    let offset = Self.offset(8192, &random)
                    let mode =
                        random.chance(1, in: 2) ? AllocationMode.punchHole.union(.keepSize) : []
                    try? fs.allocate(inode, at: offset, count: 40_000, mode)
                default:
                    if let made = try? other.withView({ try fs.link(inode, as: $0, in: .root) }) {
                        fs.release(made.inode, count: 1)
                    }
                }
            }
        }
    }
}
