/// A name with everything below it, taken away: what a copy that was not finished, or has been replaced,
/// leaves behind.
extension FileSystem {
    /// Removes all below a name, and the name itself unless it is kept: an operation for each name, so a
    /// crash leaves a part of it. Does nothing if there is no such name.
    ///
    /// Throws `.notPermitted` at what is immutable or append-only, unless that is taken away first.
    ///
    /// - Parameters:
    ///   - keepsTop: the name stays; a directory is empty then.
    ///   - loosens: flags that keep inodes from being removed are taken away.
    package func removeTree(
        _ name: [UInt8], in directory: InodeNumber, keepsTop: Bool, loosens: Bool
    ) throws(FSError) {
        struct Place {
            var name: [UInt8]
            var directory: InodeNumber
            var inode: InodeNumber
        }
        func place(_ name: [UInt8], _ directory: InodeNumber) throws(FSError) -> Place? {
            try name.withView { (view) throws(FSError) in try entry(named: view, in: directory) }
                .map { Place(name: name, directory: directory, inode: $0) }
        }
        guard let top = try place(name, directory) else { return }
        var way = [top]
        var inodes: Set<InodeNumber> = [top.inode]
        while let current = way.last {
            let isDirectory = try record(of: current.inode).isDirectory
            if isDirectory, let first = try firstName(in: current.inode),
                let next = try place(first, current.inode)
            {
                guard inodes.insert(next.inode).inserted else {
                    throw .corrupt(
                        Corruption(.directory, at: next.inode.rawValue, "it is below itself"))
                }
                way.append(next)
                continue
            }
            way.removeLast()
            inodes.remove(current.inode)
            if keepsTop, way.isEmpty { return }
            if loosens {
                try loosen(current.inode)
                try loosen(current.directory)
            }
            try current.name.withView { (name) throws(FSError) in
                if isDirectory {
                    try removeDirectory(name, in: current.directory)
                } else {
                    try unlink(name, in: current.directory)
                }
            }
        }
    }

    private func firstName(in directory: InodeNumber) throws(FSError) -> [UInt8]? {
        var name: [UInt8]?
        try readDirectory(directory, after: Self.parentCookie, withAttributes: false) {
            (entry, _) in
            if name == nil { name = entry.name.toArray() }
            return false
        }
        return name
    }
}
