/// What lookup, stat and listings answer below `.snapshots`. All other callbacks work there as they do
/// in the head: `FuseRequest.serve` finds the files, and these refuse every change.
internal import CFuse3
internal import FSCore

extension FuseRequest {
    /// Whether a name is not one of the head's; a comparison for nearly all.
    @inline(__always)
    func isInSnapshots(_ parent: fuse_ino_t, _ name: ByteView) -> Bool {
        (parent == FuseNodeID.root || !isInHead(parent)) && isSnapshots(parent, name)
    }

    private func isSnapshots(_ parent: fuse_ino_t, _ name: ByteView) -> Bool {
        showsSnapshots && (parent != FuseNodeID.root || FuseSnapshotNodes.isDirectoryName(name))
    }

    /// Throws for a name that the head cannot have while the mount shows `.snapshots`.
    @inline(__always)
    func requireFree(_ name: ByteView, in parent: fuse_ino_t) throws(FSError) {
        if parent == FuseNodeID.root, isSnapshots(parent, name) { throw .notPermitted }
    }

    func lookupSnapshot(_ name: ByteView, in parent: fuse_ino_t) {
        serveSnapshots("lookup", parent) { (nodes) throws(FSError) in
            if parent == FuseNodeID.root {
                return try reply(place: .names, nodes, isNameFixed: true)
            }
            if let listing = nodes.listing(parent) {
                if name.isDot { return try reply(place: listing, nodes, isNameFixed: true) }
                if name.isDotDot { return try replyParent(of: listing, nodes) }
                let place = try nodes.namespace.lookup(name, in: listing)
                return try reply(place: place, nodes, isNameFixed: nodes.namespace.isListing(place))
            }
            let node = try nodes.node(parent)
            if node.inode == .root {
                if name.isDot { return try reply(place: node.place, nodes, isNameFixed: true) }
                if name.isDotDot { return try replyParent(of: node.place, nodes) }
            }
            do throws(FSError) {
                var attributes = try node.files.lookup(name, in: node.inode)
                if attributes.inode == .root {
                    return try reply(place: node.place, nodes, isNameFixed: true)
                }
                let nodeID = try nodes.retain(attributes.inode, in: node.place)
                attributes.inode = InodeNumber(nodeID)
                let generation = nodes.namespace.generation(of: node.place)
                reply(entry: attributes, generation: generation)
            } catch .noSuchEntry {
                replyNoEntry()
            }
        }
    }

    private func replyParent(
        of place: SnapshotPlace, _ nodes: FuseSnapshotNodes
    ) throws(FSError) {
        if let parent = nodes.namespace.parent(of: place) {
            return try reply(place: parent, nodes, isNameFixed: true)
        }
        serve("lookup", FuseNodeID.root) { (fileSystem, root) throws(FSError) in
            let dot: [UInt8] = [UInt8(ascii: ".")]
            reply(
                entry: try dot.withView { (dot) throws(FSError) in
                    try fileSystem.lookup(dot, in: root)
                }, fileSystem)
        }
    }

    /// - Parameter isNameFixed: else somebody may delete or rename it behind the kernel's back.
    private func reply(
        place: SnapshotPlace, _ nodes: FuseSnapshotNodes, isNameFixed: Bool
    ) throws(FSError) {
        var attributes = try nodes.namespace.attributes(of: place)
        attributes.inode = InodeNumber(FuseSnapshotNodes.nodeID(of: place))
        reply(
            entry: attributes, generation: nodes.namespace.generation(of: place),
            entrySeconds: isNameFixed ? FuseAttributes.validSeconds : 0,
            attributeSeconds: nodes.namespace.isListing(place) ? 0 : FuseAttributes.validSeconds)
    }

    func replySnapshotAttributes(_ nodeID: fuse_ino_t) {
        serveSnapshots("getattr", nodeID) { (nodes) throws(FSError) in
            var attributes: Attributes
            let listing = nodes.listing(nodeID)
            if let listing {
                attributes = try nodes.namespace.attributes(of: listing)
            } else {
                let node = try nodes.node(nodeID)
                attributes = try node.files.attributes(of: node.inode)
            }
            attributes.inode = InodeNumber(nodeID)
            reply(
                attributes: attributes,
                validSeconds: listing == nil ? FuseAttributes.validSeconds : 0)
        }
    }

