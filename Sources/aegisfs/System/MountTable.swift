/// The mounts that a process sees: /proc/PID/mountinfo (proc(5)), parsed.
///
/// Lines that do not have the documented form are skipped: the kernel may add fields, and no
/// decision here needs every line.
struct MountTable: Sendable {
    struct Entry: Equatable, Sendable {
        var id: Int
        /// `major:minor` of the filesystem.
        var device: String
        /// What of the filesystem is mounted: `/`, or a directory for a bind mount.
        var root: String
        var mountpoint: String
        /// Per-mount options: `rw`, `nosuid`, `relatime`, ...
        var options: [String]
        var type: String
        var source: String
        /// Options of the filesystem itself.
        var superOptions: [String]

        var isAegisFS: Bool { type == MountTable.filesystemType }
        var isReadOnly: Bool { options.contains("ro") || superOptions.contains("ro") }
    }
    /// What the kernel calls our mounts.
    static let filesystemType = "fuse.aegisfs"

    let entries: [Entry]

    /// The mounts of a process; nil if they cannot be read.
    static func current(process: String = "self") -> MountTable? {
        fileContents("/proc/\(process)/mountinfo").map(MountTable.init(parsing:))
    }

    init(parsing bytes: [UInt8]) {
        entries = bytes.split(separator: UInt8(ascii: "\n")).compactMap(Self.entry)
    }

    /// The topmost mount on a directory.
    func entry(at mountpoint: String) -> Entry? {
        entries.last { Paths.areEqual($0.mountpoint, mountpoint) }
    }

    private static func entry(_ line: ArraySlice<UInt8>) -> Entry? {
        let fields = line.split(separator: UInt8(ascii: " "))
        // Optional fields end with a dash.
        guard fields.count >= 10,
            let dash = fields.indices.dropFirst(6).first(where: { fields[$0].elementsEqual([0x2D]) }
            ),
            dash + 3 < fields.count, let id = Int(String(decoding: fields[0], as: UTF8.self))
        else { return nil }
        return Entry(
            id: id, device: text(fields[2]), root: text(fields[3]), mountpoint: text(fields[4]),
            options: list(fields[5]), type: text(fields[dash + 1]),
            source: text(fields[dash + 2]), superOptions: list(fields[dash + 3]))
    }

    private static func list(_ field: ArraySlice<UInt8>) -> [String] {
        text(field).split(separator: ",").map(String.init)
    }

    /// Undoes the escapes of blanks and backslashes (`\040`).
    private static func text(_ field: ArraySlice<UInt8>) -> String {
        var result: [UInt8] = []
        var rest = field
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                result.append(value)
                rest = rest.dropFirst(3)
            } else {
                result.append(byte)
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
