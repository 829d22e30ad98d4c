/// Properties: what `aegisfs property` shows and sets. One table says all about each.
///
/// Those of files and directories stand in the inode record, and a new inode takes its directory's;
/// those of the volume stand in the module store and are reached through the root directory. On a
/// mount each is an extended attribute, `aegisfs.NAME`, which listxattr does not show: backups must
/// not carry it elsewhere. Compression has two more names, by which other programs set it:
/// `btrfs.compression`, which is there only if it is set, and the flags of chattr(1).
///
/// - Invariant: only the owner and root set a property of an inode, and only root one of the volume.

/// One line of the table.
public struct Property: Sendable {
    public let name: String
    /// One line for people.
    public let summary: String
    /// The values it takes besides `default`, for people.
    public let values: String
    fileprivate let place: Place

    fileprivate enum Place: Sendable {
        /// A number in the inode record; 0 is not set.
        case inode(
            get: @Sendable (InodeRecord) -> UInt16,
            set: @Sendable (inout InodeRecord, UInt16) -> Void,
            show: @Sendable (UInt16) -> String, parse: @Sendable (String) -> UInt16?,
            inherited: @Sendable (Volume) -> UInt16)
        /// A setting in the module store, by its permanent number.
        case volume(
            number: UInt64, show: @Sendable (UInt64) -> String,
            parse: @Sendable (String) -> UInt64?, inherited: UInt64)
    }

    /// Of the whole volume, not of one inode.
    public var isOfVolume: Bool {
        if case .volume = place { true } else { false }
    }

    /// What takes a value away again.
    public static let unset = "default"

    public static let all = [compression, copies, deduplication, scrubInterval, sweepRate]

    /// Whether it can be set to a text.
    public func takes(_ text: String) -> Bool {
        if text == Self.unset { return true }
        return switch place {
        case .inode(_, _, _, let parse, _): parse(text) != nil
        case .volume(_, _, let parse, _): parse(text) != nil
        }
    }

    public static func named(_ name: String) -> Property? { all.first { $0.name == name } }

    /// How a file's data is compressed; of a directory, of the files that are made in it.
    package static let compression = Property(
        name: "compression", summary: "how new data is compressed",
        values: "none, lz4[:1-12], zstd[:1-19] or zlib[:1-9]",
        place: .inode(
            get: { $0.compression.number },
            set: { $0.compression = CompressionSetting(number: $1) ?? .inherited },
            show: { CompressionSetting(number: $0)?.description ?? "" },
            parse: { (text) in
                guard let setting = CompressionSetting(parsing: text), setting != .inherited else {
                    return nil
                }
                return setting.number
            },
            inherited: { volume in
                let setting = volume.compression
                return (setting == .inherited ? CompressionSetting.none : setting).number
            }))

    /// Copies of a file's data; of a directory, of the files that are made in it.
    package static let copies = Property(
        name: "copies", summary: "copies of the data that is written from now on",
        values: "1 or 2",
        place: .inode(
            get: { UInt16($0.copies) }, set: { $0.copies = UInt8($1) }, show: { "\($0)" },
            parse: { (text) in
                guard let number = UInt16(text),
                    (1...DiskFormat.maximumDataCopies).contains(Int(number))
                else { return nil }
                return number
            }, inherited: { UInt16($0.defaultDataCopies) }))

    /// Whether a file's data is shared with equal data as it is written; of a directory, that of the
    /// files that are made in it.
    package static let deduplication = Property(
        name: "dedup", summary: "whether new data is shared with equal data", values: "on or off",
        place: .inode(
            get: { UInt16($0.deduplication.rawValue) },
            set: { $0.deduplication = .init(rawValue: UInt8($1)) ?? .inherited },
            show: { $0 == 1 ? "on" : "off" },
            parse: { ["on": 1, "off": 2][$0] },
            inherited: { $0.options.deduplicates ? 1 : 2 }))

    /// How often a mounted volume is scrubbed, in seconds; 0 never.
    package static let scrubInterval = Property(
        name: "scrub-interval", summary: "how often a mounted volume scrubs itself",
        values: "never, or a number with s, m, h, d or w",
        place: .volume(
            number: 1, show: { $0 == 0 ? "never" : Quantity.seconds.show($0) },
            parse: { $0 == "never" ? 0 : Quantity.seconds.parse($0) }, inherited: 0))

    /// How many bytes a second deleted snapshots give back at most; 0 without a limit.
    package static let sweepRate = Property(
        name: "sweep-rate", summary: "how much deleted snapshots give back in a second",
        values: "all, or a number with B, K, M or G",
        place: .volume(
            number: 2, show: { $0 == 0 ? "all" : Quantity.bytes.show($0) },
            parse: { $0 == "all" ? 0 : Quantity.bytes.parse($0) }, inherited: 0))

    /// Of a property of the volume.
    public var settingNumber: UInt64? {
        guard case .volume(let number, _, _, _) = place else { return nil }
        return number
    }

