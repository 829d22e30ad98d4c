/// What a repair does about a finding. The check says it, since it knows what the trees say; the repair
/// (`RepairSession`) does it. A finding without a remedy stays.
enum Remedy: Sendable {
    /// Each pair of superblocks is written anew, as every repair does in the end.
    case superblocks
    /// The journal is replayed as far as it can be read, and begun anew.
    case journal
    /// The bitmap of a region is this one.
    case bitmap(UInt64, ByteBuffer)
    /// Every copy of a bitmap block is read, and rewritten from the other one.
    case bitmapCopies
    case feature(UInt64)
    case inodeCeiling(UInt64)
    case snapshotID(UInt64)
    case counts(TreeID, recorded: TreeCounts, found: TreeCounts)

    // Nodes.
    case heal(TreeID?, NodeValidator.Expectation)
    /// Nodes on the way to the key get places of their own.
    case moveNodes(TreeID, Key)
    /// What can be found of its items is put back.
    case dropNode(TreeID, NodeValidator.Expectation)
    case emptyRoot(TreeID)

    // Items.
    case put(TreeID, Key, [UInt8])
    case delete(TreeID, Key)
    /// All chunks of the attribute to which the item belongs.
    case deleteAttribute(TreeID, Key)
    /// An attribute under the hash of its name.
    case placeAttribute(TreeID, Key)
    /// An extent that cannot be decoded: the part of the file stays unreadable.
    case loseExtent(TreeID, Key)
    /// An extent becomes a file in lost+found.
    case salvageExtent(TreeID, Key)
    case salvageExtents(TreeID, inode: UInt64)
    /// An extent gets blocks of its own.
    case copyExtent(TreeID, Key)
    /// Blocks become ones with several references.
    case share([BlockRun])
    case moveTarget(RemapRecord)
    case labelSnapshot(UInt64, [UInt8])
    /// The deadlist of a node is these entries instead of those.
    case deadlist(old: [Key], new: [DeadlistRecord])

    // Inodes and names.
    case inode(TreeID, UInt64, InodeField)
    /// A record is made up from what is there.
    case rebuildInode(TreeID, UInt64)
    case deleteInode(TreeID, UInt64)
    /// A name in lost+found.
    case attach(TreeID, UInt64)
    case names(TreeID, UInt64, NamesRemedy)
    /// The entry with this ordinal goes, or goes where its name's hash says.
    case removeEntry(TreeID, Key, ordinal: UInt8)
    case rehashEntry(TreeID, Key, ordinal: UInt8)

    enum InodeField: Sendable {
        case links(UInt32)
        case blocks(UInt64)
        case size(UInt64)
        case hasAttributes
        /// The bytes inside the tree are what the inode holds, as many as there are.
        case inlineSize(UInt64)
    }

    enum NamesRemedy: Sendable {
        /// The inode's record of its names is made anew from the directories.
        case record
        /// The names say of what kind the inode is.
        case kind
        case remove
        /// All but one go.
        case keepOne
    }

    /// One clause, for people: what is done.
    var summary: String {
        switch self {
        case .superblocks: "both pairs of superblocks are written anew"
        case .journal: "the journal is replayed as far as it can be read, and begun anew"
        case .bitmap: "the bitmap is made from what the trees refer to"
        case .feature: "the feature is announced"
        case .inodeCeiling: "the ceiling is raised"
        case .snapshotID: "the superblock's counter is raised"
        case .counts: "the count is set"
        case .heal, .bitmapCopies: "the bad copy is rewritten from the good one"
        case .moveNodes: "the node gets a place of its own"
        case .dropNode, .emptyRoot:
            "the node is taken out, and what can be found of its items is put back"
        case .put(_, let key, _):
            key.type == .extent ? "the extent is set right" : "the record is set right"
        case .delete: "the item is deleted"
        case .deleteAttribute: "the attribute is deleted"
        case .placeAttribute: "the attribute is put where its name belongs"
        case .loseExtent: "this part of the file stays unreadable, the rest can be read"
        case .salvageExtent, .salvageExtents: "the extents become a file in lost+found"
        case .copyExtent: "the file gets a copy of the blocks"
        case .share: "the blocks are recorded as shared"
        case .moveTarget: "the blocks are copied to another place"
        case .labelSnapshot: "the snapshot gets a new name"
        case .deadlist: "the deadlist is made from what the snapshots differ in"
        case .inode(_, _, .links): "the link count is set"
        case .inode(_, _, .blocks): "the block count is set"
        case .inode(_, _, .size), .inode(_, _, .inlineSize): "the size is set"
        case .inode(_, _, .hasAttributes): "the hint is set"
        case .rebuildInode: "a record is made up from what is there"
        case .deleteInode: "its items are deleted"
        case .attach: "it gets a name in lost+found"
        case .names(_, _, .record): "the inode's names are recorded anew"
        case .names(_, _, .kind): "the names say the inode's kind"
        case .names(_, _, .remove), .removeEntry: "the name is removed"
        case .names(_, _, .keepOne): "all names but one are removed"
        case .rehashEntry: "the name is put under its hash"
        }
    }
}
