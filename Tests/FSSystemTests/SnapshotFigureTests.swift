/// Figures of snapshots against what deleting them gives back.
@testable internal import FSCore
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotFigureTests {
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func whatIsSaidComesBack(seed: UInt64) throws {
        let device = MemoryBlockDevice(byteCount: 256 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        let files = volume.fileSystem
        var random = SeededRandom(seed: seed)
        let made = try Array("file".utf8).withView {
            try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        let data = [UInt8](repeating: 7, count: 256 << 10)
        var names: [[UInt8]] = []
        for number in 0..<10 {
            for _ in 0..<4 {
                let offset = UInt64(random.below(64)) << 16
                _ = try data.withView { try files.write(made.inode, at: offset, $0) }
            }
            names.append(Array("s\(number)".utf8))
            try store.create(SnapshotLabel(name: names[number]))
        }
        files.release(made.inode, count: 1)
        func free() throws -> Int64 {
            try store.sweep()
            try volume.checkpoint()
            return Int64(files.statistics().freeBlocks)
        }
        while !names.isEmpty {
            let figures = try store.figures()
            for name in names {
                let unique = figures.first { $0.label?.name == name }?.uniqueBlocks
                #expect(unique == (try store.blocksFreed(by: [name]).blocks))
            }
            names.shuffle(using: &random)
            let gone = Array(names.prefix(1 + random.below(3)))
            names.removeFirst(gone.count)
            let said = try store.blocksFreed(by: gone)
            #expect(said.isComplete)
            let before = try free()
            try store.delete(gone)
            // The nodes of the table and of the deadlists themselves come and go, too.
            #expect(abs(try free() - before - Int64(said.blocks)) <= 64, "seed \(seed)")
        }
        #expect(store.nodeCount == 1)
    }
}
