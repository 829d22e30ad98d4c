/// `aegisfs-conformance compare DIRECTORY DIRECTORY SEED CALLS [FROM]`: the same random system calls
/// in two directories, by several processes in turn, until one gives something else in one of them.
///
///     driver ──number of the call──▶ worker: the call in the one directory, then in the other
///            ◀────both outcomes────
///
/// Calls follow each other, because only then both sides must give the same. Every few hundred calls
/// everything below both directories is compared, too; from call FROM on after each, to find out which
/// one it was.
internal import CCalls
internal import FSTestSupport
internal import Glibc

enum DifferentialRun {
    private static let workers: [User?] = [nil, User.alice, User.bob, nil]
    private static let callsBetweenComparisons = 200

    static func run(_ arguments: [String]) -> Int32 {
        guard (4...5).contains(arguments.count), let seed = UInt64(arguments[2]),
            let calls = Int(arguments[3]),
            let everyCallFrom = arguments.count == 5 ? Int(arguments[4]) : .max,
            let roots = openRoots(Array(arguments[..<2]))
        else {
            print(
                "usage, as root: aegisfs-conformance compare DIRECTORY DIRECTORY SEED CALLS [FROM]")
            return 2
        }
        signal(SIGPIPE, SIG_IGN)
        var processes: [Process] = []
        for user in workers { processes.append(start(user, seed, roots, beside: processes)) }
        defer { for process in processes { process.end() } }
        var generator = RandomCalls(seed: seed, workers: workers.count)
        let walks = [TreeWalk(), TreeWalk()]
        var history: [String] = []
        for number in 0..<calls {
            let call = generator.next()
            guard let outcomes = processes[call.worker].make(number) else {
                print("FAIL seed \(seed), call \(number): \(call.description): no answer")
                return 1
            }
            history.append("\(number) \(call.description) -> \(outcomes[0].result)")
            if history.count > 4000 { history.removeFirst(2000) }
            if outcomes[0] != outcomes[1] {
                report(
                    "seed \(seed), call \(number): \(call.description): "
                        + "\(shown(outcomes[0])) against \(shown(outcomes[1]))", history)
                return 1
            }
            if number % callsBetweenComparisons == callsBetweenComparisons - 1
                || number == calls - 1 || number >= everyCallFrom
            {
                // Longer than a tick of the clock that times are taken from, before and after.
                usleep(12_000)
                if let difference = difference(walks, roots) {
                    report("seed \(seed), state after call \(number): \(difference)", history)
                    return 1
                }
                usleep(12_000)
            }
        }
        print("ok \(calls) calls, seed \(seed)")
        return 0
    }

    /// What differed, and behind it every call that led there.
    private static func report(_ difference: String, _ history: [String]) {
        print("FAIL \(difference)")
        for line in history { print("  \(line)") }
    }

    private static func shown(_ outcome: Outcome) -> String {
        outcome.result < 0
            ? String(cString: strerror(Int32(-outcome.result)))
            : "\(outcome.result), hash \(String(outcome.hash, radix: 16))"
    }

    /// A worker's own words: past the buffer that it has from the driver.
    private static func say(_ line: String) {
        let text = line + "\n"
        text.withCString { _ = cc_write(1, $0, text.utf8.count) }
    }

    private static func openRoots(_ paths: [String]) -> [Int32]? {
        let roots = paths.map { path in
            let root = path + "/compared"
            _ = cc_mkdir(HERE, root, 0o777)
            _ = cc_chmod(HERE, root, 0o777)
            return Int32(cc_open(HERE, root, O_RDONLY | O_DIRECTORY, 0))
        }
        return geteuid() == 0 && roots.allSatisfy { $0 >= 0 } ? roots : nil
    }

    private static func difference(_ walks: [TreeWalk], _ roots: [Int32]) -> String? {
        let trees = zip(walks, roots).map { $0.entries(of: $1) }
        for (one, other) in zip(trees[0], trees[1]) where one != other {
            let facts = zip(one.facts, other.facts).filter { $0 != $1 }
            return "\(one.path): " + facts.map { "\($0) against \($1)" }.joined(separator: ", ")
        }
        guard trees[0].count == trees[1].count else {
            return "\(trees[0].count) paths against \(trees[1].count)"
        }
        return nil
    }

    // MARK: Processes

    private struct Process {
        var id: Int32
        var requests: Int32
        var answers: Int32

        func make(_ number: Int) -> [Outcome]? {
            var request = number
            guard cc_write(requests, &request, 8) == 8 else { return nil }
            var words = [Int](repeating: 0, count: 4)
            guard cc_read(answers, &words, 32) == 32 else { return nil }
            return [
                Outcome(result: words[0], hash: UInt64(bitPattern: Int64(words[1]))),
                Outcome(result: words[2], hash: UInt64(bitPattern: Int64(words[3]))),
            ]
        }

        func end() {
            _ = cc_close(requests)
            _ = cc_close(answers)
            var status: Int32 = 0
            _ = cc_wait(id, &status)
        }
    }

    private static func start(
        _ user: User?, _ seed: UInt64, _ roots: [Int32], beside others: [Process]
    ) -> Process {
        var requests: [Int32] = [0, 0]
        var answers: [Int32] = [0, 0]
        _ = cc_pipe(&requests)
        _ = cc_pipe(&answers)
        let child = cc_fork()
        if child == 0 {
            // Else the driver's end would never be the last one, and reading never end.
            for end in [requests[1], answers[0]] + others.flatMap({ [$0.requests, $0.answers] }) {
                _ = cc_close(end)
            }
            serve(user, seed, roots, requests[0], answers[1])
            _exit(0)
        }
        _ = cc_close(requests[0])
        _ = cc_close(answers[1])
        return Process(id: Int32(child), requests: requests[1], answers: answers[0])
    }

    private static func serve(
        _ user: User?, _ seed: UInt64, _ roots: [Int32], _ requests: Int32, _ answers: Int32
    ) {
        if let user {
            _ = cc_set_groups(Int32(user.groups.count), user.groups)
            _ = cc_set_group(user.group, user.group, user.group)
            _ = cc_set_user(user.id, user.id, user.id)
        }
        _ = cc_umask(0o022)
        let sides = roots.map { CallSide(root: $0) }
        var generator = RandomCalls(seed: seed, workers: workers.count)
        var made = -1
        var wanted = 0
        while cc_read(requests, &wanted, 8) == 8 {
            var call = generator.next()
            made += 1
            while made < wanted {
                call = generator.next()
                made += 1
            }
            // A call that never comes back ends the worker, which the driver hears.
            alarm(60)
            let outcomes = sides.map { $0.make(call) }
            alarm(0)
            if outcomes[0] != outcomes[1] {
                for outcome in outcomes where !outcome.detail.isEmpty { say(outcome.detail) }
            }
            let words = outcomes.flatMap { [$0.result, Int(bitPattern: UInt($0.hash))] }
            guard cc_write(answers, words, 32) == 32 else { return }
        }
    }
}
