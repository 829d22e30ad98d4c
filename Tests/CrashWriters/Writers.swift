/// Programs that write with a promise after every step, and can say afterwards whether what is
/// there is what some number of steps leaves: at least those that were acknowledged, at most one
/// that was under way, and nothing with a gap.
///
/// Of the step under way a write may be there in part: the kernel sends one that begins inside a
/// page in two requests, up to the end of that page and from there on.
import Glibc

/// Whether a write of `count` bytes at `offset` may end at `end` after a crash.
private func mayEnd(at end: Int, _ offset: Int, _ count: Int) -> Bool {
    end == offset || end == offset + count || end == firstPartEnd(offset, count)
}

private func firstPartEnd(_ offset: Int, _ count: Int) -> Int {
    min((offset / 4096 + 1) * 4096, offset + count)
}

protocol Writer: SendableMetatype {
    /// Everything of this writer lies below `directory`.
    init(directory: String, filler: Filler) throws
    /// Returns when step `step`, from 0 on, is durable.
    mutating func perform(_ step: Int) throws
    /// What is wrong with what is there, when this many steps were acknowledged.
    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
}

/// Appends of all sizes to one file, with fsync.
struct Appender: Writer {
    private let file: OpenFile
    private let filler: Filler
    private var size = 0

    init(directory: String, filler: Filler) throws {
        file = try OpenFile(directory + "/file", O_CREAT | O_WRONLY)
        self.filler = filler
    }

    private static func length(_ step: Int, _ filler: Filler) -> Int {
        1 + filler.number(step, below: step % 16 == 15 ? 200_000 : 9000)
    }

    mutating func perform(_ step: Int) throws {
        let count = Self.length(step, filler)
        try file.write(filler.bytes(at: size, count: count), at: size)
        size += count
        try file.synchronize()
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        let found = try contents(directory + "/file") ?? []
        let wanted = (0..<acknowledged).reduce(0) { $0 + length($1, filler) }
        if !mayEnd(at: found.count, wanted, length(acknowledged, filler)) {
            return "\(found.count) bytes, \(wanted) acknowledged"
        }
        return found == filler.bytes(at: 0, count: found.count) ? nil : "wrong contents"
    }
}

/// Three new files a step; the fsync of their directory is the promise for all of them.
struct Creator: Writer {
    private let directory: String
    private let filler: Filler
    private static let perStep = 3

    init(directory: String, filler: Filler) throws {
        self.directory = directory
        self.filler = filler
    }

    private static func bytes(_ number: Int, _ filler: Filler) -> [UInt8] {
        filler.forStep(number).bytes(at: 0, count: 1 + filler.number(number, below: 6000))
    }

    mutating func perform(_ step: Int) throws {
        for number in step * Self.perStep..<(step + 1) * Self.perStep {
            let file = try OpenFile("\(directory)/\(number)", O_CREAT | O_EXCL | O_WRONLY)
            try file.write(Self.bytes(number, filler), at: 0)
        }
        try synchronizeDirectory(directory)
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        let names = try names(in: directory)
        let count = names.count
        if names != Set((0..<count).map(String.init)) { return "gaps: \(names.sorted())" }
        if count < acknowledged * perStep || count > (acknowledged + 1) * perStep {
            return "\(count) files after \(acknowledged) steps"
        }
        for number in 0..<count {
            let found = try contents("\(directory)/\(number)")
            // The last file may have been created and not written yet.
            if found == bytes(number, filler) || found == [] && number == count - 1 { continue }
            return "file \(number) of \(count): wrong contents"
        }
        return nil
    }
}

/// The way to replace a file: a new one, fsync, rename, fsync of the directory. Every other step
/// leaves the first fsync out.
struct Replacer: Writer {
    private let directory: String
    private let filler: Filler

    init(directory: String, filler: Filler) throws {
        self.directory = directory
        self.filler = filler
    }

    private static func bytes(_ step: Int, _ filler: Filler) -> [UInt8] {
        filler.forStep(step).bytes(at: 0, count: 8 + filler.number(step, below: 20_000))
    }

    mutating func perform(_ step: Int) throws {
        let new = directory + "/new"
        let file = try OpenFile(new, O_CREAT | O_TRUNC | O_WRONLY)
        try file.write(Self.bytes(step, filler), at: 0)
        if step % 2 == 0 { try file.synchronize() }
        if rename(new, directory + "/current") != 0 { throw CallFailed(call: "rename") }
        try synchronizeDirectory(directory)
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        let found = try contents(directory + "/current")
        let isThere = (acknowledged - 1...acknowledged).contains { step in
            step < 0 ? found == nil : found == bytes(step, filler)
        }
        return isThere ? nil : "the file is neither that of step \(acknowledged) nor of the next"
    }
}

/// Writes that are durable by themselves, over and over the same places.
struct Slots: Writer {
    private let file: OpenFile
    private let filler: Filler
    static let count = 16
    static let size = 5000

    init(directory: String, filler: Filler) throws {
        try self.init(directory, filler, O_SYNC)
    }
    init(_ directory: String, _ filler: Filler, _ flag: Int32) throws {
        file = try OpenFile(directory + "/slots", O_CREAT | O_WRONLY | flag)
        self.filler = filler
    }

