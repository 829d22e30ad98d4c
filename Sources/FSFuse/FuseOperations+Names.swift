/// Callbacks that find, make and remove names.
internal import CFuse3
internal import FSCore
internal import Glibc

extension FuseOperations {
    static func addNames(to table: inout fuse_lowlevel_ops) {
        table.lookup = { handle, parent, name in
            let request = FuseRequest(handle)
            let name = ByteView(name)
            guard !request.isInSnapshots(parent, name) else {
                return request.lookupSnapshot(name, in: parent)
            }
            request.serve("lookup", parent) { (fileSystem, directory) throws(FSError) in
                do throws(FSError) {
                    request.reply(
                        entry: try fileSystem.lookup(name, in: directory), fileSystem)
                } catch .noSuchEntry {
                    request.replyNoEntry()
                }
            }
        }
        table.forget = { handle, nodeID, count in
            let request = FuseRequest(handle)
            request.release(nodeID, count: count)
            request.finish()
        }
        table.forget_multi = { handle, count, forgets in
            let request = FuseRequest(handle)
            for one in UnsafeBufferPointer(start: forgets, count: count) {
                request.release(one.ino, count: one.nlookup)
            }
            request.finish()
        }
        table.mknod = { handle, parent, name, mode, device in
            let request = FuseRequest(handle)
            let new = request.newInode(
                mode: mode, kind: .regular,
                device: FuseAttributes.device(UInt32(truncatingIfNeeded: device)))
            request.serve("mknod", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                request.reply(
                    entry: try fileSystem.create(ByteView(name), in: directory, new), fileSystem)
            }
        }
        table.mkdir = { handle, parent, name, mode in
            let request = FuseRequest(handle)
            let new = request.newInode(mode: mode, kind: .directory)
            request.serve("mkdir", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                request.reply(
                    entry: try fileSystem.create(ByteView(name), in: directory, new), fileSystem)
            }
        }
        // A file that CREATE made is released by message when it is closed. With ENOSYS the
        // kernel makes it by MKNOD and opens it without asking: one request instead of two, and
        // no other difference. Only TMPFILE has no such way round.
        table.create = { handle, parent, _, mode, _ in
            let request = FuseRequest(handle)
            guard request.notes.origin == .tmpfile else { return request.fail(ENOSYS) }
            let new = request.newInode(mode: mode, kind: .regular)
            request.serve("tmpfile", parent) { (fileSystem, directory) throws(FSError) in
                request.reply(
                    created: try fileSystem.createUnnamed(in: directory, new), fileSystem)
            }
        }
        table.symlink = { handle, target, parent, name in
            let request = FuseRequest(handle)
            request.serve("symlink", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                let attributes = try fileSystem.createSymbolicLink(
                    ByteView(name), in: directory, target: ByteView(target),
                    userID: request.userID, groupID: request.groupID)
                request.reply(entry: attributes, fileSystem)
            }
        }
        table.link = { handle, nodeID, parent, name in
            let request = FuseRequest(handle)
            request.serve("link", nodeID) { (fileSystem, inode) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                let attributes = try fileSystem.link(
                    inode, as: ByteView(name), in: try request.inode(parent, with: nodeID))
                request.reply(entry: attributes, fileSystem)
            }
        }
        table.unlink = { handle, parent, name in
            let request = FuseRequest(handle)
            request.serve("unlink", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                try fileSystem.unlink(ByteView(name), in: directory)
                request.succeed()
            }
        }
        table.rmdir = { handle, parent, name in
            let request = FuseRequest(handle)
            request.serve("rmdir", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                try fileSystem.removeDirectory(ByteView(name), in: directory)
                request.succeed()
            }
        }
        table.rename = { handle, parent, name, newParent, newName, flags in
            let request = FuseRequest(handle)
            request.serve("rename", parent) { (fileSystem, directory) throws(FSError) in
                try request.requireFree(ByteView(name), in: parent)
                try request.requireFree(ByteView(newName), in: newParent)
                try fileSystem.rename(
                    ByteView(name), in: directory,
                    to: ByteView(newName), in: try request.inode(newParent, with: parent),
                    RenameOptions(rawValue: flags), owner: (request.userID, request.groupID))
                request.succeed()
            }
        }
    }
}
