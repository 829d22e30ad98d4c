/// A request as a callback sees it, and the replies it can get.
///
/// - Invariant: every request is answered exactly once; whoever throws out of `serve` has not
///   answered yet.
/// - Invariant: nothing is allocated for a reply.
/// - Invariant: a reference on an inode that goes to the kernel with a reply is given back at once
///   if the kernel did not take the reply.
internal import CFuse3
internal import FSCore
internal import Glibc

struct FuseRequest {
    private let handle: fuse_req_t
    private let channel: Unmanaged<FuseChannel>

    @inline(__always)
    init(_ handle: fuse_req_t?) {
        // libfuse passes neither a null request nor another user data than the session's.
        self.handle = handle.unsafelyUnwrapped
        channel = Unmanaged.fromOpaque(fuse_req_userdata(self.handle).unsafelyUnwrapped)
    }

    /// Runs one operation and turns what it throws into the reply.
    ///
    /// - Parameter listed: what is answered in a directory of names of snapshots.
    @inline(__always)
    func serve(
        _ operation: StaticString, _ nodeID: fuse_ino_t, latched: Int32 = EROFS,
        orListing listed: FSError = .readOnly,
        _ body: (FileSystem, InodeNumber) throws(FSError) -> Void
    ) {
        channel._withUnsafeGuaranteedRef { channel in
            do throws(FSError) {
                if channel.head.contains(nodeID) {
                    try body(channel.head.files, FuseNodeID.inode(nodeID))
                } else {
                    guard let nodes = channel.snapshots else { throw .stale }
                    let node = try nodes.node(nodeID, orListing: listed)
                    try body(node.files, node.inode)
                }
            } catch {
                channel.report(error, in: operation, on: nodeID)
                fail(FuseErrno.code(for: error, latched: latched))
            }
        }
    }

    /// Runs an operation of which nothing is in the head.
    func serveSnapshots(
        _ operation: StaticString, _ nodeID: fuse_ino_t,
        _ body: (FuseSnapshotNodes) throws(FSError) -> Void
    ) {
        channel._withUnsafeGuaranteedRef { channel in
            do throws(FSError) {
                guard let nodes = channel.snapshots else { throw .stale }
                try body(nodes)
            } catch {
                channel.report(error, in: operation, on: nodeID)
                fail(FuseErrno.code(for: error))
            }
        }
    }

    @inline(__always)
    func isInHead(_ nodeID: fuse_ino_t) -> Bool {
        channel._withUnsafeGuaranteedRef { $0.head.contains(nodeID) }
    }

    /// The second inode of an operation on two of them.
    ///
    /// - Parameter first: the node id of the other one. Outside of the head the operation is refused
    ///   anyhow.
    @inline(__always)
    func inode(
        _ second: fuse_ino_t, with first: fuse_ino_t
    ) throws(FSError) -> InodeNumber {
        guard isInHead(first), isInHead(second) else {
            return try snapshotInode(second, with: first)
        }
        return FuseNodeID.inode(second)
    }

    private func snapshotInode(
        _ second: fuse_ino_t, with first: fuse_ino_t
    ) throws(FSError) -> InodeNumber {
        guard let nodes = channel._withUnsafeGuaranteedRef({ $0.snapshots }) else { throw .stale }
        func place(_ nodeID: fuse_ino_t) throws(FSError) -> SnapshotPlace? {
            if isInHead(nodeID) { return nil }
            if let listing = nodes.listing(nodeID) { return listing }
            return try nodes.node(nodeID).place
        }
        throw try place(first) == place(second) ? .readOnly : .crossDevice
    }

    var showsSnapshots: Bool { channel._withUnsafeGuaranteedRef { $0.snapshots != nil } }
    func isListing(_ nodeID: fuse_ino_t) -> Bool {
        !isInHead(nodeID)
            && channel._withUnsafeGuaranteedRef { $0.snapshots?.listing(nodeID) != nil }
    }

    /// Runs something that has neither an inode nor an error.
    @inline(__always)
    func withFileSystem(_ body: (FileSystem) -> Void) {
        channel._withUnsafeGuaranteedRef { body($0.head.files) }
    }

    // MARK: What the request says besides its arguments

    /// What libfuse did not pass on.
    var notes: FuseRequestNotes { channel._withUnsafeGuaranteedRef { $0.thread.pointee.notes } }

    /// Whether the caller is not root. The kernel names no capabilities, and with id-mapped mounts
    /// allowed it leaves the user out of requests that make no inode: then the process tells.
    var isOrdinaryUser: Bool { callingUser != 0 }

    /// Who sets an attribute; whoever runs the daemon has the whole volume anyway.
    var attributeCaller: AttributeCaller {
        guard let user = callingUser else { return .user(UInt32.max) }
        return user == 0 || user == geteuid() ? .privileged : .user(user)
    }

    /// nil if it cannot be found out.
    private var callingUser: UInt32? {
        if userID != UInt32.max { return userID }
        var status = stat()
        let process = fuse_req_ctx(handle).pointee.pid
        return stat("/proc/\(process)", &status) == 0 ? status.st_uid : nil
    }

