/// The copy-on-write tree against a sorted dictionary, through checkpoints, small caches and
/// re-opening; seeds are arguments and printed on failure.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct TreeTests {
    /// Random puts and deletes of keys from a small range, so that nodes split, merge and empty.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func treeMatchesASortedDictionary(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let device = MemoryBlockDevice(byteCount: 512 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        options.cacheBytes = 4 << 20
        var volume = try Volume.open(device, modules: .standard, options: options)
        var model: [Key: [UInt8]] = [:]
        let objects = UInt64(1 << 40)
        // Phases that mostly grow, mostly shrink, and mix.
        for phase in 0..<9 {
            let deletePercent = [10, 50, 90][phase % 3]
            for _ in 0..<1500 {
                let transaction = Transaction()
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    let key = Key(
                        objects + UInt64.random(in: 0..<40, using: &random),
                        ItemType(rawValue: 0x30), UInt64.random(in: 0..<200, using: &random))
                    if Int.random(in: 0..<100, using: &random) < deletePercent {
                        transaction.delete(key)
                        model[key] = nil
                    } else {
                        let length =
                            Int.random(in: 0..<20, using: &random) == 0
                            ? Int.random(in: 0...4000, using: &random)
                            : Int.random(in: 0...200, using: &random)
                        let value = (0..<length).map { _ in
                            UInt8.random(in: 0...255, using: &random)
                        }
                        transaction.put(key, value)
                        model[key] = value
                    }
                }
                try volume.commit(transaction, .ordinary)
                if Int.random(in: 0..<200, using: &random) == 0 { try volume.checkpoint() }
            }
            try compare(volume, model, objects)
            // Items of no inode are damage to a check of files, but blocks must add up.
            try volume.close()
            let report = try Checker.check(device, modules: .standard)
            let bad = report.findings.filter {
                $0.issue != .itemWithoutInode && $0.issue != .directoryRecordBad
            }
            #expect(bad.isEmpty, "seed \(seed): \(bad)")
            volume = try Volume.open(device, modules: .standard, options: options)
        }
        try volume.close()
    }

    private func compare(_ volume: Volume, _ model: [Key: [UInt8]], _ objects: UInt64) throws {
        var found: [Key: [UInt8]] = [:]
        var last: Key?
        var position: Key? = Key(objects, ItemType(rawValue: 0), 0)
        try volume.reading { () throws(TreeFault) in
            try volume.head.scan(&position, through: .maximum) { (key, value) throws(FSError) in
                #expect(last.map { $0 < key } ?? true)
                last = key
                found[key] = value.toArray()
                return true
            }
        }
        #expect(found == model)
        for key in model.keys.prefix(200) {
            let before = try volume.reading { () throws(TreeFault) in
                try volume.head.last(from: Key(objects, ItemType(rawValue: 0), 0), through: key) {
                    (key, _) throws(FSError) in key
                }
            }
            #expect(before == key)
        }
    }
}
