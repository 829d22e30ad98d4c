/// Replaying many operations at a time is replaying them one by one.
import FSTestSupport
import Testing

@testable import FSCore
@testable import FSModules

@Suite struct ReplayBatchTests {
    private static let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))

    private struct Item: Hashable {
        var tree: UInt64
        var key: Key
    }

    /// Random puts and deletes of few items, so that most are changed more than once.
    private func operation(_ random: inout SeededRandom) -> Transaction {
        let operation = Transaction()
        for _ in 0..<random.below(6) {
            let key = Key(UInt64(random.below(20)), .inode, UInt64(random.below(3)))
            let tree = random.below(8) == 0 ? TreeID.volume : .head
            let item = tree == .volume ? Key(key.object, .share, key.offset) : key
            if random.below(4) == 0 {
                operation.replayUpdate(tree, item, nil)
            } else {
                let value = random.bytes(random.below(40))
                value.withView { operation.replayUpdate(tree, item, $0) }
            }
        }
        for _ in 0..<random.below(3) {
            operation.publish(run(&random))
            operation.release(run(&random))
        }
        operation.inodeDelta = Int64(random.below(5)) - 2
        operation.promisedDelta = Int64(random.below(5)) - 2
        operation.referencedDelta = Int64(random.below(5)) - 2
        return operation
    }

    private func run(_ random: inout SeededRandom) -> BlockRun {
        let start = UInt64(random.below(1000))
        return BlockRun(start..<start + UInt64(random.below(10)) + 1)
    }

    private func apply(_ operation: Transaction, to items: inout [Item: [UInt8]]) {
        for update in operation.updates {
            let item = Item(tree: update.tree.rawValue, key: update.key)
            items[item] = update.value.map { Array(operation.bytes[$0]) }
        }
    }

    @Test func togetherOrOneByOneIsTheSame() throws {
        var random = SeededRandom(seed: Self.seed)
        for _ in 0..<300 {
            let batch = ReplayBatch(limit: 100)
            var original: [Transaction] = []
            var expected: [Item: [UInt8]] = [:]
            while true {
                let next = operation(&random)
                guard batch.takes(next) else { break }
                batch.add(next)
                original.append(next)
                apply(next, to: &expected)
            }
            #expect(batch.count == original.count)

            let together = batch.changes.inKeyOrder()
            var items: [Item: [UInt8]] = [:]
            apply(together, to: &items)
            #expect(items == expected)
            let order = together.updates.map { ($0.tree.rawValue, $0.key) }
            #expect(zip(order, order.dropFirst()).allSatisfy { $0 < $1 }, "an item comes twice")
            #expect(together.published == original.flatMap(\.published))
            #expect(together.released == original.flatMap(\.released))
            #expect(together.inodeDelta == original.reduce(0) { $0 + $1.inodeDelta })

            let separate = batch.separate()
            #expect(separate.count == original.count)
            for (one, other) in zip(separate, original) {
                #expect(one.updates.map(\.key) == other.updates.map(\.key))
                #expect(one.published == other.published && one.released == other.released)
                #expect(one.inodeDelta == other.inodeDelta)
                #expect(one.promisedDelta == other.promisedDelta)
                #expect(one.referencedDelta == other.referencedDelta)
            }
            items = [:]
            for operation in separate { apply(operation, to: &items) }
            #expect(items == expected)
        }
    }

    @Test func tablesAreFollowedOneByOne() {
        let batch = ReplayBatch(limit: 100)
        for type in [ItemType.snapshot, .segment, .remap] {
            let operation = Transaction()
            operation.replayUpdate(.volume, Key(1, type, 1), nil)
            #expect(!batch.takes(operation))
        }
        let other = Transaction(tree: TreeID(99))
        #expect(batch.takes(other))
        batch.add(Transaction())
        #expect(!batch.takes(other))
    }

    /// Nil if there is no space for it.
    private func create(_ name: String, _ files: FileSystem) throws -> InodeNumber? {
        do {
            let made = try Array(name.utf8).withView {
                try files.create($0, in: .root, NewInode(mode: FileKind.regular.modeBits))
            }
            _ = try [UInt8](repeating: 7, count: 4096).withView {
                try files.write(made.inode, at: 0, $0)
            }
            return made.inode
        } catch FSError.noSpace {
            return nil
        }
    }

    /// False if there is no space for it.
    private func change(_ inode: InodeNumber, _ files: FileSystem) throws -> Bool {
        var changes = AttributeChanges()
        changes.mode = 0o600
        do {
            _ = try files.setAttributes(of: inode, changes)
            return true
        } catch FSError.noSpace {
            return false
        }
    }

    /// Inodes all over a volume without room are changed and the power goes off: the replay needs more
    /// places of nodes at once than is usual.
    @Test func aFullVolumeIsRecovered() throws {
        let device = SimulatedBlockDevice(byteCount: 48 << 20)
        _ = try VolumeFormatter.format(
            device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let files = volume.fileSystem
        var made: [InodeNumber] = []
        var random = SeededRandom(seed: Self.seed)
        while let file = try create("\(made.count)-\(random.below(1000))", files) {
            made.append(file)
        }
        try volume.checkpoint()
        var changed = 0
        for inode in made.shuffled(using: &random).prefix(300) {
            if try change(inode, files) { changed += 1 }
        }
        #expect(changed > 0)
        try volume.synchronize()
        for inode in made { files.release(inode, count: 1) }
        let cut = device.crashed(after: device.eventCount, .nothing, random: &random)
        let again = try Volume.open(cut, modules: .standard, options: options)
        // Whatever came before the last checkpoint that made room is not there any more.
        #expect(again.recovery?.operations ?? 0 > 0)
        try again.close()
        let report = try Checker.check(cut, modules: .standard)
        #expect(report.isClean)
        try volume.close()
    }
}