    /// A mapping, or the writeback cache, has changed the kernel's pages already.
    func refuseWrite(_ nodeID: fuse_ino_t) {
        serveSnapshots("write", nodeID) { (nodes) throws(FSError) in
            _ = try nodes.node(nodeID)
            throw .readOnly
        }
        forgetContents(of: nodeID)
    }

    func listSnapshots(_ nodeID: fuse_ino_t, _ count: Int, _ offset: off_t, plus: Bool) {
        serveSnapshots("readdir", nodeID) { (nodes) throws(FSError) in
            let listing = memory(count)
            var used = 0
            let cookie = UInt64(bitPattern: Int64(offset))
            do throws(FSError) {
                if let place = nodes.listing(nodeID) {
                    try list(place, nodes, after: cookie, plus: plus, into: listing, &used)
                } else {
                    try list(
                        try nodes.node(nodeID), nodes, after: cookie, plus: plus, into: listing,
                        &used)
                }
            } catch {
                // What was listed has references; the next request meets the error again.
                guard used > 0 else { throw error }
            }
            reply(listing: listing.view.slice(0, used), plus: plus)
        }
    }

    /// Names only: to have looked at them opens no snapshot.
    private func list(
        _ place: SnapshotPlace, _ nodes: FuseSnapshotNodes, after cookie: UInt64, plus: Bool,
        into listing: MutableByteView, _ used: inout Int
    ) throws(FSError) {
        func show(_ entry: DirectoryEntry, _ nodeID: UInt64) -> Bool {
            var entry = entry
            entry.inode = InodeNumber(nodeID)
            return append(entry, nil, plus: plus, to: listing, &used)
        }
        let dots: [(name: String, nodeID: UInt64, cookie: UInt64)] = [
            (".", FuseSnapshotNodes.nodeID(of: place), 1), ("..", nodes.parent(of: place), 2),
        ]
        for dot in dots where cookie < dot.cookie {
            let isShown = Array(dot.name.utf8).withView {
                show(
                    DirectoryEntry(name: $0, inode: .root, kind: .directory, cookie: dot.cookie),
                    dot.nodeID)
            }
            guard isShown else { return }
        }
        try nodes.namespace.list(
            place, after: max(cookie, 2), atMost: listing.count / (plus ? 168 : 40)
        ) {
            show($0, FuseSnapshotNodes.nodeID(of: SnapshotPlace(rawValue: $0.inode.rawValue)))
        }
    }

    private func list(
        _ node: FuseSnapshotNodes.Node, _ nodes: FuseSnapshotNodes, after cookie: UInt64,
        plus: Bool, into listing: MutableByteView, _ used: inout Int
    ) throws(FSError) {
        // Held meanwhile, so that all numbers are of one tag.
        let base = try nodes.retain(InodeNumber(0), in: node.place)
        defer { nodes.release(base, count: 1) }
        let generation = nodes.namespace.generation(of: node.place)
        func nodeID(_ inode: InodeNumber) -> InodeNumber {
            InodeNumber(
                inode == .root ? FuseSnapshotNodes.nodeID(of: node.place) : base | inode.rawValue)
        }
        try node.files.readDirectory(
            node.inode, after: cookie, withAttributes: plus,
            expecting: listing.count / (plus ? 168 : 40)
        ) { entry, attributes in
            var entry = entry
            if entry.name.isDotDot, node.inode == .root {
                entry.inode = InodeNumber(nodes.parent(of: node.place))
            } else {
                entry.inode = nodeID(entry.inode)
            }
            guard var attributes, !entry.isDot else {
                return append(entry, nil, plus: plus, to: listing, &used)
            }
            attributes.inode = entry.inode
            guard
                append(
                    entry, attributes, generation: generation, plus: plus, to: listing, &used)
            else { return false }
            nodes.retain(entry.inode.rawValue)
            return true
        }
    }
}
