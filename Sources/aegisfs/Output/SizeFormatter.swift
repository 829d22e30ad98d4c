/// Byte counts for people: IEC units with one decimal, or the exact number.
enum SizeFormatter {
    private static let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]

    static func string(_ bytes: UInt64, exact: Bool = false) -> String {
        guard !exact, bytes >= 1024 else { return "\(bytes) B" }
        var index = 0
        while true {
            let unit: UInt64 = 1 << (10 * UInt64(index + 1))
            // The remainder is below 2⁶⁰, so that ten times it cannot overflow.
            let tenths = (bytes % unit * 10 + unit / 2) / unit
            let whole = bytes / unit + tenths / 10
            // What rounds up to 1024.0 of a unit is 1.0 of the next.
            if whole < 1024 || index == units.count - 1 {
                return "\(whole).\(tenths % 10) \(units[index])"
            }
            index += 1
        }
    }

    /// `31.4 %`, never above 100; nil when the whole is zero.
    static func percentage(_ part: UInt64, of whole: UInt64) -> String? {
        guard whole > 0 else { return nil }
        let thousandths = (Double(min(part, whole)) / Double(whole) * 1000).rounded(.down)
        return "\(Int(thousandths) / 10).\(Int(thousandths) % 10) %"
    }
}
