/// The module store: a few small records that modules keep in the volume tree. Each change is an
/// operation like any other, so it is journaled, and is there after a crash.
extension Volume {
    /// The payload of a record; nil if there is none, or if it is damaged: then the module begins
    /// anew, and `check` names it.
    package func moduleRecord(
        _ module: ModuleRecord.Module, _ number: UInt64
    ) throws(FSError) -> [UInt8]? {
        let key = ModuleRecord.key(module, number)
        do throws(FSError) {
            return try value(key, of: volumeTree) { (value) throws(FSError) in
                try ModuleRecord(key, decoding: value).payload
            }
        } catch .corrupt(let what) where what.structure == .module {
            errors.record(.corrupt(what))
            return nil
        }
    }

    /// The records of a module in the order of their numbers, at most `limit`.
    package func moduleRecords(
        _ module: ModuleRecord.Module, limit: Int
    ) throws(FSError) -> [ModuleRecord] {
        let keys = ModuleRecord.keys(module)
        var position: Key? = keys.lowerBound
        var found: [ModuleRecord] = []
        try reading { () throws(TreeFault) in
            try volumeTree.scan(&position, through: keys.upperBound) { (key, value) in
                if let record = try? ModuleRecord(key, decoding: value) { found.append(record) }
                return found.count < limit
            }
        }
        return found
    }

    /// Stores a record, or with nil removes it. Up to 3992 bytes.
    package func setModuleRecord(
        _ module: ModuleRecord.Module, _ number: UInt64, _ payload: [UInt8]?
    ) throws(FSError) {
        let transaction = Transaction()
        let key = ModuleRecord.key(module, number)
        if let payload {
            transaction.put(
                key, ModuleRecord(module, number, payload).encoded(), tree: .volume)
        } else {
            transaction.delete(key, tree: .volume)
        }
        try commit(transaction, .freeing)
    }

    /// A setting of the whole volume; nil if it has its default.
    package func setting(_ number: UInt64) throws(FSError) -> UInt64? {
        try moduleRecord(.settings, number)?.withView { $0.u64(0) }
    }

    func setSetting(_ number: UInt64, _ value: UInt64?) throws(FSError) {
        var payload: [UInt8]?
        if let value {
            payload = []
            payload?.append(littleEndian: value)
        }
        try setModuleRecord(.settings, number, payload)
    }
}