    /// Those of the volume with the permanent numbers of their settings.
    static var settings: [(number: UInt64, name: String)] {
        all.compactMap {
            guard case .volume(let number, _, _, _) = $0.place else { return nil }
            return (number, $0.name)
        }
    }

    /// Whether a stored setting has a value that it can be set to. One that a later version has made is
    /// not for us to judge.
    static func isPossible(setting record: ModuleRecord) -> Bool {
        for property in all {
            guard case .volume(record.number, let show, let parse, _) = property.place else {
                continue
            }
            guard record.payload.count == 8 else { return false }
            let value = record.payload.withView { $0.u64(0) }
            return parse(show(value)) == value
        }
        return true
    }

    /// The property behind an extended attribute; nil if the name has not our prefix. Throws
    /// `.noSuchAttribute` if it has, and no property this name.
    static func named(byAttribute name: ByteView) throws(FSError) -> Property? {
        if name.count == 17, name.hasPrefix("btrfs.compression") { return compression }
        guard name.hasPrefix("aegisfs.") else { return nil }
        let rest = name.slice(8, name.count - 8)
        for property in all where property.name.utf8.elementsEqual(rest.toArray()) {
            return property
        }
        throw .noSuchAttribute
    }
}

/// What a property is, and whether it was set where it was asked for.
public struct PropertyValue: Equatable, Sendable {
    public var value: String
    public var isSet: Bool
    /// As the extended attribute has it.
    var text: String { isSet ? value : "\(Property.unset) \(value)" }

    public init(value: String, isSet: Bool) {
        self.value = value
        self.isSet = isSet
    }
    /// Takes apart what the extended attribute has.
    public init(text: String) {
        let prefix = "\(Property.unset) "
        isSet = !text.hasPrefix(prefix)
        value = isSet ? text : String(text.dropFirst(prefix.count))
    }
}

/// Who sets an attribute.
public enum AttributeCaller: Equatable, Sendable {
    /// Root, or who runs the daemon.
    case privileged
    case user(UInt32)
}

extension FileSystem {
    /// Throws `.noSuchAttribute` for a property of the volume elsewhere than at its root.
    public func property(
        _ property: Property, of inode: InodeNumber
    ) throws(FSError) -> PropertyValue {
        switch property.place {
        case .inode(let get, _, let show, _, let inherited):
            let record = try record(of: inode)
            guard record.kind == .regular || record.isDirectory else { throw .noSuchAttribute }
            let own = get(record)
            return PropertyValue(value: show(own == 0 ? inherited(volume) : own), isSet: own != 0)
        case .volume(let number, let show, _, let inherited):
            guard inode == .root else { throw .noSuchAttribute }
            let own = try volume.setting(number)
            return PropertyValue(value: show(own ?? inherited), isSet: own != nil)
        }
    }

    /// Throws `.invalidArgument` for a value that the property does not take, `.notPermitted` for who
    /// may not set it.
    public func setProperty(
        _ property: Property, of inode: InodeNumber, _ text: String,
        caller: AttributeCaller = .privileged
    ) throws(FSError) {
        switch property.place {
        case .inode(_, let set, _, let parse, _):
            let value = text == Property.unset ? 0 : parse(text)
            guard let value else { throw .invalidArgument }
            try change(inode) { (transaction) throws(FSError) in
                var record = try record(of: inode)
                guard record.kind == .regular || record.isDirectory else { throw .notSupported }
                guard record.flags & (InodeFlags.immutable | InodeFlags.append) == 0,
                    caller == .privileged || caller == .user(record.userID)
                else { throw .notPermitted }
                set(&record, value)
                record.noteChanged(.now())
                transaction.put(inode, record)
            }
        case .volume(let number, _, let parse, _):
            guard inode == .root else { throw .notSupported }
            guard caller == .privileged else { throw .notPermitted }
            let value = text == Property.unset ? nil : parse(text)
            guard value != nil || text == Property.unset else { throw .invalidArgument }
            try volume.setSetting(number, value)
        }
    }
}

/// Durations and sizes in text: a whole number and a unit.
private struct Quantity: Sendable {
    private let units: [(suffix: Character, size: UInt64)]
    private let maximum: UInt64

    /// Up to a hundred years.
    static let seconds = Quantity(
        units: [("w", 604_800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)],
        maximum: 100 * 365 * 86400)
    /// Up to a pebibyte.
    static let bytes = Quantity(
        units: [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("B", 1)], maximum: 1 << 50)

    func parse(_ text: String) -> UInt64? {
        guard let unit = units.first(where: { $0.suffix == text.last }),
            let number = UInt64(text.dropLast()), number > 0, number <= maximum / unit.size
        else { return nil }
        return number * unit.size
    }

    func show(_ value: UInt64) -> String {
        for unit in units where value % unit.size == 0 {
            return "\(value / unit.size)\(unit.suffix)"
        }
        return "\(value)"
    }
}
