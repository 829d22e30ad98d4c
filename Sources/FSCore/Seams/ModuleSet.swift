/// The modules a program brings along: what fills the seams of the core.
///
/// FSCore declares the protocols, FSModules implements them, the program assembles both. Every
/// volume needs a checksum and a name hash; the others are there if a feature bit asks for them.
public struct ModuleSet: Sendable {
    private var checksums: [ChecksumKind: any Checksum]
    private let nameHash: @Sendable (NameHashKey) -> any NameHash

    /// - Parameter checksums: at least one for each `ChecksumKind`.
    public init(
        checksums: [any Checksum], nameHash: @escaping @Sendable (NameHashKey) -> any NameHash
    ) {
        self.checksums = Dictionary(
            checksums.map { ($0.kind, $0) }, uniquingKeysWith: { first, _ in first })
        self.nameHash = nameHash
        precondition(
            ChecksumKind.allCases.allSatisfy { self.checksums[$0] != nil },
            "a checksum kind of the disk format has no module")
    }

    func checksum(_ kind: ChecksumKind) -> (any Checksum)? { checksums[kind] }
    func requiredChecksum(_ kind: ChecksumKind) -> any Checksum {
        guard let checksum = checksums[kind] else {
            preconditionFailure("checked by init: every kind has a module")
        }
        return checksum
    }
    func nameHash(_ key: NameHashKey) -> any NameHash { nameHash(key) }
}
