/// In what pieces a volume's free space lies, as `status` shows it.
internal import FSCore

struct FreeSpaceDocument: Codable, Sendable {
    /// Of a volume over 64 GiB those of a sample.
    var runs: UInt64
    var meanRunBytes: UInt64
    var longestRunBytes: UInt64

    /// Nil if the bitmap cannot be read, which other problems tell.
    init?(of volume: Volume) {
        guard let found = try? volume.freeRuns() else { return nil }
        runs = found.count
        meanRunBytes = found.meanBlocks << 12
        longestRunBytes = found.longest << 12
    }

    func summary(_ arguments: Arguments) -> String {
        "free space in runs of \(arguments.size(meanRunBytes)) on average, the longest has "
            + arguments.size(longestRunBytes)
    }
}
