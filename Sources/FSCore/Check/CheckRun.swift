/// One run of the checker: the walk. What it gathered is compared in `CheckRun+Comparison`.
final class CheckRun {
    let device: any BlockDevice
    private let modules: ModuleSet
    let superblock: Superblock
    let layout: DiskLayout
    let nodes: NodeStore
    private let nameHash: any NameHash
    private let findingLimit: Int
    private let isCancelled: () -> Bool
    let progress: (CheckProgress) -> Void
    let leaf: (UInt64) throws(FSError) -> ByteBuffer

    var result = CheckReport()
    var reachable: [UInt64: ByteBuffer] = [:]
    /// To what a head refers and its parent, too: the parent's tree has it.
    var inherited: [UInt64: ByteBuffer] = [:]
    /// Of the reachable ones, nodes and the journal.
    var metadata: [UInt64: ByteBuffer] = [:]
    var visitedBlocks: UInt64 = 0
    /// Of the state that is checked, and which of their sources something refers to.
    let remaps = RemapTable()
    var referredSources: [UInt64: ByteBuffer] = [:]
    var inodes: [UInt64: Facts] = [:]
    var orphans: Set<UInt64> = []
    /// Inodes that have items, but no record that can be read.
    var withoutRecord: Set<UInt64> = []
    /// Found in the head that is being walked.
    var counts = TreeCounts()
    var scope = Scope()
    var table = SnapshotTable()
    let recent = RecentNodes()
    /// What deadlists have wrong; only of trees that can be read it is known.
    var deadlistFindings: [CheckFinding] = []

    /// Which part of a tree is being walked.
    struct Scope {
        /// What was born up to here belongs to the parent's walk.
        var limit = BirthEpoch(0)
        /// What is below has been freed.
        var from = Key.minimum
        /// All of it is looked at, to compare inodes with names.
        var isHead = false
        /// Nil: of a snapshot, which cannot be changed.
        var tree: TreeID?
        var root: BlockAddress?
        /// Nodes of the parent's that were reached.
        var inherited: Set<UInt64> = []
    }
    /// Then what hangs on them cannot be reached, and is not leaked for that.
    var hasUnreadableNodes = false
    /// Allocated blocks that nothing readable refers to, while there is something unreadable.
    var leakedRegions: [UInt64: ByteBuffer] {
        get { result.leakedRegions }
        set { result.leakedRegions = newValue }
    }

    init(
        _ device: any BlockDevice, _ modules: ModuleSet, _ superblock: Superblock,
        _ findingLimit: Int, _ isCancelled: @escaping () -> Bool,
        _ progress: @escaping (CheckProgress) -> Void,
        _ leaf: @escaping (UInt64) throws(FSError) -> ByteBuffer
    ) {
        // A volume in use translates for itself.
        let device = device is RemappedBlockDevice ? device : RemappedBlockDevice(device, remaps)
        self.device = device
        self.modules = modules
        self.superblock = superblock
        self.findingLimit = findingLimit
        self.isCancelled = isCancelled
        self.progress = progress
        self.leaf = leaf
        layout = superblock.layout
        nameHash = modules.nameHash(superblock.nameHashKey)
        nodes = NodeStore(
            device: device, checksum: modules.requiredChecksum(superblock.checksumKind),
            geometry: VolumeGeometry(layout), internalUUID: superblock.internalUUID,
            cache: PageCache(byteLimit: 0), errors: ErrorLog())
    }

    func report(_ issue: CheckIssue, _ message: String, _ remedies: Remedy...) {
        report(issue, message, remedies)
    }

    func report(_ issue: CheckIssue, _ message: String, _ remedies: [Remedy]) {
        switch issue {
        case .nodeUnreadable, .keysOutOfRange, .extentRecordBad: hasUnreadableNodes = true
        // Whose the blocks are is not known then.
        case .snapshotRecordBad: hasUnreadableNodes = true
        case .snapshotTreeWrong where remedies.isEmpty: hasUnreadableNodes = true
        default: break
        }
        if result.findings.count < findingLimit {
            result.findings.append(
                CheckFinding(issue: issue, message: message, remedies: remedies))
        } else {
            result.omittedFindings += 1
        }
    }

    /// Whether to end here; the report then says that it is not complete.
    func shouldStop() -> Bool {
        if result.isComplete, isCancelled() { result.isComplete = false }
        return !result.isComplete
    }

    func run() {
        for run in superblock.journalExtents { mark(run, .blockUsedTwice, .journal) }
        scope.tree = .volume
        scope.root = superblock.volumeRoot.address
        walk(
            NodeValidator.Expectation(
                pointer: superblock.volumeRoot, tree: .volume, lower: nil, upper: nil))
        scope = Scope()
        checkTrees()
        if shouldStop() { return }
        checkShares()
        checkRemaps()
        tell("bitmap")
        checkInherited()
        checkBitmap()
        if shouldStop() { return }
        tell("done")
    }

