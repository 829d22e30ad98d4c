/// Thousands of bit flips, zeroed, swapped, stale and torn blocks in everything that a volume has
/// allocated: each is found, no wrong byte is handed out, and whatever has a second copy is healed.
///
/// `AEGISFS_TEST_DAMAGES` sets how many places are damaged, `AEGISFS_TEST_SEED` where seeds begin.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite(.serialized) struct DamageCampaignTests {
    private static let damages = TestMachine.count("AEGISFS_TEST_DAMAGES", default: 10_000)
    private static let firstSeed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
    private static let perImage = 12

    @Test(arguments: [UInt64(0), 3, 5])
    func everyDamageIsFoundAndWhatCanBeIsHealed(variant: UInt64) throws {
        var format = FormatOptions(variant: variant)
        format.dataCopies = 1
        let image = try DamagedImage(format)
        let kinds = Set(image.units.map(\.kind))
        try #require(kinds.count == 4)
        let images = UInt64(Self.damages / Self.perImage / 3 + 1)
        var total = 0
        for seed in Self.firstSeed..<Self.firstSeed + images {
            var random = SeededRandom(seed: seed ^ variant << 32)
            image.reset()
            let damaged = try image.damage(Self.perImage, &random)
            total += damaged.count
            do {
                try examine(image, damaged)
            } catch {
                Issue.record("seed \(seed), variant \(variant): \(error); damaged: \(damaged)")
            }
        }
        print("damage campaign, variant \(variant): \(total) places")
    }

    /// All copies of one thing after the other: the volume opens, or says in a sentence why not; what
    /// can be read is right; nothing traps, and every lost block is told.
    @Test func whatIsLostWholly() throws {
        let image = try DamagedImage(FormatOptions())
        var refused = 0
        for unit in image.units {
            image.reset()
            try image.destroy(unit)
            for isReadOnly in [true, false] {
                let volume: Volume
                do {
                    volume = try DamagedImage.open(image.device, readOnly: isReadOnly)
                } catch let error as FSError {
                    refused += 1
                    #expect(unit.kind != .data && error.description.count > 20, "\(error)")
                    continue
                }
                // Without the newest superblock a read-only volume shows the state before.
                if unit.kind != .superblock || !isReadOnly {
                    try requireNoWrongByte(
                        volume, image, failures: unit.kind == .data ? 1 : .max, missing: true)
                }
                let record = try? Scrubber.run(
                    volume, .init(), command: { .goOn }, progress: { _ in })
                if let record, unit.kind == .data || unit.kind == .node {
                    // The nodes of the volume tree are written anew when it is opened.
                    #expect(record.lost >= 1 || unit.kind == .node, "\(unit): \(record)")
                }
                if unit.kind == .data { #expect(volume.damage().count == 1) }
                try? volume.close()
            }
            _ = try? Checker.check(image.device, modules: .standard)
        }
        #expect(refused > 0)
        // Of the superblocks everything: there is no volume any more.
        for unit in image.units where unit.kind == .superblock { try image.destroy(unit) }
        #expect(throws: FSError.self) { try DamagedImage.open(image.device) }
    }

    private struct Wrong: Error { let what: String }
    private func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
        if !condition { throw Wrong(what: what()) }
    }

    private func examine(_ image: DamagedImage, _ damaged: [DamagedImage.Unit]) throws {
        // Superblock copies are found without opening anything.
        let superblocks = damaged.filter { $0.kind == .superblock }.count
        let findings = Checker.superblockFindings(image.device, modules: .standard)
        try require(findings.count == superblocks, "\(findings) for \(superblocks) superblocks")
        let others = UInt64(damaged.count - superblocks)
        let lost = UInt64(damaged.filter { $0.kind == .data && $0.copies.count == 1 }.count)

        // A dry run names every one, and changes nothing.
        let reading = try DamagedImage.open(image.device, readOnly: true)
        var record = try scrub(reading, isDryRun: true)
        try require(
            record.found == others + UInt64(superblocks) && record.healed == 0
                && record.lost == lost, "dry run: \(record)")
        try requireNoWrongByte(reading, image, failures: lost)
        try reading.close()

        let volume = try DamagedImage.open(image.device)
        record = try scrub(volume)
        try require(record.lost == lost, "scrub: \(record)")
        try require(record.found - record.healed == lost, "scrub: \(record)")
        try require(volume.damage().count <= Int(lost), "\(volume.damage())")
        try require((lost == 0) == volume.damage().isEmpty, "\(volume.damage())")
        try volume.close()

        // Nothing is left but what has no second copy.
        let report = try Checker.check(image.device, modules: .standard)
        try require(report.isClean, "\(report.findings)")
        let again = try DamagedImage.open(image.device, readOnly: true)
        record = try scrub(again, isDryRun: true)
        try require(record.found == lost && record.lost == lost, "after it: \(record)")
        try requireNoWrongByte(again, image, failures: lost)
        try again.close()
    }

    private func scrub(_ volume: Volume, isDryRun: Bool = false) throws -> ScrubRecord {
        var options = Scrubber.Options()
        options.isDryRun = isDryRun
        let record = try Scrubber.run(volume, options, command: { .goOn }, progress: { _ in })
        try require(record.state == .finished, "\(record)")
        return record
    }

    /// Reads every file block by block: the right bytes or EIO, and no more of those than blocks
    /// without a copy.
    private func requireNoWrongByte(
        _ volume: Volume, _ image: DamagedImage, failures: UInt64, missing: Bool = false
    ) throws {
        var failed: UInt64 = 0
        let buffer = ByteBuffer(count: 4096)
        for (name, wanted) in image.contents {
            let found: Attributes
            do {
                found = try Array(name.utf8).withView {
                    try volume.fileSystem.lookup($0, in: .root)
                }
            } catch {
                // Never a wrong answer: a name whose node is lost is not said to be absent.
                try require(missing && error as? FSError != .noSuchEntry, "\(name): \(error)")
                continue
            }
            try require(found.size == UInt64(wanted.count), "size of \(name)")
            for start in stride(from: 0, to: wanted.count, by: 4096) {
                guard
                    let count = try? volume.fileSystem.read(
                        found.inode, at: UInt64(start), into: buffer.bytes)
                else {
                    failed += 1
                    continue
                }
                let bytes = buffer.view.slice(0, count).toArray()
                try require(
                    bytes == Array(wanted[start..<min(start + 4096, wanted.count)]),
                    "wrong bytes in \(name) at \(start)")
            }
            volume.fileSystem.release(found.inode, count: 1)
        }
        try require(failed <= failures, "\(failed) blocks cannot be read")
    }
}
