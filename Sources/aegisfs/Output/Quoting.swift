/// Names as people read them: whatever a name holds, it is seen where it ends, and nothing of it reaches
/// the terminal as a command.
///
/// - Invariant: a name in quotes can be given to a shell as it stands (ls(1), `--quoting-style=shell-escape`).
enum Quoting {
    /// A name, in quotes if a shell would need them.
    static func name(_ name: String) -> String {
        guard !isPlain(name) else { return name }
        var result = ""
        // Between two single quotes a shell takes everything but them as it is.
        var part = ""
        func endPart() {
            if !part.isEmpty { result += "'\(part)'" }
            part = ""
        }
        for scalar in name.unicodeScalars {
            if isControl(scalar) {
                endPart()
                result += "$'\(escape(scalar))'"
            } else if scalar == "'" {
                endPart()
                result += "\\'"
            } else {
                part.unicodeScalars.append(scalar)
            }
        }
        endPart()
        return result.isEmpty ? "''" : result
    }

    /// A sentence in which names may stand, without what a terminal would obey.
    static func sentence(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        return text.unicodeScalars.map { isControl($0) ? escape($0) : String($0) }.joined()
    }

    private static func isPlain(_ name: String) -> Bool {
        guard let first = name.unicodeScalars.first, first != "#", first != "~" else {
            return false
        }
        return !name.unicodeScalars.contains { scalar in
            isControl(scalar) || " !\"$&'()*;<>?[\\^`|".unicodeScalars.contains(scalar)
        }
    }

    /// Also what turns the direction of the text, or is a line's end to some.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: true
        default: false
        }
    }

    private static func escape(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\n": "\\n"
        case "\t": "\\t"
        case "\r": "\\r"
        default:
            UTF8.encode(scalar)?.map { byte in
                let digits = String(byte, radix: 8)
                return "\\" + String(repeating: "0", count: 3 - digits.count) + digits
            }.joined() ?? ""
        }
    }
}