    /// Walks a tree of files.
    func walk(_ root: NodePointer, _ scope: Scope) {
        self.scope = scope
        self.scope.root = root.address
        walk(NodeValidator.Expectation(pointer: root, tree: .files, lower: nil, upper: nil))
        finishInode()
        self.scope = Scope()
    }

    // MARK: Trees

    private func walk(_ expected: NodeValidator.Expectation) {
        let pointer = expected.pointer
        var isFresh = true
        if pointer.birth <= scope.limit {
            // Its parent's walk marks it. In a head its items are looked at here as well.
            guard scope.isHead else { return }
            for index in 0..<pointer.replicas.count {
                noteInherited(BlockRun(pointer.replicas[index], DiskFormat.blocksPerNode))
            }
            isFresh = scope.inherited.insert(pointer.address.rawValue).inserted
            if !isFresh {
                report(
                    .nodeSharedTwice, "block \(pointer.address.block)", remedy(ofTwice: expected))
            }
        } else if let upper = expected.upper, upper <= scope.from {
            return
        } else {
            for index in 0..<pointer.replicas.count {
                if !mark(
                    BlockRun(pointer.replicas[index], DiskFormat.blocksPerNode), .nodeSharedTwice,
                    .node(expected))
                {
                    isFresh = false
                }
            }
        }
        // A node that is reached twice is walked once: crafted pointers cannot make this endless.
        guard isFresh, !shouldStop() else { return }
        let page: Page
        do throws(FSError) {
            page = try pointer.birth > scope.limit ? readOwn(expected) : readAgain(expected)
        } catch {
            reportUnreadable(expected, error)
            return
        }
        if pointer.birth > scope.limit { result.nodes += 1 }
        if result.nodes % 256 == 0 { tell("trees") }
        if page.level == 0 {
            for index in 0..<page.node.count {
                item(page.node.key(index), page.node.value(index), expected.tree)
            }
            return
        }
        for index in 0..<page.node.count {
            let value = page.node.value(index)
            // Most of what a snapshot's node leads to is of another's walk.
            if !scope.isHead,
                BirthEpoch(value.u64(NodePointer.birthOffset)) <= scope.limit
            {
                continue
            }
            var reader = ByteReader(value, .node, at: pointer.address.block << 12)
            guard let child = try? NodePointer(&reader) else { continue }
            walk(
                NodeValidator.Expectation(
                    pointer: child, tree: expected.tree,
                    lower: index > 0 ? page.node.key(index) : expected.lower,
                    upper: index + 1 < page.node.count ? page.node.key(index + 1) : expected.upper))
        }
    }

    // MARK: Items

    /// The inode whose items are being read; items of one inode follow each other.
    private var current: UInt64?
    private var record: InodeRecord?
    private var recordIsBad = false
    private var hasNames = false
    private var entries: UInt64 = 0
    private var blocks: UInt64 = 0
    private var extentEnd: UInt64 = 0
    private var inlineBytes = 0
    var shares = ShareTally()
    private var hasExtents = false
    private var hasAttributes = false
    private var attributeRest = 0
    private var attributeChunk: UInt64 = 0

    private func item(_ key: Key, _ value: ByteView, _ tree: TreeKind) {
        guard tree == .files else { return volumeItem(key, value) }
        guard scope.isHead else { return snapshotItem(key, value) }
        if key.object == 0 {
            guard key.type == .orphan, value.count == 0 else {
                report(
                    .unknownItem, "object 0, type \(key.type.rawValue)",
                    change { .delete($0, key) })
                return
            }
            orphans.insert(key.offset)
            return
        }
        if key.object != current {
            finishInode()
            begin(key.object)
        }
        do throws(FSError) {
            switch key.type {
            case .inode where key.offset == 0: try inode(key, value)
            case .inlineData where key.offset <= 1: inlineBytes += value.count
            case .attribute: try attribute(key, value)
            case .link: try link(key, value)
            case .directoryEntry: try names(key, value)
            case .extent: try extent(key, value)
            default:
                report(
                    .unknownItem, "inode \(key.object), type \(key.type.rawValue)",
                    change { .delete($0, key) })
            }
        } catch {
            switch key.type {
            case .inode:
                recordIsBad = true
                report(.inodeRecordBad, "\(error)", change { .rebuildInode($0, key.object) })
            case .attribute:
                report(.attributeRecordBad, "\(error)", change { .deleteAttribute($0, key) })
            case .link: report(.linkRecordBad, "\(error)", change { .delete($0, key) })
            case .directoryEntry:
                report(.directoryRecordBad, "\(error)", change { .delete($0, key) })
            default: report(.extentRecordBad, "\(error)", change { .loseExtent($0, key) })
            }
        }
    }

