/// The four places of the superblock, each for itself: the volume works as long as one is right, so
/// nothing else would tell that others are not.
internal import Glibc

extension Checker {
    /// A checkpoint writes a place within this time, unless the device hangs.
    private static let writeMicroseconds: UInt32 = 100_000

    /// The copies of an unmounted volume that cannot be used.
    public static func superblockFindings(
        _ device: any BlockDevice, modules: ModuleSet
    ) -> [CheckFinding] {
        let copies = SuperblockStore.readAll(device, modules: modules)
        let newest = copies.compactMap { try? $0.result.get() }.max { $0.sequence < $1.sequence }
        return copies.compactMap { copy in
            switch copy.result {
            case .success(let superblock):
                guard let newest, isStale(superblock, newest) else { return nil }
                return CheckFinding(
                    issue: .superblockCopyBad,
                    message: "block \(copy.block): sequence \(superblock.sequence.rawValue) is "
                        + "older than it must be", remedies: [.superblocks])
            case .failure(let error):
                // Format writes sequence 1, and so one pair only.
                if newest?.sequence.rawValue == 1, copy.pair != 1 { return nil }
                let what = copy.isAbsent ? "there is none" : error.description
                return CheckFinding(
                    issue: .superblockCopyBad, message: "block \(copy.block): \(what)",
                    remedies: [.superblocks])
            }
        }
    }

    /// A copy that missed a write. After a crash one may be older than its pair; a clean unmount has
    /// written both pairs anew.
    private static func isStale(_ copy: Superblock, _ newest: Superblock) -> Bool {
        newest.isCleanlyUnmounted && copy.sequence.rawValue + 1 < newest.sequence.rawValue
    }

    /// The same of a volume in use. A place may be looked at just while a checkpoint writes it, so
    /// what seems bad is looked at again.
    public static func superblockFindings(_ volume: Volume) -> [CheckFinding] {
        let first = superblockFindings(volume.physical, modules: volume.modules)
        guard !first.isEmpty else { return [] }
        usleep(writeMicroseconds)
        let second = superblockFindings(volume.physical, modules: volume.modules)
        return second.filter { found in first.contains { $0.message == found.message } }
    }
}
