/// The catalogue of everything `check` can find, with permanent ids. An id is never used for
/// something else; a finding that can no longer occur keeps its place.
public enum CheckIssue: Int, CaseIterable, Sendable {
    // 1000: superblocks
    case superblockCopyBad = 1001
    case inodeCountWrong = 1002
    case promisedCountWrong = 1003
    case superblockLost = 1004
    // 1100: nodes
    case nodeUnreadable = 1101
    case nodeReplicaBad = 1102
    case nodeSharedTwice = 1103
    case keysOutOfRange = 1104
    case unknownItem = 1105
    // 1200: bitmap
    case bitmapUnreadable = 1201
    case blockNotAllocated = 1202
    case blockLeaked = 1203
    case blockUsedTwice = 1204
    case shareRecordBad = 1205
    case shareCountWrong = 1206
    case badBlockRecordBad = 1208
    case damageRecordBad = 1209
    case bitmapCopyBad = 1210
    case remapRecordBad = 1220
    case remapUnreferenced = 1221
    case remapTargetMoved = 1222
    case addressBeyondEnd = 1223
    // 1300: inodes
    case inodeRecordBad = 1301
    case itemWithoutInode = 1302
    case linkCountWrong = 1303
    case blockCountWrong = 1304
    case inodeNumberTooHigh = 1305
    case inlineDataWrong = 1306
    case contentOfWrongKind = 1307
    case inodeUnreachable = 1308
    case orphanNotListed = 1309
    case orphanListWrong = 1310
    case rootWrong = 1311
    // 1400: directories and names
    case directoryRecordBad = 1401
    case nameHashWrong = 1402
    case nameWithoutInode = 1403
    case nameKindWrong = 1404
    case directorySizeWrong = 1405
    case directoryParentWrong = 1406
    case nameNotRecorded = 1407
    case linkRecordBad = 1408
    case directoryLoop = 1409
    case duplicateName = 1410
    // 1500: extents
    case extentRecordBad = 1501
    case extentsOverlap = 1502
    case extentFromFuture = 1503
    case encodedWithoutFeature = 1510
    // 1600: attributes
    case attributeRecordBad = 1601
    case attributeChunksWrong = 1602
    case attributeHintWrong = 1603
    case accessControlListBad = 1604
    // 1700: journal
    case journalDamaged = 1701
    // 1800: snapshots
    case snapshotRecordBad = 1801
    case snapshotTreeWrong = 1802
    case snapshotLabelBad = 1803
    case headCountsWrong = 1804
    case deadlistRecordBad = 1805
    case deadlistWrong = 1806
    case segmentRecordBad = 1807
    // 1850: what modules store
    case moduleRecordBad = 1850
    case settingBad = 1851

    public enum Severity: String, Sendable {
        /// Nothing is lost and nothing will be; a later repair tidies up.
        case warning
        /// Something is wrong that a repair can put right.
        case error
        /// Something is lost.
        case fatal
    }

    /// For messages, scripts and `aegisfs explain`.
    public var id: String { "AEGIS-\(rawValue)" }

    public var severity: Severity { text.0 }
    /// One line.
    public var summary: String { text.1 }
    /// What it means and what to do.
    public var explanation: String { text.2 }

