/// Real programs on a real mount, and a power cut at any moment: what each of them was told is
/// durable, the program itself finds again.
///
/// `AEGISFS_TEST_CUTS` sets how many cuts each program gets, `AEGISFS_TEST_SEED` which.
internal import FSTestSupport
internal import Foundation
internal import Testing

@Suite(.serialized) struct ProgramCrashTests {
    static let cuts = TestMachine.count("AEGISFS_TEST_CUTS", default: 12)

    enum Program: CaseIterable {
        case sqliteRollback, sqliteWriteAhead, writers, writersAtOnce, git, dpkg

        var kind: any PromisingProgram.Type {
            switch self {
            case .sqliteRollback: SQLiteRollback.self
            case .sqliteWriteAhead: SQLiteWriteAhead.self
            case .writers: AllWriters.self
            case .writersAtOnce: AllWritersAtOnce.self
            case .git: GitCommits.self
            case .dpkg: PackageUpgrades.self
            }
        }
        var tool: String {
            switch self {
            case .sqliteRollback, .sqliteWriteAhead: "sqlite3"
            case .writers, .writersAtOnce: "sync"
            case .git: "git"
            case .dpkg: "dpkg-deb"
            }
        }
        var steps: Int {
            switch self {
            case .sqliteRollback, .sqliteWriteAhead: 60
            case .writers: 140
            case .writersAtOnce: 40
            case .git: 8
            case .dpkg: 6
            }
        }
    }

    static let programs = Program.allCases.filter { program in
        let isThere = (try? run([program.tool, "--version"]).exitCode) == 0
        return TestMachine.can("crashes of \(program)", isThere ? nil : "no \(program.tool)")
    }

    @Test(.enabled(if: TestMachine.canMount), arguments: programs)
    func findsWhatItWasPromised(_ program: Program) throws {
        let seed = UInt64(TestMachine.count("AEGISFS_TEST_SEED", default: 1))
        var random = SeededRandom(seed: seed)
        try withTemporaryDirectory { folder in
            let mount = try RecordedMount(mebibytes: 64, in: folder)
            defer { mount.cleanUp() }
            let run = try PromisingRun(
                program.kind, steps: program.steps, on: mount, scratch: folder)
            let moments = try run.moments(Self.cuts, random: &random)
            for (number, moment) in moments.enumerated() {
                let what = "\(program), seed \(seed), cut at \(moment.position), \(moment.cut)"
                do {
                    let problem = try run.problem(
                        at: moment, seed: random.next(), checks: number % 4 == 0)
                    #expect(problem == nil, "\(what): \(problem ?? "")")
                } catch { Issue.record("\(what): \(error)") }
            }
        }
    }

    /// On a disk that lies about flushes promises are broken, and that is noticed.
    @Test(.enabled(if: TestMachine.canMount), arguments: programs)
    func noticesDroppedFlushes(_ program: Program) throws {
        var random = SeededRandom(seed: 1)
        try withTemporaryDirectory { folder in
            let mount = try RecordedMount(mebibytes: 64, in: folder)
            defer { mount.cleanUp() }
            try mount.dropFlushes()
            let run = try PromisingRun(
                program.kind, steps: program.steps, on: mount, scratch: folder)
            let isNoticed = try run.moments(16, random: &random).contains { moment in
                do {
                    return try run.problem(at: moment, seed: random.next(), checks: false) != nil
                } catch { return false }
            }
            #expect(isNoticed, "\(program)")
        }
    }
}
