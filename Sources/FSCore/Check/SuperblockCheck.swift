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
        let newest = copies.compactMap { try? $0.result.get().sequence.rawValue }.max() ?? 0
        return copies.compactMap { copy in
            // Format writes sequence 1, and so one pair only.
            guard case .failure(let error) = copy.result, newest != 1 || copy.pair == 1 else {
                return nil
            }
            let what = copy.isAbsent ? "there is none" : error.description
            return CheckFinding(
                issue: .superblockCopyBad, message: "block \(copy.block): \(what)")
        }
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
