/// Real programs that promise something with every step, and what opens their work again.
public import Foundation

public protocol PromisingProgram: AnyObject {
    /// Prepares its place in `directory`, which is durable when this returns.
    init(in directory: URL, scratch: URL) throws
    /// Performs step `number`, from 1 on; true if all steps up to this one are durable now.
    func step(_ number: Int) throws -> Bool
    func end() throws
    /// Opens what is in `directory` and says what is wrong with it, when steps up to `promised` were
    /// durable and none after `begun` was begun.
    func problem(in directory: URL, promised: Int, begun: Int) throws -> String?
}

/// The promise of a step counts from `position` on; `begun` is where the device stood before.
private struct Promise {
    var begun: Int
    var position: Int?
}

/// A program run once, and its promises.
public final class PromisingRun {
    private let program: any PromisingProgram
    private let mount: RecordedMount
    private let first: Int
    private var promises: [Promise] = []

    public init(
        _ kind: any PromisingProgram.Type, steps: Int, on mount: RecordedMount, scratch: URL
    ) throws {
        self.mount = mount
        program = try kind.init(in: mount.directory, scratch: scratch)
        try synchronizeDirectory(mount.directory)
        first = try mount.position()
        for number in 1...steps {
            let begun = try mount.position()
            let isDurable = try program.step(number)
            promises.append(
                Promise(begun: begun, position: isDurable ? try mount.position() : nil))
        }
        try program.end()
        try mount.unmount()
    }

    public struct Moment: Sendable {
        public var position: Int
        public var cut: RecordedMount.Cut
    }

    /// So many moments: behind flushes, the barrier just done, and between them, with what was in
    /// flight lost, arrived or in part; all flushes if there are fewer.
    public func moments(_ count: Int, random: inout SeededRandom) throws -> [Moment] {
        let end = try mount.position()
        let flushes = try mount.flushes().filter { $0 >= first }
        let behindFlushes = flushes.shuffled(using: &random).prefix(max(1, count / 2))
        let between = (behindFlushes.count..<max(count, behindFlushes.count + 1)).map { _ in
            Moment(
                position: random.integer(in: first...end),
                cut: random.pick(RecordedMount.Cut.allCases))
        }
        return behindFlushes.map { Moment(position: $0, cut: .nothing) } + between
    }

    /// What is wrong after a power cut at this moment; nil if every promise is kept.
    public func problem(at moment: Moment, seed: UInt64, checks: Bool) throws -> String? {
        let promised =
            promises.lastIndex { $0.position.map { $0 <= moment.position } ?? false } ?? -1
        let begun = promises.lastIndex { $0.begun <= moment.position } ?? -1
        return try mount.withRecovered(
            at: moment.position, moment.cut, seed: seed, checks: checks
        ) { directory in
            try program.problem(in: directory, promised: promised + 1, begun: begun + 1)
        }
    }
}

/// fsync of a directory, by another program, which may be waited for with a limit.
func synchronizeDirectory(_ directory: URL) throws { try require(["sync", directory.path]) }

// MARK: SQLite

public class SQLiteProgram: PromisingProgram {
    private let shell: PipedProcess
    class var setting: String { "" }

    public required init(in directory: URL, scratch: URL) throws {
        shell = try PipedProcess([
            "sqlite3", "-batch", directory.appendingPathComponent("test.db").path,
        ])
        try shell.send(Self.setting)
        try shell.send("CREATE TABLE t (number INTEGER PRIMARY KEY, data TEXT);")
        try say("ready")
    }

    /// Sends SQL and waits until it is done.
    private func say(_ word: String, after sql: String = "") throws {
        try shell.send("\(sql) SELECT '\(word)';")
        while true {
            let line = try shell.readLine()
            if line == word { return }
            if line.contains("rror") { throw ProcessFailure("sqlite3: \(line)") }
        }
    }

    /// Sizes from nothing to several pages of the database.
    private static let data = "printf('%d:%.*c', number, number * 977 % 9000, 'x')"

    public func step(_ number: Int) throws -> Bool {
        try say(
            "done \(number)",
            after: "INSERT INTO t SELECT number, \(Self.data) FROM (SELECT \(number) AS number);")
        return true
    }

    public func end() throws { shell.end() }

