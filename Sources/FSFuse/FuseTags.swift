/// Which tree a tag stands for. A node id is a tag of 16 bits above an inode number of 48:
///
///     tag       inode number
///     0         of the mounted head, as long as it is the tree that was mounted
///     1…32766   of another tree: of a snapshot, or of the head since it went back to one
///     32767     of a `SnapshotPlace`: a directory of names, or the root of a snapshot
///
/// Without tags a file would share its pages in the kernel with the same file of another tree. The
/// root of the mount has node id 1 by protocol, always.
///
/// A tag follows from its tree if it is free, so that inode numbers that programs see below
/// `.snapshots` are, as a rule, the same each time.
///
/// A tree keeps its tag as long as no other needs one: a file handle finds its file also when the kernel
/// has forgotten that.
///
/// - Invariant: a tag stands for one tree as long as the kernel has a reference below it.
internal import FSCore

final class FuseTags: @unchecked Sendable {
    static let places: UInt64 = 0x7FFF

    enum Owner: Hashable {
        case snapshot(SnapshotPlace)
        /// The mounted head, after so many changes into another tree.
        case head(UInt64)
    }
    private struct Tree {
        var owner: Owner
        var references: UInt64
    }
    private let lock = Mutex()
    private let count: UInt64
    private var trees: [UInt64: Tree] = [:]
    private var tags: [Owner: UInt64] = [:]
    /// Tags without a reference.
    private var idle: Set<UInt64> = []

    /// - Parameter count: at most 32766; a test takes fewer.
    init(count: UInt64 = places - 1) { self.count = count }

    func owner(_ tag: UInt64) -> Owner? { lock.withLock { trees[tag]?.owner } }

    /// The tag of a tree, with one more reference; nil if no tag is left.
    func retain(_ owner: Owner) -> UInt64? {
        lock.withLock {
            if let tag = tags[owner] {
                trees[tag]?.references += 1
                idle.remove(tag)
                return tag
            }
            if UInt64(trees.count) == count {
                guard let unused = idle.popFirst(), let tree = trees.removeValue(forKey: unused)
                else { return nil }
                tags[tree.owner] = nil
            }
            var tag = 1 + preferred(owner) % count
            while trees[tag] != nil { tag = 1 + tag % count }
            trees[tag] = Tree(owner: owner, references: 1)
            tags[owner] = tag
            return tag
        }
    }

    /// The ways into one snapshot lie far from each other, and heads far from snapshots.
    private func preferred(_ owner: Owner) -> UInt64 {
        switch owner {
        case .snapshot(let place): place.rawValue &+ (place.rawValue >> 46) &* 8191
        case .head(let changes): 3 * 8191 &+ changes
        }
    }

    func retain(_ tag: UInt64, _ count: UInt64 = 1) {
        lock.withLock { trees[tag]?.references += count }
    }

    /// Gives back references; a tag without one can be another tree's.
    func release(_ tag: UInt64, _ count: UInt64 = 1) {
        lock.withLock {
            guard let tree = trees[tag] else { return }
            trees[tag]?.references -= min(count, tree.references)
            if tree.references <= count { idle.insert(tag) }
        }
    }
}
