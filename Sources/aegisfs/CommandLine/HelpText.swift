/// The command table as text: `--help`, the Markdown reference, and shell completion.
enum HelpText {
    static var overview: String {
        var text = """
            usage: aegisfs VERB [options] TARGET ...

            AegisFS: a copy-on-write filesystem with checksums, in user space.
            TARGET is an image, a block device or a mountpoint.


            """
        let verbs = CommandTable.verbs.filter { !$0.isHidden }
        let width = verbs.map(\.name.count).max() ?? 0
        for verb in verbs { text += "  \(padded(verb.name, width))  \(verb.summary)\n" }
        text += """

            aegisfs VERB --help   teaches a verb
            aegisfs --version     prints the version

            """
        return text
    }

    static func page(_ command: CommandSpec, path: [String]) -> String {
        let isHelper = CommandTable.helpers.contains { $0.name == command.name }
        let words = (isHelper ? [] : ["aegisfs"]) + path
        var text = "usage: \(command.synopsis(path: words))\n\n\(sentence(command.summary))\n"
        for note in command.notes { text += note + "\n" }
        func section(_ title: String, _ rows: [(String, String)]) {
            guard !rows.isEmpty else { return }
            let width = rows.map(\.0.count).max() ?? 0
            text += "\n\(title):\n"
            for row in rows { text += "  \(padded(row.0, width))  \(row.1)\n" }
        }
        section("arguments", command.operands.map { ($0.name, $0.summary) })
        section("subverbs", command.subverbs.map { ($0.name, $0.summary) })
        section("options", (command.options + [.help]).map { ($0.usage, $0.summary) })
        section("examples", command.examples.map { ($0.command, $0.meaning) })
        section("exit codes", exitCodes(command).map { ("\($0.status)", $0.meaning) })
        return text
    }

    /// In ascending order. Where several codes of this program are one to the caller of a helper, the
    /// most general speaks for all.
    private static func exitCodes(_ command: CommandSpec) -> [(status: Int32, meaning: String)] {
        let codes: [ExitCode] = [.done, .failed, .usage] + command.exitCodes
        let meanings = Dictionary(
            codes.map { (command.status($0), $0.meaning) }, uniquingKeysWith: { first, _ in first })
        return meanings.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// The whole reference.
    static var markdown: String {
        var text = "# Command reference\n"
        func add(_ command: CommandSpec, _ path: [String]) {
            text += "\n## \((["aegisfs"] + path).joined(separator: " "))\n\n```\n"
            text += page(command, path: path) + "```\n"
            for subverb in command.subverbs { add(subverb, path + [subverb.name]) }
        }
        for verb in CommandTable.verbs where !verb.isHidden { add(verb, [verb.name]) }
        return text
    }

    /// A completion script for bash: verbs, then options, values of options, and operands.
    static var bashCompletion: String {
        let verbs = CommandTable.verbs.filter { !$0.isHidden }
        let names = verbs.map(\.name)
        var values = ""
        var words = ""
        for verb in verbs {
            for option in verb.allOptions {
                guard case .required = option.argument else { continue }
                let spellings = [option.name] + (option.short.map { ["-\($0)"] } ?? [])
                let pattern = spellings.map { "'\(verb.name) \($0)'" }.joined(separator: "|")
                // A value that may be anything is not to be taken for an operand.
                values +=
                    "        \(pattern)) options= operands='\(list(option.choices))' files= ;;\n"
            }
            let operands = verb.operands + verb.subverbs.flatMap(\.operands)
            let offered = verb.subverbs.map(\.name) + operands.flatMap { completions($0, names) }
            let hasFiles = operands.contains { [.files, .directories].contains($0.completion) }
            words += "        \(verb.name)) options='\(list(verb.allOptions.map(\.name)))'"
            words += " operands='\(list(offered))' files=\(hasFiles ? "yes" : "") ;;\n"
        }
        return """
            # bash completion for aegisfs
            _aegisfs() {
                local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
                local verb=${COMP_WORDS[1]} options= operands= files=
                [ "$COMP_CWORD" -gt 1 ] || verb=
                case $verb in
                    '') options='--help --version' operands='\(list(names))' ;;
            \(words)    esac
                case "$verb $before" in
            \(values)    esac
                case $word in -*) operands=$options files= ;; esac
                mapfile -t COMPREPLY < <(
                    compgen -W "$operands" -- "$word"
                    if [ -n "$files" ]; then compgen -f -- "$word"; fi
                )
            }
            complete -o filenames -F _aegisfs aegisfs

            """
    }

    private static func completions(_ operand: OperandSpec, _ verbs: [String]) -> [String] {
        switch operand.completion {
        case .files, .directories: []
        case .verbs: verbs
        case .words(let words): words
        }
    }
    private static func list(_ words: [String]) -> String { words.joined(separator: " ") }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(width - text.count, 0))
    }
    private static func sentence(_ text: String) -> String {
        text.prefix(1).uppercased() + text.dropFirst() + "."
    }
}
