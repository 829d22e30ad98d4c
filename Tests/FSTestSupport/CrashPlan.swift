/// How thoroughly the crash states of a recorded run are tried, and what came of it.
public struct CrashPlan: Sendable {
    /// Of up to so many writes between two flushes every subset is tried; of more, those that lack
    /// one, have one, end somewhere, halves, and random ones.
    public var exhaustiveWrites = 10
    public var randomSubsets = 24
    /// Torn versions of each write.
    public var tornVersions = 6
    /// One state of so many also has a crash while it is being recovered from; 0: none.
    public var secondCrashEvery = 20
    /// One state of so many is opened and read once more after it was used; 0: none.
    public var reopenEvery = 10
    /// The campaign ends after so many distinct states.
    public var maximumStates = Int.max

    public init() {}
}

/// What was tried, and the first state that breaks the promise.
public struct CrashTally: Sendable {
    /// States of the medium that differ from each other.
    public var distinctStates = 0
    /// Crashes during the recovery from some of them; they are not counted above.
    public var secondCrashes = 0
    public var problem: String?

    public init() {}

    public mutating func add(_ other: CrashTally) {
        distinctStates += other.distinctStates
        secondCrashes += other.secondCrashes
        problem = problem ?? other.problem
    }
}

/// Which writes between two flushes reached the medium, and how.
struct CrashSelection {
    /// By their place in the interval, in the order of arrival.
    var writes: [Int]
    var torn: (write: Int, how: TornWrite)?

    /// The selections to try for `count` writes, of which those from `fresh` on are new: what has
    /// none of them is somebody else's.
    static func all(
        _ count: Int, fresh: Int, _ plan: CrashPlan, _ random: inout SeededRandom
    ) -> [CrashSelection] {
        var subsets: [[Int]] = [Array(0..<count)]
        if count <= plan.exhaustiveWrites {
            subsets = (0..<1 << count).map { mask in (0..<count).filter { mask >> $0 & 1 == 1 } }
        } else {
            for index in 0..<count {
                subsets.append(Array(0..<index))
                subsets.append([index])
                subsets.append((0..<count).filter { $0 != index })
            }
            subsets.append(Array(count / 2..<count))
            for rest in 0...1 { subsets.append((0..<count).filter { $0 % 2 == rest }) }
            for _ in 0..<plan.randomSubsets {
                let density = random.pick([1, 4, 8, 12, 15])
                var subset = (0..<count).filter { _ in random.chance(density, in: 16) }
                if random.chance(1, in: 2) { subset.shuffle(using: &random) }
                subsets.append(subset)
            }
        }
        var result = subsets.map { CrashSelection(writes: $0) }
        for index in 0..<count {
            for version in 0..<plan.tornVersions {
                let before = Array(0...index)
                let others: [Int] =
                    switch (version + index) % 3 {
                    case 0: before
                    case 1: [index]
                    default: before.dropLast() + Array(index + 1..<count) + [index]
                    }
                result.append(
                    CrashSelection(writes: others, torn: (index, TornWrite.any(&random))))
            }
        }
        // Nothing at all is the last state of what was before.
        return result.filter { fresh == 0 || $0.writes.contains { $0 >= fresh } }
    }
}

/// What a torn write leaves behind.
struct TornWrite {
    enum Arrival: CaseIterable { case half, beginning, end, allButOne, onlyOne, none }
    var arrival: Arrival
    var sectorSize: Int
    var lost: LostSectors
    var seed: UInt64

    static func any(_ random: inout SeededRandom) -> TornWrite {
        TornWrite(
            arrival: random.pick(Arrival.allCases), sectorSize: random.pick([512, 4096]),
            lost: random.pick([.old, .zero, .garbage, .any]), seed: random.next())
    }

    /// The blocks of `write` as they are found, over those that were there.
    func apply(
        _ write: DeviceWrite, over old: (UInt64) -> BlockImage.Block
    ) -> [(number: UInt64, block: BlockImage.Block)] {
        var random = SeededRandom(seed: seed)
        let sectors = BlockImage.blockSize / sectorSize
        let arrived = arrival(of: sectors * write.blocks.count, &random)
        return write.blocks.enumerated().map { index, new in
            let number = write.firstBlock + UInt64(index)
            var block = old(number)
            for sector in 0..<sectors {
                let range = sector * sectorSize..<(sector + 1) * sectorSize
                if arrived(index * sectors + sector) {
                    block.replaceSubrange(range, with: new[range])
                    continue
                }
                switch lost.choose(&random) {
                case .old: break
                case .zero: block.replaceSubrange(range, with: repeatElement(0, count: sectorSize))
                default: block.replaceSubrange(range, with: random.bytes(sectorSize))
                }
            }
            return (number, block)
        }
    }

    private func arrival(of count: Int, _ random: inout SeededRandom) -> (Int) -> Bool {
        let border = random.below(count)
        switch arrival {
        case .half:
            let arrived = (0..<count).map { _ in random.chance(1, in: 2) }
            return { arrived[$0] }
        case .beginning: return { $0 < border }
        case .end: return { $0 > border }
        case .allButOne: return { $0 != border }
        case .onlyOne: return { $0 == border }
        case .none: return { _ in false }
        }
    }
}
