/// Node ids below `.snapshots`: a tag leads to one snapshot as long as the kernel knows an inode there,
/// and there is no end to the number of snapshots.
@testable internal import FSCore
@testable internal import FSFuse
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotNodeTests {
    private let volume: Volume
    private let file: InodeNumber

    /// Twenty snapshots of a file that has another size in each.
    init() throws {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        volume = try Volume.open(device, modules: .standard)
        let files = volume.fileSystem
        let new = NewInode(mode: FileKind.regular.modeBits | 0o644)
        file = try Array("file".utf8).withView { (name) throws(FSError) in
            try files.create(name, in: .root, new).inode
        }
        for number in 1...20 {
            var changes = AttributeChanges()
            changes.size = UInt64(number)
            _ = try files.setAttributes(of: file, changes)
            try volume.snapshotStore.create(SnapshotLabel(name: Array("s\(number)".utf8)))
        }
    }

    private var browser: SnapshotBrowser {
        SnapshotBrowser(volume, head: volume.fileSystem, access: .root)
    }
    private func place(_ name: String) throws -> SnapshotPlace {
        try Array(name.utf8).withView { (name) throws(FSError) in
            try browser.lookup(name, in: .names)
        }
    }
    private func size(_ nodeID: UInt64, _ nodes: FuseSnapshotNodes) throws -> UInt64 {
        let node = try nodes.node(nodeID)
        return try node.files.attributes(of: node.inode).size
    }

    @Test func tagsAreUsedAgainButNeverForTwo() throws {
        let nodes = FuseSnapshotNodes(browser, FuseTags(count: 3))
        var held: [Int: UInt64] = [:]
        for number in 1...3 { held[number] = try nodes.retain(file, in: try place("s\(number)")) }
        #expect(throws: FSError.busy) { try nodes.retain(file, in: try place("s4")) }
        for (number, nodeID) in held { #expect(try size(nodeID, nodes) == UInt64(number)) }
        // One more reference, then one by one: the tag is free with the last.
        let two = try #require(held[2])
        nodes.retain(two)
        nodes.release(two, count: 1)
        #expect(throws: FSError.busy) { try nodes.retain(file, in: try place("s4")) }
        nodes.release(two, count: 1)
        // It leads there until another takes it.
        #expect(try size(two, nodes) == 2)
        let four = try nodes.retain(file, in: try place("s4"))
        #expect(try size(four, nodes) == 4)
        #expect(four == two)
        #expect(try size(try #require(held[1]), nodes) == 1)
        volume.shutDownQuietly()
    }

    /// Against a list of what is held: twenty snapshots share five tags for a while.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func atRandom(seed: UInt64) throws {
        let nodes = FuseSnapshotNodes(browser, FuseTags(count: 5))
        var random = SeededRandom(seed: seed)
        var held: [UInt64: (number: Int, references: UInt64)] = [:]
        for _ in 0..<2000 {
            if random.chance(1, in: 2), let nodeID = held.keys.sorted().first {
                let count = held[nodeID]?.references ?? 0
                let released = UInt64(random.integer(in: 1...Int(count)))
                nodes.release(nodeID, count: released)
                held[nodeID]?.references -= released
                if released == count { held[nodeID] = nil }
            } else {
                let number = random.integer(in: 1...20)
                do {
                    let nodeID = try nodes.retain(file, in: try place("s\(number)"))
                    #expect(held[nodeID]?.number ?? number == number)
                    held[nodeID, default: (number, 0)].references += 1
                } catch FSError.busy {
                    #expect(held.count == 5)
                }
            }
            for (nodeID, entry) in held { #expect(try size(nodeID, nodes) == UInt64(entry.number)) }
        }
        volume.shutDownQuietly()
    }

    @Test func placesNeedNoTag() throws {
        let nodes = FuseSnapshotNodes(browser, FuseTags(count: 1))
        for number in 1...20 {
            let root = FuseSnapshotNodes.nodeID(of: try place("s\(number)"))
            let node = try nodes.node(root)
            #expect(node.inode == .root)
            #expect(try node.files.attributes(of: file).size == UInt64(number))
        }
        #expect(throws: FSError.readOnly) {
            try nodes.node(FuseSnapshotNodes.nodeID(of: .names))
        }
        #expect(throws: FSError.stale) {
            try nodes.node(FuseSnapshotNodes.nodeID(of: SnapshotPlace(rawValue: 999)))
        }
        // Deleted: the root, and what is below it, lead nowhere, also when its name is another's.
        let below = try nodes.retain(file, in: try place("s7"))
        let root = FuseSnapshotNodes.nodeID(of: try place("s7"))
        try volume.snapshotStore.delete([Array("s7".utf8)])
        try volume.snapshotStore.create(SnapshotLabel(name: Array("s7".utf8)))
        for nodeID in [below, root] {
            #expect(throws: FSError.stale) { try nodes.node(nodeID) }
        }
        #expect(FuseSnapshotNodes.nodeID(of: try place("s7")) != root)
        volume.shutDownQuietly()
    }
}

extension Volume {
    fileprivate func shutDownQuietly() { try? close() }
}
