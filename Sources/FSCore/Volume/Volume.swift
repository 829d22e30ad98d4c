/// An open volume: trees, allocator and checkpoints. `FileSystem` gives them POSIX meaning.
///
///     open ──▶ online ──close──▶ closed
///                │  ▲
///                │  └─setReadOnly─▶ read-only
///                └─first failed write or flush─▶ latched (reads go on, nothing is written again)
///
/// The way of a change: an operation reads under the shared tree lock and collects a `Transaction`;
/// `commit` applies it under the exclusive lock; a checkpoint makes it durable.
///
/// Lock order: inode locks, share lock, tree lock, then allocator, node pool and cache shards (leaves). None
/// but inode locks and the share lock is held over I/O.
@safe
public final class Volume: @unchecked Sendable {
    /// With blocks that have moved where they are now; superblocks are `physical`.
    let device: RemappedBlockDevice
    var physical: any BlockDevice { device.physical }
    var remaps: RemapTable { device.remaps }
    let modules: ModuleSet
    let checksum: any Checksum
    let geometry: VolumeGeometry
    var layout: DiskLayout { geometry.layout }
    package let nameHash: any NameHash
    /// Copies of the data of files that say nothing else.
    let defaultDataCopies: Int
    private(set) var options: OpenOptions
    /// Whether all that a read-only volume shows is on the device, so that it can be written to next.
    var mayBecomeWritable = true
    /// Opened to be repaired: damaged roots are empty trees, and nothing that is released is free
    /// before the next opening, since the trees may name it elsewhere.
    var isRepairing = false
    /// Which ring the next superblock names.
    var ringIncarnation: UInt64
    weak let observer: (any VolumeObserver)?
    let errors = ErrorLog()
    package let health: MediumHealth
    package let activity = ForegroundActivity()

    package let cache: PageCache
    package let nodes: NodeStore
    let allocator: BlockAllocator
    let epochs = ReadEpochs()
    let pool = NodePool()
    /// While the volume is being shrunk; whether it has remaps. Guarded by the exclusive tree lock.
    var evacuation: Evacuation?
    var usesRemaps = false

    /// Guards the trees and everything in `window`.
    let treeLock = ReadWriteLock()
    package private(set) var head: CopyOnWriteTree!
    package private(set) var volumeTree: CopyOnWriteTree!
    /// Heads other than the default one.
    package var clones: [TreeID: CopyOnWriteTree] = [:]
    var window: Window

    /// Seams that a volume may have; nil without the module.
    let journal: (any Journal)?
    package private(set) var snapshots: (any SnapshotPolicy)!

    /// Held from reading share counts to committing their changes.
    package let shareLock = Mutex()
    private let shareFlagLock = Mutex()
    private var shareFlag = false
    /// False: no block has more than one reference.
    var mayHaveShares: Bool {
        get { shareFlagLock.withLock { shareFlag } }
        set { shareFlagLock.withLock { shareFlag = newValue } }
    }

    /// Guards `state`, `failure`, `progress`, `isResizing` and `superblock`; waits for checkpoints happen on it.
    let stateLock = Mutex()
    var superblock: Superblock
    var state = State.online
    /// What latched it.
    var failure: FSError?
    var progress = CheckpointProgress()
    var isResizing = false
    private var timers: [WorkerThread] = []
    let wasCleanlyUnmounted: Bool
    /// What was written lately, for files that share equal data.
    let recentContents: RecentContents
    /// Encode large writes.
    let workers = WorkerPool()
    /// What they encode into.
    let buffers = BufferPool()
    /// Of files that say nothing else: as the mount says, or else the volume.
    let compression: CompressionSetting
    /// Incompatible features for the next superblock. Guarded by `stateLock`.
    private(set) var wantedFeatures: UInt64 = 0
    /// What opening the volume brought back from the journal.
    public internal(set) var recovery: Recovery?
    /// Persistent error counters as they were when the volume was opened.
    let initialErrors: Superblock.ErrorCounters
    var backing: FileSystem!
    let filesLock = Mutex()
    var cloneFiles: [TreeID: FileSystem] = [:]

    enum State: Equatable {
        case online, readOnly, closed
        case latched(String)
    }

    struct NodeDeath {
        var segment: UInt64
        var birth: BirthEpoch
        var run: BlockRun
    }

