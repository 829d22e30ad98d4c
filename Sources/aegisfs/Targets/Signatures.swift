/// What is on a target already: the signatures that libblkid knows (filesystems, RAID members,
/// partition tables), a volume of our own, or other data.
internal import CBlkid
internal import FSCore
internal import FSModules
internal import Glibc

struct Signature: Codable, Sendable {
    /// `ext4`, `gpt`, `aegisfs`, ...
    var type: String
    var label: String?
    var uuid: String?

    var description: String {
        var text = type
        if let label, !label.isEmpty { text += ", label '\(label)'" }
        if let uuid { text += ", uuid \(uuid)" }
        return text
    }
}

enum Signatures {
    /// More than any device has; a wipe that has no effect must not run for ever.
    private static let maximumCount = 128
    private static let dataSearchBytes: Int64 = 64 << 20
    private static let dataSearchChunk = 1 << 20

    // MARK: Finding

    static func find(on path: String) throws(Failure) -> [Signature] {
        guard let file = Descriptor.open(path, O_RDONLY) else { throw .system(path, errno) }
        var found = ownVolume(file)
        guard byteCount(file) > 0 else { return found }
        try withProbe(file, path) { probe throws(Failure) in
            while found.count < maximumCount {
                let outcome = blkid_do_probe(probe)
                if outcome == 1 { return }
                guard outcome == 0 else { throw probeFailure(path) }
                let table = value(probe, "PTTYPE").map { "\($0) partition table" }
                if let type = value(probe, "TYPE") ?? table {
                    found.append(
                        Signature(
                            type: type, label: value(probe, "LABEL"),
                            uuid: value(probe, "UUID") ?? value(probe, "PTUUID")))
                }
            }
        }
        return found
    }

    /// A volume of ours, from whichever superblock copy still tells.
    private static func ownVolume(_ file: Descriptor) -> [Signature] {
        let blocks = byteCount(file) / UInt64(DiskFormat.blockSize)
        guard blocks >= DiskLayout.minimumBlocks else { return [] }
        let size = DiskLayout.supportedBlockCount(atMost: blocks)
        let buffer = ByteBuffer(count: DiskFormat.blockSize)
        var best: Signature?
        for pair in 0...1 {
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: size)
            for place in [places.front, places.end] {
                let count = pread(
                    file.raw, buffer.bytes.unsafeBytes.baseAddress, buffer.count,
                    off_t(place << UInt64(DiskFormat.blockShift)))
                guard count == buffer.count else { continue }
                switch Superblock.probe(buffer.view, modules: .standard) {
                case .noMagic: continue
                case .badChecksum: best = best ?? Signature(type: "aegisfs (damaged)")
                case .superblock:
                    guard let superblock = try? Superblock(decoding: buffer.view, at: place << 12)
                    else {
                        best = best ?? Signature(type: "aegisfs (another version)")
                        continue
                    }
                    return [
                        Signature(
                            type: "aegisfs", label: superblock.label,
                            uuid: superblock.uuid.description)
                    ]
                }
            }
        }
        return best.map { [$0] } ?? []
    }

    // MARK: Data without a signature

    /// Whether the first 64 MiB that are not holes hold anything but zeros.
    static func hasData(_ path: String) throws(Failure) -> Bool {
        guard let file = Descriptor.open(path, O_RDONLY) else { throw .system(path, errno) }
        let end = Int64(byteCount(file))
        var position: Int64 = 0
        var left = dataSearchBytes
        var chunk = [UInt8](repeating: 0, count: dataSearchChunk)
        while position < end, left > 0 {
            // lseek(2) with SEEK_DATA (3) skips holes where it is supported.
            let next = Int64(lseek(file.raw, off_t(position), 3))
            if next < 0, errno == ENXIO { return false }
            position = max(position, next)
            let count = pread(file.raw, &chunk, chunk.count, off_t(position))
            if count < 0 { throw .system(path, errno) }
            if count == 0 { return false }
            if chunk[..<count].contains(where: { $0 != 0 }) { return true }
            position += Int64(count)
            left -= Int64(count)
        }
        return false
    }

    // MARK: Wiping

    /// Erases every signature that libblkid finds, so that no other tool takes the target for what
    /// it was. A volume of ours is erased by formatting.
    static func wipe(_ path: String) throws(Failure) {
        guard let file = Descriptor.open(path, O_RDWR) else { throw .system(path, errno) }
        guard byteCount(file) > 0 else { return }
        try withProbe(file, path) { probe throws(Failure) in
            for _ in 0..<maximumCount {
                let outcome = blkid_do_probe(probe)
                if outcome == 1 { return }
                guard outcome == 0, blkid_do_wipe(probe, 0) == 0 else { throw probeFailure(path) }
            }
            throw probeFailure(path)
        }
        guard fsync(file.raw) == 0 else { throw .system(path, errno) }
    }

    /// Lets the kernel forget the partitions of a table that was wiped. Whoever still uses one keeps
    /// it, which `DeviceUsage` has ruled out.
    static func forgetPartitions(of path: String) {
        guard let file = Descriptor.open(path, O_RDONLY) else { return }
        // BLKRRPART; a device that cannot have partitions refuses, which is as good.
        _ = ioctl(file.raw, UInt(0x125F), CInt(0))
    }

    // MARK: libblkid

    private static func withProbe(
        _ file: Descriptor, _ path: String, _ body: (blkid_probe) throws(Failure) -> Void
    ) throws(Failure) {
        guard let probe = blkid_new_probe() else { throw probeFailure(path) }
        defer { blkid_free_probe(probe) }
        guard blkid_probe_set_device(probe, file.raw, 0, 0) == 0 else { throw probeFailure(path) }
        blkid_probe_enable_superblocks(probe, 1)
        blkid_probe_set_superblocks_flags(
            probe,
            BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID
                | BLKID_SUBLKS_BADCSUM)
        blkid_probe_enable_partitions(probe, 1)
        blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT)
        try body(probe)
    }

    private static func value(_ probe: blkid_probe, _ name: String) -> String? {
        var text: UnsafePointer<CChar>?
        guard blkid_probe_lookup_value(probe, name, &text, nil) == 0, let text else { return nil }
        return String(cString: text)
    }

    private static func probeFailure(_ path: String) -> Failure {
        Failure(.failed, .probeFailed, "the signatures of \(path) could not be examined or wiped")
    }

    /// The size of an image or a device.
    private static func byteCount(_ file: Descriptor) -> UInt64 {
        UInt64(max(0, lseek(file.raw, 0, SEEK_END)))
    }
}
