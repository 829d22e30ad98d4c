/// The modules that every AegisFS program has.
public import FSCore

extension ModuleSet {
    public static let standard = ModuleSet(
        checksums: [CRC32C(), XXH3(), SHA256.shared], nameHash: { SipHash(key: $0) },
        codecs: [LZ4Codec(), ZstdCodec(), ZlibCodec()],
        journal: { (setup) throws(FSError) in try WriteAheadJournal(setup) },
        snapshots: { Snapshots($0) })
}