    /// Who calls, whoever that is.
    var caller: OrdinaryUser { OrdinaryUser(process: fuse_req_ctx(handle).pointee.pid) }
    /// The caller, unless it is root.
    var ordinaryUser: OrdinaryUser? { isOrdinaryUser ? caller : nil }

    /// An inode that the caller makes; `kind` replaces the file type if the mode names none.
    func newInode(mode: mode_t, kind: FileKind, device: DeviceNumber = .none) -> NewInode {
        let context = fuse_req_ctx(handle).pointee
        return NewInode(
            mode: mode & ModeBits.kind == 0 ? mode | kind.modeBits : mode,
            umask: context.umask, userID: context.uid, groupID: context.gid, device: device)
    }

    var userID: UInt32 { fuse_req_ctx(handle).pointee.uid }
    var groupID: UInt32 { fuse_req_ctx(handle).pointee.gid }

    /// Page-aligned memory for a reply of `count` bytes.
    func memory(_ count: Int) -> MutableByteView {
        channel._withUnsafeGuaranteedRef { $0.thread.pointee.memory(count) }
    }

    /// Gives back references; a node id that leads nowhere has none.
    @inline(__always)
    func release(_ nodeID: fuse_ino_t, count: UInt64) {
        channel._withUnsafeGuaranteedRef { channel in
            if channel.head.contains(nodeID) {
                channel.head.files.release(FuseNodeID.inode(nodeID), count: count)
            } else if nodeID >> FuseNodeID.tagShift != FuseTags.places {
                channel.tags.release(nodeID >> FuseNodeID.tagShift, count)
            }
        }
    }

    /// Has the kernel forget what it holds of a file's contents.
    func forgetContents(of nodeID: fuse_ino_t) {
        channel._withUnsafeGuaranteedRef { $0.forgetContents(of: nodeID) }
    }

    /// Has the kernel ask for attributes again that the request changed and does not carry.
    func forgetAttributes(of nodeID: fuse_ino_t) {
        channel._withUnsafeGuaranteedRef { $0.forgetAttributes(of: nodeID) }
    }

    // MARK: Replies without a reference

    func fail(_ code: Int32) { fuse_reply_err(handle, code) }
    func succeed() { fuse_reply_err(handle, 0) }
    /// For FORGET, which has no reply.
    func finish() { fuse_reply_none(handle) }

    func reply(attributes: Attributes, validSeconds: UInt64 = FuseAttributes.validSeconds) {
        if notes.origin == .statx {
            let reply = memory(FuseStatxReply.length)
            FuseStatxReply.encode(
                attributes, blockSize: blockSize(of: attributes), validSeconds: validSeconds,
                into: reply)
            return self.reply(bytes: reply.view)
        }
        var stat = FuseAttributes.stat(attributes, blockSize: blockSize(of: attributes))
        fuse_reply_attr(handle, &stat, Double(validSeconds))
    }

    /// An open that the kernel need not have asked about. Only where every access counts it has to:
    /// it then drops what it holds of the file, and so asks for the contents again.
    func open(_ file: UnsafeMutablePointer<fuse_file_info>?) {
        withFileSystem { fileSystem in
            if fileSystem.countsEveryAccess {
                fuse_reply_open(handle, file)
            } else {
                fail(ENOSYS)
            }
        }
    }

