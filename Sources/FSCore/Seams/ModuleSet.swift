/// The modules a program brings along: what fills the seams of the core.
///
/// FSCore declares the protocols, FSModules implements them, the program assembles both. Every
/// volume needs a checksum and a name hash; the others are there if a feature bit asks for them.
public struct ModuleSet: Sendable {
    private var checksums: [ChecksumKind: any Checksum]
    private let nameHash: @Sendable (NameHashKey) -> any NameHash
    private let journal: JournalMaker?
    let snapshots: SnapshotMaker
    private let codecs: [CodecKind: any Codec]

    public typealias JournalMaker = @Sendable (JournalSetup) throws(FSError) -> any Journal
    /// The result must not keep the volume alive.
    public typealias SnapshotMaker = @Sendable (Volume) -> any SnapshotPolicy

    /// - Parameters:
    ///   - checksums: at least one for each `ChecksumKind`.
    ///   - codecs: at least one for each `CodecKind`.
    public init(
        checksums: [any Checksum], nameHash: @escaping @Sendable (NameHashKey) -> any NameHash,
        codecs: [any Codec], journal: JournalMaker? = nil, snapshots: @escaping SnapshotMaker
    ) {
        self.snapshots = snapshots
        self.journal = journal
        self.codecs = Dictionary(
            codecs.map { ($0.kind, $0) }, uniquingKeysWith: { first, _ in first })
        self.checksums = Dictionary(
            checksums.map { ($0.kind, $0) }, uniquingKeysWith: { first, _ in first })
        self.nameHash = nameHash
        precondition(
            ChecksumKind.allCases.allSatisfy { self.checksums[$0] != nil },
            "a checksum kind of the disk format has no module")
        precondition(
            CodecKind.allCases.allSatisfy { self.codecs[$0] != nil },
            "a codec of the disk format has no module")
    }

    func checksum(_ kind: ChecksumKind) -> (any Checksum)? { checksums[kind] }
    func requiredChecksum(_ kind: ChecksumKind) -> any Checksum {
        guard let checksum = checksums[kind] else {
            preconditionFailure("checked by init: every kind has a module")
        }
        return checksum
    }
    func codec(_ kind: CodecKind) -> any Codec {
        guard let codec = codecs[kind] else {
            preconditionFailure("checked by init: every kind has a module")
        }
        return codec
    }
    /// The journal of a volume; nil if it has none.
    func journal(
        _ device: any BlockDevice, _ superblock: Superblock, _ brokenRules: BrokenRules = []
    ) throws(FSError) -> (any Journal)? {
        guard !superblock.journalExtents.isEmpty else { return nil }
        guard let journal else {
            throw .unknownFeatures(.incompatible, bits: DiskFormat.Incompatible.journal)
        }
        return try journal(
            JournalSetup(
                device: device, layout: superblock.layout,
                internalUUID: superblock.internalUUID, extents: superblock.journalExtents,
                recordSum: { recordSum(superblock, $0) }, brokenRules: brokenRules))
    }

    /// The keyed sum of the records of one incarnation of a volume's journal.
    func recordSum(_ superblock: Superblock, _ incarnation: UInt64) -> any NameHash {
        let key = nameHash(superblock.nameHashKey)
        return nameHash(Self.recordKey(from: key, incarnation: incarnation))
    }

    /// The key of the sums of one incarnation's records. It comes from the key of the names, over
    /// bytes that no name can be: a slash, and zeros.
    private static func recordKey(
        from key: any NameHash, incarnation: UInt64
    ) -> NameHashKey {
        func word(_ index: UInt8) -> UInt64 {
            var bytes = Array("journal/".utf8)
            bytes.append(littleEndian: incarnation)
            bytes += [0, index]
            return bytes.withView { key.hash($0) }
        }
        return NameHashKey(word(0) | word(2) << 56, word(1) | word(3) << 56)
    }

    func nameHash(_ key: NameHashKey) -> any NameHash { nameHash(key) }
}
