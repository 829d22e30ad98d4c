/// New files on a volume that was filled and half emptied at random, again and again, lie in long runs.
///
/// `AEGISFS_TEST_AGING` sets the volume's size in MiB.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct AgingTests {
    private static let mebibytes = UInt64(TestMachine.count("AEGISFS_TEST_AGING", default: 256))

    /// Mean run of a file on the device, in blocks.
    private func meanRun(_ volume: Volume, _ inode: InodeNumber) throws -> Double {
        let extents = try volume.fileSystem.fileMap.extents(inode, 0..<(1 << 40))
        var runs = 0
        var end: BlockAddress?
        var blocks: UInt64 = 0
        for extent in extents {
            if end != extent.record.replicas.first { runs += 1 }
            end = extent.record.replicas.first + UInt64(extent.record.blocks)
            blocks += UInt64(extent.record.blocks)
        }
        return Double(blocks) / Double(max(runs, 1))
    }

    @Test func newFilesStayContiguous() throws {
        let device = MemoryBlockDevice(byteCount: Self.mebibytes << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let fs = volume.fileSystem
        var random = SeededRandom(seed: 1)
        let content = random.bytes(1 << 20)
        func write(_ name: String, bytes: Int) throws -> InodeNumber {
            let inode = try Array(name.utf8).withView {
                try fs.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                    .inode
            }
            fs.release(inode, count: 1)
            var done = 0
            while done < bytes {
                let part = min(bytes - done, content.count)
                _ = try content.withView {
                    try fs.write(inode, at: UInt64(done), $0.slice(0, part))
                }
                done += part
            }
            return inode
        }
        func remove(_ name: String) throws {
            try Array(name.utf8).withView { try fs.unlink($0, in: .root) }
        }
        let size = Int(Self.mebibytes << 20) / 16
        var before = try meanRun(volume, write("fresh", bytes: size))
        try remove("fresh")
        before = min(before, Double(size >> 12))
        let total = fs.statistics().availableBlocks
        var names: [String] = []
        var number = 0
        // What is deleted in one round is what the next one is to be written to, though nobody asks for a
        // checkpoint in between.
        for _ in 0..<20 {
            while fs.statistics().availableBlocks > total / 10 {
                let name = "file\(number)"
                number += 1
                // Evenly over the logarithms, 4 KiB to 4 MiB.
                let power = 4096 << random.below(10)
                _ = try write(name, bytes: random.integer(in: power...2 * power))
                names.append(name)
            }
            names.shuffle(using: &random)
            for name in names[(names.count / 2)...] { try remove(name) }
            names.removeSubrange((names.count / 2)...)
        }
        var after = Double.infinity
        for index in 0..<4 {
            after = min(after, try meanRun(volume, write("aged\(index)", bytes: size / 4)))
        }
        print("aging: \(before) blocks a run when fresh, at least \(after) when aged")
        #expect(after >= 300, "\(before) blocks a run when fresh, \(after) when aged")
        for _ in 0...1 { try volume.checkpoint(force: true) }
        let free = try volume.freeRuns()
        print("aging: free space in runs of \(free.meanBlocks) blocks, \(free.histogram)")
        #expect(
            free.blocks + 200 > fs.statistics().freeBlocks
                && free.histogram.reduce(0, +) == free.count && free.meanBlocks > 1)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }
}
