/// Other programs, run without a shell and with a time limit.
///
/// Output goes to files and not to pipes: a daemon that keeps its parent's pipe open would let the
/// reader wait for ever. A process is signalled by its number only, and only before it was waited
/// for, so that the number cannot have gone to another.
internal import CTestLinux
public import Foundation
internal import Glibc

public struct ProcessResult: Sendable {
    /// The exit code; 128 plus the signal if one ended the process.
    public var exitCode: Int32
    public var output: String
    public var errors: String
    public var isTimedOut: Bool
}

public struct ProcessFailure: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// A child process that runs beside the test.
public final class ChildProcess {
    public let processID: Int32
    public let commandLine: String
    private let outputFile: URL
    private var status: Int32?

    /// Starts a program, found by PATH unless its name has a slash.
    public init(
        _ arguments: [String], environment: [String: String] = [:], directory: URL? = nil
    ) throws {
        commandLine = arguments.joined(separator: " ")
        outputFile = FileManager.default.temporaryDirectory
            .appendingPathComponent("aegisfs-output-\(UUID().uuidString)")
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let flags = O_WRONLY | O_CREAT | O_TRUNC
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputFile.path + ".out", flags, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, outputFile.path + ".err", flags, 0o600)
        // A file in a mount that another test has open must not stay open in this child.
        posix_spawn_file_actions_addclosefrom_np(&actions, 3)
        if let directory {
            posix_spawn_file_actions_addchdir_np(&actions, directory.path)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A session of its own, so that a signal to the terminal's group does not reach it.
        posix_spawnattr_setflags(&attributes, aegis_spawn_setsid)

        let merged = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let words = arguments.map { strdup($0) } + [nil]
        let variables = merged.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in words + variables { free(text) } }
        var identifier: pid_t = 0
        let failure = posix_spawnp(
            &identifier, arguments[0], &actions, &attributes, words, variables)
        guard failure == 0 else {
            throw ProcessFailure("\(commandLine): \(String(cString: strerror(failure)))")
        }
        processID = identifier
    }

    /// True until the process has ended.
    public var isRunning: Bool {
        if status == nil {
            var code: Int32 = 0
            if waitpid(processID, &code, WNOHANG) == processID { status = code }
        }
        return status == nil
    }

    /// Waits until the process has written something to its standard output, or has ended.
    public func waitForOutput() {
        var status = stat()
        while isRunning, stat(outputFile.path + ".out", &status) != 0 || status.st_size == 0 {
            usleep(2_000)
        }
    }

    public func signal(_ number: Int32) {
        if isRunning { kill(processID, number) }
    }

    /// Waits for the end, at most so long; then kills the process. Removes its output files.
    public func wait(seconds: Double = 300) -> ProcessResult {
        let deadline = ContinuousClock.now + .seconds(seconds)
        var pause: UInt32 = 500
        var isTimedOut = false
        while isRunning {
            if ContinuousClock.now > deadline, !isTimedOut {
                isTimedOut = true
                signal(SIGKILL)
            }
            usleep(pause)
            pause = min(pause * 2, 20_000)
        }
        defer {
            unlink(outputFile.path + ".out")
            unlink(outputFile.path + ".err")
        }
        let code = status!
        let signalNumber = code & 0x7F
        return ProcessResult(
            exitCode: signalNumber == 0 ? code >> 8 & 0xFF : 128 + signalNumber,
            output: text(".out"), errors: text(".err"), isTimedOut: isTimedOut)
    }

    private func text(_ suffix: String) -> String {
        let data = FileManager.default.contents(atPath: outputFile.path + suffix) ?? Data()
        return String(decoding: data, as: UTF8.self)
    }
}

/// Runs a program to its end.
public func run(
    _ arguments: [String], environment: [String: String] = [:], directory: URL? = nil,
    seconds: Double = 300
) throws -> ProcessResult {
    try ChildProcess(arguments, environment: environment, directory: directory)
        .wait(seconds: seconds)
}

/// Runs a program that must succeed; returns its standard output.
@discardableResult
public func require(
    _ arguments: [String], directory: URL? = nil, seconds: Double = 300
) throws -> String {
    let result = try run(arguments, directory: directory, seconds: seconds)
    guard result.exitCode == 0, !result.isTimedOut else {
        throw ProcessFailure(
            "\(arguments.joined(separator: " ")): "
                + (result.isTimedOut ? "no end after \(seconds) s" : "exit \(result.exitCode)")
                + ": \(result.errors.suffix(600))\(result.output.suffix(300))")
    }
    return result.output
}

/// A directory for the duration of a call, removed whatever happens.
public func withTemporaryDirectory<R>(_ body: (URL) throws -> R) throws -> R {
    let url = FileManager.default.temporaryDirectory
        .appendingPathComponent("aegisfs-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: url) }
    return try body(url)
}
