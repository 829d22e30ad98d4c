/// The names under `.snapshots`, and who may see them.
///
///     .snapshots/NAME                             every snapshot
///     .snapshots/@GMT-2031.12.31-23.59.59         one by its second in UTC, not listed
///     .snapshots/@GMT/@GMT-2031.12.31-23.59.59    the same, listed; `@GMT` is not
///
/// The second form is what Samba's shadow_copy2 looks for. If several snapshots are of one second it is
/// the newest of them; a snapshot that has such a name itself goes first.
///
/// Each way into a snapshot is a place of its own, and so has inodes of its own: a directory with two
/// names would be moved to and fro in the kernel's cache.
///
/// - Invariant: a place never leads to another snapshot than the one that it was made for: ids are not
///   used twice.
public import FSCore
internal import Glibc

public final class SnapshotBrowser: SnapshotNamespace {
    /// Whose the directories of names are. Inside a snapshot its own permissions hold.
    public enum Access: Sendable {
        /// Root's, closed to others.
        case root
        /// Of the owner of the mounted tree's root, closed to others.
        case owner
        /// Root's, open to all for looking in.
        case all
    }

    private let store: Snapshots
    private let head: FileSystem
    private let access: Access

    /// - Parameter head: the tree that is mounted.
    public init(_ volume: Volume, head: FileSystem, access: Access) {
        store = volume.snapshotStore
        self.head = head
        self.access = access
    }

    /// How a place was reached, above the id of a snapshot, which is zero in the directory of names.
    private enum Way: UInt64 {
        case name = 0
        case moment = 1
        case listedMoment = 2
    }
    private static let wayShift: UInt64 = 46
    private static let aliases = SnapshotPlace(rawValue: Way.listedMoment.rawValue << wayShift)

    private func place(_ way: Way, _ id: UInt64) throws(FSError) -> SnapshotPlace {
        guard id < 1 << Self.wayShift else { throw .notSupported }
        return SnapshotPlace(rawValue: way.rawValue << Self.wayShift | id)
    }
    private func id(_ place: SnapshotPlace) -> UInt64 {
        place.rawValue & (1 << Self.wayShift - 1)
    }

    // MARK: Names

    public func isListing(_ place: SnapshotPlace) -> Bool { id(place) == 0 }

    public func lookup(_ name: ByteView, in place: SnapshotPlace) throws(FSError) -> SnapshotPlace {
        guard name.count <= DiskFormat.maximumNameLength else { throw .nameTooLong }
        if place == .names {
            if let found = store.listed(named: name.toArray()) {
                return try self.place(.name, found.id)
            }
            if name.count == 4, name.hasPrefix("@GMT") { return Self.aliases }
        }
        guard let moment = Self.seconds(name), let found = store.newest(createdAt: moment) else {
            throw .noSuchEntry
        }
        return try self.place(place == .names ? .moment : .listedMoment, found)
    }

    public func parent(of place: SnapshotPlace) -> SnapshotPlace? {
        if place == .names { return nil }
        let isListedMoment = place.rawValue >> Self.wayShift == Way.listedMoment.rawValue
        return isListedMoment && id(place) != 0 ? Self.aliases : .names
    }

    public func list(
        _ place: SnapshotPlace, after cookie: UInt64, atMost limit: Int,
        _ body: (DirectoryEntry) -> Bool
    ) throws(FSError) {
        // Ids begin behind the cookies of "." and "..".
        var last = max(cookie, Self.dotCookies) - Self.dotCookies
        let newest = place == Self.aliases ? store.newestBySecond() : nil
        while true {
            let snapshots = store.listed(after: last, atMost: limit)
            guard let end = snapshots.last?.id else { return }
            last = end
            for snapshot in snapshots {
                var name = snapshot.name
                var way = Way.name
                if let newest {
                    guard newest[snapshot.created.seconds] == snapshot.id,
                        let alias = Self.alias(snapshot.created.seconds)
                    else { continue }
                    name = alias
                    way = .listedMoment
                }
                let number = try self.place(way, snapshot.id).rawValue
                let goesOn = name.withView {
                    body(
                        DirectoryEntry(
                            name: $0, inode: InodeNumber(number), kind: .directory,
                            cookie: snapshot.id + Self.dotCookies))
                }
                if !goesOn { return }
            }
        }
    }
    private static let dotCookies: UInt64 = 2

    // MARK: What is there

    public func attributes(of place: SnapshotPlace) throws(FSError) -> Attributes {
        guard isListing(place) else {
            var attributes = try files(of: place).attributes(of: .root)
            attributes.inode = InodeNumber(place.rawValue)
            return attributes
        }
        let owner = access == .owner ? try head.attributes(of: .root) : nil
        let time = store.namesChanged
        return Attributes(
            inode: InodeNumber(place.rawValue),
            mode: FileKind.directory.modeBits | (access == .all ? 0o755 : 0o700),
            // Like other filesystems that do not count subdirectories.
            linkCount: 1, userID: owner?.userID ?? 0, groupID: owner?.groupID ?? 0,
            device: .none, size: 0, blocks512: 0, accessTime: time, modificationTime: time,
            changeTime: time, birthTime: time, flags: 0, projectID: 0, changeSequence: 0)
    }

    public func files(of place: SnapshotPlace) throws(FSError) -> FileSystem {
        do throws(FSError) {
            return try store.files(ofSnapshot: id(place))
        } catch .noSuchEntry { throw .stale }
    }

    public func generation(of place: SnapshotPlace) -> UInt64 { id(place) }

    // MARK: Names by time

    private static let pattern = "@GMT-%Y.%m.%d-%H.%M.%S"
    private static let aliasLength = 24

    /// Nil where the calendar ends.
    private static func alias(_ seconds: Int64) -> [UInt8]? {
        var time = time_t(seconds)
        var fields = unsafe tm()
        guard unsafe gmtime_r(&time, &fields) != nil else { return nil }
        var buffer = [CChar](repeating: 0, count: 64)
        let length = unsafe strftime(&buffer, buffer.count, pattern, &fields)
        guard length == aliasLength else { return nil }
        return buffer.prefix(length).map(UInt8.init(bitPattern:))
    }

    /// The second that a name of this form says; nil if it is none.
    private static func seconds(_ name: ByteView) -> Int64? {
        guard name.count == aliasLength else { return nil }
        let bytes = name.toArray()
        func number(_ range: Range<Int>) -> Int32? {
            bytes[range].reduce(0 as Int32?) { value, byte in
                guard let value, (0x30...0x39).contains(byte) else { return nil }
                return value * 10 + Int32(byte - 0x30)
            }
        }
        guard let year = number(5..<9), let month = number(10..<12), let day = number(13..<15),
            let hour = number(16..<18), let minute = number(19..<21), let second = number(22..<24)
        else { return nil }
        var fields = unsafe tm()
        unsafe (fields.tm_year, fields.tm_mon, fields.tm_mday) = (year - 1900, month - 1, day)
        unsafe (fields.tm_hour, fields.tm_min, fields.tm_sec) = (hour, minute, second)
        let seconds = Int64(unsafe timegm(&fields))
        // Separators, and numbers that the calendar has not.
        return alias(seconds) == bytes ? seconds : nil
    }
}
