/// What the process says with its exit status: one set of codes for every verb, and their mapping
/// to the codes that fsck(8) and mount(8) expect of their helpers.
///
/// - Invariant: a number never changes its meaning; scripts depend on it.
enum ExitCode: Int32, CaseIterable, Sendable {
    case done = 0
    case failed = 1
    case usage = 2
    case damaged = 3
    case repaired = 4
    case notFound = 10
    case busy = 11
    case wrongKey = 12
    case needsConfirmation = 13
    case interrupted = 130

    /// One line for `--help`.
    var meaning: String {
        switch self {
        case .done: "done, clean"
        case .failed: "failed"
        case .usage: "wrong usage"
        case .damaged: "finished, but damage or incompleteness is left"
        case .repaired: "damage was found and all of it repaired"
        case .notFound: "not found, or not an AegisFS volume"
        case .busy: "busy or locked; the message says by whom"
        case .wrongKey: "wrong key"
        case .needsConfirmation: "needs confirmation or --force; nothing was changed"
        case .interrupted: "interrupted"
        }
    }

    /// The bit mask of fsck(8).
    var fsckStatus: Int32 {
        switch self {
        case .done: 0
        case .repaired: 1
        case .damaged: 4
        case .usage: 16
        case .interrupted: 32
        case .failed, .notFound, .busy, .wrongKey, .needsConfirmation: 8
        }
    }

    /// The codes of mount(8) and umount(8).
    var mountStatus: Int32 {
        switch self {
        // "Damaged" is an unmount that succeeded after the daemon had died: mount(8) has no code
        // for it, and the message was printed.
        case .done, .repaired, .damaged: 0
        case .usage: 1
        case .interrupted: 8
        case .failed, .notFound, .busy, .wrongKey, .needsConfirmation: 32
        }
    }
}
