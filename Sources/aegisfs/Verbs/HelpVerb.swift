/// `aegisfs help` and `aegisfs completion`.
enum HelpVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        if arguments.has(.markdown) {
            Terminal.output(HelpText.markdown)
            return .done
        }
        guard let name = arguments.operand(0) else {
            Terminal.output(HelpText.overview)
            return .done
        }
        let known = CommandTable.verbs.filter { !$0.isHidden }
        guard var command = known.first(where: { $0.name == name }) else {
            throw .usage(
                "there is no verb '\(name)'",
                hint: Suggestion.hint(for: name, among: known.map(\.name)))
        }
        var path = [name]
        if let word = arguments.operand(1) {
            guard let subverb = command.subverbs.first(where: { $0.name == word }) else {
                throw .usage(
                    "\(name) has no subverb '\(word)'",
                    hint: Suggestion.hint(for: word, among: command.subverbs.map(\.name)))
            }
            command = subverb
            path.append(word)
        }
        Terminal.output(HelpText.page(command, path: path))
        return .done
    }

    static func completion(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard arguments.operands[0] == "bash" else {
            throw .usage(
                "there is no completion for '\(arguments.operands[0])'", hint: "it is: bash")
        }
        Terminal.output(HelpText.bashCompletion)
        return .done
    }
}
