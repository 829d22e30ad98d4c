/// Pins the on-disk format: sizes, offsets, places and fingerprints of `docs/FORMAT.md`. A test that
/// fails here says that the format changed; then the golden image and the numbers change with it,
/// in the same commit.
import FSModules
import FSTestSupport
import Testing

@testable import FSCore

@Suite struct FormatTests {
    private func fingerprint(_ bytes: [UInt8]) -> UInt64 {
        bytes.withView { CRC32C().sum($0).words.0 }
    }

    @Test func sizesAndOffsets() {
        #expect(DiskFormat.version == 1)
        #expect(Superblock.byteCount == 4096)
        #expect(Superblock.checksumOffset == 4064)
        #expect(NodePage.headerSize == 160)
        #expect(NodePage.slotSize == 21)
        #expect(InodeRecord.byteCount == 160)
        #expect(ExtentRecord.headerSize == 32)
        #expect(BitmapEntry.byteCount == 16)
        #expect(NodePointer.maximumByteCount == 84)
        #expect(Key.byteCount == 17)
    }

    @Test func placesOfTheLayout() {
        #expect(DiskLayout.superblockPlaces(pair: 0, blockCount: 1000) == (16, 999))
        #expect(DiskLayout.superblockPlaces(pair: 1, blockCount: 1000) == (32, 983))
        let layout = DiskLayout(blockCount: 1 << 32)
        #expect(layout.bitmapPlaces(.leaf, index: 0, slot: 1) == (65, 3841))
        let seventh: (UInt64, UInt64) = (229_376, 196_610)
        #expect(layout.bitmapPlaces(.leaf, index: 7, slot: 0) == seventh)
        #expect(layout.bitmapPlaces(.leaf, index: 1, slot: 0) == (32768, 66))
        let secondZone: (UInt64, UInt64) = (16_777_221, 8_388_615)
        #expect(layout.bitmapPlaces(.zone, index: 2, slot: 1) == secondZone)
        #expect(layout.bitmapPlaces(.device, index: 0, slot: 0) == (76, 3846))
    }

    /// Fixed places neither collide with each other nor with what may be allocated, at any size.
    @Test(
        arguments: [4096, 32768, 32768 + 64, 65536 + 100, 8_388_608 * 2 + 77, 1 << 27] as [UInt64])
    func fixedPlacesAreApart(blocks: UInt64) {
        let layout = DiskLayout(blockCount: blocks)
        var seen: Set<UInt64> = []
        func claim(_ place: UInt64) {
            #expect(place < blocks)
            #expect(seen.insert(place).inserted, "block \(place) is claimed twice")
            #expect(!layout.isAllocatable(BlockRun(BlockAddress(block: place), 1)))
        }
        for pair in 0...1 {
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: blocks)
            claim(places.front)
            claim(places.end)
        }
        for level in DiskLayout.BitmapLevel.allCases {
            for index in 0..<min(layout.bitmapBlockCount(level), 600) {
                for slot in 0...1 {
                    let places = layout.bitmapPlaces(level, index: index, slot: slot)
                    claim(places.0)
                    claim(places.1)
                }
            }
        }
        var allocatable: UInt64 = 0
        for region in 0..<min(layout.regionCount, 300) {
            var fixed = 0
            for run in layout.fixedRuns(inRegion: region) { fixed += run.count }
            allocatable += DiskLayout.regionBlocks - UInt64(fixed)
        }
        if layout.regionCount <= 300 { #expect(allocatable == layout.allocatableBlocks) }
    }

    @Test func recordsEncodeToTheirFingerprints() throws {
        var inode = InodeRecord(
            mode: 0o100644, userID: 1, groupID: 2, linkCount: 3,
            time: Timestamp(seconds: -5, nanoseconds: 7))
        inode.size = 1 << 40
        inode.parent = 9
        inode.nameCookie = 0x1234_5678_9ABC
        let buffer = ByteBuffer(count: InodeRecord.byteCount)
        inode.encode(buffer.bytes)
        #expect(try InodeRecord(decoding: buffer.view, inode: 1) == inode)

        let extent = ExtentRecord(
            blocks: 2, birth: BirthEpoch(1), replicas: ReplicaList(BlockAddress(block: 200)),
            sumKind: .crc32c, sums: [1, 2, 3, 4, 5, 6, 7, 8])
        let encoded = extent.encoded()
        #expect(
            try encoded.withView { view in
                try ExtentRecord(decoding: view, inode: 1, layout: DiskLayout(blockCount: 4096))
            } == extent)

        let directory = try Array("name".utf8).withView { (name) throws(FSError) in
            try DirectoryRecord.adding(
                name: name, inode: InodeNumber(77), kind: .regular, to: nil, directory: 1)
        }
        #expect(directory?.ordinal == 1)

