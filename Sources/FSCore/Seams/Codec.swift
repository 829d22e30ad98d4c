/// Compression: what turns up to 128 KiB of a file into fewer bytes, and back.
///
/// - Invariant: `decode` gets bytes that anybody may have written: it never writes outside of the
///   target, allocates nothing that depends on them, and says no to all that is not exactly what
///   `encode` makes of something as long as the target.
public protocol Codec: Sendable {
    var kind: CodecKind { get }
    /// Encodes `source` into the front of `target` and returns how many bytes that took; nil if
    /// it does not fit, or is not worth trying.
    ///
    /// - Parameter level: one of `kind.levels`.
    func encode(_ source: ByteView, into target: MutableByteView, level: UInt8) -> Int?
    /// Fills the whole of `target` from the whole of `source`; false if they do not belong together.
    func decode(_ source: ByteView, into target: MutableByteView) -> Bool
}

/// Codecs and their permanent numbers on disk.
public enum CodecKind: UInt8, Sendable, CaseIterable {
    case lz4 = 1
    case zstd = 2
    case zlib = 3

    public var name: String {
        switch self {
        case .lz4: "lz4"
        case .zstd: "zstd"
        case .zlib: "zlib"
        }
    }
    /// From fast to small.
    public var levels: ClosedRange<UInt8> {
        switch self {
        case .lz4: 1...12
        case .zstd: 1...19
        case .zlib: 1...9
        }
    }
    public var defaultLevel: UInt8 { self == .lz4 ? 1 : 3 }
}

/// How data that is written is to be compressed: a property of the volume, of a mount, and of each
/// file and directory. Two bytes on disk: the codec (0 inherited, 255 none) and its level.
public enum CompressionSetting: Hashable, Sendable {
    /// What the mount says, or else the volume.
    case inherited
    case none
    case codec(CodecKind, level: UInt8)

    /// What is meant by compression without a name.
    public static let standard = CompressionSetting.codec(.zstd, level: 3)

    /// The two bytes as one number, the codec in the lower one.
    package var number: UInt16 {
        switch self {
        case .inherited: 0
        case .none: 0xFF
        case .codec(let kind, let level): UInt16(level) << 8 | UInt16(kind.rawValue)
        }
    }

    /// nil if the number is not one of `number`.
    init?(number: UInt16) {
        switch number {
        case 0: self = .inherited
        case 0xFF: self = .none
        default:
            let level = UInt8(number >> 8)
            guard let kind = CodecKind(rawValue: UInt8(number & 0xFF)),
                kind.levels.contains(level)
            else { return nil }
            self = .codec(kind, level: level)
        }
    }

    package init(_ reader: inout ByteReader) throws(FSError) {
        let number = try reader.u16()
        guard let setting = Self(number: number) else {
            throw reader.corrupt("codec \(number & 0xFF), level \(number >> 8)")
        }
        self = setting
    }

    package func encode(_ writer: inout ByteWriter) { writer.u16(number) }
}

// MARK: The flags of chattr(1)

extension CompressionSetting {
    /// What lsattr(1) shows.
    var inodeFlags: UInt32 {
        switch self {
        case .inherited: 0
        case .none: InodeFlags.notCompressed
        case .codec: InodeFlags.compressed
        }
    }

    /// What chattr(1) makes of it: of two flags that exclude each other the one counts that was not
    /// there; a codec that is set stays the same.
    func applying(
        _ flags: UInt32, inherited: CompressionSetting
    ) throws(FSError) -> CompressionSetting {
        let asked = flags & InodeFlags.compression
        switch asked == InodeFlags.compression ? asked & ~inodeFlags : asked {
        case 0: return .inherited
        case InodeFlags.notCompressed: return .none
        case InodeFlags.compressed:
            if case .codec = self { return self }
            if case .codec = inherited { return inherited }
            return .standard
        default: throw .invalidArgument
        }
    }
}

extension CompressionSetting: CustomStringConvertible {
    /// As `zstd:3`, `lz4`, `none` or `inherit`; what `init(parsing:)` reads.
    public var description: String {
        switch self {
        case .inherited: "inherit"
        case .none: "none"
        case .codec(let kind, let level):
            kind == .lz4 && level == kind.defaultLevel ? kind.name : "\(kind.name):\(level)"
        }
    }

    /// The forms of `description`, those without a level, and what btrfs's tools say: `no`, and
    /// `lzo`, whose place LZ4 has here. nil if it is something else.
    public init?(parsing text: String) {
        switch text {
        case "inherit", "": self = .inherited
        case "none", "no", "off": self = .none
        default:
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            let name = parts[0] == "lzo" ? "lz4" : String(parts[0])
            guard let kind = CodecKind.allCases.first(where: { $0.name == name }),
                parts.count <= 2
            else { return nil }
            guard let level = parts.count == 1 ? kind.defaultLevel : UInt8(parts[1]),
                kind.levels.contains(level)
            else { return nil }
            self = .codec(kind, level: level)
        }
    }
}
