/// A SIZE on the command line: a whole number with a suffix K, M, G, T, P, E (powers of 1024, with
/// or without `iB` or `B`) or B for bytes; a bare number means GiB.
enum SizeParser {
    static func parse(_ text: String, option: String) throws(Failure) -> UInt64 {
        let bytes = Array(text.utf8)
        let digits = bytes.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
        let suffix = String(decoding: bytes.dropFirst(digits.count), as: UTF8.self)
        guard !digits.isEmpty, let shift = shift(of: suffix.lowercased()) else {
            throw .usage(
                "\(option): '\(text)' is not a size",
                hint: "a size is a whole number with a suffix K, M, G, T, P, E or B; "
                    + "a bare number means GiB")
        }
        var number: UInt64 = 0
        for digit in digits {
            let (product, overflow) = number.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit - UInt8(ascii: "0")))
            guard !overflow, !carry else { throw tooLarge(text, option) }
            number = sum
        }
        guard number == 0 || number.leadingZeroBitCount >= shift else {
            throw tooLarge(text, option)
        }
        return number << UInt64(shift)
    }

    private static func shift(of suffix: String) -> Int? {
        switch suffix {
        case "b": return 0
        case "": return 30
        default: break
        }
        guard let first = suffix.first, ["", "b", "ib"].contains(suffix.dropFirst()) else {
            return nil
        }
        return switch first {
        case "k": 10
        case "m": 20
        case "g": 30
        case "t": 40
        case "p": 50
        case "e": 60
        default: nil
        }
    }

    private static func tooLarge(_ text: String, _ option: String) -> Failure {
        .usage("\(option): '\(text)' is larger than 16 EiB, the largest size there is")
    }
}
