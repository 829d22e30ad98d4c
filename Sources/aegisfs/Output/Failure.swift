/// Why a command did not do what it was asked: the exit code, a stable message id, one sentence,
/// and the cure. The one error type of this target.
internal import Glibc

struct Failure: Error, Equatable, Sendable {
    var code: ExitCode
    var id: MessageID
    var message: String
    var hint: String?

    init(_ code: ExitCode, _ id: MessageID, _ message: String, hint: String? = nil) {
        self.code = code
        self.id = id
        self.message = message
        self.hint = hint
    }

    /// The command line itself was wrong.
    static func usage(_ message: String, hint: String? = nil) -> Failure {
        Failure(.usage, .usage, message, hint: hint)
    }

    /// A system call failed for a reason that has no message of its own.
    static func system(_ what: String, _ error: Int32) -> Failure {
        switch error {
        case EACCES, EPERM:
            Failure(
                .failed, .permissionDenied, "\(what): \(systemMessage(error))",
                hint: "run it as root, or as the owner")
        case ENOSPC, EDQUOT:
            Failure(
                .failed, .noSpace, "\(what): \(systemMessage(error))",
                hint: "make room on the filesystem that holds it")
        default: Failure(.failed, .systemCall, "\(what): \(systemMessage(error))")
        }
    }

    /// Prints the failure on stderr, for people or as one JSON object.
    func report(command: String, json: Bool) {
        if json {
            Terminal.error(JSONOutput.line(FailureDocument(self), command: command, kind: "error"))
            return
        }
        // A usage error explains itself; everything else may be looked up.
        let reference = id == .usage ? "" : " [\(id.rawValue)]"
        var text = "aegisfs: \(Quoting.sentence(message))\(reference)\n"
        if let hint { text += "hint: \(Quoting.sentence(hint))\n" }
        Terminal.error(text)
    }
}

/// A failure as it crosses a pipe or socket, and as `--json` shows it.
struct FailureDocument: Codable, Sendable {
    var code: Int32
    var messageId: String
    var message: String
    var hint: String?

    init(_ failure: Failure) {
        code = failure.code.rawValue
        messageId = failure.id.rawValue
        message = failure.message
        hint = failure.hint
    }

    /// Codes and ids of another version of the program fall back to the general ones.
    var failure: Failure {
        Failure(
            ExitCode(rawValue: code) ?? .failed, MessageID(rawValue: messageId) ?? .systemCall,
            message, hint: hint)
    }
}
