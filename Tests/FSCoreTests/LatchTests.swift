/// What should not be possible, and would be a crafted image's doing or a fault of ours, ends an
/// operation or the writing, and not the program.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct LatchTests {
    private func opened(
        _ device: any BlockDevice, _ rules: BrokenRules = []
    ) throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.brokenRules = rules
        return try Volume.open(device, modules: .standard, options: options)
    }

    private func formatted() throws -> MemoryBlockDevice {
        let device = MemoryBlockDevice(byteCount: 64 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        return device
    }

    private func create(_ name: String, _ volume: Volume) throws -> InodeNumber {
        let made = try Array(name.utf8).withView { (name) throws(FSError) in
            try volume.fileSystem.create(
                name, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
        }
        return made.inode
    }

    private func isLatched(_ volume: Volume) -> Bool {
        if case .latched = volume.status().state { true } else { false }
    }

    /// A change that needs more places than were set aside for it.
    @Test func aChangeBeyondItsPlanEndsTheWriting() throws {
        let device = try formatted()
        let volume = try opened(device, .plansNothing)
        var made = 0
        do throws(FSError) {
            while made < 100_000 {
                _ = try { () throws(FSError) in
                    do { return try create("file\(made)", volume) } catch let error as FSError {
                        throw error
                    } catch { throw .invalidArgument }
                }()
                made += 1
            }
            Issue.record("a change was made without places")
        } catch {
            guard case .corrupt = error else { throw error }
        }
        #expect(isLatched(volume) && volume.status().failure != nil)
        #expect(throws: FSError.self) { try create("more", volume) }
        #expect(throws: FSError.self) { try volume.checkpoint(force: true) }
        // What there is can be read.
        #expect(try volume.fileSystem.attributes(of: .root).size >= 0)
        #expect(throws: FSError.self) { try volume.close() }
        // Nothing of it went to the device.
        let again = try opened(device)
        #expect(try Checker.check(again).findings.isEmpty)
        try again.close()
        #expect(try checkerProblem(device) == nil)
    }

    /// A node that is no longer where the plan found it.
    @Test func aNodeThatWentAwayEndsTheWriting() throws {
        let volume = try opened(formatted())
        for index in 0..<2000 { _ = try create("file\(index)", volume) }
        try volume.checkpoint(force: true)
        let key = Key(InodeNumber.root, .inode)
        try volume.refillPool(to: 40, .ordinary, dirtyPages: 0)
        volume.treeLock.lockExclusive()
        var leaf: Page?
        _ = try volume.head.forEachPage(on: key) { leaf = $0 }
        let found = try #require(leaf)
        #expect(volume.head.root.level > 0)
        volume.cache.remove(found)
        #expect(throws: FSError.self) {
            // Gives the lock up.
            try volume.changing { () throws(FSError) in
                try [1, 2, 3].withView { (view) throws(FSError) in
                    try volume.head.put(key, view)
                }
            }
        }
        #expect(isLatched(volume))
        #expect(throws: FSError.self) { try create("more", volume) }
        #expect(try volume.fileSystem.attributes(of: .root).linkCount == 2)
    }

    /// An operation that no record of the journal can hold fails alone.
    @Test func anOperationLargerThanARecordIsRefused() throws {
        let volume = try opened(formatted())
        let transaction = Transaction()
        let value = [UInt8](repeating: 1, count: 4000)
        for index in 0..<4000 as Range<UInt64> {
            let key = Key(1 << 40, ItemType(rawValue: 0x30), index)
            value.withView { transaction.replayUpdate(.head, key, $0) }
        }
        #expect(throws: FSError.self) { try volume.commit(transaction, .ordinary) }
        #expect(volume.status().state == .online)
        _ = try create("file", volume)
        try volume.close()
    }

    /// A repair works beside records of snapshots that nothing has decoded: one that claims more replicas
    /// than it has room for, and names a node that is just being written.
    @Test(arguments: [0, 1, 4, 11, 12, 200, 255] as [UInt8])
    func anUndecodedRootIsNotPatchedBeyondItsRecord(replicas: UInt8) throws {
        let volume = try opened(formatted())
        _ = try create("file", volume)
        let address = volume.treeLock.shared { volume.head.root.address }
        var record = [UInt8](repeating: 0, count: SnapshotRecord.byteCount)
        record[SnapshotRecord.rootOffset] = replicas
        for index in 0..<8 {
            record[SnapshotRecord.rootOffset + NodePointer.addressOffset + index] = UInt8(
                truncatingIfNeeded: address.rawValue >> UInt64(8 * index))
        }
        let transaction = Transaction(tree: .volume)
        transaction.put(SnapshotRecord.key(99), record)
        try volume.applyRepair(transaction)
        try volume.checkpoint(force: true)
        #expect(volume.treeLock.shared { volume.head.root.address } == address)
        #expect(volume.status().state == .online)
    }
}
