/// A full volume whose free space is in pieces in which no node fits: what makes space works all the
/// same, because data leaves the last places of nodes alone (`BlockAllocator+Places`).
///
/// `AEGISFS_TEST_FRAGMENTS` sets how many random volumes are tried, `AEGISFS_TEST_CRASHES` how many
/// crashes of one.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct FragmentedSpaceTests {
    private static let volumes = TestMachine.count("AEGISFS_TEST_FRAGMENTS", default: 6)
    private static let crashes = TestMachine.count("AEGISFS_TEST_CRASHES", default: 60)
    private static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))

    /// A volume and what is done to it.
    private final class Rig {
        let device: any BlockDevice
        var volume: Volume
        var fs: FileSystem { volume.fileSystem }
        var files: [String] = []

        static func options(_ rules: BrokenRules = []) -> OpenOptions {
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            options.brokenRules = rules
            return options
        }

        convenience init(mebibytes: UInt64, _ rules: BrokenRules = []) throws {
            try self.init(MemoryBlockDevice(byteCount: mebibytes << 20), rules)
        }
        init(_ device: any BlockDevice, _ rules: BrokenRules = []) throws {
            self.device = device
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            volume = try Volume.open(
                device, modules: .standard, options: Self.options(rules))
        }

        func inode(_ name: String) throws -> InodeNumber {
            let found = try Array(name.utf8).withView { (name) throws(FSError) in
                try fs.lookup(name, in: .root)
            }
            fs.release(found.inode, count: 1)
            return found.inode
        }

        func create(_ name: String) throws -> InodeNumber {
            let made = try Array(name.utf8).withView { (name) throws(FSError) in
                try fs.create(
                    name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
            }
            fs.release(made.inode, count: 1)
            files.append(name)
            return made.inode
        }

        /// Appends pieces until there is no space; returns how many blocks went in.
        @discardableResult
        func fill(_ name: String, piece: Int, limit: UInt64 = .max) throws -> UInt64 {
            let bytes = [UInt8](repeating: 0x5A, count: piece)
            var offset: UInt64 = 0
            do {
                let inode = try create(name)
                while offset < limit {
                    offset += UInt64(
                        try bytes.withView { (view) throws(FSError) in
                            try fs.write(inode, at: offset, view)
                        })
                }
            } catch FSError.noSpace {}
            return offset >> 12
        }

        /// Leaves `width` of every `step` blocks of a file.
        func comb(_ name: String, blocks: UInt64, every step: UInt64, width: UInt64) throws {
            let inode = try inode(name)
            for block in stride(from: 0, to: blocks, by: Int(step)) {
                try fs.allocate(
                    inode, at: (block + width) << 12, count: (step - width) << 12,
                    [.punchHole, .keepSize])
            }
        }

        func unlink(_ name: String) throws {
            try Array(name.utf8).withView { (name) throws(FSError) in
                try fs.unlink(name, in: .root)
            }
            files.removeAll { $0 == name }
        }

        func settle() throws { for _ in 0...1 { try volume.checkpoint(force: true) } }

        func free() throws -> UInt64 {
            try settle()
            return fs.statistics().freeBlocks
        }

        /// Fills a volume so that much of what is free lies between single blocks of a file; if that is
        /// cut on the full volume, its map takes places that are kept for such things.
        func fragment(whenFull: Bool = false) throws {
            let size = fs.statistics().availableBlocks << 12
            let blocks = try fill("comb", piece: 1 << 20, limit: whenFull ? .max : size / 2)
            try comb("comb", blocks: blocks, every: 2, width: 1)
            try settle()
            // What a larger piece does not fit into.
            for piece in [1 << 20, 64 << 10, 4096] { try fill("rest\(piece)", piece: piece) }
            try settle()
        }

        /// Counts by hand what the allocator counts as it goes.
        func expectCountsAreRight(sourceLocation: SourceLocation = #_sourceLocation) {
            let allocator = volume.allocator
            let (seen, counted) = allocator.lock.withLock {
                let seen = allocator.seen
                allocator.lookAgain()
                return (seen, allocator.seen)
            }
            #expect(
                seen.places == counted.places && seen.free == counted.free,
                "\(seen.places), \(seen.free); counted \(counted.places), \(counted.free)",
                sourceLocation: sourceLocation)
        }
    }

    /// Everything that makes space, on a volume without a free run as long as a node but those that
    /// are kept for it.
    @Test(arguments: [16, 32, 64, 300] as [UInt64], [false, true])
    func everythingThatMakesSpaceWorks(mebibytes: UInt64, whenFull: Bool) throws {
        let rig = try Rig(mebibytes: mebibytes)
        let empty = try rig.free()
        try rig.fragment(whenFull: whenFull)
        rig.expectCountsAreRight()
        let left = rig.volume.allocator.lock.withLock { rig.volume.allocator.seen }
        let kept = rig.volume.allocator.floors.kept(by: .ordinary, forNodes: 0)
        if !whenFull {
            #expect(left.placeBlocks + 256 >= kept.inPlaces, "\(left)")
            // What df showed could be written: gaps were filled before that.
            #expect(left.gapBlocks <= kept.blocks / 8 + 256, "\(left)")
        }
        #expect(rig.fs.statistics().availableBlocks < empty / 50)

        // Many small changes, each with a checkpoint: nodes come and go.
        let inode = try rig.inode("comb")
        for block in stride(from: 0, to: 400, by: 4) as StrideTo<UInt64> {
            try rig.fs.allocate(inode, at: block << 12, count: 4096, [.punchHole, .keepSize])
            try rig.volume.checkpoint()
        }
        try rig.fs.truncate(inode, to: 100 << 12)
        try rig.volume.checkpoint()
        let plan = try rig.volume.resize(.minimum)
        #expect(plan.newBytes == plan.minimumBytes || plan.newBytes == plan.oldBytes)
        #expect(try Checker.check(rig.volume).findings.isEmpty)
        for name in rig.files { try rig.unlink(name) }
        _ = try rig.volume.resize(.bytes(mebibytes << 20))
        #expect(try rig.free() + 64 >= empty)
        rig.expectCountsAreRight()
        try rig.volume.close()
        #expect(try checkerProblem(rig.device) == nil)
    }

    /// Bitmaps that were looked at and forgotten are looked at again before space is said to be out.
    @Test func forgottenRegionsAreLookedAtAgain() throws {
        let device = MemoryBlockDevice(byteCount: 768 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: Rig.options())
        let allocator = volume.allocator
        let regions = volume.layout.regionCount
        func hasRoom(_ places: UInt64) -> Bool {
            allocator.hasRoom(
                beyond: KeptSpace(blocks: 0, inPlaces: places, inPlacesIfPossible: 0))
        }
        #expect(!hasRoom(.max / 2))
        let all = allocator.lock.withLock { allocator.seen.placeBlocks }
        #expect(all > 700 << 8 && hasRoom(all - 4))
        allocator.lock.withLock {
            for region in 0..<regions { allocator.unloadIfUntouched(region) }
            #expect(allocator.seen.placeBlocks < all)
        }
        #expect(hasRoom(all - 4) && !hasRoom(all))
        try volume.close()
    }

    /// The control: data that takes the last places makes the same fail.
    @Test func dataThatTakesTheLastPlacesIsCaught() throws {
        let rig = try Rig(mebibytes: 64, .dataTakesLastPlaces)
        #expect(throws: FSError.self) {
            try rig.fragment()
            for name in rig.files { try rig.unlink(name) }
            try rig.settle()
        }
    }

    /// A volume full of gaps is made as small as it can be, and holds what it held.
    @Test(arguments: [2, 3, 5, 7] as [UInt64]) func shrinksIntoGaps(step: UInt64) throws {
        let rig = try Rig(mebibytes: 300)
        let blocks = try rig.fill("comb", piece: 1 << 20, limit: 180 << 20)
        try rig.comb("comb", blocks: blocks, every: step, width: step - 1)
        try rig.fill("tail", piece: 1 << 20, limit: 60 << 20)
        try rig.settle()
        let plan = try rig.volume.resize(.minimum)
        #expect(plan.newBytes == plan.minimumBytes && plan.newBytes < 296 << 20, "\(plan)")
        #expect(try Checker.check(rig.volume).findings.isEmpty)
        rig.expectCountsAreRight()
        for name in rig.files { try rig.unlink(name) }
        try rig.settle()
        rig.expectCountsAreRight()
        try rig.volume.close()
        #expect(try checkerProblem(rig.device) == nil)
    }

    /// Snapshots pin everything: a loop of "snapshot, unlink one file" ends with an error, and dropping
    /// them frees all.
    @Test func snapshotsCannotEatTheFloors() throws {
        let rig = try Rig(mebibytes: 64)
        let empty = try rig.free()
        for index in 0..<200 { try rig.fill("small\(index)", piece: 20_000, limit: 20_000) }
        try rig.fragment()
        var names: [[UInt8]] = []
        var refusals = 0
        for index in 0..<200 {
            let name = Array("snapshot\(index)".utf8)
            do {
                try rig.volume.snapshotStore.create(SnapshotLabel(name: name), of: .head)
                names.append(name)
            } catch FSError.noSpace { refusals += 1 }
            do { try rig.unlink("small\(index)") } catch FSError.noSpace { refusals += 1 }
        }
        // Snapshots are refused in the slop, so hardly any of it is spent.
        #expect(refusals > 100)
        let emergency = rig.volume.allocator.floors.emergency
        #expect(rig.volume.allocator.freeBlocks >= emergency)
        try rig.settle()
        try rig.volume.snapshotStore.delete(names)
        _ = try rig.volume.snapshotStore.sweep()
        for name in rig.files { try rig.unlink(name) }
        #expect(try rig.free() + 64 >= empty)
        rig.expectCountsAreRight()
        try rig.volume.close()
        #expect(try checkerProblem(rig.device) == nil)
    }

    // MARK: Random

    /// Fills, punches, cuts, snapshots and drops at random until nothing fits, again and again:
    /// whatever makes space works at any time, and counts stay right.
    @Test(arguments: (0..<UInt64(volumes)).map { firstSeed + $0 })
    func makesSpaceAtAnyTime(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rig = try Rig(mebibytes: random.pick([16, 24, 40, 64, 160]))
        let empty = try rig.free()
        for round in 0..<12 {
            try churn(rig, steps: 60, random: &random)
            rig.expectCountsAreRight()
            if random.chance(1, in: 3) {
                do throws(FSError) { _ = try rig.volume.resize(.minimum) } catch {
                    Issue.record("seed \(seed), round \(round): \(error)")
                }
                _ = try rig.volume.resize(.more(UInt64(random.below(40)) << 20))
                rig.expectCountsAreRight()
            }
            if random.chance(1, in: 3) {
                try rig.volume.close()
                #expect(try checkerProblem(rig.device) == nil, "seed \(seed), round \(round)")
                rig.volume = try Volume.open(
                    rig.device, modules: .standard, options: Rig.options())
            }
        }
        for name in rig.files { try rig.unlink(name) }
        let size = rig.volume.layout.blockCount
        if size != rig.device.byteCount >> 12 { Issue.record("the size is not the device's") }
        _ = try rig.volume.resize(.bytes(512 << 20))
        #expect(rig.volume.remaps.movedBlocks == 0)
        let large = try Rig(mebibytes: 512).free()
        #expect(try rig.free() + 64 + 16384 >= large && empty > 0)
        try rig.volume.close()
        #expect(try checkerProblem(rig.device) == nil)
    }

    private func churn(_ rig: Rig, steps: Int, random: inout SeededRandom) throws {
        for _ in 0..<steps {
            let name = rig.files.isEmpty ? nil : random.pick(rig.files)
            switch random.below(8) {
            case 0...2:
                let piece = random.pick([3000, 4096, 9000, 40_000, 300_000, 1 << 20])
                try rig.fill(
                    "f\(random.next())", piece: piece,
                    limit: random.chance(1, in: 3)
                        ? .max : UInt64(random.integer(in: piece...piece * 20)))
            case 3, 4:
                guard let name else { continue }
                let inode = try rig.inode(name)
                let blocks = try rig.fs.attributes(of: inode).size >> 12
                guard blocks > 8 else { continue }
                let step = UInt64(random.integer(in: 2...9))
                try rig.comb(
                    name, blocks: min(blocks, 600), every: step,
                    width: UInt64(random.integer(in: 1...Int(step) - 1)))
            case 5:
                guard let name else { continue }
                let inode = try rig.inode(name)
                let size = try rig.fs.attributes(of: inode).size
                try rig.fs.truncate(inode, to: UInt64(random.below(Int(size) + 1)))
            case 6:
                guard let name else { continue }
                try rig.unlink(name)
            default: try rig.volume.checkpoint()
            }
        }
    }

    // MARK: Crashes

    /// Power cuts on such a volume: it opens, the check finds nothing, and space can be made.
    @Test func makesSpaceAfterEveryCrash() throws {
        let device = SimulatedBlockDevice(byteCount: 24 << 20)
        let rig = try Rig(device)
        let firstEvent = device.eventCount
        try rig.fragment()
        let inode = try rig.inode("comb")
        for block in stride(from: 0, to: 200, by: 4) as StrideTo<UInt64> {
            try rig.fs.allocate(inode, at: block << 12, count: 4096, [.punchHole, .keepSize])
            if block % 16 == 0 { try rig.volume.synchronize() }
            if block % 64 == 0 { try rig.volume.checkpoint() }
        }
        try rig.fs.truncate(inode, to: 1 << 20)
        try rig.volume.checkpoint()
        var random = SeededRandom(seed: Self.firstSeed)
        for _ in 0..<Self.crashes {
            let event = random.integer(in: firstEvent...device.eventCount)
            let crashed = device.crashed(
                after: event, random.pick([.anySubset, .nothing, .everything, .lastTorn]),
                tornAt: 512, random: &random)
            let volume = try Volume.open(crashed, modules: .standard, options: Rig.options())
            // Both pairs of superblocks are written again.
            for _ in 0...1 { try volume.checkpoint(force: true) }
            let findings = try Checker.check(volume).findings
            #expect(findings.isEmpty, "event \(event): \(findings.prefix(3))")
            let fs = volume.fileSystem
            for name in ["comb", "rest\(1 << 20)"] {
                guard
                    let found = try? Array(name.utf8).withView({ try fs.lookup($0, in: .root) })
                else { continue }
                try fs.truncate(found.inode, to: 8192)
                fs.release(found.inode, count: 1)
                try Array(name.utf8).withView { try fs.unlink($0, in: .root) }
            }
            try volume.close()
            #expect(try checkerProblem(crashed) == nil, "event \(event)")
        }
    }
}
