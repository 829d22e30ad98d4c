/// Standard output and standard error: results go to the one, everything else to the other.
///
/// - Invariant: a result that could not be written is never passed over in silence. A closed pipe
///   ends the process as SIGPIPE would; any other failure ends it with exit code 1.
internal import FSCore
internal import Glibc

enum Terminal {
    /// Writes a result to standard output.
    static func output(_ text: String) {
        var text = text
        text.withUTF8 { finish(write(UnsafeRawBufferPointer($0), to: STDOUT_FILENO)) }
    }

    /// Writes bytes that are a result to standard output.
    static func output(_ bytes: ByteView) { finish(write(bytes.unsafeBytes, to: STDOUT_FILENO)) }

    private static func finish(_ error: Int32?) {
        guard let error else { return }
        if error == EPIPE {
            // The reader has gone, as `| head` does: end in the way it expects of a filter.
            signal(SIGPIPE, SIG_DFL)
            kill(getpid(), SIGPIPE)
        }
        let failure = Failure(
            .failed, .outputFailed, "cannot write the result: \(systemMessage(error))")
        failure.report(command: "output", json: false)
        exit(failure.code.rawValue)
    }

    /// Writes a message to standard error. There is nowhere to report that this failed.
    static func error(_ text: String) {
        var text = text
        text.withUTF8 { _ = write(UnsafeRawBufferPointer($0), to: STDERR_FILENO) }
    }

    /// A message for a person on standard error.
    static func notice(_ text: String) { error("aegisfs: \(text)\n") }

    /// Writes everything, or returns the error number.
    private static func write(
        _ bytes: UnsafeRawBufferPointer, to descriptor: Int32
    ) -> Int32? {
        var position = 0
        while position < bytes.count {
            let written = Glibc.write(
                descriptor, bytes.baseAddress! + position, bytes.count - position)
            if written >= 0 {
                position += written
            } else if errno != EINTR {
                return errno
            }
        }
        return nil
    }

    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// The width of the terminal behind standard error; 80 if there is none.
    static var width: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
            return 80
        }
        return Int(size.ws_col)
    }

    /// Asks a yes-or-no question. nil if there is no terminal to ask on.
    static func confirm(_ question: String) -> Bool? {
        guard isTerminal(STDIN_FILENO), isTerminal(STDERR_FILENO) else { return nil }
        error("\(question) [y/N] ")
        let answer = (readLine() ?? "").lowercased()
        return answer == "y" || answer == "yes"
    }
}

/// When to colour, and how.
struct Style: Sendable {
    enum Choice: String, CaseIterable, Sendable { case auto, always, never }
    enum Color: String, Sendable { case red = "31", yellow = "33", green = "32", bold = "1" }

    let isColored: Bool

    /// NO_COLOR (no-color.org) decides unless the option does.
    init(_ choice: Choice) {
        switch choice {
        case .always: isColored = true
        case .never: isColored = false
        case .auto:
            let isForbidden = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
            isColored = Terminal.isTerminal(STDOUT_FILENO) && !isForbidden
        }
    }

    func paint(_ text: String, _ color: Color) -> String {
        isColored ? "\u{1B}[\(color.rawValue)m\(text)\u{1B}[0m" : text
    }
}
