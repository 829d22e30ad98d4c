/// One writer with its directory and its seed, as the command line names it.
import Glibc

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    // One call, so that lines of threads do not mix and nothing is lost in a buffer.
    _ = bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
}

func fail(_ why: String) -> Never {
    say(why)
    exit(2)
}

struct Assignment {
    private static let kinds: [(name: String, writer: any Writer.Type)] = [
        ("append", Appender.self), ("create", Creator.self), ("replace", Replacer.self),
        ("osync", Slots.self), ("odsync", DataSlots.self), ("msync", Mapper.self),
        ("bystander", Bystander.self),
    ]

    var name: String
    var writer: any Writer.Type
    var directory: String
    var filler: Filler
    /// Steps that were acknowledged, for `verify`.
    var steps: Int

    init(_ word: Substring, _ root: String, _ seed: UInt64) {
        let parts = word.split(separator: "=")
        guard let index = Self.kinds.firstIndex(where: { $0.name == parts[0] }) else {
            fail("no kind \(word)")
        }
        name = Self.kinds[index].name
        writer = Self.kinds[index].writer
        directory = "\(root)/\(name)"
        filler = Filler(seed: seed &* 64 &+ UInt64(index))
        steps = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
    }

    /// Performs steps until one fails.
    func run(isStepwise: Bool) {
        do {
            try makeDirectory(directory)
            var writer = try writer.init(directory: directory, filler: filler)
            var step = 0
            while !isStepwise || readLine() != nil {
                try writer.perform(step)
                step += 1
                say("\(name) \(step)")
            }
        } catch { say("# \(name): \(error)") }
    }

    /// Each on a thread of its own, until all have ended.
    static func runAll(_ assignments: [Assignment]) {
        var threads: [pthread_t] = []
        for assignment in assignments {
            var thread = pthread_t()
            let box = Unmanaged.passRetained(Box(assignment))
            pthread_create(
                &thread, nil,
                { argument in
                    if let argument {
                        Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().assignment
                            .run(isStepwise: false)
                    }
                    return nil
                }, box.toOpaque())
            threads.append(thread)
        }
        for thread in threads { pthread_join(thread, nil) }
    }

    private final class Box {
        let assignment: Assignment
        init(_ assignment: Assignment) { self.assignment = assignment }
    }
}
