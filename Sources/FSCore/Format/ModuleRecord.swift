/// What a module keeps in the volume: key (0, module, place) in the volume tree, where the place is
/// the module's number (upper 16 bits) and one that the module chooses (lower 48).
///
///     0  version   u8   1
///     1  reserved  7
///     8  payload   by module; of a setting: value u64
///
/// - Invariant: a damaged record costs its module what it remembered, and nothing else.
package struct ModuleRecord: Equatable, Sendable {
    /// The modules and their permanent numbers.
    package enum Module: UInt16, Sendable, CaseIterable {
        /// Settings of the whole volume; the number is `Property.settingNumber`.
        case settings = 1
        /// State and history of scrubs.
        case scrub = 2
    }

    static let headerSize = 8
    private static let numberMask: UInt64 = 1 << 48 - 1

    package var module: Module
    package var number: UInt64
    package var payload: [UInt8]

    package init(_ module: Module, _ number: UInt64, _ payload: [UInt8]) {
        self.module = module
        self.number = number
        self.payload = payload
    }

    static func key(_ module: Module, _ number: UInt64) -> Key {
        Key(0, .module, UInt64(module.rawValue) << 48 | number & numberMask)
    }
    static func keys(_ module: Module) -> ClosedRange<Key> {
        key(module, 0)...key(module, numberMask)
    }
    var key: Key { Self.key(module, number) }

    init(_ key: Key, decoding value: ByteView) throws(FSError) {
        var reader = ByteReader(value, .module, at: key.offset)
        guard key.object == 0, let module = Module(rawValue: UInt16(key.offset >> 48)) else {
            throw reader.corrupt("unknown module")
        }
        try reader.require(try reader.u8() == 1, "record version")
        try reader.reserved(7)
        self.module = module
        number = key.offset & Self.numberMask
        payload = try reader.bytes(reader.remaining).toArray()
        if module == .settings {
            try reader.require(payload.count == 8, "length of a setting")
        }
    }

    func encoded() -> [UInt8] { [1, 0, 0, 0, 0, 0, 0, 0] + payload }
}