    func reply(bytes: ByteView) {
        let bytes = bytes.unsafeBytes
        fuse_reply_buf(
            handle, bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self),
            bytes.count)
    }

    func reply(written count: Int) { fuse_reply_write(handle, count) }
    func reply(offset: UInt64) { fuse_reply_lseek(handle, off_t(truncatingIfNeeded: offset)) }

    func reply(linkTarget: [UInt8]) {
        linkTarget.withView { reply(bytes: $0) }
    }

    /// An extended attribute or the list of their names: only its length if that is all that was
    /// asked for.
    func reply(attribute value: [UInt8], capacity: Int) {
        if capacity == 0 {
            fuse_reply_xattr(handle, value.count)
        } else if value.count > capacity {
            fail(ERANGE)
        } else {
            value.withView { reply(bytes: $0) }
        }
    }

    func reply(statistics: VolumeStatistics) {
        var result = statvfs()
        result.f_bsize = UInt(statistics.blockSize)
        result.f_frsize = UInt(statistics.blockSize)
        result.f_blocks = fsblkcnt_t(statistics.totalBlocks)
        result.f_bfree = fsblkcnt_t(statistics.freeBlocks)
        result.f_bavail = fsblkcnt_t(statistics.availableBlocks)
        result.f_files = fsfilcnt_t(statistics.inodes)
        result.f_ffree = fsfilcnt_t(statistics.freeInodes)
        result.f_namemax = UInt(statistics.maximumNameLength)
        fuse_reply_statfs(handle, &result)
    }

    /// The outcome of an ioctl; `bytes` go to the caller's memory.
    func reply(ioctl bytes: ByteView) {
        fuse_reply_ioctl(handle, 0, bytes.unsafeBytes.baseAddress, bytes.count)
    }

    // MARK: Replies that carry references

    func reply(entry attributes: Attributes, _ fileSystem: FileSystem) {
        var entry = headEntry(attributes)
        if fuse_reply_entry(handle, &entry) != 0 {
            fileSystem.release(attributes.inode, count: 1)
        }
    }

    /// What is not in the head: its inode is the node id.
    func reply(
        entry attributes: Attributes, generation: UInt64,
        entrySeconds: UInt64 = FuseAttributes.validSeconds,
        attributeSeconds: UInt64 = FuseAttributes.validSeconds
    ) {
        var entry = self.entry(attributes, attributes.inode.rawValue, generation)
        entry.entry_timeout = Double(entrySeconds)
        entry.attr_timeout = Double(attributeSeconds)
        if fuse_reply_entry(handle, &entry) != 0 { release(entry.ino, count: 1) }
    }

    /// "No such name", which the kernel may remember.
    func replyNoEntry() {
        var entry = fuse_entry_param()
        entry.entry_timeout = Double(FuseAttributes.validSeconds)
        fuse_reply_entry(handle, &entry)
    }

    func reply(created attributes: Attributes, _ fileSystem: FileSystem) {
        var entry = headEntry(attributes)
        var file = fuse_file_info()
        // What an open that is not sent to the server counts as.
        file.keep_cache = 1
        if fuse_reply_create(handle, &entry, &file) != 0 {
            fileSystem.release(attributes.inode, count: 1)
        }
    }

    private func headEntry(_ attributes: Attributes) -> fuse_entry_param {
        channel._withUnsafeGuaranteedRef {
            self.entry(
                attributes, $0.head.nodeID(of: attributes.inode),
                $0.head.generation(of: attributes.inode))
        }
    }

    private func blockSize(of attributes: Attributes) -> UInt32 {
        channel._withUnsafeGuaranteedRef { $0.head.files.preferredByteCount(of: attributes) }
    }

    private func entry(
        _ attributes: Attributes, _ nodeID: fuse_ino_t, _ generation: UInt64
    ) -> fuse_entry_param {
        var entry = fuse_entry_param()
        entry.ino = nodeID
        entry.generation = generation
        entry.attr = FuseAttributes.stat(attributes, blockSize: blockSize(of: attributes))
        entry.attr_timeout = Double(FuseAttributes.validSeconds)
        entry.entry_timeout = Double(FuseAttributes.validSeconds)
        return entry
    }

    // MARK: Directory listings

    /// Appends one entry to a listing.
    ///
    /// - Parameter attributes: of READDIRPLUS, the entry's, whose reference goes to the kernel
    ///   with the reply; nil for "." and "..", which get none.
    /// - Parameter generation: of what is not in the head, whose inode is the node id.
    /// - Returns: whether it fitted.
    func append(
        _ entry: DirectoryEntry, _ attributes: Attributes?, generation: UInt64? = nil, plus: Bool,
        to listing: MutableByteView, _ used: inout Int
    ) -> Bool {
        guard plus else {
            return FuseDirectoryReply.append(
                entry.name, inode: entry.inode.rawValue, offset: entry.cookie,
                type: UInt32(entry.kind.modeBits >> 12), to: listing, &used)
        }
        let room = listing.count - used
        let target = listing.unsafeBytes.baseAddress.unsafelyUnwrapped
            .advanced(by: used).assumingMemoryBound(to: CChar.self)
        let offset = off_t(truncatingIfNeeded: entry.cookie)
        let needed = FuseRequest.withCString(entry.name) { name in
            var parameters = fuse_entry_param()
            if let attributes {
                parameters =
                    generation.map {
                        self.entry(attributes, attributes.inode.rawValue, $0)
                    } ?? headEntry(attributes)
            }
            parameters.attr.st_ino = ino_t(entry.inode.rawValue)
            parameters.attr.st_mode = attributes?.mode ?? entry.kind.modeBits
            return fuse_add_direntry_plus(handle, target, room, name, &parameters, offset)
        }
        guard needed <= room else { return false }
        used += needed
        return true
    }

    /// Sends a listing; one of READDIRPLUS has a reference in each entry with a node id.
    func reply(listing: ByteView, plus: Bool) {
        let bytes = listing.unsafeBytes
        let status = fuse_reply_buf(
            handle, bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self),
            bytes.count)
        guard status != 0, plus else { return }
        FuseDirectoryPlusReply.forEachNodeID(listing) { nodeID in
            if nodeID != 0 { release(nodeID, count: 1) }
        }
    }

    /// libfuse wants names with a NUL behind them; a stored name has none.
    private static func withCString<R>(
        _ name: ByteView, _ body: (UnsafePointer<CChar>) -> R
    ) -> R {
        withUnsafeTemporaryAllocation(byteCount: name.count + 1, alignment: 1) { memory in
            memory.copyMemory(from: name.unsafeBytes)
            memory[name.count] = 0
            return body(
                memory.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self))
        }
    }
}

extension ByteView {
    /// The bytes of a C string that libfuse lends.
    @inline(__always)
    init(_ string: UnsafePointer<CChar>?) {
        let string = string.unsafelyUnwrapped
        self.init(base: string, count: strlen(string))
    }
}
