/// What each operation does in the model. Every function first collects the mistakes of the call
/// and changes something only if there are none.
internal import FSCore

extension ReferenceFileSystem {
    mutating func answer(_ operation: FileOperation) throws(Refusal) -> Expectation {
        switch operation {
        case .create(let path, let new): try create(path, new)
        case .symbolicLink(let path, let target): try symbolicLink(path, target)
        case .link(let source, let path): try link(source, path)
        case .unlink(let path): try unlink(path)
        case .removeDirectory(let path): try removeDirectory(path)
        case .rename(let from, let to, let options): try rename(from, to, options)
        case .setMode(let target, let mode):
            try change(target) { $0.mode = $0.kind.modeBits | mode }
        case .setOwner(let target, let user, let group):
            try change(target) { ($0.user, $0.group) = (user, group) }
        case .setTime(let target, let time):
            try change(target) { $0.modificationTime = time }
        case .truncate(let target, let size):
            try changeData(target) { $0.truncate(to: size) }
        case .write(let target, let offset, let payload):
            try changeData(target) { $0.write(payload.bytes, at: offset) }
            return .success(.count(UInt64(payload.count)))
        case .allocate(let target, let offset, let count, let mode):
            try allocate(target, offset, count, mode)
        case .copyRange(let source, let from, let target, let to, let count):
            return try copyRange(source, from, target, to, count)
        case .setExtendedAttribute(let target, let name, let payload, let mode):
            try setExtendedAttribute(target, name, payload, mode)
        case .removeExtendedAttribute(let target, let name):
            let id = try node(at: target)
            guard nodes[id]!.extendedAttributes[name] != nil else {
                throw Refusal(.noSuchAttribute)
            }
            nodes[id]!.extendedAttributes[name] = nil
        case .hold(let path, let number): try hold(node(at: path), as: number)
        case .createUnnamed(let path, let new, let number):
            let directory = try node(at: path)
            guard nodes[directory]!.isDirectory else { throw Refusal(.notDirectory) }
            var node = inheriting(from: directory, new)
            node.links = 0
            node.isUnnamed = true
            hold(add(node), as: number)
        case .drop(let number): drop(number)
        case .synchronize(let target): _ = try node(at: target)
        case .stat, .list, .readLink, .read, .seek, .extendedAttribute, .extendedAttributeNames:
            return try look(operation)
        }
        return .success(.done)
    }

    /// The operations that change nothing.
    private func look(_ operation: FileOperation) throws(Refusal) -> Expectation {
        switch operation {
        case .stat(let target):
            return .success(.attributes(nodes[try node(at: target)]!.attributes))
        case .list(let path):
            let id = try node(at: path)
            guard nodes[id]!.isDirectory else { throw Refusal(.notDirectory) }
            return .success(.kinds(nodes[id]!.entries.mapValues { nodes[$0]!.kind }))
        case .readLink(let path):
            let id = try node(at: path)
            guard nodes[id]!.kind == .symbolicLink else { throw Refusal(.invalidArgument) }
            return .success(.bytes(nodes[id]!.target))
        case .read(let target, let offset, let count):
            return .success(.bytes(try data(of: target).read(at: offset, count: count)))
        case .seek(let target, let offset):
            return .seek(try data(of: target), from: offset)
        case .extendedAttribute(let target, let name):
            guard let value = nodes[try node(at: target)]!.extendedAttributes[name] else {
                throw Refusal(.noSuchAttribute)
            }
            return .success(.bytes(value))
        case .extendedAttributeNames(let target):
            return .success(.names(Set(nodes[try node(at: target)]!.extendedAttributes.keys)))
        default:
            preconditionFailure("\(operation) changes something")
        }
    }

    // MARK: Names

    private mutating func create(_ path: Path, _ new: NewInode) throws(Refusal) {
        let (directory, name) = try freePlace(path)
        insert(add(inheriting(from: directory, new)), name, into: directory)
    }

    private mutating func symbolicLink(_ path: Path, _ target: [UInt8]) throws(Refusal) {
        if target.count > 4095 {
            do throws(Refusal) { _ = try freePlace(path) } catch {
                throw Refusal(error.errors + [.nameTooLong])
            }
            throw Refusal(.nameTooLong)
        }
        let (directory, name) = try freePlace(path)
        var node = inheriting(
            from: directory, NewInode(mode: FileKind.symbolicLink.modeBits | 0o777))
        node.target = target
        insert(add(node), name, into: directory)
    }

