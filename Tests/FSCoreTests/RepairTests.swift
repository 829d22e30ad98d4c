/// Every id of the catalogue: injected, found, repaired; after it a check is clean, and what the user has
/// besides is what it was.
import FSModules
import FSTestSupport
import Foundation
import Testing

@testable import FSCore

@Suite struct RepairTests {
    /// Ids that an injection cannot make, with the reason.
    private static let withoutInjection: [CheckIssue: String] = [:]

    @Test func everyIdHasAnInjection() {
        let injected = Set(Injection.all.map(\.issue))
        for issue in CheckIssue.allCases {
            #expect(injected.contains(issue) || Self.withoutInjection[issue] != nil, "\(issue)")
        }
        #expect(injected.count >= 60)
        print("repair: \(injected.count) ids of \(CheckIssue.allCases.count) are injected")
    }

    @Test(arguments: [false, true]) func everyIdIsRepaired(hasSnapshots: Bool) throws {
        let rig = try RepairRig(hasSnapshots: hasSnapshots)
        let clean = try Checker.check(rig.device, modules: .standard)
        #expect(clean.isClean, "\(clean.findings.prefix(3))")
        for injection in Injection.all + Injection.variants
        where injection.needsSnapshots == hasSnapshots {
            try injection.damage(rig)
            let found = try Checker.check(rig.device, modules: .standard).findings
            #expect(
                found.contains { $0.issue == injection.issue }, "\(injection.issue): \(found)")
            let report = try Repairer.repair(rig.device, modules: .standard)
            let after = try Checker.check(rig.device, modules: .standard)
            if let reason = injection.cannotBeRepaired {
                #expect(
                    after.findings.contains { $0.issue == injection.issue }, "\(reason)")
                #expect(!report.isRepaired)
                continue
            }
            let left = after.findings.map { "\($0.id) \($0.message)" }
            let failures = report.items.compactMap(\.failure)
            #expect(
                after.isClean && report.isRepaired,
                "\(injection.issue): \(left.prefix(5)), \(failures.prefix(3))")
            #expect(report.items.contains { $0.finding.issue == injection.issue })
            guard after.isClean else { continue }
            let again = try Repairer.repair(rig.device, modules: .standard)
            #expect(!again.foundDamage && again.isRepaired)
            let changes = try rig.changes(except: injection.victims)
            #expect(changes.isEmpty, "\(injection.issue): \(changes.prefix(5))")
        }
    }

    /// Damage of the head of a volume with snapshots and a clone: those keep what they show.
    @Test func headsAreRepairedBesideSnapshots() throws {
        let rig = try RepairRig(hasSnapshots: true)
        for injection in Injection.all + Injection.variants
        where !injection.needsSnapshots && !Self.ofSharedNodes.contains(injection.issue) {
            try injection.damage(rig)
            let report = try Repairer.repair(rig.device, modules: .standard)
            let left = report.check.findings.prefix(4).map { "\($0.id) \($0.message)" }
            #expect(report.isRepaired, "\(injection.issue): \(left)")
            guard report.isRepaired else { continue }
            let changes = try rig.changes(except: injection.victims)
            #expect(changes.isEmpty, "\(injection.issue): \(changes.prefix(5))")
        }
    }

    /// Damage of nodes that a snapshot has, too, and keeps.
    private static let ofSharedNodes: Set<CheckIssue> = [
        .nodeUnreadable, .nodeSharedTwice, .keysOutOfRange,
    ]

    /// A repair that is tried in memory says what the real one does, and changes nothing.
    @Test func aTrialIsTheSameAndChangesNothing() throws {
        let rig = try RepairRig()
        for injection in Injection.all where !injection.needsSnapshots {
            try injection.damage(rig)
            // It could not write if it tried.
            let trial = try Repairer.repair(
                ScratchBlockDevice(CuttingDevice(rig.device, after: 0)), modules: .standard)
            let real = try Repairer.repair(rig.device, modules: .standard)
            #expect(trial.items.map(\.finding.message) == real.items.map(\.finding.message))
            #expect(trial.items.map(\.isRepaired) == real.items.map(\.isRepaired))
        }
    }

    /// A repair that a power cut ends anywhere is done again, and succeeds.
    @Test func aRepairIsCrashSafe() throws {
        let rig = try RepairRig()
        var random = SeededRandom(seed: 17)
        var cuts = 0
        for injection in Injection.all
        where !injection.needsSnapshots && injection.cannotBeRepaired == nil {
            try injection.damage(rig)
            let counting = CuttingDevice(rig.device, after: .max)
            _ = try Repairer.repair(counting, modules: .standard)
            for _ in 0..<6 {
                try injection.damage(rig)
                let cut = random.below(counting.writes)
                let cutting = CuttingDevice(rig.device, after: cut, torn: random.chance(1, in: 2))
                #expect(throws: FSError.self) {
                    _ = try Repairer.repair(cutting, modules: .standard)
                }
                let report = try Repairer.repair(rig.device, modules: .standard)
                #expect(
                    report.isRepaired,
                    "\(injection.issue), cut after \(cut) of \(counting.writes): \(report.check.findings.prefix(3))"
                )
                guard report.isRepaired else { continue }
                let changes = try rig.changes(except: injection.victims)
                #expect(
                    changes.isEmpty, "\(injection.issue), cut after \(cut): \(changes.prefix(5))")
                cuts += 1
            }
        }
        print("repair: \(cuts) power cuts")
    }

    /// What a part of a file is lost of is not read as zeros.
    @Test func lostDataStaysUnreadable() throws {
        let rig = try RepairRig()
        for (issue, path) in [(CheckIssue.extentRecordBad, "victim"), (.nodeUnreadable, "other")] {
            let injection = try #require(Injection.all.first { $0.issue == issue })
            try injection.damage(rig)
            let seed = path == "victim" ? 1 : 2
            let right = RepairRig.bytes(seed, 300_000)
            #expect(try Repairer.repair(rig.device, modules: .standard).isRepaired)
            let volume = try rig.open()
            let inode = try Array(path.utf8).withView {
                try volume.fileSystem.lookup($0, in: .root).inode
            }
            let block = ByteBuffer(count: 4096)
            var lost = 0
            for offset in stride(from: 0, to: 300_000, by: 4096) {
                guard
                    let count = try? volume.fileSystem.read(
                        inode, at: UInt64(offset), into: block.bytes)
                else {
                    lost += 1
                    continue
                }
                let wanted = Array(right[offset..<min(offset + 4096, right.count)])
                #expect(block.view.slice(0, count).toArray() == wanted, "\(path) at \(offset)")
            }
            #expect(lost > 0)
            try volume.close()
        }
    }

    /// Both copies of any one node are lost: what is below it is put back, and the volume is whole again.
    @Test func anyNodeMayBeLost() throws {
        let image = try SealedImage(withSnapshots: false)
        for index in image.nodes.indices {
            image.reset()
            let pointer = image.nodes[index].pointer
            for replica in 0..<pointer.replicas.count {
                _ = try [UInt8](repeating: 0x5A, count: DiskFormat.nodeSize).withView {
                    try image.device.write($0, at: pointer.replicas[replica].block << 12)
                }
            }
            let report = try Repairer.repair(image.device, modules: .standard)
            let left = report.check.findings.prefix(4).map { "\($0.id) \($0.message)" }
            #expect(report.isRepaired, "node \(index), level \(pointer.level): \(left)")
            if pointer.level > 0 { #expect(report.salvagedItems > 0, "node \(index)") }
        }
    }

    /// Whatever is wrong with an image, repairing it ends, traps nowhere, and leaves something that can
    /// be repaired no further.
    @Test func hostileImagesAreRepairedOrLeft() throws {
        let images = TestMachine.count("AEGISFS_TEST_HOSTILE_REPAIRS", default: 600)
        let first = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
        let image = try SealedImage()
        var repaired = 0
        var tried = 0
        for seed in first..<first + UInt64(images) {
            var random = SeededRandom(seed: seed)
            image.mutate(&random)
            guard let report = try? Repairer.repair(image.device, modules: .standard) else {
                continue
            }
            tried += 1
            if report.isRepaired {
                repaired += 1
                let check = try Checker.check(image.device, modules: .standard)
                #expect(check.isClean, "seed \(seed)")
            }
        }
        print("repair: \(tried) of \(images) hostile images tried, \(repaired) repaired")
        #expect(repaired > images / 2)
    }

    /// `docs/CHECK.md` lists the catalogue.
    @Test func theDocumentListsTheCatalogue() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("docs/CHECK.md")
        let rows = try String(contentsOf: path, encoding: .utf8).split(separator: "\n")
            .filter { $0.hasPrefix("| AEGIS-") }
            .map { $0.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) } }
        #expect(rows.count == CheckIssue.allCases.count)
        for issue in CheckIssue.allCases {
            let row = rows.first { $0[0] == issue.id }
            #expect(
                row.map { Array($0[1...2]) } == [issue.severity.rawValue, issue.summary],
                "\(issue.id)")
            #expect(!issue.explanation.isEmpty)
        }
    }
}

/// Loses its power after so many writes; the last one may be torn.
private final class CuttingDevice: BlockDevice, @unchecked Sendable {
    private let base: any BlockDevice
    private let limit: Int
    private let isTorn: Bool
    private(set) var writes = 0

    init(_ base: any BlockDevice, after limit: Int, torn: Bool = false) {
        self.base = base
        self.limit = limit
        isTorn = torn
    }

    var byteCount: UInt64 { base.byteCount }
    var sectorSize: Int { base.sectorSize }
    var name: String { "cut" }
    var isReadOnly: Bool { false }
    func read(into target: MutableByteView, at offset: UInt64) throws(FSError) {
        try base.read(into: target, at: offset)
    }
    func write(_ source: ByteView, at offset: UInt64) throws(FSError) {
        guard writes < limit else {
            if writes == limit, isTorn, source.count > 4096 {
                try base.write(source.slice(0, 4096), at: offset)
            }
            writes += 1
            throw .device(.write, errno: 5, offset: offset)
        }
        writes += 1
        try base.write(source, at: offset)
    }
    func flush() throws(FSError) {
        if writes > limit { throw .device(.flush, errno: 5, offset: 0) }
    }
    func discard(at offset: UInt64, count: UInt64) throws(FSError) {}
}
