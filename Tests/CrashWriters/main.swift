/// A witness outside the daemon: writes by several ways, says for each step when it is durable,
/// and examines later what is there.
///
///     aegisfs-writers write DIRECTORY SEED KIND...
///         each kind on a thread of its own, until a call fails; prints "KIND STEPS" after each
///         step, which a line on standard input allows when `--stepwise` is given first
///     aegisfs-writers verify DIRECTORY SEED KIND=STEPS...
///         prints what is wrong; exit code 1 if anything is
import Glibc

var words = CommandLine.arguments.dropFirst()
let isStepwise = words.first == "--stepwise"
if isStepwise { words.removeFirst() }
guard words.count >= 4, let verb = words.popFirst(), let root = words.popFirst(),
    let seed = words.popFirst().flatMap(UInt64.init)
else { fail("usage: see main.swift") }
let assignments = words.map { Assignment($0[...], root, seed) }

switch verb {
case "write" where isStepwise:
    for assignment in assignments { assignment.run(isStepwise: true) }
case "write": Assignment.runAll(assignments)
case "verify":
    var isRight = true
    for assignment in assignments {
        do {
            let problem = try assignment.writer.problem(
                assignment.directory, assignment.filler, acknowledged: assignment.steps)
            guard let problem else { continue }
            say("\(assignment.name), \(assignment.steps) steps: \(problem)")
        } catch { say("\(assignment.name), \(assignment.steps) steps: \(error)") }
        isRight = false
    }
    exit(isRight ? 0 : 1)
default: fail("no verb \(verb)")
}