    private var text: (Severity, String, String) {
        switch self {
        case .superblockCopyBad:
            (
                .warning, "a superblock copy cannot be used",
                "One of the four superblock copies is unreadable or damaged. The volume works from the others; the copy is written anew by one of the next two checkpoints."
            )
        case .inodeCountWrong:
            (
                .error, "the superblock's count of inodes is wrong",
                "The number of inodes in the tree is not the number in the superblock. Files are not affected."
            )
        case .promisedCountWrong:
            (
                .error, "the superblock's count of promised blocks is wrong",
                "The blocks promised by fallocate do not add up to the superblock's count. Free space is shown too high or too low."
            )
        case .snapshotRecordBad:
            (
                .fatal, "the record of a snapshot or head is damaged",
                "It says where the tree of the snapshot begins. Without it the snapshot cannot be found."
            )
        case .snapshotTreeWrong:
            (
                .fatal, "the table of snapshots contradicts itself",
                "A snapshot or head has a parent that is none, an epoch that cannot be, or a name that another has, too."
            )
        case .snapshotLabelBad:
            (
                .error, "the name of a snapshot is damaged",
                "The item with the name, the tags and the holds of a snapshot cannot be read. Its files are not affected."
            )
        case .headCountsWrong:
            (
                .error, "the recorded size of a head is wrong",
                "The number of inodes or blocks that a head holds is not the recorded one. Files are not affected."
            )
        case .deadlistRecordBad:
            (
                .fatal, "an entry of a deadlist is damaged",
                "It says what a snapshot holds that its successor dropped. Without it space is lost when the snapshot is deleted."
            )
        case .deadlistWrong:
            (
                .fatal, "a deadlist does not say what the snapshots differ in",
                "The deadlist of a snapshot or head must have exactly what its parent refers to and it does not. Deleting snapshots could free blocks that are in use, or lose space."
            )
        case .segmentRecordBad:
            (
                .fatal, "the record of a deadlist's segment is damaged",
                "It says which snapshot a part of the deadlists belongs to."
            )
        case .nodeUnreadable:
            (
                .fatal, "a tree node is damaged in all copies",
                "Every copy of a metadata node is unreadable or fails its checksum. The files whose items it holds are lost or incomplete; restore them from a backup."
            )
        case .nodeReplicaBad:
            (
                .warning, "one copy of a tree node is damaged",
                "A metadata node fails its checksum in one of its places; the other copy is right and is used."
            )
        case .nodeSharedTwice:
            (
                .fatal, "a tree node is reached from two places",
                "Two parents point to one node. One of them shows wrong contents."
            )
        case .keysOutOfRange:
            (
                .fatal, "keys of a node are outside of its range",
                "A node holds keys that its parent places elsewhere; they cannot be found by a lookup."
            )
        case .unknownItem:
            (
                .error, "an item of unknown type",
                "The tree holds an item that this version does not know although no feature bit announces it."
            )
        case .bitmapUnreadable:
            (
                .error, "a bitmap block is damaged in all copies",
                "The allocation bitmap of a region cannot be read. The region is closed to allocation; its files can be read. The bitmap can be rebuilt from the tree."
            )
        case .bitmapCopyBad:
            (
                .warning, "one copy of a bitmap block is damaged",
                "A block of the allocation bitmap fails its checksum in one of its places; the other copy is right and is used."
            )
        case .blockNotAllocated:
            (
                .fatal, "a block in use is not marked as allocated",
                "A node or a file's data lies in blocks that the bitmap calls free: they could be overwritten. Copy the data elsewhere and do not write to the volume."
            )
        case .blockLeaked:
            (
                .error, "blocks are marked as allocated but nothing uses them",
                "Space is lost, data is not."
            )
        case .blockUsedTwice:
            (
                .fatal, "two references to one block",
                "Two files, or a file and a node, use the same block. One of them shows wrong contents."
            )
        case .shareRecordBad:
            (
                .error, "a record of shared blocks is damaged",
                "It says how many files refer to a run of blocks. Without it a block that is still in use could be freed when one of the files is deleted."
            )
        case .shareCountWrong:
            (
                .error, "a count of references to shared blocks is wrong",
                "A block is referred to more or less often than recorded: too high keeps space from being freed, too low could free a block that is in use."
            )
        case .remapRecordBad:
            (
                .error, "a record of moved blocks is wrong",
                "An item that says where blocks were moved to, when the volume was made smaller, cannot be decoded, overlaps another or should not be there. What refers to the blocks may not find them."
            )
        case .remapUnreferenced:
            (
                .warning, "moved blocks that nothing refers to",
                "The space is lost until it is freed; nothing else is wrong."
            )
        case .remapTargetMoved:
            (
                .error, "blocks were moved to a place that was moved itself",
                "One of the two moves hides the other: what is read there is not what was written."
            )
        case .addressBeyondEnd:
            (
                .fatal, "something refers to blocks behind the end of the volume",
                "The volume was made smaller, and these blocks were not moved: their contents are lost, unless another copy is left."
            )
        case .inodeRecordBad:
            (
                .fatal, "an inode record is damaged",
                "The record of an inode cannot be decoded; the file cannot be opened."
            )
        case .itemWithoutInode:
            (
                .error, "an item belongs to no inode",
                "Data, names or attributes are stored for an inode number that has no record."
            )
        case .linkCountWrong:
            (
                .error, "a link count is wrong",
                "An inode's link count is not the number of its names (for a directory: two and one for each subdirectory)."
            )
        case .blockCountWrong:
            (
                .error, "an inode's block count is wrong",
                "The blocks of a file's extents do not add up to the count in its inode."
            )
        case .inodeNumberTooHigh:
            (
                .error, "an inode number is above the superblock's ceiling",
                "The number could be given to a second inode."
            )
        case .inlineDataWrong:
            (
                .fatal, "inline data has the wrong length",
                "The bytes of a small file or symbolic link are not as many as its size says."
            )
        case .contentOfWrongKind:
            (
                .error, "an inode holds what its kind cannot have",
                "For example extents of a directory, or names in a regular file."
            )
        case .inodeUnreachable:
            (
                .error, "an inode has no name",
                "No directory has a name for an inode whose link count says that there is one."
            )
        case .orphanNotListed:
            (
                .error, "an inode without a name is not on the orphan list",
                "Its space is not given back by the next mount."
            )
        case .orphanListWrong:
            (
                .error, "the orphan list names an inode that is no orphan",
                "The list entry is useless; the next mount removes it."
            )
        case .rootWrong:
            (
                .fatal, "there is no root directory",
                "The inode of the root directory is missing, or is no directory: nothing on the volume can be reached by a path."
            )
        case .directoryRecordBad:
            (
                .fatal, "a directory entry is damaged",
                "The names in the record cannot be read."
            )
        case .nameHashWrong:
            (
                .error, "a name is stored under the wrong hash",
                "The name is listed but cannot be opened."
            )
        case .nameWithoutInode:
            (
                .error, "a name points to an inode that does not exist",
                "The file's inode is lost; the name is listed but cannot be opened."
            )
        case .nameKindWrong:
            (
                .error, "a name says another kind than its inode",
                "readdir shows a wrong d_type."
            )
        case .directorySizeWrong:
            (
                .error, "a directory's size is not its number of names",
                "An empty directory may be refused by rmdir, or one with names accepted."
            )
        case .directoryParentWrong:
            (
                .error, "a directory's parent is not the one that names it",
                "'..' leads to the wrong directory."
            )
        case .nameNotRecorded:
            (
                .error, "an inode's record of its names is wrong",
                "Paths shown for this inode in reports may be wrong."
            )
        case .linkRecordBad:
            (
                .error, "a link record is damaged",
                "Paths shown for this inode in reports may be wrong."
            )
        case .directoryLoop:
            (
                .fatal, "directories form a loop",
                "Directories contain each other and cannot be reached from the root."
            )
        case .duplicateName:
            (
                .error, "a name stands twice in a directory",
                "Only one of the two can be opened."
            )
        case .extentRecordBad:
            (
                .fatal, "an extent is damaged",
                "A part of a file cannot be located."
            )
        case .extentsOverlap:
            (
                .fatal, "extents of a file overlap",
                "Two extents claim the same part of a file; one of them is wrong."
            )
        case .extentFromFuture:
            (
                .error, "an extent was born after the volume's epoch",
                "Snapshots would not protect it rightly."
            )
        case .encodedWithoutFeature:
            (
                .error, "an encoded extent, although no feature bit announces it",
                "A program that knows no compression would not refuse the volume, and take encoded data for the file's own."
            )
        case .attributeRecordBad:
            (
                .fatal, "an extended attribute is damaged",
                "The attribute cannot be read."
            )
        case .attributeChunksWrong:
            (
                .fatal, "an extended attribute is incomplete",
                "Parts of a long attribute value are missing or left over."
            )
        case .attributeHintWrong:
            (
                .error, "an inode denies having attributes that it has",
                "The attributes exist but are not shown."
            )
        case .superblockLost:
            (
                .fatal, "the newest superblock is lost",
                "The journal was written for a newer superblock than any that can be read. What is there is an older state; mount it read-only and copy what is needed."
            )
        case .journalDamaged:
            (
                .fatal, "the journal is damaged",
                "Operations that were durable cannot be read from the journal. The volume mounts read-only, in the state before them; copy what is needed."
            )
        case .badBlockRecordBad:
            (
                .warning, "a record of bad blocks is damaged",
                "Blocks that the medium does not keep may be handed out again; when they are, their damage is found, and they are listed anew."
            )
        case .damageRecordBad:
            (
                .warning, "a record of damage is damaged",
                "What it said about damaged files is lost; a scrub finds it again."
            )
        case .moduleRecordBad:
            (
                .warning, "a record of a module is damaged",
                "A setting of the volume, or what a module remembers, cannot be read: its default counts. Set it again."
            )
        case .settingBad:
            (
                .warning, "a setting of the volume cannot be what it is",
                "A stored setting has a value that nobody can have set. Set it again."
            )
        case .accessControlListBad:
            (
                .error, "a stored ACL is not valid",
                "Access is decided by the mode bits alone."
            )
        }
    }
}

