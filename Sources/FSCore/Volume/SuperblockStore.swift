/// Finds the newest superblock, and writes the next one.
///
/// - Invariant: sequence *n* goes to pair *n* mod 2; the pair of *n* − 1 is not touched while *n* is
///   being written.
/// - Invariant: nothing that the newest readable superblock refers to has been re-used, because
///   blocks are re-used only after the flush behind the next superblock.
public enum SuperblockStore {
    /// One of the four places and what was found there.
    public struct Copy: Sendable {
        public var block: UInt64
        public var pair: Int
        public var result: Result<Superblock, FSError>
        /// There is no superblock's magic at all.
        public var isAbsent: Bool
    }

    /// Reads all four places. The end of the volume is where a readable front copy says, else the
    /// end of the device.
    public static func readAll(_ device: any BlockDevice, modules: ModuleSet) -> [Copy] {
        let deviceBlocks = device.byteCount >> 12
        var copies: [Copy] = []
        for pair in 0...1 {
            let front = DiskLayout.superblockPlaces(pair: pair, blockCount: 1 << 20).front
            copies.append(read(device, modules, block: front, pair: pair))
        }
        var ends: Set<UInt64> = []
        for copy in copies {
            if case .success(let superblock) = copy.result { ends.insert(superblock.blockCount) }
        }
        let supported = DiskLayout.supportedBlockCount(atMost: deviceBlocks)
        if ends.isEmpty, supported >= DiskLayout.minimumBlocks { ends = [supported] }
        for end in ends.sorted() where end >= DiskLayout.minimumBlocks && end <= deviceBlocks {
            for pair in 0...1 {
                let place = DiskLayout.superblockPlaces(pair: pair, blockCount: end).end
                copies.append(read(device, modules, block: place, pair: pair))
            }
        }
        return copies
    }

    private static func read(
        _ device: any BlockDevice, _ modules: ModuleSet, block: UInt64, pair: Int
    ) -> Copy {
        let buffer = ByteBuffer(count: DiskFormat.blockSize)
        let location = block << 12
        var isAbsent = true
        do throws(FSError) {
            guard location + UInt64(DiskFormat.blockSize) <= device.byteCount else {
                throw .notAVolume("the device ends before byte \(location)")
            }
            try device.read(into: buffer.bytes, at: location)
            let probe = Superblock.probe(buffer.view, modules: modules)
            isAbsent = probe == .noMagic
            switch probe {
            case .noMagic: throw .notAVolume("no superblock at byte \(location)")
            case .badChecksum:
                throw .corrupt(Corruption(.superblock, at: location, "checksum mismatch"))
            case .superblock: break
            }
            let superblock = try Superblock(decoding: buffer.view, at: location)
            guard superblock.sequence.rawValue % 2 == UInt64(pair) else {
                throw .corrupt(Corruption(.superblock, at: location, "copy of the other pair"))
            }
            return Copy(block: block, pair: pair, result: .success(superblock), isAbsent: false)
        } catch {
            return Copy(block: block, pair: pair, result: .failure(error), isAbsent: isAbsent)
        }
    }

    /// The newest superblock of a device.
    ///
    /// Throws what is most telling when none is usable: an unknown version or feature before
    /// damage, damage before "not a volume"; `.truncated` if the device is smaller than it was.
    public static func newest(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> Superblock {
        try find(device, modules: modules).superblock
    }

    /// The newest superblock, and whether a copy of the other pair can be read too. If it cannot,
    /// the newest found may not be the newest written.
    static func find(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> (superblock: Superblock, isOtherPairReadable: Bool) {
        let copies = readAll(device, modules: modules)
        var newest: Superblock?
        var failure: FSError?
        for copy in copies {
            switch copy.result {
            case .success(let superblock):
                if newest == nil || newest!.sequence < superblock.sequence { newest = superblock }
            case .failure(let error):
                if rank(error) > failure.map(rank) ?? -1 { failure = error }
            }
        }
        guard let newest else { throw failure ?? .notAVolume("no superblock") }
        // A copy that this program must not interpret may be newer than the one it can.
        if let failure, rank(failure) >= 2 { throw failure }
        guard newest.blockCount << 12 <= device.byteCount else {
            throw .truncated(
                expectedBytes: newest.blockCount << 12, foundBytes: device.byteCount)
        }
        let other = copies.contains { copy in
            guard case .success(let superblock) = copy.result else { return false }
            return superblock.sequence.rawValue % 2 != newest.sequence.rawValue % 2
        }
        // Format writes one pair only.
        return (newest, other || newest.sequence.rawValue == 1)
    }

    private static func rank(_ error: FSError) -> Int {
        switch error {
        case .unknownVersion, .unknownFeatures: 2
        case .corrupt, .device: 1
        default: 0
        }
    }

    /// Writes both copies of the pair that is due. The caller flushes before and after.
    static func write(
        _ superblock: Superblock, to device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) {
        let block = superblock.encoded(modules: modules)
        let places = DiskLayout.superblockPlaces(
            pair: Int(superblock.sequence.rawValue % 2), blockCount: superblock.blockCount)
        try device.write(block.view, at: places.front << 12)
        try device.write(block.view, at: places.end << 12)
    }
}
