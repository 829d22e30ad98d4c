/// A populated volume for tests of `check` and repair: it is damaged past all rules, with checksums made
/// right again, and afterwards compared with what it was.
import FSModules
import FSTestSupport

@testable import FSCore

final class RepairRig {
    static let byteCount: UInt64 = 48 << 20

    let device: OverlayBlockDevice
    /// What each path was.
    private(set) var original: [String: Entry] = [:]

    struct Entry: Equatable {
        var mode: UInt32
        var links: UInt32
        var owner: UInt32
        var size: UInt64
        var bytes: UInt64
        var attributes: [String: UInt64]
    }

    /// - Parameter hasSnapshots: besides there are two snapshots and a clone, with something in every
    ///   deadlist.
    init(hasSnapshots: Bool = false) throws {
        device = OverlayBlockDevice(byteCount: Self.byteCount)
        var format = FormatOptions()
        format.journalByteCount = 2 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        let volume = try open()
        try populate(volume.fileSystem)
        if hasSnapshots {
            let store = volume.snapshotStore
            try store.create(SnapshotLabel(name: Array("first".utf8)))
            try more(volume.fileSystem, "between")
            try store.create(SnapshotLabel(name: Array("second".utf8)))
            try more(volume.fileSystem, "behind")
            try store.clone(Array("first".utf8), as: SnapshotLabel(name: Array("clone".utf8)))
        }
        try volume.close()
        device.keep()
        original = try contents()
    }

    func open() throws -> Volume {
        var options = OpenOptions()
        options.checkpointIntervalMilliseconds = 0
        return try Volume.open(device, modules: .standard, options: options)
    }

    // MARK: Contents

    private static let file = NewInode(mode: FileKind.regular.modeBits | 0o640, userID: 7)