/// One thing that `check` found.
public struct CheckFinding: Sendable {
    public var issue: CheckIssue
    /// Where and what, one line.
    public var message: String
    /// What a repair does about it; nothing, if nothing can be done.
    var remedies: [Remedy] = []
    public var id: String { issue.id }
    public var severity: CheckIssue.Severity { issue.severity }
}

/// How far a check is.
public struct CheckProgress: Sendable {
    public var phase: String
    /// Allocated blocks visited, of all allocated blocks.
    public var done: UInt64
    public var total: UInt64
}

/// The outcome of a check.
public struct CheckReport: Sendable {
    /// At most `Checker.maximumFindings`; the rest is only counted.
    public var findings: [CheckFinding] = []
    public var omittedFindings: UInt64 = 0
    public var inodes: UInt64 = 0
    public var directories: UInt64 = 0
    public var files: UInt64 = 0
    public var nodes: UInt64 = 0
    /// Operations in the journal that the next mount brings into the trees.
    public var journaledOperations: UInt64 = 0
    /// Places on the volume's list of what has no good copy.
    public var listedDamage: UInt64 = 0
    public var dataBlocks: UInt64 = 0
    /// Allocated blocks that nothing readable refers to, by region; only where something is unreadable.
    var leakedRegions: [UInt64: ByteBuffer] = [:]
    /// False if the check was cancelled: the findings are those of the part that was looked at.
    public var isComplete = true
    public var isClean: Bool { isComplete && findings.isEmpty }
}
