/// Nodes lost in all copies, several at a time and below each other: what is left is right to the byte, what
/// is lost fails and is told, and none of it reads as zeros.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct RepairLossTests {
    private static let byteCount: UInt64 = 48 << 20

    /// A volume whose files lie in many short extents, and what they hold.
    private final class Original {
        let device = OverlayBlockDevice(byteCount: RepairLossTests.byteCount)
        var contents: [InodeNumber: (path: String, bytes: [UInt8])] = [:]
        var attributed: Set<InodeNumber> = []
        var nodes: [NodePointer] = []
        let names = ["victim-0", "victim-1", "victim-2", "double", "sparse"]

        init() throws {
            var format = FormatOptions()
            format.journalByteCount = 2 << 20
            _ = try VolumeFormatter.format(device, modules: .standard, options: format)
            let volume = try DamagedImage.open(device)
            try fill(volume.fileSystem)
            try volume.close()
            try collect()
            device.keep()
        }

        private func fill(_ fs: FileSystem) throws {
            var random = SeededRandom(seed: 3)
            func make(_ name: String, in directory: InodeNumber = .root, _ mode: UInt32 = 0o100644)
                throws -> InodeNumber
            {
                let made = try Array(name.utf8).withView {
                    try fs.create($0, in: directory, NewInode(mode: mode))
                }
                fs.release(made.inode, count: 1)
                return made.inode
            }
            var inodes: [InodeNumber] = []
            for name in names {
                inodes.append(try make(name))
                contents[inodes.last!] = ("/" + name, [])
                // Small files between them, so that leaves hold more than one file.
                for index in 0..<20 {
                    let small = try make("\(name)-\(index)")
                    let bytes = random.bytes(200 + index * 80)
                    _ = try bytes.withView { try fs.write(small, at: 0, $0) }
                    contents[small] = ("/\(name)-\(index)", bytes)
                    guard index % 3 == 0 else { continue }
                    attributed.insert(small)
                    try Array("user.k".utf8).withView { key in
                        try random.bytes(60).withView {
                            try fs.setExtendedAttribute(key, of: small, $0, .createOrReplace)
                        }
                    }
                }
            }
            try fs.setProperty(.copies, of: inodes[3], "2")
            for piece in 0..<300 {
                for (index, inode) in inodes.enumerated() {
                    let bytes = random.bytes(4096)
                    let offset = piece << (index == 4 ? 14 : 12)
                    _ = try bytes.withView { try fs.write(inode, at: UInt64(offset), $0) }
                    let hole = offset - contents[inode]!.bytes.count
                    contents[inode]!.bytes += [UInt8](repeating: 0, count: hole) + bytes
                }
            }
            let directory = try make("dir", in: .root, 0o040755)
            for index in 0..<150 {
                let inode = try make("entry-\(index)", in: directory)
                contents[inode] = ("/dir/entry-\(index)", [])
            }
            #expect(try fs.fileMap.extents(inodes[0], 0..<1 << 30).count >= 250)
        }

        /// All nodes of the tree of files, from the root down.
        private func collect() throws {
            let volume = try DamagedImage.open(device, readOnly: true)
            let superblock = try SuperblockStore.newest(device, modules: .standard)
            func visit(_ expected: NodeValidator.Expectation) throws {
                nodes.append(expected.pointer)
                let page = try volume.nodes.read(expected)
                guard page.level > 0 else { return }
                for index in 0..<page.node.count { try visit(expected.child(page.node, index)) }
            }
            try visit(
                NodeValidator.Expectation(
                    pointer: superblock.headRoot, tree: .files, lower: nil, upper: nil))
            try volume.close()
        }

        func spoil(_ pointer: NodePointer) throws {
            for index in 0..<pointer.replicas.count {
                try [UInt8](repeating: 0x5A, count: DiskFormat.blockSize).withView {
                    try device.write($0, at: pointer.replicas[index].block << 12)
                }
            }
        }
    }

    @Test func nothingThatIsLostReadsAsZeros() throws {
        let original = try Original()
        #expect(original.nodes.count > 12)
        let rounds = TestMachine.count("AEGISFS_TEST_LOSSES", default: 150)
        let first = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
        var withLosses = 0
        for seed in first..<first + UInt64(rounds) {
            var random = SeededRandom(seed: seed)
            original.device.revert()
            // The root, with what is below it lost only where it is damaged itself; or leaves alone.
            if random.chance(1, in: 2) { try original.spoil(original.nodes[0]) }
            for _ in 0..<random.below(4) + 1 { try original.spoil(random.pick(original.nodes)) }
            let report = try Repairer.repair(original.device, modules: .standard)
            let left = report.check.findings.prefix(3).map { "\($0.id) \($0.message)" }
            #expect(report.isRepaired, "seed \(seed): \(left)")
            guard report.isRepaired else { continue }
            try compare(original, report.losses, seed)
            if !report.losses.isEmpty { withLosses += 1 }
            let again = try Repairer.repair(original.device, modules: .standard)
            #expect(!again.foundDamage && again.losses.isEmpty, "seed \(seed)")
        }
        print("repair: \(withLosses) of \(rounds) losses of nodes lost something else")
        #expect(withLosses > rounds / 2)
    }

    /// An inner node and one leaf: each leaf in turn.
    @Test func aRootAndALeafAreLost() throws {
        let original = try Original()
        var damagedFiles: UInt64 = 0
        for leaf in original.nodes.dropFirst() {
            original.device.revert()
            try original.spoil(original.nodes[0])
            try original.spoil(leaf)
            let report = try Repairer.repair(original.device, modules: .standard)
            #expect(report.isRepaired && !report.losses.isEmpty)
            damagedFiles += report.losses.count(.data)
            try compare(original, report.losses, leaf.address.block)
        }
        #expect(damagedFiles > 0)
    }

    /// The inner node alone: all of its leaves are found, and nothing is lost or said to be.
    @Test func aRootAloneIsMadeAnew() throws {
        let original = try Original()
        try original.spoil(original.nodes[0])
        let report = try Repairer.repair(original.device, modules: .standard)
        #expect(report.isRepaired && report.losses.isEmpty)
        try compare(original, report.losses, 0)
    }

    @Test func lostInlineDataIsUnreadable() throws {
        let rig = try RepairRig()
        for (path, bytes) in [("small", 700), ("link", 8)] as [(String, UInt64)] {
            try rig.damage { damage in
                damage.transaction.delete(Key(try damage.inode(path), .inlineData))
            }
            let report = try Repairer.repair(rig.device, modules: .standard)
            #expect(report.isRepaired)
            let item = try #require(report.losses.items.first)
            #expect(
                report.losses.items.count == 1 && item.kind == .data && item.path == "/" + path
                    && item.byteCount == bytes)
            let volume = try rig.open()
            let inode = try Array(path.utf8).withView {
                try volume.fileSystem.lookup($0, in: .root).inode
            }
            let block = ByteBuffer(count: 4096)
            #expect(throws: FSError.self) {
                try volume.fileSystem.read(inode, at: 0, into: block.bytes)
            }
            #expect(try volume.fileSystem.attributes(of: inode).size == bytes)
            #expect(volume.damage().map(\.path) == ["/" + path])
            try volume.close()
        }
    }

    // MARK: What is there

    private func compare(_ original: Original, _ losses: RepairLosses, _ seed: UInt64) throws {
        let volume = try DamagedImage.open(original.device)
        defer { try? volume.close() }
        let fs = volume.fileSystem
        var paths: [InodeNumber: String] = [:]
        try list(fs, .root, "", &paths)
        func isLost(_ inode: InodeNumber, _ kinds: RepairLosses.Kind...) -> Bool {
            losses.items.contains { kinds.contains($0.kind) && $0.inode == inode.rawValue }
        }
        var missing: UInt64 = 0
        for (inode, expected) in original.contents {
            guard let path = paths[inode] else {
                missing += 1
                let isNamed = losses.items.contains { $0.kind == .file && $0.path == expected.path }
                #expect(isNamed || losses.namelessInodes > 0, "seed \(seed): \(expected.path)")
                continue
            }
            let what = "seed \(seed): \(path), inode \(inode.rawValue)"
            var failed = 0
            let block = ByteBuffer(count: 4096)
            let size = try fs.attributes(of: inode).size
            #expect(
                size == UInt64(expected.bytes.count) || isLost(inode, .record), "\(what): \(size)")
            for offset in stride(from: 0, to: min(Int(size), expected.bytes.count), by: 4096) {
                guard let count = try? fs.read(inode, at: UInt64(offset), into: block.bytes) else {
                    failed += 1
                    continue
                }
                let wanted = expected.bytes[offset..<min(offset + count, expected.bytes.count)]
                #expect(block.view.slice(0, wanted.count).toArray() == Array(wanted), "\(what)")
            }
            if failed > 0 {
                #expect(isLost(inode, .data), "\(what)")
                #expect(volume.damage().contains { $0.inode == inode.rawValue }, "\(what)")
            }
            if original.attributed.contains(inode),
                try fs.extendedAttributeNames(of: inode).isEmpty
            {
                #expect(isLost(inode, .attribute, .record), "\(what)")
            }
        }
        #expect(
            missing <= losses.count(.file) + losses.count(.directory) + losses.namelessInodes,
            "seed \(seed)")
    }

    private func list(
        _ fs: FileSystem, _ directory: InodeNumber, _ path: String,
        _ found: inout [InodeNumber: String]
    ) throws {
        var names: [(String, InodeNumber, FileKind)] = []
        try fs.readDirectory(directory, after: 2, withAttributes: false) { entry, _ in
            names.append(
                (String(decoding: entry.name.toArray(), as: UTF8.self), entry.inode, entry.kind))
            return true
        }
        for (name, inode, kind) in names {
            found[inode] = path + "/" + name
            if kind == .directory { try list(fs, inode, path + "/" + name, &found) }
        }
    }
}
