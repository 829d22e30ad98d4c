/// The vocabulary of the command table: what a verb, an option, an operand and an example are.
///
/// Dispatch, parsing, `--help`, completion and the Markdown reference are all derived from these
/// values; nothing about the command line is written down twice.

/// One option.
struct OptionSpec: Hashable, Sendable {
    enum Argument: Hashable, Sendable {
        case none
        case required(String)
        /// Only attached, as in `-C3`; for the helpers of other programs.
        case attached(String)
    }
    /// Without the dashes. Options of helpers that have no long form are named by their letter.
    let long: String
    let short: Character?
    let argument: Argument
    let summary: String
    /// May be given several times, each adding to the others.
    let isRepeatable: Bool
    /// The words that the value is one of, for completion and the error message; empty if free.
    let choices: [String]

    /// - Parameters:
    ///   - value: the name of the value that must follow.
    ///   - attached: the name of a value that may be attached.
    init(
        _ long: String, _ summary: String, short: Character? = nil, value: String? = nil,
        attached: String? = nil, choices: [String] = [], repeatable: Bool = false
    ) {
        self.long = long
        self.summary = summary
        self.short = short
        self.choices = choices
        isRepeatable = repeatable
        argument = value.map(Argument.required) ?? attached.map(Argument.attached) ?? .none
    }

    /// As the user writes it.
    var name: String { long.count == 1 ? "-\(long)" : "--\(long)" }

    /// `-o, --options OPTIONS`, as `--help` shows it.
    var usage: String {
        var text = long.count == 1 ? "" : (short == nil ? "    " : "")
        if let short, long.count > 1 { text += "-\(short), " }
        text += name
        switch argument {
        case .none: break
        case .required(let value): text += " \(value)"
        case .attached(let value): text += "[\(value)]"
        }
        return text
    }
}

/// One positional argument.
struct OperandSpec: Hashable, Sendable {
    enum Count: Hashable, Sendable { case one, optional, optionalRepeating }
    let name: String
    let count: Count
    let summary: String
    /// What completion offers.
    enum Completion: Hashable, Sendable { case files, directories, verbs, words([String]) }
    let completion: Completion

    init(
        _ name: String, _ summary: String, count: Count = .one, completion: Completion = .files
    ) {
        self.name = name
        self.count = count
        self.summary = summary
        self.completion = completion
    }

    var usage: String {
        switch count {
        case .one: name
        case .optional: "[\(name)]"
        case .optionalRepeating: "[\(name) ...]"
        }
    }
}

/// A command line that works, and what it does.
struct Example: Sendable {
    let command: String
    let meaning: String
    init(_ command: String, _ meaning: String) {
        self.command = command
        self.meaning = meaning
    }
}

/// A verb, a subverb, or another program's helper that this binary serves by `argv[0]`.
struct CommandSpec: Sendable {
    let name: String
    let summary: String
    /// A few sentences below the summary in `--help`, each line at most 78 columns.
    var notes: [String] = []
    var options: [OptionSpec] = []
    var operands: [OperandSpec] = []
    var subverbs: [CommandSpec] = []
    var examples: [Example] = []
    /// Besides 0, 1 and 2, which every verb has.
    var exitCodes: [ExitCode] = []
    /// For the program itself; shown nowhere.
    var isHidden = false
    /// What the exit status is; helpers follow fsck(8) and mount(8).
    var status: @Sendable (ExitCode) -> Int32 = { $0.rawValue }
    var run: @Sendable (Arguments) throws(Failure) -> ExitCode

    /// Every option that the verb or one of its subverbs takes, and `--help`.
    var allOptions: [OptionSpec] {
        var result = options
        for subverb in subverbs {
            result += subverb.options.filter { option in !result.contains(option) }
        }
        return result + [.help]
    }

    /// `aegisfs inspect node [options] TARGET BLOCK`
    func synopsis(path: [String]) -> String {
        let words = path + ["[options]"] + (subverbs.isEmpty ? [] : ["SUBVERB"])
        return (words + operands.map(\.usage)).joined(separator: " ")
    }
}
