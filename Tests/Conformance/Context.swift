/// What a rule works with: expectations, and acting as somebody else.
internal import CCalls
internal import Glibc

/// Somebody who is not root. Ids that no machine has.
struct User {
    var id: UInt32
    var group: UInt32
    var groups: [UInt32]

    static let alice = User(id: 10001, group: 20001, groups: [20001, 30001])
    static let bob = User(id: 10002, group: 20002, groups: [20002, 30001, 30002])
    /// A group that both are in.
    static let sharedGroup: UInt32 = 30001
    /// A group that only bob is in, besides his first one.
    static let bobsGroup: UInt32 = 30002
}

final class Context {
    /// The directory that the run was given.
    let base: String
    /// The first expectation that was not met.
    private(set) var failure: String?
    private(set) var skipReason: String?

    init(base: String) { self.base = base }

    // MARK: Expectations

    func fail(_ text: String, _ line: Int) {
        guard failure == nil else { return }
        // One line of printable letters, however much a rule compared.
        let words = text.unicodeScalars.prefix(200).map {
            (32..<127).contains($0.value) ? String($0) : "?"
        }
        failure = "line \(line): " + words.joined()
    }

    func skip(_ reason: String) { skipReason = reason }

    /// The call succeeds; returns its result.
    @discardableResult
    func ok(_ result: Int, line: Int = #line) -> Int {
        if result < 0 { fail("expected success, found \(Self.name(of: result))", line) }
        return result
    }

    /// The call fails with this error.
    func fails(_ result: Int, _ error: Int32, line: Int = #line) {
        guard result != -Int(error) else { return }
        fail("expected \(Self.name(of: -Int(error))), found \(Self.name(of: result))", line)
    }

    /// The call fails with this error, or succeeds if `error` is nil.
    func gives(_ result: Int, _ error: Int32?, line: Int = #line) {
        if let error { fails(result, error, line: line) } else { ok(result, line: line) }
    }

    func same<T: Equatable>(_ found: T, _ expected: T, line: Int = #line) {
        if found != expected { fail("expected \(expected), found \(found)", line) }
    }

    func yes(_ condition: Bool, _ what: String = "condition", line: Int = #line) {
        if !condition { fail("\(what) does not hold", line) }
    }

    private static func name(of result: Int) -> String {
        guard result < 0 else { return "success (\(result))" }
        return String(cString: strerror(Int32(-result))) + " (errno \(-result))"
    }

    // MARK: Acting

    /// Does something as a user: real, effective and supplementary ids. The saved user id stays 0,
    /// by which the way back is open.
    @discardableResult
    func by<R>(_ user: User, _ body: () -> R) -> R {
        ok(cc_set_groups(Int32(user.groups.count), user.groups))
        ok(cc_set_group(user.group, user.group, user.group))
        ok(cc_set_user(user.id, user.id, 0))
        defer { becomeRoot() }
        return body()
    }

    /// Acts with one real and another effective user, for access(2).
    @discardableResult
    func withReal<R>(_ real: UInt32, effective: UInt32, _ body: () -> R) -> R {
        ok(cc_set_user(real, effective, 0))
        defer { becomeRoot() }
        return body()
    }

    func becomeRoot() {
        _ = cc_set_user(~0, 0, ~0)
        _ = cc_set_user(0, 0, 0)
        _ = cc_set_group(0, 0, 0)
        _ = cc_set_groups(0, [0])
    }

    /// Longer than a tick of the clock that timestamps are taken from.
    func pause() { usleep(11_000) }

    /// Runs a program in a child; its exit code, or 128 and the error number of execve.
    func execute(_ path: String, _ words: String..., as user: User? = nil) -> Int {
        let arguments = ([path] + words).map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        // The child must not come back from here, where it would become root again.
        let start: () -> Int = {
            let child = cc_fork()
            if child == 0 { _exit(Int32(128 - cc_execve(path, arguments, [nil]))) }
            return child
        }
        let child = user.map { by($0, start) } ?? start()
        var status: Int32 = 0
        ok(cc_wait(Int32(child), &status))
        return Int(status >> 8 & 0xFF)
    }
}
