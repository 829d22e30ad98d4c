/// Random operations in this process, on the core and on the model beside it.
///
/// `AEGISFS_TEST_OPS` sets how many operations are drawn in all, `AEGISFS_TEST_SEED` where the
/// seeds begin; a failure names its seed.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct ReferenceModelTests {
    static let seedCount = 10
    static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
    static let operations = TestMachine.count("AEGISFS_TEST_OPS", default: 60_000)

    /// All answers and all trees agree, also after remounts and checkpoints in between, and the
    /// checker finds nothing.
    @Test(arguments: (0..<UInt64(seedCount)).map { firstSeed + $0 })
    func agrees(seed: UInt64) throws { try compare(seed, compression: nil) }

    /// The same with what is written compressed.
    @Test(arguments: (0..<UInt64(seedCount / 2)).map { firstSeed + 100 + $0 })
    func agreesWhenCompressed(seed: UInt64) throws {
        let codecs: [CompressionSetting] = [
            .codec(.lz4, level: 1), .standard, .codec(.zlib, level: 1),
        ]
        try compare(seed, compression: codecs[Int(seed % 3)])
    }

    private func compare(_ seed: UInt64, compression: CompressionSetting?) throws {
        let device = MemoryBlockDevice(byteCount: 512 << 20)
        let format = FormatOptions(variant: seed)
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var options = CrashRun.openOptions
        var profile = OperationProfile()
        // Every other seed with a cache that holds little, every third with a larger tree.
        if seed % 2 == 0 { options.cacheBytes = 1 << 20 }
        if seed % 3 == 0 { profile.population = 1500 }
        if let compression {
            profile.isCompressible = true
            options.compression = compression
        }
        var volume = try Volume.open(device, modules: .standard, options: options)
        let executor = FileSystemExecutor(volume.fileSystem)
        let session = RandomSession(seed: seed, profile: profile, executor: executor)
        session.compareEvery = seed % 3 == 0 ? 2000 : 500
        var random = SeededRandom(seed: seed ^ 0xABCD)
        session.betweenOperations = { _ in
            switch random.below(600) {
            case 0:
                session.dropHandles()
                executor.dropHandles()
                try volume.close()
                if let problem = try checkerProblem(device) { throw session.divergence(problem) }
                volume = try Volume.open(device, modules: .standard, options: options)
                executor.remounted(volume.fileSystem)
            case 1..<6: try volume.checkpoint()
            default: break
            }
        }
        try session.run(Self.operations / Self.seedCount)
        try session.compareTrees()
        session.dropHandles()
        executor.dropHandles()
        #expect(volume.status().orphans == 0)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
        // A session that is refused nothing, or nearly everything, tests little.
        let refused = Double(session.refusalCount) / Double(session.operationCount)
        #expect(refused > 0.02 && refused < 0.5, "refused: \(refused)")
    }

    /// A volume that is nearly full refuses with ENOSPC and nothing else, and stays whole.
    @Test(arguments: [UInt64(1), 2, 3])
    func fillsUp(seed: UInt64) throws {
        let device = MemoryBlockDevice(byteCount: 24 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let executor = FileSystemExecutor(volume.fileSystem)
        var model = ReferenceFileSystem()
        var random = SeededRandom(seed: seed)
        var isFull = false
        for number in 0..<600 {
            let path = Path("f\(number)")
            let payload = Payload(.random, seed: seed, count: random.below(200_000))
            for operation in [
                FileOperation.create(path, NewInode(mode: FileKind.regular.modeBits | 0o644)),
                .write(.path(path), at: 0, payload),
            ] {
                let outcome = try executor.perform(operation)
                isFull = outcome == .failed(.noSpace)
                if isFull { break }
                #expect(model.perform(operation).mismatch(with: outcome) == nil)
            }
            if isFull { break }
        }
        #expect(isFull)
        // A refused write changes nothing; a refused file may be there, empty.
        var view = try executor.treeView()
        let expected = model.view.entries
        for path in view.entries.keys where expected[path] == nil {
            #expect(view.entries[path]?.attributes.size == 0)
            view.entries[path] = nil
        }
        for (path, wanted) in expected where path != .root {
            let difference = view.entries[path]?.content?.firstDifference(from: wanted.content!)
            #expect(view.entries[path] != nil && difference == nil, "\(path)")
        }
        for path in view.entries.keys.sorted() where path != .root {
            #expect(try executor.perform(.unlink(path)) == .done)
        }
        let again = FileOperation.create(
            Path("again"), NewInode(mode: FileKind.regular.modeBits | 0o644))
        #expect(try executor.perform(again) == .done)
        let payload = Payload(.random, seed: 9, count: 4 << 20)
        #expect(
            try executor.perform(.write(.path(Path("again")), at: 0, payload))
                == .count(UInt64(payload.count)))
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// Offsets that no test with real data reaches.
    @Test func hasVeryLargeSparseFiles() throws {
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let executor = FileSystemExecutor(volume.fileSystem)
        let path = Path("large")
        let new = NewInode(mode: FileKind.regular.modeBits | 0o644)
        #expect(try executor.perform(.create(path, new)) == .done)
        let offsets: [UInt64] = [0, 4095, 1 << 32, (1 << 44) - 3, 1 << 44, 1 << 50, 1 << 62]
        for (index, offset) in offsets.enumerated() {
            let payload = Payload(.random, seed: UInt64(index), count: 10_000)
            #expect(
                try executor.perform(.write(.path(path), at: offset, payload)) == .count(10_000))
        }
        for (index, offset) in offsets.enumerated().dropFirst(2) where index != 4 {
            let bytes = Payload(.random, seed: UInt64(index), count: 10_000).bytes
            let count = index == 3 ? 3 : 10_000
            #expect(
                try executor.perform(.read(.path(path), at: offset, count: count))
                    == .bytes([UInt8](bytes.prefix(count))))
        }
        #expect(
            try executor.perform(.read(.path(path), at: 1 << 61, count: 4096))
                == .bytes([UInt8](repeating: 0, count: 4096)))
        #expect(try executor.perform(.truncate(.path(path), 1 << 45)) == .done)
        #expect(
            try executor.perform(.seek(.path(path), from: (1 << 44) + 20_000))
                == .positions(data: nil, hole: (1 << 44) + 20_000))
        #expect(try executor.perform(.unlink(path)) == .done)
        try volume.close()
        #expect(try checkerProblem(device) == nil)
    }
}

