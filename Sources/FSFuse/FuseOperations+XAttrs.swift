/// Callbacks about extended attributes.
internal import CFuse3
internal import FSCore
internal import Glibc

extension FuseOperations {
    static func addExtendedAttributes(to table: inout fuse_lowlevel_ops) {
        table.getxattr = { handle, nodeID, name, capacity in
            let request = FuseRequest(handle)
            request.serve("getxattr", nodeID, orListing: .noSuchAttribute) {
                (fileSystem, inode) throws(FSError) in
                let value = try fileSystem.extendedAttribute(ByteView(name), of: inode)
                request.reply(attribute: value, capacity: capacity)
            }
        }
        table.listxattr = { handle, nodeID, capacity in
            let request = FuseRequest(handle)
            guard !request.isListing(nodeID) else {
                return request.reply(attribute: [], capacity: capacity)
            }
            request.serve("listxattr", nodeID) { (fileSystem, inode) throws(FSError) in
                let names = try fileSystem.extendedAttributeNames(
                    of: inode, includingTrusted: !request.isOrdinaryUser)
                request.reply(attribute: names, capacity: capacity)
            }
        }
        table.setxattr = { handle, nodeID, name, bytes, count, flags in
            let request = FuseRequest(handle)
            guard let mode = AttributeSetMode(flags: flags) else { return request.fail(EINVAL) }
            let value = ByteView(base: bytes.unsafelyUnwrapped, count: count)
            request.serve("setxattr", nodeID) { (fileSystem, inode) throws(FSError) in
                try fileSystem.setExtendedAttribute(
                    ByteView(name), of: inode, value, mode,
                    dropSetGroupID: request.notes.dropSetGroupID,
                    caller: { request.attributeCaller })
                request.succeed()
            }
        }
        table.removexattr = { handle, nodeID, name in
            let request = FuseRequest(handle)
            request.serve("removexattr", nodeID) { (fileSystem, inode) throws(FSError) in
                try fileSystem.removeExtendedAttribute(
                    ByteView(name), of: inode, caller: { request.attributeCaller })
                request.succeed()
            }
        }
    }
}

extension AttributeSetMode {
    /// The flags of setxattr(2); nil if they contradict each other.
    fileprivate init?(flags: Int32) {
        switch flags {
        case 0: self = .createOrReplace
        case Int32(XATTR_CREATE): self = .createOnly
        case Int32(XATTR_REPLACE): self = .replaceOnly
        default: return nil
        }
    }
}
