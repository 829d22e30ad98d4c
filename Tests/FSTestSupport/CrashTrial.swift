/// What is done with one crash state, and the file by which the recovered volume is used.
internal import FSCore
internal import FSModules

/// One crash state on a device: opened, compared, used, closed, checked.
struct CrashTrial {
    struct Problem: Error, CustomStringConvertible { var description: String }

    let device: OverlayBlockDevice
    let options: OpenOptions
    /// What the volume is used for differs from number to number.
    let number: Int

    /// The hash of the tree that was found. `judge` says what is wrong with that.
    func run(
        _ judge: (TreeView, StableHash) -> String?, reopens: Bool
    ) throws -> Result<StableHash, Problem> {
        func failure(_ problem: String) -> Result<StableHash, Problem> {
            .failure(Problem(description: problem))
        }
        let volume = try Volume.open(device, modules: .standard, options: options)
        let view = try volume.fileSystem.treeView()
        let hash = view.treeHash
        if let problem = judge(view, hash) { return failure(problem) }
        let probe = CrashProbe(number: number, name: "after the crash")
        if let problem = try probe.use(volume) { return failure(problem) }
        try volume.close()
        if let problem = try checkerProblem(device) { return failure(problem) }
        guard reopens else { return .success(hash) }
        let again = try Volume.open(device, modules: .standard, options: options)
        defer { try? again.close() }
        guard try again.fileSystem.treeView().treeHash == hash else {
            return failure("another tree after it was used and closed")
        }
        return .success(hash)
    }
}

/// A file that is made after a recovery, of one of three sizes: in the tree, through the journal,
/// past it.
struct CrashProbe {
    private let name: [UInt8]
    private let bytes: [UInt8]
    private let number: Int

    init(number: Int, name: String) {
        self.number = number
        self.name = Array(name.utf8)
        bytes =
            Payload(.random, seed: UInt64(number), count: [300, 6000, 40_000][number % 3]).bytes
    }

    /// Made, written, read and removed; what was there before is not touched.
    func use(_ volume: Volume) throws -> String? {
        let files = volume.fileSystem
        let inode = try make(files)
        defer { files.release(inode, count: 1) }
        if number % 2 == 0 { try volume.synchronize() }
        let buffer = ByteBuffer(count: bytes.count)
        guard try files.read(inode, at: 0, into: buffer.bytes) == bytes.count,
            buffer.view.toArray() == bytes
        else { return "what was written after the recovery reads differently" }
        try name.withView { try files.unlink($0, in: .root) }
        return nil
    }

    /// Made, written and synchronized; the caller releases the inode.
    func write(_ volume: Volume) throws -> InodeNumber {
        let inode = try make(volume.fileSystem)
        try volume.synchronize()
        return inode
    }

    private func make(_ files: FileSystem) throws -> InodeNumber {
        let new = NewInode(mode: FileKind.regular.modeBits | 0o600)
        let inode = try name.withView { try files.create($0, in: .root, new).inode }
        _ = try bytes.withView { try files.write(inode, at: 0, $0) }
        return inode
    }

    /// Takes the file out of a tree: what is wrong with it, if anything.
    func take(from view: inout TreeView, isDurable: Bool) -> String? {
        guard let entry = view.entries.removeValue(forKey: Path([name])) else {
            return isDurable ? "a file that was synchronized is missing" : nil
        }
        view.entries[.root]?.attributes.size -= 1
        var whole = SparseBytes()
        whole.write(bytes, at: 0)
        if entry.content == whole.fingerprint { return nil }
        // It was made before it was written.
        return entry.attributes.size == 0 && !isDurable ? nil : "a file has wrong contents"
    }
}
