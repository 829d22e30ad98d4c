/// The lists of damage and of bad blocks in the volume tree, and what of them is worth telling.
extension Volume {
    /// A place that has no good copy, for people.
    public struct Damage: Equatable, Sendable {
        public enum Kind: String, Sendable { case data, metadata, bitmap }
        public var kind: Kind
        /// From the volume's root; nil if no file is affected that could be named.
        public var path: String?
        public var inode: UInt64
        /// In the file, in bytes.
        public var offset: UInt64
        public var byteCount: UInt64
        /// Block on the device.
        public var block: UInt64
        /// Seconds since 1970.
        public var time: Int64
    }

    /// Reads both lists when the volume is opened, before anything is allocated.
    func loadHealth() {
        let layout = layout
        let bad =
            (try? items(BadBlockRecord.keys) { (key, value) throws(FSError) in
                try BadBlockRecord(key, decoding: value, layout: layout)
            }) ?? []
        for record in bad { allocator.exclude(record.run) }
        health.load(storedDamage())
    }

    private func storedDamage() -> [DamageRecord] {
        (try? items(DamageRecord.keys) { (key, value) throws(FSError) in
            try DamageRecord(key, decoding: value)
        }) ?? []
    }

    /// Items of the volume tree, at most as many as are ever listed; those that are damaged are
    /// left to `check`.
    private func items<R>(
        _ keys: ClosedRange<Key>, _ decode: (Key, ByteView) throws(FSError) -> R
    ) throws(FSError) -> [R] {
        var found: [R] = []
        var position: Key? = keys.lowerBound
        try reading { () throws(TreeFault) in
            try volumeTree.scan(&position, through: keys.upperBound) { (key, value) in
                if let record = try? decode(key, value) { found.append(record) }
                return found.count < 2 * MediumHealth.knownLimit
            }
        }
        return found
    }

    /// Stores what was found since the last time, as an operation like any other. What cannot be
    /// stored is tried again.
    func storeHealth() {
        let (damage, badBlocks) = health.unstored
        guard !damage.isEmpty || !badBlocks.isEmpty, (try? requireWritable()) != nil else { return }
        let transaction = Transaction()
        for record in damage { transaction.put(record.key, record.encoded(), tree: .volume) }
        for run in badBlocks {
            let record = BadBlockRecord(run)
            allocator.exclude(run)
            transaction.put(record.key, record.encoded(), tree: .volume)
        }
        guard (try? commit(transaction, .emergency)) == true else { return }
        health.stored(damage, badBlocks)
    }

    /// Takes records off the list.
    package func forgetDamage(_ places: [BlockAddress]) throws(FSError) {
        guard !places.isEmpty else { return }
        let transaction = Transaction()
        for place in places { transaction.delete(Key(0, .damage, place.rawValue), tree: .volume) }
        try commit(transaction, .emergency)
        health.forget(places)
    }

    /// All that is listed, stored or not, whether it still counts or not.
    package func listedDamage() -> [DamageRecord] {
        var byPlace: [UInt64: DamageRecord] = [:]
        for record in storedDamage() + health.unstored.damage {
            byPlace[record.place.rawValue] = record
        }
        return byPlace.values.sorted { $0.place < $1.place }
    }

    /// What is damaged now: data that was overwritten or deleted since is left out. Adjacent blocks
    /// of a file are one entry.
    public func damage() -> [Damage] {
        var result: [Damage] = []
        let records = listedDamage().sorted {
            ($0.kind.rawValue, $0.object, $0.offset) < ($1.kind.rawValue, $1.object, $1.offset)
        }
        for record in records where isStillUsed(record) {
            let bytes = UInt64(record.blocks) << 12
            if record.kind == .data, let last = result.last, last.kind == .data,
                last.inode == record.object, last.offset + last.byteCount >= record.offset
            {
                let end = max(last.offset + last.byteCount, record.offset + bytes)
                result[result.count - 1].byteCount = end - last.offset
                continue
            }
            let inode = InodeNumber(record.object)
            result.append(
                Damage(
                    kind: record.kind == .data
                        ? .data : record.kind == .node ? .metadata : .bitmap,
                    path: record.kind == .data ? path(of: inode, record.tree) : nil,
                    inode: record.object, offset: record.offset, byteCount: bytes,
                    block: record.place.block, time: record.time))
        }
        return result
    }

    /// Whether a file still refers to damaged data; of anything else only a scrub can say.
    package func isStillUsed(_ record: DamageRecord) -> Bool {
        guard record.kind == .data else { return true }
        // Of a snapshot, which keeps it.
        guard record.tree & DamageRecord.snapshotBit == 0 else { return true }
        let block = record.offset >> 12
        let files = FileMap(self, files(record.tree), isReadOnly: true)
        let extent = try? files.extents(
            InodeNumber(record.object), block..<block + 1, limit: 1
        ).first
        guard let extent, extent.record.kind == .data else { return false }
        if extent.record.encoding != nil {
            let stored = extent.record.storedRun(0)
            return stored.start <= record.place && record.place < stored.start + stored.count
        }
        return extent.record.replicas.first + (block - extent.block) == record.place
    }

    /// The head of this number; the default one if there is none.
    private func files(_ number: UInt64) -> CopyOnWriteTree {
        treeLock.shared { number == TreeID.volume.rawValue ? nil : tree(TreeID(number)) } ?? head
    }

    /// A place in a file, for messages.
    func name(_ inode: InodeNumber, _ offset: UInt64, _ files: CopyOnWriteTree) -> String {
        "\(path(of: inode, files.id.rawValue) ?? "inode \(inode.rawValue)"), offset \(offset)"
    }

    /// One path of an inode from the root, for messages; nil if it has none that can be found.
    package func path(of inode: InodeNumber, _ number: UInt64) -> String? {
        path(of: inode, in: files(number))
    }

    func path(of inode: InodeNumber, in files: CopyOnWriteTree) -> String? {
        var names: [String] = []
        var current = inode
        // Directories that form a loop must not hold up a message about something else.
        while current != .root, names.count < 2048 {
            guard
                let record = try? value(
                    Key(current, .inode), of: files,
                    { (view) throws(FSError) in
                        try InodeRecord(decoding: view, inode: current.rawValue)
                    }), record.parent != 0,
                let name = name(record.nameCookie, in: InodeNumber(record.parent), files)
            else { return nil }
            names.append(name)
            current = InodeNumber(record.parent)
        }
        return current == .root ? "/" + names.reversed().joined(separator: "/") : nil
    }

    func name(
        _ cookie: UInt64, in directory: InodeNumber, _ files: CopyOnWriteTree
    ) -> String? {
        let found = try? value(Key(directory, .directoryEntry, cookie >> 4), of: files) {
            (view) throws(FSError) -> String? in
            var name: String?
            try DirectoryRecord.forEach(view, directory: directory.rawValue) {
                (entry) throws(FSError) in
                guard UInt64(entry.ordinal) == cookie & 15 else { return true }
                name = String(decoding: entry.name.toArray(), as: UTF8.self)
                return false
            }
            return name
        }
        return found ?? nil
    }
}
