/// `aegisfs explain`: what a message id means and what to do.
enum ExplainVerb {
    private struct List: Encodable { var messages: [CatalogueEntry] }

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let text = arguments.operand(0) else {
            if arguments.json {
                Terminal.output(
                    JSONOutput.line(List(messages: MessageCatalogue.entries), command: "explain"))
            } else {
                for entry in MessageCatalogue.entries {
                    Terminal.output("\(entry.id)  \(entry.summary)\n")
                }
            }
            return .done
        }
        guard let entry = MessageCatalogue.entry(for: text) else {
            throw Failure(
                .usage, .unknownMessageID, "there is no message '\(text)'",
                hint: "'aegisfs explain' lists all of them")
        }
        if arguments.json {
            Terminal.output(JSONOutput.line(entry, command: "explain"))
        } else {
            Terminal.output("\(entry.id): \(entry.summary)\n\n\(entry.explanation)\n")
        }
        return .done
    }
}
