/// `diff` against a full comparison of both trees.
@testable internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct SnapshotDiffTests {
    private struct Name: Hashable {
        var directory: UInt64
        var name: [UInt8]
        var inode: UInt64
    }

    private struct Tree {
        var names: [Name: String] = [:]
        /// One path of each inode.
        var paths: [UInt64: Path] = [:]
        var records: [UInt64: InodeRecord] = [:]
        var view: TreeView

        init(_ files: FileSystem) throws {
            view = try files.treeView()
            try visit(files, .root, Path([]), "")
        }

        private mutating func visit(
            _ files: FileSystem, _ inode: InodeNumber, _ path: Path, _ text: String
        ) throws {
            let record = try files.record(of: inode)
            paths[inode.rawValue] = paths[inode.rawValue] ?? path
            records[inode.rawValue] = record
            guard record.isDirectory else { return }
            for name in try files.names(in: inode) {
                let child = try #require(
                    try name.withView { try files.entry(named: $0, in: inode) })
                let childText = text + "/" + String(decoding: name, as: UTF8.self)
                names[
                    Name(directory: inode.rawValue, name: name, inode: child.rawValue)] = childText
                try visit(files, child, path.appending(name), childText)
            }
        }

        /// What a modification would change.
        func state(_ inode: UInt64) -> (EntryView?, FileSystem.ReceivedRecord)? {
            guard let record = records[inode], let path = paths[inode] else { return nil }
            var shown = FileSystem.ReceivedRecord(record)
            shown.times[0] = shown.times[3]
            shown.times[2] = shown.times[3]
            if record.isDirectory { shown.times[1] = shown.times[3] }
            shown.changeSequence = 0
            return (view.entries[path], shown)
        }
    }

    private func differs(_ inode: UInt64, _ old: Tree, _ new: Tree) -> Bool {
        guard let (a, before) = old.state(inode), let (b, after) = new.state(inode) else {
            return false
        }
        return before != after || a?.target != b?.target
            || a?.extendedAttributes != b?.extendedAttributes
            || a?.content != b?.content
            || old.records[inode]?.isDirectory == false
                && old.records[inode]?.size != new.records[inode]?.size
    }

    @Test(arguments: 1...8 as ClosedRange<UInt64>) func namesWhatDiffersAndNoMore(
        seed: UInt64
    ) throws {
        let device = MemoryBlockDevice(byteCount: 128 << 20)
        _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
        let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
        let store = volume.snapshotStore
        let session = RandomSession(seed: seed, executor: FileSystemExecutor(volume.fileSystem))
        try session.run(250)
        for round in 0..<6 {
            let name = Array("s\(round)".utf8)
            try store.create(SnapshotLabel(name: name))
            try session.run(10 + 20 * round)
            try compare(volume, name, nil, seed)
            if round > 0 { try compare(volume, Array("s0".utf8), name, seed) }
            if round > 0 { try compare(volume, name, Array("s0".utf8), seed) }
        }
        #expect(try store.difference(from: Array("s0".utf8), to: Array("s0".utf8)).isEmpty)
    }

    private func compare(
        _ volume: Volume, _ from: [UInt8], _ to: [UInt8]?, _ seed: UInt64
    ) throws {
        let store = volume.snapshotStore
        let old = try Tree(try store.files(of: from))
        let new = try Tree(try to.map { try store.files(of: $0) } ?? volume.fileSystem)
        let changes = try store.difference(from: from, to: to)
        func paths(_ kinds: Set<PathChange.Kind>, _ path: (PathChange) -> String?) -> [String] {
            changes.filter { kinds.contains($0.kind) }.compactMap(path).sorted()
        }
        #expect(
            paths([.added, .renamed]) { $0.path }
                == new.names.filter { old.names[$0.key] == nil }.values.sorted(), "seed \(seed)")
        #expect(
            paths([.removed, .renamed]) { $0.kind == .removed ? $0.path : $0.oldPath }
                == old.names.filter { new.names[$0.key] == nil }.values.sorted(), "seed \(seed)")
        var shown: Set<UInt64> = []
        for change in changes where change.kind == .modified || change.isModified {
            let inode = new.names.first { Array($0.value.utf8) == Array(change.path.utf8) }?.key
                .inode
            shown.insert(inode ?? InodeNumber.root.rawValue)
            #expect(change.isModified || change.newSize == size(new, inode))
        }
        for inode in old.records.keys where differs(inode, old, new) {
            #expect(shown.contains(inode), "seed \(seed): inode \(inode) is not shown")
        }
        for inode in shown where !differs(inode, old, new) {
            // Written, and its time set back.
            #expect(
                old.records[inode]?.changeSequence != new.records[inode]?.changeSequence
                    && old.records[inode]?.isDirectory == false,
                "seed \(seed): inode \(inode) is shown without a change")
        }
    }

    private func size(_ tree: Tree, _ inode: UInt64?) -> UInt64? {
        inode.flatMap { tree.records[$0] }.flatMap { $0.isDirectory ? nil : $0.size }
    }

    /// The nodes that are read follow what changed, not what there is.
    @Test func theCostFollowsTheChange() throws {
        var reads: [UInt64] = []
        for count in [500, 5000] {
            let device = SimulatedBlockDevice(byteCount: 256 << 20)
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            let volume = try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
            let files = volume.fileSystem
            for number in 0..<count {
                let name = Array("file\(number)".utf8)
                let made = try name.withView {
                    try files.create(
                        $0, in: .root, NewInode(mode: FileKind.regular.modeBits | 0o644))
                }
                _ = try [UInt8](repeating: 1, count: 100).withView {
                    try files.write(made.inode, at: 0, $0)
                }
                files.release(made.inode, count: 1)
            }
            try volume.snapshotStore.create(SnapshotLabel(name: Array("a".utf8)))
            let inode = try #require(
                try Array("file7".utf8).withView { try files.entry(named: $0, in: .root) })
            _ = try Array("changed".utf8).withView { try files.write(inode, at: 0, $0) }
            try volume.snapshotStore.create(SnapshotLabel(name: Array("b".utf8)))
            let before = device.counters.reads
            let changes = try volume.snapshotStore.difference(
                from: Array("a".utf8), to: Array("b".utf8))
            #expect(changes.map(\.path) == ["/file7"] && changes[0].kind == .modified)
            reads.append(device.counters.reads - before)
        }
        #expect(reads[1] <= reads[0] + 8, "\(reads)")
    }
}
