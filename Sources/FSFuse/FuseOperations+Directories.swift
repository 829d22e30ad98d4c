/// Callbacks about directories as a whole.
internal import CFuse3
internal import FSCore
internal import Glibc

extension FuseOperations {
    static func addDirectories(to table: inout fuse_lowlevel_ops) {
        // As with open: ENOSYS once, and the kernel does without; it then also caches listings.
        table.opendir = { handle, _, file in FuseRequest(handle).open(file) }
        table.readdir = { handle, nodeID, count, offset, _ in
            FuseRequest(handle).list(nodeID, count, offset, plus: false)
        }
        table.readdirplus = { handle, nodeID, count, offset, _ in
            FuseRequest(handle).list(nodeID, count, offset, plus: true)
        }
        table.fsyncdir = { handle, nodeID, _, _ in
            let request = FuseRequest(handle)
            guard !request.isListing(nodeID) else { return request.succeed() }
            request.serve("fsyncdir", nodeID, latched: EIO) {
                (fileSystem, inode) throws(FSError) in
                try fileSystem.synchronize(inode)
                request.succeed()
            }
        }
    }
}

extension FuseRequest {
    fileprivate func list(_ nodeID: fuse_ino_t, _ count: Int, _ offset: off_t, plus: Bool) {
        guard isInHead(nodeID) else {
            return listSnapshots(nodeID, count, offset, plus: plus)
        }
        let hidesName = nodeID == FuseNodeID.root && showsSnapshots
        serve(plus ? "readdirplus" : "readdir", nodeID) { (fileSystem, inode) throws(FSError) in
            let listing = memory(count)
            var used = 0
            do throws(FSError) {
                try fileSystem.readDirectory(
                    inode, after: UInt64(bitPattern: Int64(offset)), withAttributes: plus,
                    expecting: count / (plus ? 168 : 40)
                ) { entry, attributes in
                    if hidesName, FuseSnapshotNodes.isDirectoryName(entry.name) {
                        if attributes != nil { fileSystem.release(entry.inode, count: 1) }
                        return true
                    }
                    return append(
                        entry, entry.isDot ? nil : attributes, plus: plus, to: listing, &used)
                }
            } catch {
                // What was listed has references; the next request meets the error again.
                guard used > 0 else { throw error }
            }
            reply(listing: listing.view.slice(0, used), plus: plus)
        }
    }
}

extension DirectoryEntry {
    /// "." or "..", which come without reference.
    var isDot: Bool { name.isDot || name.isDotDot }
}

extension ByteView {
    private static var dot: UInt8 { UInt8(ascii: ".") }
    var isDot: Bool { count == 1 && self[0] == Self.dot }
    var isDotDot: Bool { count == 2 && self[0] == Self.dot && self[1] == Self.dot }
}