    mutating func perform(_ step: Int) throws {
        try file.write(
            filler.forStep(step).bytes(at: 0, count: Self.size), at: step % Self.count * Self.size)
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        let found = try contents(directory + "/slots") ?? []
        var expected: [UInt8] = []
        for step in max(acknowledged - count, 0)..<acknowledged { apply(step, filler, &expected) }
        if found == expected { return nil }
        let start = acknowledged % count * size
        apply(acknowledged, filler, &expected, upTo: firstPartEnd(start, size) - start)
        if found == expected { return nil }
        apply(acknowledged, filler, &expected)
        return found == expected ? nil : "not what \(acknowledged) writes leave, nor one more"
    }

    private static func apply(
        _ step: Int, _ filler: Filler, _ bytes: inout [UInt8], upTo limit: Int = size
    ) {
        let start = step % count * size
        if bytes.count < start + limit {
            bytes += [UInt8](repeating: 0, count: start + limit - bytes.count)
        }
        bytes.replaceSubrange(
            start..<start + limit, with: filler.forStep(step).bytes(at: 0, count: limit))
    }
}

struct DataSlots: Writer {
    private var slots: Slots
    init(directory: String, filler: Filler) throws {
        slots = try Slots(directory, filler, O_DSYNC)
    }
    mutating func perform(_ step: Int) throws { try slots.perform(step) }
    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        try Slots.problem(directory, filler, acknowledged: acknowledged)
    }
}

/// A shared mapping and msync.
struct Mapper: Writer {
    private let filler: Filler
    private let file: OpenFile
    private let memory: UnsafeMutableRawPointer
    private static let pages = 8
    private static let size = 4096

    init(directory: String, filler: Filler) throws {
        self.filler = filler
        file = try OpenFile(directory + "/mapped", O_CREAT | O_RDWR)
        guard ftruncate(file.descriptor, off_t(Self.pages * Self.size)) == 0 else {
            throw CallFailed(call: "ftruncate")
        }
        try file.synchronize()
        guard
            let memory = mmap(
                nil, Self.pages * Self.size, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0),
            memory != MAP_FAILED
        else { throw CallFailed(call: "mmap") }
        self.memory = memory
    }

    mutating func perform(_ step: Int) throws {
        let page = memory + step % Self.pages * Self.size
        filler.forStep(step).bytes(at: 0, count: Self.size).withUnsafeBytes {
            page.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
        }
        if msync(page, Self.size, MS_SYNC) != 0 { throw CallFailed(call: "msync") }
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        guard let found = try contents(directory + "/mapped") else {
            return acknowledged == 0 ? nil : "no file"
        }
        if found.isEmpty, acknowledged == 0 { return nil }
        if found.count != pages * size { return "\(found.count) bytes" }
        for page in 0..<pages {
            // The newest acknowledged step of this page, and one behind all acknowledged ones.
            let next = acknowledged % pages == page ? acknowledged : nil
            let last = (0..<acknowledged).last { $0 % pages == page }
            let old =
                last.map { filler.forStep($0).bytes(at: 0, count: size) }
                ?? [UInt8](repeating: 0, count: size)
            let new = next.map { filler.forStep($0).bytes(at: 0, count: size) } ?? old
            // The kernel may write a page back while it is being changed.
            let isRight = (0..<size).allSatisfy { index in
                let byte = found[page * size + index]
                return byte == old[index] || byte == new[index]
            }
            if !isRight { return "page \(page) is not that of step \(last ?? -1)" }
        }
        return nil
    }
}

/// Records to two files in turns; the promise is the fsync of a third.
struct Bystander: Writer {
    private let files: [OpenFile]
    private let third: OpenFile
    private let filler: Filler
    private static let size = 3000
    private static let perStep = 8

    init(directory: String, filler: Filler) throws {
        files = try ["a", "b"].map { try OpenFile("\(directory)/\($0)", O_CREAT | O_WRONLY) }
        third = try OpenFile(directory + "/c", O_CREAT | O_WRONLY)
        self.filler = filler
    }

    mutating func perform(_ step: Int) throws {
        for number in step * Self.perStep..<(step + 1) * Self.perStep {
            let offset = number / 2 * Self.size
            try files[number % 2].write(
                filler.forStep(number % 2).bytes(at: offset, count: Self.size), at: offset)
        }
        try third.synchronize()
    }

    static func problem(_ directory: String, _ filler: Filler, acknowledged: Int) throws -> String?
    {
        var sizes: [Int] = []
        for (index, name) in ["a", "b"].enumerated() {
            let found = try contents("\(directory)/\(name)") ?? []
            if found != filler.forStep(index).bytes(at: 0, count: found.count) {
                return "\(name): wrong contents"
            }
            sizes.append(found.count)
        }
        // Records that are whole; only the next may be there in part.
        let whole = sizes[0] / size + sizes[1] / size
        let isInTurns = (0...1).allSatisfy { index in
            let records = (whole + 1 - index) / 2
            let offset = records * size
            return whole % 2 == index
                ? mayEnd(at: sizes[index], offset, size) : sizes[index] == offset
        }
        if !isInTurns { return "\(sizes[0]) bytes in one file and \(sizes[1]) in the other" }
        return whole >= acknowledged * perStep && whole <= (acknowledged + 1) * perStep
            ? nil : "\(whole) records after \(acknowledged) steps"
    }
}
