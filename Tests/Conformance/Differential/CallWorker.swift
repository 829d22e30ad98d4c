/// One process of a run: makes its calls on two directories, one after the other, and tells what each
/// gave.
internal import CCalls
internal import FSTestSupport
internal import Glibc

/// What a call gave: its result, or the error number negated, and a hash of what it filled in.
struct Outcome: Equatable {
    var result: Int
    var hash: UInt64 = 0
    /// What the hash stands for, where that can be said.
    var detail = ""

    static func == (a: Self, b: Self) -> Bool { a.result == b.result && a.hash == b.hash }
}

/// A directory that calls are made in, with the descriptors that they opened.
final class CallSide {
    private var slots = [Int32](repeating: -1, count: RandomCall.slots)
    private var bases: [Int32]

    init(root: Int32) {
        bases = [Int32](repeating: -1, count: RandomCall.bases)
        bases[0] = root
    }

    private var buffer = [UInt8](repeating: 0, count: 70_000)

    func make(_ call: RandomCall) -> Outcome {
        let base = bases[call.base] >= 0 ? bases[call.base] : bases[0]
        let entered = cc_fchdir(base)
        guard entered >= 0 else { return Outcome(result: entered, hash: 1) }
        let fd = slots[call.slot]
        // The times of a FIFO that is used are nobody's behind FUSE.
        if [.read, .pread, .write, .pwrite].contains(call.kind), isFIFO(fd) {
            return Outcome(result: 0)
        }
        switch call.kind {
        case .open: return open(call)
        case .openDirectory: return openDirectory(call)
        case .close:
            slots[call.slot] = -1
            return Outcome(result: cc_close(fd))
        case .read: return filled(call) { cc_read(fd, $0, call.count) }
        case .pread: return filled(call) { cc_pread(fd, $0, call.count, call.offset) }
        case .write: return Outcome(result: cc_write(fd, pattern(call), call.count))
        case .pwrite:
            return Outcome(result: cc_pwrite(fd, pattern(call), call.count, call.offset))
        case .seek:
            // A directory's positions are its filesystem's own.
            if isDirectory(fd) { return Outcome(result: 0) }
            let place = cc_lseek(fd, call.offset, call.flags)
            // Promised space is data or a hole to ext4, by what its cache holds.
            let isVague = [Flag.seekData, Flag.seekHole].contains(call.flags)
            guard isVague, place >= 0 || place == -Int(ENXIO) else { return Outcome(result: place) }
            return Outcome(result: cc_lseek(fd, 0, SEEK_SET))
        case .truncate: return Outcome(result: cc_truncate(call.path, call.offset))
        case .ftruncate: return Outcome(result: cc_ftruncate(fd, call.offset))
        case .fallocate:
            return Outcome(result: cc_fallocate(fd, call.flags, call.offset, call.count))
        case .copyRange: return copyRange(call)
        case .sendfile:
            var offset = call.offset
            return Outcome(
                result: cc_sendfile(slots[call.otherSlot], fd, &offset, call.count),
                hash: UInt64(bitPattern: Int64(offset)))
        case .mapWrite: return map(call, writing: true)
        case .mapRead: return map(call, writing: false)
        case .mkdir: return Outcome(result: cc_mkdir(HERE, call.path, call.mode))
        case .rmdir: return Outcome(result: cc_unlink(HERE, call.path, Flag.removeDirectory))
        case .mknod:
            // The null device, so that nothing else is opened by chance.
            return Outcome(result: cc_mknod(HERE, call.path, call.mode, 0x103))
        case .link:
            return Outcome(result: cc_link(HERE, call.path, HERE, call.other, call.flags))
        case .symlink: return Outcome(result: symlink(call))
        case .readlink:
            return filled(call) {
                cc_readlink(HERE, call.path, $0?.assumingMemoryBound(to: CChar.self), call.count)
            }
        case .unlink: return Outcome(result: cc_unlink(HERE, call.path, 0))
        case .rename:
            return Outcome(
                result: cc_rename(HERE, call.path, HERE, call.other, UInt32(call.flags)))
        case .chmod: return Outcome(result: cc_chmod(HERE, call.path, call.mode))
        case .fchmod: return Outcome(result: cc_fchmod(fd, call.mode))
        case .chown:
            return Outcome(result: cc_chown(HERE, call.path, call.user, call.group, call.flags))
        case .fchown: return Outcome(result: cc_fchown(fd, call.user, call.group))
        case .utimens:
            return Outcome(result: cc_utimens(HERE, call.path, call.times, call.flags))
        case .futimens: return Outcome(result: cc_utimens(fd, nil, call.times, 0))
        case .access: return Outcome(result: cc_access(HERE, call.path, call.flags, 0))
        case .list: return list(call)
        case .setAttribute:
            let value =
                call.other.hasPrefix("system.") ? AccessList.random(call.fill) : pattern(call)
            return Outcome(
                result: cc_setxattr(
                    call.path, call.other, value, min(value.count, max(call.count, 1)), call.flags))
        case .getAttribute:
            return filled(call) { cc_getxattr(call.path, call.other, $0, call.count) }
        case .listAttributes: return listAttributes(call)
        case .removeAttribute: return Outcome(result: cc_removexattr(call.path, call.other))
        case .setACL:
            let name = call.fill & 1 == 0 ? "system.posix_acl_access" : "system.posix_acl_default"
            let value = AccessList.random(call.fill)
            return Outcome(result: cc_setxattr(call.path, name, value, value.count, 0))
        case .stat:
            return attributes(HERE, call.path, call.flags)
        case .fstat:
            return attributes(fd, "", Flag.emptyPath)
        case .synchronize: return Outcome(result: cc_fsync(fd))
        case .lock: return Outcome(result: cc_flock(fd, call.flags))
        case .umask:
            // Of the process: both sides set the same, and find what the other has set.
            _ = cc_umask(call.mode & 0o077)
            return Outcome(result: 0)
        case .unnamed:
            return store(
                cc_open(HERE, call.path, Flag.tmpfile | O_RDWR, call.mode), in: call.slot)
        case .linkDescriptor:
            return Outcome(
                result: cc_link(
                    HERE, "/proc/self/fd/\(fd)", HERE, call.path, Flag.followSymlink))
        case .handle: return openByHandle(call, base)
        }
    }