    /// What happened since the last freeze. Guarded by the exclusive tree lock.
    struct Window {
        var sequence: SuperblockSequence
        var birthEpoch: BirthEpoch
        var dirty: [Page] = []
        var published: [BlockRun] = []
        var released: [BlockRun] = []
        var releasedBlocks: UInt64 = 0
        /// Nodes that a snapshot still has and its head no longer; the next freeze tells the deadlists.
        var deaths: [NodeDeath] = []
        var nextSnapshotID: UInt64
        /// Blocks that moved away, entries whose source nobody refers to any more, and nodes that
        /// were left whose entries the next freeze deletes.
        var moved: [BlockRun] = []
        var droppedRemaps: [RemapRecord] = []
        var droppedNodes: [BlockRun] = []
        /// Operations published so far, in their one order.
        var operations: UInt64
        /// By all heads together.
        var promisedBlocks: UInt64
        /// The next free inode number, and where the durable ceiling stands.
        var nextInode: UInt64
        var inodeCeiling: UInt64
    }

    /// Opens the volume on `device`, replaying its journal: to the device, or on a read-only volume
    /// in memory. Read-write, it is marked as in use at once; inodes that were unlinked while open
    /// before a crash are reclaimed.
    ///
    /// If the journal is damaged the volume comes up read-only, in the state before the damage, and
    /// `recovery` names it.
    public static func open(
        _ device: any BlockDevice, modules: ModuleSet, options: OpenOptions = OpenOptions(),
        observer: (any VolumeObserver)? = nil
    ) throws(FSError) -> Volume {
        let device = RemappedBlockDevice(of: device)
        let (superblock, isOtherPairReadable) = try SuperblockStore.find(device, modules: modules)
        var options = options
        let unknown = superblock.readOnlyCompatible & ~DiskFormat.ReadOnlyCompatible.known
        if unknown != 0, !options.readOnly {
            throw .unknownFeatures(.readOnlyCompatible, bits: unknown)
        }
        if device.isReadOnly { options.readOnly = true }
        let volume = try Volume(device, modules, superblock, options, observer)
        try volume.loadRoots()
        try volume.loadRemaps()
        volume.loadHealth()
        volume.backing = FileSystem(volume, volume.head)
        try volume.recover(isOtherPairReadable: isOtherPairReadable)
        try volume.findShares()
        if !volume.options.readOnly {
            try volume.start()
        }
        return volume
    }

    init(
        _ device: RemappedBlockDevice, _ modules: ModuleSet, _ superblock: Superblock,
        _ options: OpenOptions, _ observer: (any VolumeObserver)?
    ) throws(FSError) {
        journal = try modules.journal(device, superblock, options.brokenRules)
        self.device = device
        self.modules = modules
        self.superblock = superblock
        self.options = options
        self.observer = observer
        let geometry = VolumeGeometry(superblock.layout)
        self.geometry = geometry
        recentContents = RecentContents(byteCount: options.deduplicationMemory)
        checksum = modules.requiredChecksum(superblock.checksumKind)
        nameHash = modules.nameHash(superblock.nameHashKey)
        defaultDataCopies = Int(superblock.dataCopies)
        cache = PageCache(byteLimit: options.cacheBytes)
        health = MediumHealth(device: device, errors: errors)
        nodes = NodeStore(
            device: device, checksum: checksum, geometry: geometry,
            internalUUID: superblock.internalUUID, cache: cache, errors: errors,
            health: health)
        allocator = BlockAllocator(
            store: BitmapStore(
                device: device, checksum: checksum, geometry: geometry,
                root: superblock.bitmapRoot, errors: errors, health: health), remaps: device.remaps,
            brokenRules: options.brokenRules)
        let reusesSequence =
            options.brokenRules.contains(.sequenceReusedAfterRecovery)
            && !superblock.isCleanlyUnmounted
        window = Window(
            sequence: SuperblockSequence(superblock.sequence.rawValue + (reusesSequence ? 0 : 1)),
            birthEpoch: superblock.birthEpoch, nextSnapshotID: superblock.nextSnapshotID,
            operations: superblock.operations,
            promisedBlocks: superblock.headCounts.promised, nextInode: superblock.inodeCeiling,
            inodeCeiling: superblock.inodeCeiling)
        wasCleanlyUnmounted = superblock.isCleanlyUnmounted
        compression =
            options.compression == .inherited ? superblock.compression : options.compression
        initialErrors = superblock.errorCounters
        progress.durableOperations = superblock.operations
        ringIncarnation = superblock.journalIncarnation
        if options.readOnly { state = .readOnly }
        health.mayWrite = { [unowned self] in stateLock.withLock { state == .online } }
        health.report = { [weak observer] in observer?.volume($0) }
    }