/// The rig must see what it is there to see: each of these faults is put between the model and a
/// filesystem that is right.
@Suite struct ReferenceModelControlTests {
    /// Does everything right but what `twist` changes.
    private final class TwistedExecutor: OperationExecutor {
        let base: FileSystemExecutor
        let twist: (FileOperation) -> FileOperation?
        init(_ base: FileSystemExecutor, _ twist: @escaping (FileOperation) -> FileOperation?) {
            self.base = base
            self.twist = twist
        }
        func treeView() throws -> TreeView { try base.treeView() }
        func perform(_ operation: FileOperation) throws -> Outcome {
            guard let twisted = twist(operation) else { return .done }
            return try base.perform(twisted)
        }
    }

    enum Twist: CaseIterable {
        case forgetsMode, writesOneByteLess, forgetsAttribute, ignoresNoReplace, shiftsTime
        case forgetsRemoval

        func apply(_ operation: FileOperation) -> FileOperation? {
            switch (self, operation) {
            case (.forgetsMode, .setMode): return nil
            case (.writesOneByteLess, .write(let target, let offset, var payload)):
                payload.count -= min(payload.count, 1)
                return .write(target, at: offset, payload)
            case (.forgetsAttribute, .setExtendedAttribute(_, _, let payload, .createOrReplace))
            where payload.count <= 65536: return nil
            case (.ignoresNoReplace, .rename(let from, let to, .noReplace)):
                return .rename(from, to, [])
            case (.shiftsTime, .setTime(let target, var time)):
                time.nanoseconds ^= 1
                return .setTime(target, modification: time)
            case (.forgetsRemoval, .removeExtendedAttribute): return nil
            default: return operation
            }
        }
    }

    @Test(arguments: Twist.allCases) func notices(_ twist: Twist) throws {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let executor = TwistedExecutor(FileSystemExecutor(volume.fileSystem), twist.apply)
        let session = RandomSession(seed: 7, executor: executor)
        session.compareEvery = 20
        #expect(throws: Divergence.self) { try session.run(3000) }
        try volume.close()
    }
}