    private func begin(_ inode: UInt64) {
        current = inode
        record = nil
        recordIsBad = false
        hasNames = false
        entries = 0
        blocks = 0
        extentEnd = 0
        inlineBytes = 0
        hasExtents = false
        hasAttributes = false
        attributeRest = 0
        attributeChunk = 0
    }

    private func inode(_ key: Key, _ value: ByteView) throws(FSError) {
        let decoded = try InodeRecord(decoding: value, inode: key.object)
        record = decoded
        result.inodes += 1
        counts.inodes += 1
        if decoded.isDirectory {
            result.directories += 1
        } else if decoded.kind == .regular {
            result.files += 1
        }
        if key.object >= superblock.inodeCeiling {
            report(
                .inodeNumberTooHigh, "inode \(key.object), ceiling \(superblock.inodeCeiling)",
                .inodeCeiling(key.object))
        }
        var facts = inodes[key.object] ?? Facts()
        facts.hasRecord = true
        facts.mode = decoded.mode
        facts.linkCount = decoded.linkCount
        facts.parent = decoded.parent
        if decoded.parent != 0, key.object != InodeNumber.root.rawValue {
            facts.recordedNames &+= Self.mix(decoded.parent, decoded.nameCookie)
        }
        inodes[key.object] = facts
    }

    /// A fingerprint of one name of an inode; names are compared as sums of these.
    private static func mix(_ parent: UInt64, _ cookie: UInt64) -> UInt64 {
        var word = parent &* 0x9E37_79B9_7F4A_7C15 ^ cookie &* 0xC2B2_AE3D_27D4_EB4F
        word ^= word >> 29
        word = word &* 0xBF58_476D_1CE4_E5B9
        return word ^ word >> 32
    }

    private func attribute(_ key: Key, _ value: ByteView) throws(FSError) {
        hasAttributes = true
        let chunk = key.offset & 0xFF
        guard chunk > 0 else {
            if attributeRest != 0 { reportChunks(key.object) }
            let first = try AttributeRecord(decoding: value, inode: key.object)
            attributeRest = first.valueLength - first.firstBytes.count
            attributeChunk = key.offset
            if (hash(first.name) >> 8) << 16 != key.offset & ~0xFFFF {
                report(
                    .attributeRecordBad, "inode \(key.object): a name under the wrong hash",
                    change { .placeAttribute($0, key) })
            }
            let name = String(decoding: first.name.toArray(), as: UTF8.self)
            if name.hasPrefix("system.posix_acl_"), attributeRest == 0,
                (try? AccessControlList(decoding: first.firstBytes)) == nil
            {
                report(
                    .accessControlListBad, "inode \(key.object): \(name)",
                    change { .deleteAttribute($0, key) })
            }
            return
        }
        let part = try AttributeRecord.continuation(value, inode: key.object)
        guard key.offset == attributeChunk + 1, part.count <= attributeRest else {
            report(
                .attributeChunksWrong, "inode \(key.object)", change { .deleteAttribute($0, key) })
            attributeRest = 0
            return
        }
        attributeChunk = key.offset
        attributeRest -= part.count
    }

    /// The attribute that ended before.
    private func reportChunks(_ inode: UInt64) {
        let key = Key(inode, .attribute, attributeChunk)
        report(.attributeChunksWrong, "inode \(inode)", change { .deleteAttribute($0, key) })
    }

    private func link(_ key: Key, _ value: ByteView) throws(FSError) {
        for cookie in try LinkRecord.cookies(value, inode: key.object) {
            inodes[key.object, default: Facts()].recordedNames &+= Self.mix(
                key.offset >> 16, cookie)
        }
    }

    /// Of something that holds nothing else the kind is wrong, and else the names are.
    private func reportNames(_ key: Key, _ record: InodeRecord) {
        defer { hasNames = true }
        let isKindWrong = record.content != .inline && record.blocks == 0
        guard !hasNames || !isKindWrong else { return }
        report(
            .contentOfWrongKind, "inode \(key.object): names in something else than a directory",
            change { isKindWrong ? .rebuildInode($0, key.object) : .delete($0, key) })
    }

    private func hash(_ name: ByteView) -> UInt64 {
        max(nameHash.hash(name) & DirectoryRecord.hashMask, 1)
    }