    func loadRoots() throws(FSError) {
        func root(_ id: TreeID, _ pointer: NodePointer) throws(FSError) -> CopyOnWriteTree {
            let page: Page
            do throws(FSError) {
                page = try load(
                    NodeValidator.Expectation(
                        pointer: pointer, tree: id.kind, lower: nil, upper: nil))
            } catch {
                guard isRepairing else { throw error }
                let empty = try emptyRoot(id)
                return CopyOnWriteTree(id: id, root: empty, durableRoot: pointer, context: self)
            }
            guard page.tree == id.kind, page.level == pointer.level else {
                throw .corrupt(
                    Corruption(.node, at: pointer.address.block << 12, "reached at two places"))
            }
            return CopyOnWriteTree(id: id, root: page, durableRoot: pointer, context: self)
        }
        head = try root(.head, superblock.headRoot)
        head.counts = superblock.headCounts
        volumeTree = try root(.volume, superblock.volumeRoot)
        snapshots = modules.snapshots(self)
        do throws(FSError) { try snapshots.load() } catch {
            // Then the deadlists are made anew from the trees.
            guard isRepairing else { throw error }
        }
    }

    /// The first checkpoint marks the volume as in use, so that a crash is known as one.
    /// It also begins the journal anew, so that records from before are nothing from then on.
    private func start() throws(FSError) {
        try beginRing { self.endRemaps(&$0) }
        health.arm()
        stateLock.withLock { if state == .readOnly { state = .online } }
        try fileSystem.reclaimOrphans()
        let interval = options.checkpointIntervalMilliseconds
        if interval > 0 {
            snapshots.start()
            timers.append(WorkerThread { [unowned self] in runTimer(interval) })
            if let journal {
                timers.append(WorkerThread { [unowned self] in runJournalTimer(journal) })
            }
        }
    }

    /// Begins the journal anew, with a checkpoint that says so.
    func beginRing(alter: (inout Superblock) -> Void = { _ in }) throws(FSError) {
        ringIncarnation += 1
        try checkpoint(force: true, alter: alter)
        guard let journal else { return }
        let (sequence, operations) = stateLock.withLock {
            (superblock.sequence, superblock.operations)
        }
        do throws(FSError) {
            try journal.start(
                JournalPosition(incarnation: ringIncarnation, operation: operations),
                sequence: sequence)
        } catch {
            latch(error)
            throw error
        }
    }

    /// The default head's files.
    public var fileSystem: FileSystem { backing }
    package var diskLayout: DiskLayout { layout }
    package var brokenRules: BrokenRules { options.brokenRules }

    /// Nil if there is no such head. Under the tree lock.
    @inline(__always)
    package func tree(_ id: TreeID) -> CopyOnWriteTree? {
        id == .head ? head : id == .volume ? volumeTree : clones[id]
    }

    // MARK: Reading

    /// Runs `body` under the shared tree lock, again and again until every node that it needs is
    /// resident.
    package func reading<R>(_ body: () throws(TreeFault) -> R) throws(FSError) -> R {
        while true {
            treeLock.lockShared()
            do throws(TreeFault) {
                let result = try body()
                treeLock.unlock()
                return result
            } catch { try unlockAndBring(error) }
        }
    }

    /// Gives up the tree lock, under which a node was missing, and brings that; or throws what else was
    /// in the way.
    func unlockAndBring(_ fault: TreeFault) throws(FSError) {
        switch fault {
        case .failed(let failure):
            treeLock.unlock()
            throw failure
        case .missing(let expectation):
            // Entered under the lock: the node's blocks stay its own until we leave.
            let token = epochs.enter()
            treeLock.unlock()
            defer { leave(token) }
            try load(expectation)
        }
    }

    /// Makes a node resident.
    @discardableResult
    func load(_ missing: NodeValidator.Expectation) throws(FSError) -> Page {
        let page = try nodes.read(missing)
        return try treeLock.shared { () throws(FSError) in try nodes.admit(page) }
    }

    func leave(_ token: ReadEpochs.Token) {
        reuse(epochs.leave(token))
    }