    public func problem(in directory: URL, promised: Int, begun: Int) throws -> String? {
        let result = try run([
            "sqlite3", "-batch", directory.appendingPathComponent("test.db").path,
            "PRAGMA integrity_check; SELECT count(*) FROM t; SELECT coalesce(max(number), 0) FROM t;"
                + "SELECT count(*) FROM t WHERE data <> \(Self.data);",
        ])
        let lines = result.output.split(separator: "\n")
        guard result.exitCode == 0, lines.count == 4, lines[0] == "ok",
            let count = Int(lines[1]), Int(lines[2]) == count, lines[3] == "0"
        else { return "\(result.output)\(result.errors)" }
        return count >= promised && count <= begun
            ? nil : "\(count) rows, \(promised) promised, \(begun) begun"
    }
}

/// In rollback mode only EXTRA also synchronizes the directory after the journal is deleted, which
/// is the commit.
public final class SQLiteRollback: SQLiteProgram {
    override class var setting: String { "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA;" }
}

public final class SQLiteWriteAhead: SQLiteProgram {
    override class var setting: String {
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=20;"
    }
}

// MARK: Writers

/// Every way of writing durably, one after the other.
public class AllWriters: PromisingProgram {
    static let kinds = ["append", "create", "replace", "osync", "odsync", "msync", "bystander"]
    private static let seed = "7"
    let writers: [PipedProcess]

    public required init(in directory: URL, scratch: URL) throws {
        writers = try Self.kinds.map {
            try PipedProcess([
                BuiltProgram.writers(), "--stepwise", "write", directory.path, Self.seed, $0,
            ])
        }
    }

    public func step(_ number: Int) throws -> Bool {
        let index = (number - 1) % writers.count
        try writers[index].send("go")
        try hear(index, step: (number - 1) / writers.count + 1)
        return true
    }

    func hear(_ index: Int, step: Int) throws {
        let answer = try writers[index].readLine()
        guard answer == "\(Self.kinds[index]) \(step)" else {
            throw ProcessFailure("\(answer), not \(Self.kinds[index]) \(step)")
        }
    }

    public func end() throws { for writer in writers { writer.end() } }

    /// How many steps of a kind there are in so many of all.
    class func steps(of index: Int, in promised: Int) -> Int {
        (promised + kinds.count - 1 - index) / kinds.count
    }

    public func problem(in directory: URL, promised: Int, begun: Int) throws -> String? {
        let kinds = Self.kinds.enumerated().map { index, kind in
            "\(kind)=\(Self.steps(of: index, in: promised))"
        }
        let result = try run(
            [BuiltProgram.writers(), "verify", directory.path, Self.seed] + kinds)
        return result.exitCode == 0 ? nil : result.output + result.errors
    }
}

/// The same all at once: each step is one of every writer.
public final class AllWritersAtOnce: AllWriters {
    public override func step(_ number: Int) throws -> Bool {
        for writer in writers { try writer.send("go") }
        for index in writers.indices { try hear(index, step: number) }
        return true
    }

    override class func steps(of index: Int, in promised: Int) -> Int { promised }
}

// MARK: git

public final class GitCommits: PromisingProgram {
    private let repository: URL
    private static let options = [
        "-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync", "-c", "gc.auto=0",
        "-c", "user.name=Nobody", "-c", "user.email=nobody@example.org",
        "-c", "safe.directory=*",
    ]

    private static func git(_ words: String..., in repository: URL) throws -> ProcessResult {
        try run(
            ["git", "-C", repository.path] + options + words,
            environment: ["GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"])
    }

    public init(in directory: URL, scratch: URL) throws {
        repository = directory.appendingPathComponent("repository")
        try require(["git", "init", "--quiet", repository.path])
    }

    private static func contents(_ number: Int) -> String {
        (1...number * 100).map { "line \($0) of \(number)\n" }.joined()
    }

    /// git synchronizes what a reference is renamed from, but not its directory: every second
    /// commit is made durable by somebody else, the others by the next.
    public func step(_ number: Int) throws -> Bool {
        for name in ["file", "file\(number)"] {
            try Self.contents(number).write(
                to: repository.appendingPathComponent(name), atomically: false, encoding: .utf8)
        }
        for words in [["add", "."], ["commit", "--quiet", "-m", "\(number)"]] {
            let result =
                words.count == 2
                ? try Self.git(words[0], words[1], in: repository)
                : try Self.git(words[0], words[1], words[2], words[3], in: repository)
            guard result.exitCode == 0 else { throw ProcessFailure("git: \(result.errors)") }
        }
        guard number % 2 == 0 else { return false }
        try synchronizeDirectory(repository)
        return true
    }

