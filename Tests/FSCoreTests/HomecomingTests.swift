/// Blocks that a shrink had moved come home when the volume has grown again.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct HomecomingTests {
    private func open(_ device: any BlockDevice) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return try Volume.open(device, modules: .standard, options: options)
    }

    /// The last region that a volume of `byteCount` bytes has.
    private func lastRegion(_ byteCount: UInt64) -> UInt64 {
        ((byteCount >> 12) - 1) / DiskLayout.regionBlocks
    }

    /// A region that nobody has looked at since the volume grew: what comes home into it is not handed
    /// out, although its entry is gone and no checkpoint has said yet that it is there.
    @Test func whatComesHomeIsNotHandedOut() throws {
        let device = MemoryBlockDevice(byteCount: 768 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try open(device)
        for number in 0..<200 {
            let made = try Array("file\(number)".utf8).withView {
                try volume.fileSystem.create(
                    $0, in: .root, NewInode(mode: FileKind.regular.modeBits))
            }
            volume.fileSystem.release(made.inode, count: 1)
        }
        try volume.checkpoint()
        let small: UInt64 = 300 << 20
        _ = try volume.resize(.bytes(small))
        let moved = volume.remaps.all
        let between = lastRegion(small) + 1..<lastRegion(768 << 20)
        #expect(moved.contains { between.contains($0.source / DiskLayout.regionBlocks) })

        var taken: [BlockRun] = []
        var failure: (any Error)?
        _ = try volume.resize(
            .bytes(768 << 20),
            progress: { _ in
                do {
                    for record in moved {
                        taken.append(
                            try volume.allocator.allocateData(
                                record.count, goal: BlockAddress(block: record.source),
                                leaving: .nothing))
                    }
                } catch { failure = failure ?? error }
            })
        #expect(failure == nil && !taken.isEmpty)
        for run in taken {
            let isSomebodys = moved.contains {
                $0.source < run.blocks.upperBound && run.blocks.lowerBound < $0.end
            }
            #expect(!isSomebodys, "\(run) was handed out")
            volume.allocator.cancel(run)
        }
        #expect(try Checker.check(volume).findings.isEmpty)
        try volume.close()
        #expect(try Checker.check(device, modules: .standard).isClean)
    }

    /// Who only looks at free space forgets the bitmaps that he had to load, but not those that somebody
    /// needs meanwhile.
    @Test func whatIsHeldIsNotForgotten() throws {
        let device = MemoryBlockDevice(byteCount: 768 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try open(device)
        let allocator = volume.allocator
        let last = volume.layout.regionCount - 1
        func isLoaded(_ number: UInt64) -> Bool {
            allocator.lock.withLock { allocator.regions[number] != nil }
        }
        func look(_ number: UInt64, meanwhile: () throws -> Void) throws {
            _ = try allocator.lock.withLock { try allocator.loadedRegion(number) }
            try meanwhile()
            allocator.lock.withLock { allocator.unloadIfUntouched(number) }
        }
        try look(last) {}
        #expect(!isLoaded(last))
        let block = last * DiskLayout.regionBlocks + 100
        var isHeld = false
        try look(last) { isHeld = try allocator.hold(block..<block + 1) }
        #expect(isHeld)
        #expect(isLoaded(last))
        try volume.close()
    }
}