        var entry = BitmapEntry()
        entry.isWritten = true
        entry.liveSlot = 1
        entry.used = 0x12_3456_7890
        entry.checksum = 0xDEAD_BEEF
        let entryBytes = ByteBuffer(count: 16)
        var writer = ByteWriter(entryBytes.bytes)
        entry.encode(&writer)

        #expect(fingerprint(buffer.view.toArray()) == Self.inodeFingerprint)
        #expect(fingerprint(encoded) == Self.extentFingerprint)
        #expect(fingerprint(directory?.record ?? []) == Self.directoryFingerprint)
        #expect(fingerprint(entryBytes.view.toArray()) == Self.bitmapEntryFingerprint)
    }
    private static let inodeFingerprint: UInt64 = 0x8A51A195
    private static let extentFingerprint: UInt64 = 0x8811B62F
    private static let directoryFingerprint: UInt64 = 0xB6C5F354
    private static let bitmapEntryFingerprint: UInt64 = 0x0C82B665

    /// Values that no writer produces and on which arithmetic would trap later.
    @Test func recordsBeyondTheirLimitsAreRefused() {
        var directory = InodeRecord(
            mode: 0o040755, userID: 0, groupID: 0, linkCount: 2,
            time: Timestamp(seconds: 0, nanoseconds: 0))
        directory.size = .max
        let buffer = ByteBuffer(count: InodeRecord.byteCount)
        directory.encode(buffer.bytes)
        #expect(throws: FSError.self) { try InodeRecord(decoding: buffer.view, inode: 1) }

        let pointer = NodePointer(
            level: 0, sequence: SuperblockSequence(1), birth: BirthEpoch(1),
            replicas: ReplicaList(BlockAddress(block: 200)), checksumKind: .crc32c)
        let reader = ByteReader(buffer.view, .node, at: 0)
        #expect(throws: FSError.self) {
            try pointer.validate(DiskLayout(blockCount: 4096), reader)
        }
    }

    /// A volume with times at the far end of the past can be read.
    @Test func timesNearTheEndOfTimeAreRead() throws {
        let device = MemoryBlockDevice(byteCount: 16 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard)
        let fs = volume.fileSystem
        let made = try Array("f".utf8).withView {
            try fs.create($0, in: .root, NewInode(mode: 0o100644))
        }
        _ = try [1].withView { try fs.write(made.inode, at: 0, $0) }
        var changes = AttributeChanges()
        let past = Timestamp(seconds: .min, nanoseconds: 0)
        changes.accessTime = .at(Timestamp(seconds: .min + 5, nanoseconds: 0))
        changes.modificationTime = .at(past)
        changes.changeTime = past
        _ = try fs.setAttributes(of: made.inode, changes)
        let buffer = ByteBuffer(count: 4096)
        #expect(try fs.read(made.inode, at: 0, into: buffer.bytes) == 1)
        try volume.close()
    }

    /// Published vectors: RFC 3720 B.4 for CRC32C, the reference implementation for SipHash-2-4.
    @Test func hashesMatchTheirVectors() {
        let zeros = [UInt8](repeating: 0, count: 32)
        #expect(fingerprint(zeros) == 0x8A91_36AA)
        let ascending = (0..<32).map { UInt8($0) }
        #expect(fingerprint(ascending) == 0x46DD_794E)
        // The reference implementations' own: an empty message and a short one.
        let nothing = ChecksumValue(words: (0x2D06_8005_38D3_94C2, 0, 0, 0))
        #expect([UInt8](repeating: 0, count: 1).withView { XXH3().sum($0.slice(0, 0)) } == nothing)
        let abc = Array("abc".utf8).withView { SHA256.shared.sum($0) }
        let digest: [UInt64] = [
            0xba78_16bf_8f01_cfea, 0x4141_40de_5dae_2223, 0xb003_61a3_9617_7a9c,
            0xb410_ff61_f200_15ad,
        ]
        #expect(
            [abc.words.0, abc.words.1, abc.words.2, abc.words.3] == digest.map(\.byteSwapped))
        let key = NameHashKey(0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908)
        let message = (0..<15).map { UInt8($0) }
        let siphash = SipHash(key: key)
        let expected: UInt64 = 0x29_CA61_49BE_45E5
        // Again and again: the contexts are used in turn and each more than once.
        for _ in 0..<40 {
            let hash = message.withView { siphash.hash($0) }
            #expect(hash == expected)
        }
    }

    @Test func superblockSurvivesEncoding() throws {
        let device = MemoryBlockDevice(byteCount: 16 << 20)
        var options = FormatOptions()
        options.label = "größe"
        _ = try VolumeFormatter.format(device, modules: .standard, options: options)
        let superblock = try SuperblockStore.newest(device, modules: .standard)
        #expect(superblock.label == "größe")
        let bytes = superblock.encoded(modules: .standard)
        #expect(try Superblock(decoding: bytes.view, at: 0) == superblock)
        #expect(bytes.view.u64(0) == DiskFormat.magic)
        #expect(Array("AEGISFS".utf8) == bytes.view.slice(0, 7).toArray())
    }
}
