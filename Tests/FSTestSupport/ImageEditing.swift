/// Damage to an image file on purpose, by system calls and the public layout.
public import FSCore
internal import FSModules
internal import Foundation

/// The image file of a volume that is not mounted.
public struct ImageFile {
    public let path: String
    public init(_ path: String) { self.path = path }

    /// Calls `body` with the volume in it, open in this process and without a timer, and closes it.
    ///
    /// Not locked: a process that another test starts just now would hold the lock for a moment longer.
    public func withVolume<R>(_ body: (Volume) throws -> R) throws -> R {
        let device = try FileBlockDevice(path: path, access: .readWrite, lock: false)
        defer { device.close() }
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        let volume = try Volume.open(device, modules: .standard, options: options)
        let result = try body(volume)
        try volume.close()
        return result
    }

    public func byteCount() throws -> UInt64 {
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        guard let size = attributes[.size] as? UInt64 else {
            throw ProcessFailure("\(path) has no size")
        }
        return size
    }

    public func read(at offset: UInt64, count: Int) throws -> [UInt8] {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { try? file.close() }
        try file.seek(toOffset: offset)
        return [UInt8](try file.read(upToCount: count) ?? Data())
    }

    public func write(_ bytes: [UInt8], at offset: UInt64) throws {
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        defer { try? file.close() }
        try file.seek(toOffset: offset)
        try file.write(contentsOf: Data(bytes))
    }

    /// Where the four copies of the superblock lie, in bytes.
    public func superblockOffsets() throws -> [UInt64] {
        let blocks = DiskLayout.supportedBlockCount(atMost: try byteCount() / 4096)
        return (0...1).flatMap { pair in
            let places = DiskLayout.superblockPlaces(pair: pair, blockCount: blocks)
            return [places.front * 4096, places.end * 4096]
        }
    }

    /// Changes every superblock copy and makes its checksum right again: what a program of another
    /// version, or somebody hostile, would write.
    public func editSuperblocks(_ edit: (inout [UInt8]) -> Void) throws {
        for offset in try superblockOffsets() {
            var block = try read(at: offset, count: 4096)
            edit(&block)
            // The last 32 bytes hold the sum over all others (docs/FORMAT.md).
            let sum = [UInt8](block.prefix(4064)).withView { CRC32C().sum($0) }
            for index in 0..<4 {
                block[4064 + index] = UInt8(truncatingIfNeeded: sum.words.0 >> UInt64(8 * index))
            }
            try write(block, at: offset)
        }
    }
}
