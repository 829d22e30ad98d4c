/// Draws operations that mostly hit: it looks at the model to find names that exist, and now and
/// then goes beside them on purpose.
///
/// - Invariant: what is drawn depends on the seed, the profile and the model only; children are
///   always taken in the order of their names.
internal import FSCore

struct OperationGenerator {
    private var random: SeededRandom
    private let profile: OperationProfile
    private static let handleCount = 6

    init(seed: UInt64, profile: OperationProfile) {
        random = SeededRandom(seed: seed)
        self.profile = profile
    }

    /// Few names, so that operations meet: plain ones, long ones, bytes that are no text, and two
    /// that differ only in their Unicode form.
    private static let names: [[UInt8]] =
        ([
            "a", "b", "c", "d", "file", "dir", ".hidden", "with space", "new\nline", "\u{E9}",
            "e\u{301}", "...",
        ] as [String]).map { [UInt8]($0.utf8) }
        + [[0xFF, 0xFE, 0x01], [UInt8](repeating: 0x78, count: 255)]
    private static let tooLongName = [UInt8](repeating: 0x79, count: 256)
    private static let attributeNames = ["user.a", "user.b", "user.\u{E9}", "trusted.aegis"]
        .map { [UInt8]($0.utf8) }

    mutating func next(_ model: ReferenceFileSystem) -> FileOperation {
        let isFull = model.nodes.count > profile.population
        let draw: (inout Self, ReferenceFileSystem) -> FileOperation = random.weighted([
            (isFull ? 4 : 14, { $0.creation($1) }),
            (isFull ? 30 : 10, { $0.removal($1) }),
            (8, { $0.renaming($1) }),
            (22, { $0.writing($1) }),
            (8, { $0.reading($1) }),
            (8, { $0.shaping($1) }),
            (6, { $0.attributeChange($1) }),
            (6, { $0.extendedAttributeUse($1) }),
            (5, { $0.looking($1) }),
            (4, { $0.holding($1) }),
        ])
        return draw(&self, model)
    }

    // MARK: Operations

    private mutating func creation(_ model: ReferenceFileSystem) -> FileOperation {
        let path = freshPath(model)
        switch random.below(20) {
        case 0..<9: return .create(path, newInode(.regular))
        case 9..<14: return .create(path, newInode(.directory))
        case 14..<16:
            return .symbolicLink(path, target: random.bytes(linkLength()).map { $0 | 1 })
        case 16:
            let kinds: [FileKind] = [.fifo, .socket, .characterDevice, .blockDevice]
            return .create(path, newInode(random.pick(kinds)))
        default: return .link(linkSource(model), path)
        }
    }

    private mutating func linkLength() -> Int {
        random.weighted([
            (10, random.integer(in: 1...60)), (2, random.integer(in: 61...4095)), (1, 4096),
        ])
    }

    /// Anything with a name; or what is held if it never had one.
    private mutating func linkSource(_ model: ReferenceFileSystem) -> Target {
        let held = model.handles.keys.sorted().filter { model.isLinkable(model.handles[$0]!) }
        if !held.isEmpty, random.chance(1, in: 4) { return .handle(random.pick(held)) }
        return .path(existingPath(model))
    }

    private mutating func newInode(_ kind: FileKind) -> NewInode {
        let isDevice = kind == .characterDevice || kind == .blockDevice
        return NewInode(
            mode: kind.modeBits | UInt32(random.below(0o1000)), umask: 0,
            userID: profile.setsOwnersOnCreation ? UInt32(random.below(3)) * 1000 : 0,
            groupID: profile.setsOwnersOnCreation ? UInt32(random.below(3)) * 1000 : 0,
            device: isDevice
                ? DeviceNumber(
                    major: UInt32(random.below(4096)), minor: UInt32(random.below(1 << 20)))
                : .none)
    }

    private mutating func removal(_ model: ReferenceFileSystem) -> FileOperation {
        let path = existingPath(model)
        let isDirectory = (try? model.node(at: path)).map { model.nodes[$0]!.isDirectory } ?? false
        let isRight = !random.chance(1, in: 12)
        return isDirectory == isRight ? .removeDirectory(path) : .unlink(path)
    }

    private mutating func renaming(_ model: ReferenceFileSystem) -> FileOperation {
        let options: RenameOptions = random.weighted([
            (10, []), (3, .noReplace), (4, .exchange), (profile.leavesWhiteouts ? 1 : 0, .whiteout),
            (1, [.noReplace, .exchange]),
        ])
        let to = random.chance(1, in: 2) ? freshPath(model) : existingPath(model)
        return .rename(existingPath(model), to, options)
    }