    private mutating func link(_ source: Target, _ path: Path) throws(Refusal) {
        var mistakes: [FSError] = []
        let id = collect(&mistakes) { () throws(Refusal) in try node(at: source) }
        let place = collect(&mistakes) { () throws(Refusal) in try freePlace(path) }
        if let id, nodes[id]!.isDirectory { mistakes.append(.notPermitted) }
        guard mistakes.isEmpty, let id, let place else { throw Refusal(mistakes) }
        insert(id, place.name, into: place.directory)
        nodes[id]!.links += 1
        nodes[id]!.isUnnamed = false
    }

    private mutating func unlink(_ path: Path) throws(Refusal) {
        let (directory, name, id) = try existingPlace(path)
        guard !nodes[id]!.isDirectory else { throw Refusal(.isDirectory) }
        remove(name, from: directory)
    }

    private mutating func removeDirectory(_ path: Path) throws(Refusal) {
        let (directory, name, id) = try existingPlace(path)
        guard nodes[id]!.isDirectory else { throw Refusal(.notDirectory) }
        guard nodes[id]!.entries.isEmpty else { throw Refusal(.directoryNotEmpty) }
        remove(name, from: directory)
    }

    private mutating func rename(
        _ from: Path, _ to: Path, _ options: RenameOptions
    ) throws(Refusal) {
        var mistakes: [FSError] = []
        if options.contains(.exchange), options != .exchange { mistakes.append(.invalidArgument) }
        let source = collect(&mistakes) { () throws(Refusal) in try existingPlace(from) }
        let place = collect(&mistakes) { () throws(Refusal) in try self.place(of: to) }
        let target = place.flatMap { nodes[$0.directory]!.entries[$0.name] }
        if place != nil {
            if target != nil, options.contains(.noReplace) { mistakes.append(.entryExists) }
            if target == nil, options.contains(.exchange) { mistakes.append(.noSuchEntry) }
        }
        guard let source, let place else { throw Refusal(mistakes) }
        if nodes[source.id]!.isDirectory, isSame(place.directory, orBelow: source.id) {
            mistakes.append(.invalidArgument)
        }
        if let target, nodes[target]!.isDirectory, isSame(source.directory, orBelow: target) {
            mistakes.append(options.contains(.exchange) ? .invalidArgument : .directoryNotEmpty)
        }
        if let target, target != source.id, !options.contains(.exchange) {
            switch (nodes[source.id]!.isDirectory, nodes[target]!.isDirectory) {
            case (true, false): mistakes.append(.notDirectory)
            case (false, true): mistakes.append(.isDirectory)
            case (true, true):
                if !nodes[target]!.entries.isEmpty { mistakes.append(.directoryNotEmpty) }
            case (false, false): break
            }
        }
        guard mistakes.isEmpty else { throw Refusal(mistakes) }
        // Two names of one inode: nothing happens, says POSIX.
        if target == source.id { return }
        if let target, options.contains(.exchange) {
            detach(place.name, from: place.directory)
            detach(source.name, from: source.directory)
            insert(target, source.name, into: source.directory)
        } else {
            if target != nil { remove(place.name, from: place.directory) }
            detach(source.name, from: source.directory)
        }
        insert(source.id, place.name, into: place.directory)
        if options.contains(.whiteout) {
            let new = NewInode(mode: FileKind.characterDevice.modeBits)
            insert(
                add(inheriting(from: source.directory, new)), source.name, into: source.directory)
        }
    }

    /// A new node with what it takes from its directory: under a set-group-id bit the group, and
    /// the bit itself if it is a directory.
    private func inheriting(from directory: NodeID, _ new: NewInode) -> Node {
        let parent = nodes[directory]!
        var node = Node(mode: new.mode & ~new.umask, user: new.userID, group: new.groupID, links: 1)
        if node.isDirectory { node.links = 2 }
        if node.kind == .characterDevice || node.kind == .blockDevice { node.device = new.device }
        if parent.mode & ModeBits.setGroupID != 0 {
            node.group = parent.group
            if node.isDirectory { node.mode |= ModeBits.setGroupID }
        }
        return node
    }

