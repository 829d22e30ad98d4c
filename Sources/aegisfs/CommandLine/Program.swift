/// From the process's arguments to its exit status: which name the program was called by, which
/// verb was meant, and how failures end.
internal import Glibc

enum Program {
    static let version = "0.1.0"

    static func run(_ arguments: [String]) -> Int32 {
        // A closed pipe or socket is an error of the write, not the end of the process.
        signal(SIGPIPE, SIG_IGN)
        if let number = invalidArgument() {
            let failure = Failure.usage(
                "argument \(number) is not valid UTF-8",
                hint: "names with other bytes can be reached by another path, such as a link")
            failure.report(command: "aegisfs", json: arguments.contains("--json"))
            return failure.code.rawValue
        }
        let name = Paths.split(arguments.first ?? "aegisfs").name
        let rest = Array(arguments.dropFirst())
        if let helper = CommandTable.helpers.first(where: { $0.name == name }) {
            return perform(helper, rest)
        }
        guard let verb = rest.first else {
            Terminal.error(HelpText.overview)
            return ExitCode.usage.rawValue
        }
        switch verb {
        case "--version", "-V":
            Terminal.output("aegisfs \(version)\n")
            return 0
        case "--help", "-h":
            Terminal.output(HelpText.overview)
            return 0
        default: break
        }
        guard let command = CommandTable.verbs.first(where: { $0.name == verb }) else {
            let known = CommandTable.verbs.filter { !$0.isHidden }.map(\.name)
            let failure = Failure.usage(
                verb.hasPrefix("-") ? "there is no option \(verb)" : "there is no verb '\(verb)'",
                hint: Suggestion.hint(for: verb, among: known) ?? "'aegisfs --help' lists the verbs"
            )
            failure.report(command: "aegisfs", json: rest.contains("--json"))
            return failure.code.rawValue
        }
        return perform(command, Array(rest.dropFirst()))
    }

    /// The place of an argument that Swift would have to repair into the name of another file.
    private static func invalidArgument() -> Int? {
        (1..<max(1, Int(CommandLine.argc))).first { index in
            CommandLine.unsafeArgv[index].map { String(validatingCString: $0) == nil } ?? false
        }
    }

    private static func perform(_ command: CommandSpec, _ tokens: [String]) -> Int32 {
        do throws(Failure) {
            let arguments = try Arguments(tokens, for: command)
            if arguments.has(.help) {
                Terminal.output(HelpText.page(arguments.command, path: arguments.path))
                return 0
            }
            return command.status(try arguments.command.run(arguments))
        } catch {
            error.report(command: command.name, json: tokens.contains("--json"))
            return command.status(error.code)
        }
    }
}
