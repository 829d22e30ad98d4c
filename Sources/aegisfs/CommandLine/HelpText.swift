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
        let codes: [ExitCode] = [.done, .failed, .usage] + command.exitCodes
        section("exit codes", codes.map { ("\(command.status($0))", $0.meaning) })
        return text
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

    /// A completion script for bash.
    static var bashCompletion: String {
        let verbs = CommandTable.verbs.filter { !$0.isHidden }
        var text = """
            # bash completion for aegisfs
            _aegisfs() {
                local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}
                if [ "$COMP_CWORD" -eq 1 ]; then
                    COMPREPLY=($(compgen -W "\(verbs.map(\.name).joined(separator: " "))" -- "$word"))
                    return
                fi
                local words=
                case $verb in

            """
        for verb in verbs {
            let words = verb.allOptions.map(\.name) + verb.subverbs.map(\.name)
            text += "        \(verb.name)) words=\"\(words.joined(separator: " "))\" ;;\n"
        }
        text += """
                esac
                COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
            }
            complete -o filenames -F _aegisfs aegisfs

            """
        return text
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(width - text.count, 0))
    }
    private static func sentence(_ text: String) -> String {
        text.prefix(1).uppercased() + text.dropFirst() + "."
    }
}
