/// What an operation costs at the interface to the kernel: which requests it sends, and what the daemon
/// allocates to answer them (`scripts/bench/requests`, the table in `docs/PROFILING.md`).
///
/// Somebody else's dropping of caches, or a lack of memory, adds requests; so a count that is too high
/// is taken again.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct RequestTests {
    private static let script = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("scripts/bench/requests").path

    private static let obstacle: String? =
        TestMachine.mountObstacle
        ?? ((try? run(["/bin/sh", "-c", "command -v python3 && command -v cc && pkg-config fuse3"])
            .exitCode) == 0 ? nil : "no python3, cc or libfuse3-dev")
    static let canRun = TestMachine.can("requests counted", obstacle)

    /// One of each, unless it says how many.
    private static let expected: [String: [String: Double]] = [
        "create": ["LOOKUP": 1, "GETATTR": 1, "MKNOD": 1],
        "create 4 KiB": ["LOOKUP": 1, "GETATTR": 1, "MKNOD": 1, "GETXATTR": 1, "WRITE": 1],
        "stat after close": ["GETATTR": 1],
        "stat, cold": ["LOOKUP": 1],
        "stat, warm": [:],
        "open, close": [:],
        "read 4 KiB, cold": ["LOOKUP": 1, "READ": 1],
        "read 4 KiB, cached": [:],
        "open, write 4 KiB, close": ["GETXATTR": 1, "WRITE": 1],
        "append 4 KiB, fsync": ["WRITE": 1, "FSYNC": 1],
        "write 4 KiB, open file": ["WRITE": 1],
        "chmod": ["SETATTR": 1],
        "truncate": ["SETATTR": 1, "GETXATTR": 1],
        "link": ["LOOKUP": 1, "GETATTR": 1, "LINK": 1],
        "symlink": ["LOOKUP": 1, "GETATTR": 1, "SYMLINK": 1],
        "rename": ["LOOKUP": 1, "GETATTR": 1, "RENAME": 1],
        "rename onto a file": ["LOOKUP": 1, "GETATTR": 1, "RENAME": 1],
        "unlink": ["GETATTR": 1, "UNLINK": 1],
        "mkdir": ["LOOKUP": 1, "GETATTR": 1, "MKDIR": 1],
        "rmdir": ["GETATTR": 1, "RMDIR": 1],
        "list 100 names, cold": ["LOOKUP": 1, "READDIRPLUS": 1, "READDIR": 1],
        "list 100 with stat, cold": ["LOOKUP": 1, "READDIRPLUS": 2],
    ]
    /// Requests that are answered without memory from the heap, once what they need is there.
    private static let withoutAllocation: [(operation: String, request: String)] = [
        ("create", "LOOKUP"), ("stat, cold", "LOOKUP"), ("stat after close", "GETATTR"),
        ("create 4 KiB", "GETXATTR"), ("list 100 names, cold", "READDIR"),
        ("list 100 with stat, cold", "READDIRPLUS"),
    ]

    @Test(.enabled(if: canRun)) func sendsWhatTheTableSays() throws {
        var problems: [String] = []
        for _ in 1...5 {
            problems = try findings(counts())
            if problems.isEmpty { return }
        }
        Issue.record("\(problems.joined(separator: "\n"))")
    }

    private struct Operation: Decodable {
        var requests: [String: Double]
        var allocations: [String: Double]
    }

    private func counts() throws -> [String: Operation] {
        let text = try require(
            [
                "/usr/bin/env", "AEGISFS_BINARY=\(AegisCommand.requirePath())", Self.script,
                "--count", "20", "--json",
            ], seconds: 300)
        return try #require(
            JSONDecoder().decode([String: [String: Operation]].self, from: Data(text.utf8))[
                "aegisfs"])
    }

    private func findings(_ counts: [String: Operation]) throws -> [String] {
        var problems: [String] = []
        for (name, expected) in Self.expected {
            let sent = try #require(counts[name], "\(name) was not measured").requests
            for request in Set(sent.keys).union(expected.keys)
            where abs(sent[request, default: 0] - expected[request, default: 0]) > 0.11 {
                problems.append(
                    "\(name): \(sent[request, default: 0]) \(request), not "
                        + "\(expected[request, default: 0])")
            }
        }
        for (name, request) in Self.withoutAllocation {
            let allocations = counts[name]?.allocations[request] ?? .infinity
            if allocations > 0.2 { problems.append("\(name): \(allocations) for a \(request)") }
        }
        // With other versions of SQLite it may be a few more or less.
        let transaction = counts["sqlite transaction, rollback"]?.requests ?? [:]
        if transaction.values.reduce(0, +) > 32 { problems.append("sqlite: \(transaction)") }
        return problems
    }
}