    private func names(_ key: Key, _ value: ByteView) throws(FSError) {
        if let record, !record.isDirectory {
            reportNames(key, record)
        }
        var seen: Set<[UInt8]> = []
        try DirectoryRecord.forEach(value, directory: key.object) { (entry) throws(FSError) in
            entries += 1
            if hash(entry.name) != key.offset {
                report(
                    .nameHashWrong, "directory \(key.object): \(Self.shown(entry.name))",
                    change { .rehashEntry($0, key, ordinal: entry.ordinal) })
            }
            if !seen.insert(entry.name.toArray()).inserted {
                report(
                    .duplicateName, "directory \(key.object): \(Self.shown(entry.name))",
                    change { .removeEntry($0, key, ordinal: entry.ordinal) })
            }
            var facts = inodes[entry.inode.rawValue] ?? Facts()
            facts.names &+= 1
            facts.foundNames &+= Self.mix(
                key.object, DirectoryRecord.cookie(hash: key.offset, ordinal: entry.ordinal))
            facts.namedBy = key.object
            facts.namedKind = entry.kind.rawValue
            inodes[entry.inode.rawValue] = facts
            if entry.kind == .directory { inodes[key.object, default: Facts()].subdirectories += 1 }
            return true
        }
    }

    private static func shown(_ name: ByteView) -> String {
        String(decoding: name.toArray(), as: UTF8.self)
    }

    private func extent(_ key: Key, _ value: ByteView) throws(FSError) {
        hasExtents = true
        let extent = try ExtentRecord(decoding: value, inode: key.object, layout: layout)
        let start = key.offset >> 12
        if key.offset & 4095 != 0 || start > (1 << 52) - UInt64(extent.blocks) {
            report(
                .extentRecordBad, "inode \(key.object): extent at offset \(key.offset)",
                change { .salvageExtent($0, key) })
            return
        }
        if start < extentEnd {
            report(
                .extentsOverlap, "inode \(key.object), offset \(key.offset)",
                change { .salvageExtent($0, key) })
        }
        extentEnd = start + UInt64(extent.blocks)
        blocks += extent.heldBlocks
        counts.referenced += extent.heldBlocks
        if extent.encoding != nil { checkFeature(key) }
        if extent.kind == .promised { counts.promised += extent.heldBlocks }
        markData(extent, key)
    }

    /// Marks the blocks of an extent unless they are the parent's as well.
    func markData(_ extent: ExtentRecord, _ key: Key) {
        guard extent.kind == .data else { return }
        if superblock.birthEpoch < extent.birth {
            var extent = extent
            extent.birth = superblock.birthEpoch
            report(
                .extentFromFuture, "inode \(key.object), offset \(key.offset)",
                change { .put($0, key, extent.encoded()) })
        }
        guard extent.birth > scope.limit, key >= scope.from else {
            guard scope.isHead else { return }
            for index in 0..<extent.replicas.count { noteInherited(extent.storedRun(index)) }
            return
        }
        for index in 0..<extent.replicas.count {
            result.dataBlocks += UInt64(extent.storedBlocks)
            markReference(
                extent.storedRun(index),
                .extent(scope.tree, key, isOnly: extent.replicas.count == 1))
        }
    }

    /// Counts a reference to blocks. Shared ones are marked once, with their record.
    func markReference(_ run: BlockRun, _ owner: BlockOwner) {
        shares.count(run) { if !$1 { mark($0, .blockUsedTwice, owner) } }
    }

    /// Compares an inode's record with its own items.
    private func finishInode() {
        guard let inode = current else { return }
        current = nil
        guard let record else {
            if !recordIsBad {
                report(
                    .itemWithoutInode, "inode \(inode)",
                    change {
                        inode < InodeNumber.limit
                            ? .rebuildInode($0, inode) : .deleteInode($0, inode)
                    })
            }
            withoutRecord.insert(inode)
            return
        }
        if attributeRest != 0 { reportChunks(inode) }
        if hasAttributes, !record.mayHaveAttributes {
            report(
                .attributeHintWrong, "inode \(inode)", change { .inode($0, inode, .hasAttributes) })
        }
        if record.blocks != blocks {
            let blocks = blocks
            report(
                .blockCountWrong, "inode \(inode): \(record.blocks) recorded, \(blocks) found",
                change { .inode($0, inode, .blocks(blocks)) })
        }
        if record.isDirectory, record.size != entries {
            let entries = entries
            report(
                .directorySizeWrong, "inode \(inode): \(record.size) recorded, \(entries) found",
                change { .inode($0, inode, .size(entries)) })
        }
        let expected = record.content == .inline ? Int(record.size) : 0
        if inlineBytes != expected {
            let bytes = UInt64(inlineBytes)
            report(
                .inlineDataWrong, "inode \(inode): \(bytes) bytes instead of \(expected)",
                change { .inode($0, inode, .inlineSize(bytes)) })
        }
        if hasExtents, record.kind != .regular || record.content == .inline {
            report(
                .contentOfWrongKind, "inode \(inode): extents",
                change { .salvageExtents($0, inode: inode) })
        }
    }
}
