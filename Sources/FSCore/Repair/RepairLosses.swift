/// What a repair could not bring back.
///
/// - Invariant: the counts are of everything; `items` has the first of it by name, so that memory is
///   bounded.
public struct RepairLosses: Sendable {
    public enum Kind: String, Sendable {
        /// Nothing was left but the name: a file, a link, a device.
        case file
        case directory
        /// Bytes of a file: it is there, and reading them fails.
        case data
        /// The same, but there was no room to say so: they read as zeros.
        case zeros
        /// Owner, permissions, times and the like, which were made up.
        case record
        /// Extended attributes, or an ACL.
        case attribute
    }

    public struct Item: Sendable {
        public var kind: Kind
        /// From the root of its tree; nil if the names are lost, too.
        public internal(set) var path: String?
        public var inode: UInt64
        /// Of `data` and `zeros`, at most; else 0.
        public internal(set) var byteCount: UInt64
        var tree: TreeID
    }

    private struct Name: Hashable {
        var kind: Kind
        var tree: TreeID
        var inode: UInt64
    }

    private static let itemLimit = 1000

    public private(set) var items: [Item] = []
    /// Beyond those in `items`.
    public private(set) var omittedItems: UInt64 = 0
    /// What of each kind is lost: inodes, of which some may have lost more than one thing.
    private var counts: [Kind: UInt64] = [:]
    /// Of `data` and `zeros`.
    public private(set) var byteCount: UInt64 = 0
    /// Nodes had no good copy: only then can inodes be missing that were counted.
    var hasLostNodes = false
    /// Those.
    var missingInodes: UInt64 = 0
    /// Nodes are lost in which there may have been snapshots.
    public internal(set) var perhapsSnapshots = false
    /// Operations after those that the trees and the journal still have.
    public internal(set) var newestOperations = false
    private var places: [Name: Int] = [:]

    public var isEmpty: Bool {
        counts.isEmpty && missingInodes == 0 && !newestOperations && !perhapsSnapshots
    }
    public func count(_ kind: Kind) -> UInt64 { counts[kind] ?? 0 }
    /// Inodes that are lost without a name that could be told.
    public var namelessInodes: UInt64 {
        missingInodes - min(missingInodes, count(.file) + count(.directory))
    }

    mutating func add(
        _ kind: Kind, _ inode: UInt64, _ tree: TreeID, byteCount bytes: UInt64, path: String?
    ) {
        byteCount += bytes
        let name = Name(kind: kind, tree: tree, inode: inode)
        if let place = places[name] {
            items[place].byteCount += bytes
            return
        }
        counts[kind, default: 0] += 1
        guard items.count < Self.itemLimit else {
            omittedItems += 1
            return
        }
        places[name] = items.count
        items.append(Item(kind: kind, path: path, inode: inode, byteCount: bytes, tree: tree))
    }

    /// Names are known when the directories are whole again.
    mutating func findPaths(_ path: (Item) -> String?) {
        for index in items.indices where items[index].path == nil {
            items[index].path = path(items[index])
        }
    }
}