    static func bytes(_ seed: Int, _ count: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(seed) &+ 400)
        return random.bytes(count)
    }

    @discardableResult
    func create(
        _ path: String, _ fs: FileSystem, _ content: [UInt8] = [], _ new: NewInode = file
    ) throws -> InodeNumber {
        var parts = path.split(separator: "/").map { Array($0.utf8) }
        let name = parts.removeLast()
        var directory = InodeNumber.root
        for part in parts {
            directory = try part.withView { try fs.lookup($0, in: directory).inode }
        }
        let made = try name.withView { try fs.create($0, in: directory, new) }
        if !content.isEmpty { _ = try content.withView { try fs.write(made.inode, at: 0, $0) } }
        fs.release(made.inode, count: 1)
        return made.inode
    }

    private func populate(_ fs: FileSystem) throws {
        let directory = NewInode(mode: FileKind.directory.modeBits | 0o755)
        for index in 0..<40 { try create("gone-\(index)", fs) }
        for name in ["a", "a/b", "a/b/c", "d", "e"] { try create(name, fs, [], directory) }
        for index in 0..<60 { try create("a/file-\(index)", fs, Self.bytes(index, index * 31)) }
        try create("victim", fs, Self.bytes(1, 300_000))
        try create("other", fs, Self.bytes(2, 300_000))
        try create("small", fs, Self.bytes(3, 700))
        try create("a/b/named", fs, Self.bytes(4, 900))
        let sparse = try create("sparse", fs)
        for index in 0..<8 {
            _ = try Self.bytes(5, 5000).withView {
                try fs.write(sparse, at: UInt64(index) << 20, $0)
            }
        }
        try fs.allocate(sparse, at: 20 << 20, count: 100_000, [])
        let hard = try create("hard", fs, Self.bytes(6, 5000))
        for index in 0..<3 {
            try Array("hard-\(index)".utf8).withView { _ = try fs.link(hard, as: $0, in: .root) }
        }
        _ = try Array("link".utf8).withView { name in
            try Array("a/file-3".utf8).withView {
                try fs.createSymbolicLink(name, in: .root, target: $0, userID: 0, groupID: 0)
            }
        }
        let attributed = try create("attributed", fs, Self.bytes(7, 100))
        for (name, count) in [("user.short", 20), ("user.long", 9000), ("user.other", 40)] {
            try Array(name.utf8).withView { name in
                try Self.bytes(8, count).withView {
                    try fs.setExtendedAttribute(name, of: attributed, $0, .createOrReplace)
                }
            }
        }
        let encoded = try create("encoded", fs)
        try fs.setProperty(.compression, of: encoded, "zstd")
        _ = try Payload(.text, seed: 9, count: 200_000).bytes.withView {
            try fs.write(encoded, at: 0, $0)
        }
        let double = try create("double", fs)
        try fs.setProperty(.copies, of: double, "2")
        _ = try Self.bytes(10, 100_000).withView { try fs.write(double, at: 0, $0) }
        let copy = try create("copy", fs)
        let source = try Array("other".utf8).withView { try fs.lookup($0, in: .root).inode }
        _ = try fs.copyRange(from: source, at: 0, to: copy, at: 0, count: 131_072)
        try fs.setProperty(.scrubInterval, of: .root, "30d")
        for index in 0..<40 {
            try Array("gone-\(index)".utf8).withView { try fs.unlink($0, in: .root) }
        }
    }

    private func more(_ fs: FileSystem, _ name: String) throws {
        try create(name, fs, Self.bytes(name.utf8.count, 50_000))
        for victim in ["victim", "sparse"] {
            let inode = try Array(victim.utf8).withView { try fs.lookup($0, in: .root).inode }
            _ = try Self.bytes(11, 6000).withView {
                try fs.write(inode, at: name == "behind" ? 0 : 65536, $0)
            }
            fs.release(inode, count: 1)
        }
        try Array("a".utf8).withView { _ = try fs.lookup($0, in: .root) }
        try Array("hard-\(name == "behind" ? 1 : 2)".utf8).withView {
            try fs.unlink($0, in: .root)
        }
    }

    // MARK: What is there

    /// Everything that can be reached and read; what cannot is left out.
    func contents() throws -> [String: Entry] {
        let volume = try open()
        defer { try? volume.close() }
        var found: [String: Entry] = [:]
        try walk(volume.fileSystem, .root, "", &found)
        for name in volume.snapshotStore.snapshotNames {
            let files = try volume.snapshotStore.files(of: name)
            try walk(files, .root, "@\(String(decoding: name, as: UTF8.self))", &found)
        }
        for head in volume.snapshotStore.headIDs where head != .head {
            guard let files = try volume.files(of: head) else { continue }
            try walk(files, .root, "@head\(head.rawValue)", &found)
        }
        return found
    }

    private func walk(
        _ fs: FileSystem, _ directory: InodeNumber, _ path: String, _ found: inout [String: Entry]
    ) throws {
        var names: [(String, InodeNumber)] = []
        try fs.readDirectory(directory, after: 0, withAttributes: false) { entry, _ in
            if entry.cookie > 2 {
                names.append(
                    (String(decoding: entry.name.toArray(), as: UTF8.self), entry.inode))
            }
            return true
        }
        for (name, inode) in names {
            let own = path + "/" + name
            guard let attributes = try? fs.attributes(of: inode), let entry = try? entry(fs, inode)
            else { continue }
            found[own] = entry
            if attributes.kind == .directory { try walk(fs, inode, own, &found) }
        }
    }

    private func entry(_ fs: FileSystem, _ inode: InodeNumber) throws -> Entry {
        let attributes = try fs.attributes(of: inode)
        let hash = XXH3()
        var sum: UInt64 = 0
        switch attributes.kind {
        case .regular:
            let buffer = ByteBuffer(count: 65536)
            var offset: UInt64 = 0
            while offset < attributes.size {
                let count = try fs.read(inode, at: offset, into: buffer.bytes)
                guard count > 0 else { break }
                sum = sum &* 31 &+ hash.sum(buffer.view.slice(0, count)).words.0
                offset += UInt64(count)
            }
        case .symbolicLink:
            sum = try fs.symbolicLinkTarget(of: inode).withView { hash.sum($0).words.0 }
        default: break
        }
        var values: [String: UInt64] = [:]
        for name in try fs.extendedAttributeNames(of: inode).split(separator: 0) {
            values[String(decoding: name, as: UTF8.self)] = try Array(name).withView {
                try fs.extendedAttribute($0, of: inode).withView { hash.sum($0).words.0 }
            }
        }
        let isDirectory = attributes.kind == .directory
        return Entry(
            mode: attributes.mode, links: isDirectory ? 0 : attributes.linkCount,
            owner: attributes.userID, size: isDirectory ? 0 : attributes.size, bytes: sum,
            attributes: values)
    }

    /// Paths that are not what they were, without those that begin with one of `victims`.
    func changes(except victims: [String]) throws -> [String] {
        let now = try contents()
        return original.compactMap { path, entry in
            let isVictim = victims.contains {
                path.hasPrefix("/" + $0) || $0.hasPrefix("@") && path.hasPrefix($0)
            }
            if now[path] == entry || isVictim {
                return nil
            }
            return path
        }.sorted()
    }

    // MARK: Damage

    /// Changes items past all rules, and makes it the state of the device.
    func damage(_ body: (Damage) throws -> Void) throws {
        device.revert()
        let volume = try open()
        let damage = Damage(volume)
        try body(damage)
        if !damage.transaction.isEmpty {
            _ = try volume.commit(
                Volume.Recording(damage.transaction, [], .emergency, .upkeep), freezing: nil)
        }
        try volume.checkpoint(force: true, alter: damage.alter)
        try volume.checkpoint(force: true, unmounting: true, alter: damage.alter)
        try volume.sealJournal()
    }

    final class Damage {
        let volume: Volume
        let transaction = Transaction()
        var alter: (inout Superblock) -> Void = { _ in }
        var fs: FileSystem { volume.fileSystem }

        init(_ volume: Volume) { self.volume = volume }

        func inode(_ path: String) throws -> InodeNumber {
            var inode = InodeNumber.root
            for part in path.split(separator: "/") {
                inode = try Array(part.utf8).withView { try fs.lookup($0, in: inode).inode }
            }
            return inode
        }

        /// Items of a tree in a range.
        func items(_ tree: CopyOnWriteTree, _ range: ClosedRange<Key>) throws -> [(
            key: Key, value: [UInt8]
        )] {
            var found: [(key: Key, value: [UInt8])] = []
            var position: Key? = range.lowerBound
            try volume.reading { () throws(TreeFault) in
                try tree.scan(&position, through: range.upperBound) { key, value in
                    found.append((key, value.toArray()))
                    return true
                }
            }
            return found
        }
        func items(_ path: String, _ type: ItemType) throws -> [(key: Key, value: [UInt8])] {
            let number = try inode(path).rawValue
            return try items(volume.head, Key(number, type, 0)...Key(number, type, .max))
        }
        func volumeItems(_ type: ItemType) throws -> [(key: Key, value: [UInt8])] {
            try items(volume.volumeTree, .minimum ... .maximum).filter { $0.key.type == type }
        }

        func record(_ path: String, _ edit: (inout InodeRecord) -> Void) throws {
            let inode = try inode(path)
            var record = try fs.record(of: inode)
            edit(&record)
            transaction.put(inode, record)
        }
        /// Changes the bytes of an item of an inode.
        func edit(_ path: String, _ type: ItemType, _ edit: (inout [UInt8]) -> Void) throws {
            var item = try items(path, type)[0]
            edit(&item.value)
            transaction.put(item.key, item.value)
        }
        func edit(volume type: ItemType, _ edit: (inout [UInt8]) -> Void) throws {
            var item = try volumeItems(type)[0]
            edit(&item.value)
            transaction.put(item.key, item.value, tree: .volume)
        }
        /// The item with the name of a path, whose names are the only ones under their hash.
        func name(_ path: String) throws -> (key: Key, value: [UInt8]) {
            let cut = path.lastIndex(of: "/")
            let parent = try inode(cut.map { String(path[..<$0]) } ?? "")
            let name = cut.map { path[path.index(after: $0)...] } ?? path[...]
            let key = Key(
                parent, .directoryEntry, Array(name.utf8).withView { fs.hash($0) })
            return try items(volume.head, key...key)[0]
        }
        func extent(_ path: String) throws -> (key: Key, extent: ExtentRecord) {
            let item = try items(path, .extent)[0]
            return (
                item.key,
                try item.value.withView {
                    try ExtentRecord(
                        decoding: $0, inode: item.key.object, layout: volume.layout)
                }
            )
        }
    }
}