    // MARK: Descriptors

    private func store(_ opened: Int, in slot: Int) -> Outcome {
        if opened >= 0 {
            if slots[slot] >= 0 { _ = cc_close(slots[slot]) }
            slots[slot] = Int32(opened)
        }
        return Outcome(result: min(opened, 0))
    }

    private func open(_ call: RandomCall) -> Outcome {
        store(cc_open(HERE, call.path, call.flags, call.mode), in: call.slot)
    }

    private func openDirectory(_ call: RandomCall) -> Outcome {
        let opened = cc_open(HERE, call.path, O_RDONLY | O_DIRECTORY, 0)
        // The directory of the run keeps its place.
        let place = 1 + call.slot % (RandomCall.bases - 1)
        if opened >= 0 {
            if bases[place] >= 0 { _ = cc_close(bases[place]) }
            bases[place] = Int32(opened)
        }
        return Outcome(result: min(opened, 0))
    }

    private func openByHandle(_ call: RandomCall, _ base: Int32) -> Outcome {
        var handle = cc_handle()
        handle.bytes = 128
        var mount: Int32 = 0
        let found = cc_handle_of(HERE, call.path, &handle, &mount, 0)
        guard found >= 0 else { return Outcome(result: found, hash: 1) }
        return store(cc_open_handle(base, &handle, O_RDONLY | O_NONBLOCK), in: call.slot)
    }

    private func isDirectory(_ fd: Int32) -> Bool { kind(fd) == S_IFDIR }
    private func isFIFO(_ fd: Int32) -> Bool { kind(fd) == S_IFIFO }
    private func kind(_ fd: Int32) -> UInt32 {
        var stat = cc_stat()
        return cc_statx(fd, "", Flag.emptyPath, &stat) >= 0 ? UInt32(stat.mode) & S_IFMT : 0
    }

    // MARK: Data