    /// The value of an item as the transaction sees it.
    package func value<R>(
        _ key: Key, of tree: CopyOnWriteTree, in transaction: Transaction? = nil,
        _ body: (ByteView) throws(FSError) -> R
    ) throws(FSError) -> R? {
        if let transaction, let pending = transaction.pending(key, tree.id) {
            guard let range = pending else { return nil }
            return try transaction.bytes.withView { (view) throws(FSError) in
                try body(view.slice(range.lowerBound, range.count))
            }
        }
        return try reading { () throws(TreeFault) in try tree.get(key, body) }
    }

    /// Sets an incompatible feature bit, durably, before anything that needs it is written.
    func enable(_ feature: UInt64) throws(FSError) {
        let isSet = stateLock.withLock {
            wantedFeatures |= feature
            return superblock.incompatible & feature != 0
        }
        if !isSet { try checkpoint(force: true) }
    }

    // MARK: State

    func requireWritable() throws(FSError) {
        try stateLock.withLock { () throws(FSError) in
            switch state {
            case .online: return
            case .readOnly, .closed: throw .readOnly
            case .latched(let why): throw .latched(why)
            }
        }
    }

    /// The first failure ends all writing: what happens after it can no longer be promised.
    func latch(_ error: FSError) {
        if endWriting(error) { observer?.volume(.latched(error.description)) }
    }

    /// The same without a word to the observer; false if it had ended before.
    func endWriting(_ error: FSError) -> Bool {
        errors.record(error)
        return stateLock.withLock {
            guard state == .online || state == .readOnly else { return false }
            state = .latched(error.description)
            failure = error
            stateLock.signalAll()
            return true
        }
    }

    /// Ends all writing as a failure of the device would, for who wants to see what that does
    /// (`FS_IOC_SHUTDOWN`): what was written until now is durable, nothing after it happens.
    public func shutDown() throws(FSError) {
        try synchronize()
        latch(.latched("it was shut down on request"))
    }

    /// After this the volume is only read, whatever was asked for.
    func forceReadOnly() {
        options.readOnly = true
        stateLock.withLock { if state == .online { state = .readOnly } }
    }

    /// Turns writing off (after making everything durable) or on. A volume that was opened read-only
    /// becomes writable if its device has become so and its journal was empty; else `.readOnly`.
    public func setReadOnly(_ isReadOnly: Bool) throws(FSError) {
        if isReadOnly {
            if options.readOnly { return }
            stateLock.withLock { if state == .online { state = .readOnly } }
            // Commits look at the state under the tree lock, so none comes after this one's cut.
            try checkpoint()
            try sealJournal()
        } else {
            if options.readOnly { return try becomeWritable() }
            guard !device.isReadOnly else { throw .readOnly }
            try stateLock.withLock { () throws(FSError) in
                if case .latched(let why) = state { throw .latched(why) }
                if state == .readOnly { state = .online }
            }
        }
    }

    private func becomeWritable() throws(FSError) {
        // Until now somebody else may have written to it.
        let (stored, _) = try SuperblockStore.find(physical, modules: modules)
        try stateLock.withLock { () throws(FSError) in
            if case .latched(let why) = state { throw .latched(why) }
            guard mayBecomeWritable, !device.isReadOnly, state == .readOnly,
                superblock.readOnlyCompatible & ~DiskFormat.ReadOnlyCompatible.known == 0,
                stored.sequence == superblock.sequence
            else { throw .readOnly }
            mayBecomeWritable = false
            options.readOnly = false
        }
        try start()
    }

    /// Ends the use of the volume: everything durable, marked as cleanly unmounted. Throws what the
    /// last checkpoint threw, or why the volume was latched.
    public func close() throws(FSError) {
        snapshots.stop()
        storeHealth()
        stateLock.withLock {
            progress.stopTimer = true
            stateLock.signalAll()
        }
        for timer in timers { timer.join() }
        timers = []
        // Commits look at the state under the tree lock, so none comes after the last cut.
        let wasOpen = stateLock.withLock {
            if state == .online { state = .readOnly }
            return state
        }
        switch wasOpen {
        case .closed: return
        case .latched(let why): throw .latched(why)
        case .online, .readOnly:
            if !options.readOnly {
                try checkpoint(force: true, unmounting: true)
                try sealJournal()
            }
        }
        stateLock.withLock { state = .closed }
    }
}