    private mutating func writing(_ model: ReferenceFileSystem) -> FileOperation {
        let target = file(model)
        let size = sizeOf(target, model)
        let pattern: Payload.Pattern = random.weighted([
            (6, profile.isCompressible ? .text : .random), (1, .zeros), (2, .repeating),
        ])
        // The kernel answers an empty write itself; to a directory it is nobody's.
        let least = kindOf(target, model) == .directory ? 1 : 0
        let seed = random.next() % (profile.contents ?? .max)
        let payload = Payload(pattern, seed: seed, count: max(length(), least))
        return .write(target, at: offset(size), payload)
    }

    private mutating func reading(_ model: ReferenceFileSystem) -> FileOperation {
        let target = file(model)
        let offset = offset(sizeOf(target, model))
        // What SEEK_DATA means in a directory is nobody's promise.
        return random.chance(1, in: 3) && kindOf(target, model) != .directory
            ? .seek(target, from: offset) : .read(target, at: offset, count: length() + 1)
    }

    /// Truncate, fallocate, copy.
    private mutating func shaping(_ model: ReferenceFileSystem) -> FileOperation {
        let target = file(model)
        let size = sizeOf(target, model)
        switch random.below(12) {
        case 0..<4: return .truncate(target, offset(size))
        case 4..<7:
            let mode: AllocationMode = random.weighted([
                (2, []), (2, .keepSize), (4, [.punchHole, .keepSize]), (2, .zeroRange),
                (2, [.zeroRange, .keepSize]), (1, .punchHole),
            ])
            return .allocate(target, at: offset(size), count: UInt64(length()), mode)
        default:
            let source = file(model)
            var (from, to) = (offset(sizeOf(source, model)), offset(size))
            // Half of them so that blocks can be shared: from the beginning of blocks, or as far
            // into one as the other.
            switch random.below(4) {
            case 0: (from, to) = (from & ~4095, to & ~4095)
            case 1: to = to & ~4095 | from & 4095
            default: break
            }
            let count = random.chance(1, in: 3) ? Int(sizeOf(source, model)) : length()
            return .copyRange(source, at: from, to: target, targetAt: to, count: UInt64(count + 1))
        }
    }

    private mutating func attributeChange(_ model: ReferenceFileSystem) -> FileOperation {
        let target = anything(model, random.chance(1, in: 2) ? [.regular] : [.directory])
        switch random.below(3) {
        case 0:
            // Set-id bits are for directories only: on files the kernel's rules would interfere.
            let isDirectory = kindOf(target, model) == .directory
            let bits = UInt32(random.below(0o1000))
            return .setMode(target, isDirectory ? bits | UInt32(random.below(2)) << 10 : bits)
        case 1:
            return .setOwner(
                target, user: UInt32(random.below(3)) * 1000, group: UInt32(random.below(3)) * 1000)
        default:
            let seconds = Int64(random.integer(in: -(1 << 31)...(1 << 33)))
            return .setTime(
                target,
                modification: Timestamp(
                    seconds: seconds, nanoseconds: UInt32(random.below(1_000_000_000))))
        }
    }

    private mutating func extendedAttributeUse(_ model: ReferenceFileSystem) -> FileOperation {
        let target = anything(model, random.chance(3, in: 4) ? [.regular] : [.directory])
        let name = random.pick(Self.attributeNames)
        let limit = profile.largestExtendedAttribute
        switch random.below(10) {
        case 0..<5:
            let count = random.weighted([
                (8, random.below(min(limit, 200) + 1)), (3, random.below(min(limit, 5000) + 1)),
                (2, random.below(limit + 1)), (1, limit), (1, 65537),
            ])
            let mode: AttributeSetMode = random.weighted([
                (6, .createOrReplace), (1, .createOnly), (1, .replaceOnly),
            ])
            let payload = Payload(.random, seed: random.next(), count: count)
            return .setExtendedAttribute(target, name: name, payload, mode)
        case 5..<7: return .extendedAttribute(target, name: name)
        case 7: return .extendedAttributeNames(target)
        default: return .removeExtendedAttribute(target, name: name)
        }
    }

    private mutating func looking(_ model: ReferenceFileSystem) -> FileOperation {
        switch random.below(4) {
        case 0: return .stat(.path(existingPath(model)))
        case 1: return .list(existingPath(model, kinds: [.directory]))
        case 2:
            let path = existingPath(model, kinds: [.symbolicLink])
            // readlink(2) of something else is the kernel's to refuse.
            let kind = kindOf(.path(path), model) ?? .symbolicLink
            return kind == .symbolicLink ? .readLink(path) : .stat(.path(path))
        default: return .stat(.path(freshPath(model)))
        }
    }

    private mutating func holding(_ model: ReferenceFileSystem) -> FileOperation {
        let held = model.handles.keys.sorted()
        let free = (0..<Self.handleCount).filter { model.handles[$0] == nil }
        switch random.below(8) {
        case 0 where !held.isEmpty: return .synchronize(.handle(random.pick(held)))
        case 1..<4 where !held.isEmpty, _ where free.isEmpty: return .drop(random.pick(held))
        case 4 where profile.makesUnnamed:
            return .createUnnamed(
                existingDirectory(model), newInode(.regular), as: random.pick(free))
        default:
            let path = existingPath(model, kinds: [.regular])
            return isFile(path, model) ? .hold(path, as: random.pick(free)) : .stat(.path(path))
        }
    }

