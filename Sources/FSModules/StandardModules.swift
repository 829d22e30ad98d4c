/// The modules that every AegisFS program has.
public import FSCore

extension ModuleSet {
    public static let standard = standard(checksums: [CRC32C(), XXH3(), SHA256.shared])

    /// The same with checksums of another make, to measure what they cost.
    package static func standard(checksums: [any Checksum]) -> ModuleSet {
        ModuleSet(
            checksums: checksums, nameHash: { SipHash(key: $0) },
            codecs: [LZ4Codec(), ZstdCodec(), ZlibCodec()],
            journal: { (setup) throws(FSError) in try WriteAheadJournal(setup) },
            snapshots: { Snapshots($0) })
    }
}