    private func freePlace(_ path: Path) throws(Refusal) -> (directory: NodeID, name: Name) {
        let (directory, name) = try place(of: path)
        guard nodes[directory]!.entries[name] == nil else { throw Refusal(.entryExists) }
        return (directory, name)
    }

    private func existingPlace(
        _ path: Path
    ) throws(Refusal) -> (directory: NodeID, name: Name, id: NodeID) {
        let (directory, name) = try place(of: path)
        guard let id = nodes[directory]!.entries[name] else { throw Refusal(.noSuchEntry) }
        return (directory, name, id)
    }

    /// Notes the mistakes of one part of a call, so that those of the others are found too.
    private func collect<T>(
        _ mistakes: inout [FSError], _ body: () throws(Refusal) -> T
    ) -> T? {
        do throws(Refusal) {
            return try body()
        } catch {
            mistakes += error.errors
            return nil
        }
    }

    // MARK: Inodes and their data

    private mutating func hold(_ id: NodeID, as number: Int) {
        handles[number] = id
        nodes[id]!.handles += 1
    }

    private mutating func change(
        _ target: Target, _ body: (inout Node) -> Void
    ) throws(Refusal) {
        body(&nodes[try node(at: target)]!)
    }

    private func requireData(_ id: NodeID) throws(Refusal) {
        switch nodes[id]!.kind {
        case .regular: return
        case .directory: throw Refusal(.isDirectory)
        default: throw Refusal(.invalidArgument)
        }
    }

    private func data(of target: Target) throws(Refusal) -> SparseBytes {
        let id = try node(at: target)
        try requireData(id)
        return nodes[id]!.data
    }

    private mutating func changeData(
        _ target: Target, _ body: (inout SparseBytes) -> Void
    ) throws(Refusal) {
        let id = try node(at: target)
        try requireData(id)
        body(&nodes[id]!.data)
        nodes[id]!.modificationTime = nil
    }

    private mutating func allocate(
        _ target: Target, _ offset: UInt64, _ count: UInt64, _ mode: AllocationMode
    ) throws(Refusal) {
        let id = try node(at: target)
        var mistakes: [FSError] = count > 0 ? [] : [.invalidArgument]
        // Punching a hole with a change of size is no mode that exists.
        if mode == .punchHole { mistakes += [.notSupported, .invalidArgument] }
        do throws(Refusal) { try requireData(id) } catch { mistakes += error.errors }
        guard mistakes.isEmpty else { throw Refusal(mistakes) }
        try changeData(target) { data in
            let end = offset + count
            if !mode.isDisjoint(with: [.punchHole, .zeroRange]) {
                data.zero(at: offset, count: count)
            }
            if !mode.contains(.keepSize), end > data.size { data.truncate(to: end) }
        }
    }

    private mutating func copyRange(
        _ source: Target, _ from: UInt64, _ target: Target, _ to: UInt64, _ count: UInt64
    ) throws(Refusal) -> Expectation {
        var mistakes: [FSError] = []
        let content = collect(&mistakes) { () throws(Refusal) in try data(of: source) }
        _ = collect(&mistakes) { () throws(Refusal) in try data(of: target) }
        guard mistakes.isEmpty, let content else { throw Refusal(mistakes) }
        let bytes = content.read(at: from, count: Int(count))
        let isSame = try node(at: source) == node(at: target)
        // As in Linux, the range is cut off at the end of the source before it may overlap.
        let length = UInt64(bytes.count)
        if isSame, max(from, to) < min(from, to) + length { throw Refusal(.invalidArgument) }
        if !bytes.isEmpty { try changeData(target) { $0.write(bytes, at: to) } }
        return .success(.count(length))
    }

    private mutating func setExtendedAttribute(
        _ target: Target, _ name: Name, _ payload: Payload, _ mode: AttributeSetMode
    ) throws(Refusal) {
        var mistakes: [FSError] = payload.count > 65536 ? [.attributeTooLarge] : []
        let id = collect(&mistakes) { () throws(Refusal) in try node(at: target) }
        guard let id else { throw Refusal(mistakes) }
        let isThere = nodes[id]!.extendedAttributes[name] != nil
        if isThere, mode == .createOnly { mistakes.append(.entryExists) }
        if !isThere, mode == .replaceOnly { mistakes.append(.noSuchAttribute) }
        guard mistakes.isEmpty else { throw Refusal(mistakes) }
        nodes[id]!.extendedAttributes[name] = payload.bytes
    }
}