    // MARK: Targets

    /// Mostly a regular file; sometimes a directory or a name that leads nowhere.
    private mutating func file(_ model: ReferenceFileSystem) -> Target {
        let held = model.handles.keys.sorted()
        if !held.isEmpty, random.chance(1, in: 3) { return .handle(random.pick(held)) }
        let path = existingPath(model, kinds: [.regular])
        // Reading and writing special files and links is nothing that reaches a filesystem.
        switch kindOf(.path(path), model) {
        case nil, .regular, .directory: return .path(path)
        case .symbolicLink: return .path(.root)
        default: return .path(path.appending(Self.names[0]))
        }
    }

    private mutating func anything(_ model: ReferenceFileSystem, _ kinds: Set<FileKind>) -> Target {
        let held = model.handles.keys.sorted()
        if !held.isEmpty, random.chance(1, in: 5) { return .handle(random.pick(held)) }
        let path = existingPath(model, kinds: kinds)
        guard let kind = kindOf(.path(path), model) else { return .path(path) }
        return kind == .regular || kind == .directory ? .path(path) : .path(.root)
    }

    private func isFile(_ path: Path, _ model: ReferenceFileSystem) -> Bool {
        kindOf(.path(path), model) == .regular
    }

    private func kindOf(_ target: Target, _ model: ReferenceFileSystem) -> FileKind? {
        (try? model.node(at: target)).map { model.nodes[$0]!.kind }
    }

    private func sizeOf(_ target: Target, _ model: ReferenceFileSystem) -> UInt64 {
        (try? model.node(at: target)).map { model.nodes[$0]!.data.size } ?? 0
    }

    private func children(
        _ id: ReferenceFileSystem.NodeID, _ model: ReferenceFileSystem
    ) -> [[UInt8]] {
        model.nodes[id]!.entries.keys.sorted { $0.lexicographicallyPrecedes($1) }
    }

    private mutating func existingDirectory(_ model: ReferenceFileSystem) -> Path {
        var path = Path.root
        var id = ReferenceFileSystem.rootID
        while path.names.count < 4, random.chance(3, in: 5) {
            let directories = children(id, model).filter {
                model.nodes[model.nodes[id]!.entries[$0]!]!.isDirectory
            }
            if directories.isEmpty { break }
            let name = random.pick(directories)
            id = model.nodes[id]!.entries[name]!
            path = path.appending(name)
        }
        return path
    }

    /// A name that exists, if possible of one of the kinds; never the root.
    private mutating func existingPath(
        _ model: ReferenceFileSystem, kinds: Set<FileKind>? = nil
    ) -> Path {
        if random.chance(1, in: 40) { return freshPath(model) }
        for _ in 0..<3 {
            let directory = existingDirectory(model)
            guard let id = try? model.node(at: directory) else { continue }
            let names = children(id, model).filter {
                kinds?.contains(model.nodes[model.nodes[id]!.entries[$0]!]!.kind) ?? true
            }
            if !names.isEmpty { return directory.appending(random.pick(names)) }
        }
        return freshPath(model)
    }

    /// A name that may or may not exist, sometimes below something that is no directory.
    private mutating func freshPath(_ model: ReferenceFileSystem) -> Path {
        var directory = existingDirectory(model)
        if random.chance(1, in: 30) {
            let below = directory.appending(random.pick(Self.names))
            // The kernel would follow a link there.
            if kindOf(.path(below), model) != .symbolicLink { directory = below }
        }
        let name = random.chance(1, in: 50) ? Self.tooLongName : random.pick(Self.names)
        return directory.appending(name)
    }

    // MARK: Numbers

    /// Around the borders that matter: nothing, the inline limit, blocks, an extent; or anywhere.
    private mutating func length() -> Int {
        let largest = profile.largestWrite
        return random.weighted([
            (6, random.below(100)),
            (3, random.integer(in: 1990...2100)),
            (6, random.integer(in: 1...8192)),
            (3, 4096 * random.integer(in: 1...8)),
            (3, random.integer(in: 1...largest)),
        ])
    }

    private mutating func offset(_ size: UInt64) -> UInt64 {
        let size = Int(size)
        let largest = profile.largestOffset
        return UInt64(
            random.weighted([
                (5, 0),
                (6, size),
                (6, random.integer(in: 0...max(size, 1))),
                (2, random.integer(in: 0...4096)),
                (2, 4096 * random.integer(in: 0...64)),
                (1, random.integer(in: 0...largest)),
            ]))
    }
}
