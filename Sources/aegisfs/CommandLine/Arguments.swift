/// The command line of one verb, taken apart by its entry in the command table.
///
/// Options and operands may come in any order; `--` ends the options; `--name=value`,
/// `--name value`, `-nVALUE`, `-n VALUE` and bundles of letters are understood. Whatever the table
/// does not list is a usage error that names it.
struct Arguments: Sendable {
    /// The verb, or the subverb if the verb has some.
    let command: CommandSpec
    /// `["inspect", "node"]`
    let path: [String]
    private(set) var operands: [String] = []
    private var given: [(option: OptionSpec, value: String)] = []

    func has(_ option: OptionSpec) -> Bool { given.contains { $0.option == option } }

    /// The value that was given last.
    func value(_ option: OptionSpec) -> String? { given.last { $0.option == option }?.value }

    func values(_ option: OptionSpec) -> [String] {
        given.filter { $0.option == option }.map(\.value)
    }

    func operand(_ index: Int) -> String? { index < operands.count ? operands[index] : nil }

    // MARK: Parsing

    /// - Parameter program: the words before the first token, for messages: `["aegisfs"]`.
    init(_ tokens: [String], for command: CommandSpec) throws(Failure) {
        let parsed = try Self.scan(tokens, command)
        given = parsed.given
        var operands = parsed.operands
        if !command.subverbs.isEmpty,
            let place = Self.subverbPlace(operands, command),
            let subverb = command.subverbs.first(where: { $0.name == operands[place] })
        {
            operands.remove(at: place)
            self.command = subverb
            path = [command.name, subverb.name]
        } else {
            self.command = command
            path = [command.name]
        }
        self.operands = operands
        // Help is for who does not know the rest of the line yet.
        if has(.help) { return }
        if self.path.count == 1, !command.subverbs.isEmpty {
            throw Self.missingSubverb(operands, command)
        }
        try checkOptions()
        try checkOperandCount()
    }

    /// A subverb stands before or behind the target: `inspect tree IMAGE`, `inspect IMAGE tree`.
    private static func subverbPlace(_ operands: [String], _ command: CommandSpec) -> Int? {
        operands.prefix(2).firstIndex { word in command.subverbs.contains { $0.name == word } }
    }

    private static func missingSubverb(_ operands: [String], _ command: CommandSpec) -> Failure {
        let known = command.subverbs.map(\.name)
        let list = "it is one of \(known.joined(separator: ", "))"
        let near = operands.prefix(2).lazy.compactMap {
            Suggestion.hint(for: $0, among: known)
        }.first
        return .usage(
            "\(command.name): a subverb is missing",
            hint: near ?? "\(list); see 'aegisfs \(command.name) --help'")
    }

    private static func scan(
        _ tokens: [String], _ command: CommandSpec
    ) throws(Failure) -> (given: [(option: OptionSpec, value: String)], operands: [String]) {
        let options = command.allOptions
        var given: [(option: OptionSpec, value: String)] = []
        var operands: [String] = []
        var rest = tokens[...]
        while let token = rest.popFirst() {
            if token == "--" {
                operands += rest
                break
            } else if token.hasPrefix("--") {
                given.append(try scanLong(token, &rest, options, command))
            } else if token.hasPrefix("-"), token.utf8.count > 1, !isNegativeSize(token) {
                given += try scanShort(token, &rest, options, command)
            } else {
                operands.append(token)
            }
        }
        return (given, operands)
    }

    /// `-5G`, which means less by so much. No option is a digit.
    private static func isNegativeSize(_ token: String) -> Bool {
        token.utf8.dropFirst().first.map { (0x30...0x39).contains($0) } ?? false
    }

    private static func scanLong(
        _ token: String, _ rest: inout ArraySlice<String>, _ options: [OptionSpec],
        _ command: CommandSpec
    ) throws(Failure) -> (option: OptionSpec, value: String) {
        let parts = token.dropFirst(2).split(
            separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        guard let option = options.first(where: { $0.long == name && name.count > 1 }) else {
            throw unknownOption("--\(name)", options, command)
        }
        switch option.argument {
        case .none:
            guard parts.count == 1 else { throw .usage("\(option.name) takes no value") }
            return (option, "")
        case .required(let value):
            if parts.count == 2 { return (option, String(parts[1])) }
            guard let next = rest.popFirst() else { throw missingValue(option, value) }
            return (option, next)
        case .attached:
            return (option, parts.count == 2 ? String(parts[1]) : "")
        }
    }

    private static func scanShort(
        _ token: String, _ rest: inout ArraySlice<String>, _ options: [OptionSpec],
        _ command: CommandSpec
    ) throws(Failure) -> [(option: OptionSpec, value: String)] {
        var given: [(option: OptionSpec, value: String)] = []
        var letters = token.dropFirst()
        while let letter = letters.popFirst() {
            let match = options.first { $0.short == letter || $0.long == String(letter) }
            guard let option = match else { throw unknownOption("-\(letter)", options, command) }
            switch option.argument {
            case .none: given.append((option, ""))
            case .attached:
                given.append((option, String(letters)))
                return given
            case .required(let value):
                if !letters.isEmpty {
                    given.append((option, String(letters)))
                } else if let next = rest.popFirst() {
                    given.append((option, next))
                } else {
                    throw missingValue(option, value)
                }
                return given
            }
        }
        return given
    }

    private func checkOptions() throws(Failure) {
        for (option, value) in given {
            guard command.options.contains(option) else {
                throw Self.unknownOption(option.name, command.options, command)
            }
            if !option.isRepeatable, given.filter({ $0.option == option }).count > 1 {
                throw .usage("\(option.name) is given more than once")
            }
            if !option.choices.isEmpty, !option.choices.contains(value) {
                throw .usage(
                    "\(option.name): '\(value)' is not one of "
                        + option.choices.joined(separator: ", "),
                    hint: Suggestion.hint(for: value, among: option.choices))
            }
        }
    }

    private func checkOperandCount() throws(Failure) {
        let name = path.joined(separator: " ")
        let required = command.operands.filter { $0.count == .one }
        if operands.count < required.count {
            throw .usage(
                "\(name): \(required[operands.count].name) is missing",
                hint: "usage: \(command.synopsis(path: ["aegisfs"] + path))")
        }
        let isOpen = command.operands.contains { $0.count == .optionalRepeating }
        if !isOpen, operands.count > command.operands.count {
            throw .usage(
                "\(name): '\(operands[command.operands.count])' is one argument too many",
                hint: "usage: \(command.synopsis(path: ["aegisfs"] + path))")
        }
    }

    private static func unknownOption(
        _ name: String, _ options: [OptionSpec], _ command: CommandSpec
    ) -> Failure {
        .usage(
            "\(command.name) has no option \(name)",
            hint: Suggestion.hint(for: name, among: options.map(\.name))
                ?? "see 'aegisfs \(command.name) --help'")
    }

    private static func missingValue(_ option: OptionSpec, _ value: String) -> Failure {
        .usage("\(option.name) needs a value (\(value))")
    }
}

extension Arguments {
    var json: Bool { has(.json) }
    var isQuiet: Bool { has(.quiet) }
    var isVerbose: Bool { has(.verbose) }
    var isExact: Bool { has(.exact) }
    var style: Style { Style(value(.color).flatMap(Style.Choice.init) ?? .auto) }
    var progressMode: ProgressReporter.Mode {
        value(.progress).flatMap(ProgressReporter.Mode.init) ?? .auto
    }
    /// The verb for `output_version`.
    var commandName: String { path[0] }

    func size(_ bytes: UInt64) -> String { SizeFormatter.string(bytes, exact: isExact) }
}
