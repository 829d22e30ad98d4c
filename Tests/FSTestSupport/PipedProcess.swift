/// A program that is talked to line by line, each answer with a time limit.
internal import CTestLinux
public import Foundation
internal import Glibc

public final class PipedProcess {
    private let commandLine: String
    private let processID: Int32
    private var input: Int32
    private let output: Int32
    private var buffer: [UInt8] = []
    private var hasEnded = false

    /// What it says on standard error comes along with standard output.
    public init(_ arguments: [String], directory: URL? = nil) throws {
        commandLine = arguments.joined(separator: " ")
        var toChild: [Int32] = [-1, -1]
        var fromChild: [Int32] = [-1, -1]
        guard pipe2(&toChild, O_CLOEXEC) == 0, pipe2(&fromChild, O_CLOEXEC) == 0 else {
            throw ProcessFailure("no pipe: \(String(cString: strerror(errno)))")
        }
        (input, output) = (toChild[1], fromChild[0])
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 2)
        posix_spawn_file_actions_addclosefrom_np(&actions, 3)
        if let directory {
            posix_spawn_file_actions_addchdir_np(&actions, directory.path)
        }
        let words = arguments.map { strdup($0) } + [nil]
        defer { for text in words { free(text) } }
        var identifier: pid_t = 0
        let failure = posix_spawnp(&identifier, arguments[0], &actions, nil, words, environ)
        close(toChild[0])
        close(fromChild[1])
        processID = identifier
        guard failure == 0 else {
            hasEnded = true
            throw ProcessFailure("\(commandLine): \(String(cString: strerror(failure)))")
        }
        // A write to a program that has ended is an error, not the end of the tests.
        Glibc.signal(SIGPIPE, SIG_IGN)
    }

    deinit {
        end()
        close(output)
    }

    public func send(_ line: String) throws {
        let bytes = Array((line + "\n").utf8)
        let count = bytes.withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
        guard count == bytes.count else {
            throw ProcessFailure("\(commandLine) does not listen any more")
        }
    }

    /// The next line it says.
    public func readLine(seconds: Int32 = 300) throws -> String {
        while true {
            if let end = buffer.firstIndex(of: 10) {
                defer { buffer.removeFirst(end + 1) }
                return String(decoding: buffer[..<end], as: UTF8.self)
            }
            var request = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
            guard poll(&request, 1, seconds * 1000) > 0 else {
                throw ProcessFailure("\(commandLine) says nothing for \(seconds) s")
            }
            var part = [UInt8](repeating: 0, count: 1 << 16)
            let count = part.withUnsafeMutableBytes {
                read(output, $0.baseAddress, $0.count)
            }
            guard count > 0 else {
                throw ProcessFailure(
                    "\(commandLine) has ended: \(String(decoding: buffer, as: UTF8.self))")
            }
            buffer += part[..<count]
        }
    }

    public func ask(_ line: String, seconds: Int32 = 300) throws -> String {
        try send(line)
        let answer = try readLine(seconds: seconds)
        guard !answer.hasPrefix("error") else {
            throw ProcessFailure("\(commandLine): \(line): \(answer)")
        }
        return answer
    }

    /// Closes its standard input and waits for its end; kills it after some seconds.
    public func end(seconds: Double = 20) {
        guard !hasEnded else { return }
        hasEnded = true
        close(input)
        let deadline = ContinuousClock.now + .seconds(seconds)
        var isKilled = false
        while waitpid(processID, nil, WNOHANG) == 0 {
            if ContinuousClock.now > deadline, !isKilled {
                isKilled = true
                kill(processID, SIGKILL)
            }
            usleep(1000)
        }
    }
}