    private func pattern(_ call: RandomCall) -> [UInt8] {
        (0..<call.count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ Int(call.fill) &+ ($0 >> 8)) }
    }

    private func filled(_ call: RandomCall, _ body: (UnsafeMutableRawPointer?) -> Int) -> Outcome {
        let result = buffer.withUnsafeMutableBytes { body($0.baseAddress) }
        guard result > 0, call.count > 0 else { return Outcome(result: result) }
        return Outcome(
            result: result, hash: StableHash(Array(buffer.prefix(min(result, buffer.count)))).value)
    }

    private func copyRange(_ call: RandomCall) -> Outcome {
        var from = call.offset
        var to = call.otherOffset
        let result = cc_copy(slots[call.slot], &from, slots[call.otherSlot], &to, call.count)
        return Outcome(result: result, hash: UInt64(bitPattern: Int64(from ^ to)))
    }

    /// Maps a page, and looks or writes at a byte that the file has.
    private func map(_ call: RandomCall, writing: Bool) -> Outcome {
        let fd = slots[call.slot]
        var stat = cc_stat()
        let looked = cc_statx(fd, "", Flag.emptyPath, &stat)
        guard looked >= 0 else { return Outcome(result: looked) }
        let page = max(call.offset, 0) & ~4095
        let address = cc_map(
            4096, writing ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, page)
        guard address >= 0 || address < -4096 else { return Outcome(result: address) }
        defer { _ = cc_unmap(address, 4096) }
        let place = call.otherOffset & 4095
        guard UInt64(page + place) < stat.size,
            let byte = UnsafeMutablePointer<UInt8>(bitPattern: address + place)
        else { return Outcome(result: 0) }
        let before = byte.pointee
        guard writing else { return Outcome(result: 0, hash: UInt64(before)) }
        byte.pointee = call.fill
        return Outcome(result: cc_msync(address, 4096, MS_SYNC), hash: UInt64(before))
    }

    // MARK: Names and attributes

    private func attributes(_ base: Int32, _ path: String, _ flags: Int32) -> Outcome {
        var stat = cc_stat()
        let result = cc_statx(base, path, flags, &stat)
        guard result >= 0 else { return Outcome(result: result) }
        let detail = ComparedAttributes(stat).description
        return Outcome(
            result: result, hash: StableHash(Array(detail.utf8)).value, detail: detail)
    }

    private func symlink(_ call: RandomCall) -> Int {
        // A target without dots stays inside the directory.
        let target = call.other.split(separator: "/").filter { $0 != "." && $0 != ".." }
            .joined(separator: "/")
        return cc_symlink(target, HERE, call.path)
    }

    private func list(_ call: RandomCall) -> Outcome {
        let opened = cc_open(HERE, call.path, O_RDONLY | O_DIRECTORY, 0)
        guard opened >= 0 else { return Outcome(result: opened) }
        defer { _ = cc_close(Int32(opened)) }
        let entries = DirectoryListing.read(Int32(opened))
        var hash = StableHash()
        for entry in entries.sorted(by: { $0.name < $1.name }) {
            hash.combine(Array(entry.name.utf8))
            hash.combine(UInt64(entry.kind))
        }
        return Outcome(result: entries.count, hash: hash.value)
    }

    private func listAttributes(_ call: RandomCall) -> Outcome {
        let count = cc_listxattr(call.path, &buffer, buffer.count)
        guard count > 0 else { return Outcome(result: count) }
        return Outcome(
            result: count,
            hash: AttributeNames.sorted(buffer.prefix(count)).reduce(into: StableHash()) {
                $0.combine(Array($1.utf8))
            }.value)
    }
}

/// The names of a listxattr(2) answer, in order.
enum AttributeNames {
    static func sorted(_ bytes: ArraySlice<UInt8>) -> [String] {
        bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted()
    }
}

/// Access control lists as setxattr(2) takes them (acl(5), `linux/posix_acl_xattr.h`).
enum AccessList {
    static func random(_ seed: UInt8) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(seed) >> 1)
        var bytes = word(2)
        func add(_ tag: UInt16, _ id: UInt32) {
            bytes += [UInt8(tag), UInt8(tag >> 8), UInt8(random.below(8)), 0] + word(id)
        }
        if random.chance(1, in: 20) { return bytes }
        add(0x01, .max)
        if random.chance(1, in: 2) { add(0x02, User.alice.id) }
        if random.chance(1, in: 3) { add(0x02, User.bob.id) }
        add(0x04, .max)
        if random.chance(1, in: 2) { add(0x08, User.sharedGroup) }
        // Without a mask an extended list is invalid, and both sides have to say so.
        if random.chance(5, in: 6) { add(0x10, .max) }
        add(0x20, .max)
        return bytes
    }

    private static func word(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
}