    public func end() throws {}

    public func problem(in directory: URL, promised: Int, begun: Int) throws -> String? {
        let repository = directory.appendingPathComponent("repository")
        let found = try Self.git("fsck", "--full", "--strict", "--no-dangling", in: repository)
        guard found.exitCode == 0 else { return "fsck: \(found.output)\(found.errors)" }
        let counted = try Self.git("rev-list", "--count", "HEAD", in: repository)
        let commits = Int(counted.output.dropLast()) ?? 0
        guard commits >= promised, commits <= begun else {
            return "\(commits) commits, \(promised) promised, \(begun) begun: \(counted.errors)"
        }
        guard commits > 0 else { return nil }
        let file = try Self.git("show", "HEAD:file\(commits)", in: repository)
        return file.output == Self.contents(commits) ? nil : "file\(commits) is not as committed"
    }
}

// MARK: dpkg

/// Upgrades of a small package below a root of its own.
public final class PackageUpgrades: PromisingProgram {
    private let root: URL
    private let scratch: URL
    private static let files = 5

    public init(in directory: URL, scratch: URL) throws {
        root = directory.appendingPathComponent("root")
        self.scratch = scratch
        for folder in ["info", "updates"] {
            try FileManager.default.createDirectory(
                at: root.appendingPathComponent("var/lib/dpkg/\(folder)"),
                withIntermediateDirectories: true)
        }
        for file in ["status", "available"] {
            try Data().write(to: root.appendingPathComponent("var/lib/dpkg/\(file)"))
        }
    }

    private static func contents(_ version: Int, _ file: Int) -> Data {
        Data(Payload(.random, seed: UInt64(version << 8 | file), count: file * 7000).bytes)
    }

    private func package(_ version: Int) throws -> String {
        let archive = scratch.appendingPathComponent("tiny_\(version).deb").path
        if FileManager.default.fileExists(atPath: archive) { return archive }
        let tree = scratch.appendingPathComponent("tiny_\(version)")
        let files = tree.appendingPathComponent("opt/tiny")
        for folder in [tree.appendingPathComponent("DEBIAN"), files] {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        }
        let control = """
            Package: tiny
            Version: \(version)
            Architecture: all
            Maintainer: Nobody <nobody@example.org>
            Description: something small

            """
        try control.write(
            to: tree.appendingPathComponent("DEBIAN/control"), atomically: false, encoding: .utf8)
        for file in 0..<Self.files {
            try Self.contents(version, file).write(to: files.appendingPathComponent("\(file)"))
        }
        // Whatever the umask is that another test has set.
        try require(["chmod", "-R", "u=rwX,go=rX", tree.path])
        try require(["dpkg-deb", "--root-owner-group", "--build", tree.path, archive])
        return archive
    }

    private func install(_ version: Int, in root: URL) throws {
        try require([
            "dpkg", "--root=\(root.path)", "--log=/dev/null", "--force-bad-path", "-i",
            try package(version),
        ])
    }

    public func step(_ number: Int) throws -> Bool {
        try install(number, in: root)
        return true
    }

    public func end() throws {}

    public func problem(in directory: URL, promised: Int, begun: Int) throws -> String? {
        let root = directory.appendingPathComponent("root")
        var version = try installed(in: root)
        if version == nil, begun > promised {
            // It was caught half-way, which dpkg cures by doing it again.
            try install(begun, in: root)
            version = try installed(in: root)
        }
        guard let version, version >= promised, version <= begun else {
            return "version \(version.map(String.init) ?? "none"), \(promised) promised"
        }
        guard version > 0 else { return nil }
        for file in 0..<Self.files {
            let path = root.appendingPathComponent("opt/tiny/\(file)")
            guard try Data(contentsOf: path) == Self.contents(version, file) else {
                return "file \(file) is not that of version \(version)"
            }
        }
        return nil
    }

    /// The version that is wholly installed; 0 if the package is unknown, nil if it is half-way.
    private func installed(in root: URL) throws -> Int? {
        let result = try run([
            "dpkg-query", "--admindir=\(root.path)/var/lib/dpkg", "-W",
            "-f=${Version} ${db:Status-Status}", "tiny",
        ])
        guard result.exitCode == 0 else { return 0 }
        let words = result.output.split(separator: " ")
        return words.count == 2 && words[1] == "installed" ? Int(words[0]) : nil
    }
}
