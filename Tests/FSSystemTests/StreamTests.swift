/// Streams of snapshots: what comes out of them is what went in, on volumes of other settings, after an
/// interruption, a power cut, and never from a damaged one.
@testable internal import FSCore
@testable internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite struct StreamTests {
    static func format(
        _ device: any BlockDevice, _ change: (inout FormatOptions) -> Void = { _ in }
    ) throws -> Volume {
        var options = FormatOptions()
        change(&options)
        _ = try VolumeFormatter.format(device, modules: .standard, options: options)
        return try Volume.open(device, modules: .standard, options: CrashRun.openOptions)
    }

    /// A volume of other settings than the one that sends.
    static func receiver(_ seed: UInt64) throws -> (MemoryBlockDevice, Volume) {
        let device = MemoryBlockDevice(byteCount: 192 << 20)
        let volume = try format(device) { options in
            options.checksumKind = [.crc32c, .xxh3, .sha256][Int(seed % 3)]
            options.dataCopies = seed % 2 == 0 ? 1 : 2
            options.compression = seed % 4 == 1 ? .standard : .inherited
        }
        return (device, volume)
    }

    static func stream(
        _ volume: Volume, _ name: [UInt8], from base: [UInt8]? = nil, first: UInt64 = 1
    ) throws -> [UInt8] {
        var bytes: [UInt8] = []
        let summary = try StreamSender.run(volume.snapshotStore, name, from: base, first: first) {
            (view) throws(FSError) in bytes += view.toArray()
        }
        #expect(summary.bytes == UInt64(bytes.count))
        let estimate = try StreamSender.run(
            volume.snapshotStore, name, from: base, first: first, output: nil)
        #expect(estimate == summary)
        return bytes
    }

    @discardableResult
    static func receive(
        _ bytes: [UInt8], into volume: Volume, as name: [UInt8]? = nil
    ) throws(StreamError) -> StreamReceiver.Summary {
        let pipe = Pipe(bytes)
        return try StreamReceiver.run(volume.snapshotStore, name: name) {
            (target) throws(StreamError) in pipe.read(into: target)
        }
    }

    /// How a stream is refused; nil if it is not.
    static func failure(of bytes: [UInt8], into volume: Volume) -> StreamError? {
        do throws(StreamError) {
            try receive(bytes, into: volume)
            return nil
        } catch { return error }
    }

    /// Hands out bytes as a pipe does: in pieces of any length.
    private final class Pipe {
        private let bytes: ByteBuffer
        private let count: Int
        private var position = 0

        init(_ source: [UInt8]) {
            count = source.count
            bytes = ByteBuffer(count: max(count, 1))
            source.withView { bytes.bytes.copy($0) }
        }

        func read(into target: MutableByteView) -> Int {
            let length = min(target.count, count - position, 1 + position % 40_000)
            target.copy(bytes.view.slice(position, length))
            position += length
            return length
        }
    }

    /// Everything that stat(2) and the like show, by path, with all times and flags.
    private static func records(
        _ files: FileSystem
    ) throws -> [[UInt8]: FileSystem.ReceivedRecord] {
        var found: [[UInt8]: FileSystem.ReceivedRecord] = [:]
        func visit(_ inode: InodeNumber, _ path: [UInt8]) throws {
            let record = try files.record(of: inode)
            found[path] = FileSystem.ReceivedRecord(record)
            guard record.isDirectory else { return }
            for name in try files.names(in: inode) {
                let child = try name.withView { try files.entry(named: $0, in: inode) }
                try visit(try #require(child), path + [0x2F] + name)
            }
        }
        try visit(.root, [])
        return found
    }

    static func expectEqual(
        _ name: [UInt8], _ a: Volume, _ b: Volume, _ comment: String
    ) throws {
        let (from, to) = (
            try a.snapshotStore.files(of: name), try b.snapshotStore.files(of: name)
        )
        let difference = try to.treeView().firstDifference(fromExpected: try from.treeView())
        #expect(difference == nil, "\(comment): \(difference ?? "")")
        let (expected, found) = (try records(from), try records(to))
        for (path, record) in expected where found[path] != record {
            Issue.record(
                "\(comment): \(shown(path)): \(record), found \(String(describing: found[path]))")
        }
    }

    /// Snapshots of several heads, after rollbacks and clones: each is sent upon any other.
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func everySnapshotArrives(seed: UInt64) throws {
        let session = try SnapshotSession.grown(seed: seed)
        let source = session.volume
        let (_, target) = try Self.receiver(seed)
        var random = SeededRandom(seed: seed)
        var sent: [[UInt8]] = []
        var names = session.snapshotNames
        names.shuffle(using: &random)
        for name in names {
            let base = random.chance(1, in: 5) ? nil : sent.randomElement(using: &random)
            let bytes = try Self.stream(source, name, from: base)
            try Self.receive(bytes, into: target)
            try Self.expectEqual(name, source, target, "seed \(seed)")
            sent.append(name)
        }
        #expect(sent.count >= 2)
        #expect(try Checker.check(target).isClean)
        // Sent on from there, it is the same again.
        let (_, third) = try Self.receiver(seed + 1)
        for (index, name) in sent.prefix(3).enumerated() {
            let base = index == 0 ? nil : sent[index - 1]
            try Self.receive(try Self.stream(target, name, from: base), into: third)
            try Self.expectEqual(name, source, third, "sent on, seed \(seed)")
        }
        #expect(try Checker.check(third).isClean)
        // Nothing is left of them.
        try target.snapshotStore.delete(sent)
        try target.snapshotStore.sweep()
        #expect(target.snapshotStore.nodeCount == 1)
        #expect(try Checker.check(target).isClean)
    }

    /// A source with two snapshots, many kinds of changes between them.
    static func pair(_ seed: UInt64) throws -> Volume {
        let volume = try format(MemoryBlockDevice(byteCount: 128 << 20))
        let session = RandomSession(seed: seed, executor: FileSystemExecutor(volume.fileSystem))
        try session.run(300)
        try volume.snapshotStore.create(SnapshotLabel(name: Array("one".utf8)))
        try session.run(300)
        try volume.snapshotStore.create(SnapshotLabel(name: Array("two".utf8)))
        return volume
    }
    static let one = Array("one".utf8)
    static let two = Array("two".utf8)

    @Test(arguments: 1...4 as ClosedRange<UInt64>) func goesOnAfterAnInterruption(
        seed: UInt64
    ) throws {
        let source = try Self.pair(seed)
        var random = SeededRandom(seed: seed)
        for base in [nil, Self.one] {
            let bytes = try Self.stream(source, Self.two, from: base)
            for _ in 0..<6 {
                let (_, target) = try Self.receiver(seed)
                if base != nil { try Self.receive(try Self.stream(source, Self.one), into: target) }
                for round in 0..<2 {
                    let partial = try target.snapshotStore.partialCopies().first
                    let cut = Array(bytes.prefix(random.integer(in: 200...bytes.count - 1)))
                    guard case .cut = Self.failure(of: cut, into: target) else {
                        Issue.record("a stream that is cut short was not refused")
                        return
                    }
                    #expect(try Checker.check(target).isClean)
                    let after = try #require(try target.snapshotStore.partialCopies().first)
                    #expect(round == 0 || after.next >= partial?.next ?? 1)
                    #expect(throws: FSError.noSuchEntry) {
                        try target.snapshotStore.files(ofClone: after.name)
                    }
                }
                let partial = try #require(try target.snapshotStore.partialCopies().first)
                if random.chance(1, in: 2) {
                    let token = try #require(ResumeToken(partial.token))
                    #expect(source.snapshotStore.name(ofIdentity: token.snapshot) == Self.two)
                    let rest = try Self.stream(source, Self.two, from: base, first: token.next)
                    #expect(token.next == 1 || rest.count < bytes.count)
                    try Self.receive(rest, into: target)
                } else {
                    try Self.receive(bytes, into: target)
                }
                try Self.expectEqual(Self.two, source, target, "seed \(seed)")
                #expect(try target.snapshotStore.partialCopies().isEmpty)
                #expect(try Checker.check(target).isClean)
            }
        }
    }

    /// One byte is another: the record that has it is named, and nothing of it taken over.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func damageIsRefused(seed: UInt64) throws {
        let source = try Self.pair(seed)
        var random = SeededRandom(seed: seed)
        let bytes = try Self.stream(source, Self.two)
        // Where each record begins.
        var starts: [Int] = []
        var position = 0
        while position < bytes.count {
            starts.append(position)
            position += 40 + Int(bytes.withView { $0.u32(position + 8) })
        }
        let (_, target) = try Self.receiver(seed)
        for _ in 0..<60 {
            var damaged = bytes
            let place = random.integer(in: 0...bytes.count - 1)
            damaged[place] ^= UInt8(1 << random.below(8))
            let record = UInt64((starts.lastIndex { $0 <= place }) ?? 0)
            switch Self.failure(of: damaged, into: target) {
            case nil: Issue.record("a bit at \(place) was not noticed")
            case .damaged(let named, _), .cut(let named): #expect(named == record)
            case .unknownVersion, .notAStream: #expect(record == 0)
            case let other: Issue.record("\(String(describing: other))")
            }
        }
        #expect(try Checker.check(target).isClean)
        try Self.receive(bytes, into: target)
        try Self.expectEqual(Self.two, source, target, "seed \(seed)")
    }

    /// Records with a right sum that no sender writes: each is refused, none harms the volume.
    @Test(arguments: 1...3 as ClosedRange<UInt64>) func hostileRecordsAreRefused(
        seed: UInt64
    ) throws {
        let source = try Self.pair(seed)
        var random = SeededRandom(seed: seed)
        let bytes = try Self.stream(source, Self.two)
        var records: [StreamRecord] = []
        let pipe = Pipe(bytes)
        var reader = StreamReader { (target) throws(StreamError) in pipe.read(into: target) }
        repeat { records.append(try reader.read()) } while records.last?.kind != .end
        for _ in 0..<80 {
            let (_, target) = try Self.receiver(seed)
            var hostile = records
            for _ in 0...random.below(3) {
                let index = random.integer(in: 0...hostile.count - 1)
                switch random.below(4) {
                case 0: hostile.remove(at: index)
                case 1: hostile.insert(hostile[random.below(hostile.count)], at: index)
                case 2:
                    if !hostile[index].payload.isEmpty {
                        let at = random.below(hostile[index].payload.count)
                        hostile[index].payload[at] = UInt8(truncatingIfNeeded: random.next())
                    }
                default:
                    let count = random.below(hostile[index].payload.count + 1)
                    hostile[index].payload.removeLast(count)
                }
                if hostile.isEmpty { break }
            }
            var forged: [UInt8] = []
            for (number, record) in hostile.enumerated() {
                var record = record
                record.number = UInt64(number)
                forged += record.encoded().view.toArray()
            }
            // Whatever it says: no trap, and a volume without findings.
            _ = Self.failure(of: forged, into: target)
            let report = try Checker.check(target)
            #expect(report.isClean, "\(report.findings.first?.message ?? "")")
        }
    }

    @Test func theWrongBaseIsRefused() throws {
        let source = try Self.pair(9)
        let (_, target) = try Self.receiver(9)
        let upon = try Self.stream(source, Self.two, from: Self.one)
        // A snapshot of the same name is not the same snapshot.
        try target.snapshotStore.create(SnapshotLabel(name: Self.one))
        let first = try #require(source.snapshotStore.node(named: Self.one)?.record.uuid)
        #expect(Self.failure(of: upon, into: target) == .wrongBase(first))
        try Self.receive(try Self.stream(source, Self.one), into: target, as: Array("base".utf8))
        try Self.receive(upon, into: target)
        try Self.expectEqual(Self.two, source, target, "upon a renamed base")
        #expect(Self.failure(of: upon, into: target) == .alreadyReceived(name: Self.two))
        let late = try Self.stream(source, Self.two, from: Self.one, first: 5)
        let (_, other) = try Self.receiver(8)
        try Self.receive(try Self.stream(source, Self.one), into: other)
        #expect(Self.failure(of: late, into: other) == .wrongPlace(first: 5, expected: 1))
    }

    /// A snapshot that is being sent cannot be deleted.
    @Test func whatIsSentStays() throws {
        let source = try Self.pair(3)
        let store = source.snapshotStore
        var tried = false
        _ = try StreamSender.run(store, Self.two, from: Self.one) { (_) throws(FSError) in
            if tried { return }
            tried = true
            for name in [Self.one, Self.two] {
                do throws(FSError) {
                    try store.delete([name])
                    Issue.record("deleted while it is sent")
                } catch .busy {}
            }
        }
        #expect(tried)
        try store.delete([Self.one, Self.two])
    }

    /// Power cuts in the middle of a receive: the volume is clean, and the stream goes on.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func everyCrashLeavesACleanVolume(
        seed: UInt64
    ) throws {
        let source = try Self.pair(seed)
        let device = SimulatedBlockDevice(byteCount: 96 << 20)
        let target = try Self.format(device)
        let isIncremental = seed % 2 == 0
        if isIncremental { try Self.receive(try Self.stream(source, Self.one), into: target) }
        try target.checkpoint()
        let first = device.eventCount
        let bytes = try Self.stream(source, Self.two, from: isIncremental ? Self.one : nil)
        try Self.receive(bytes, into: target)
        var random = SeededRandom(seed: seed)
        for _ in 0..<30 {
            let event = random.integer(in: first...device.eventCount)
            let crashed = device.crashed(
                after: event, random.pick([.anySubset, .nothing, .everything, .allTorn]),
                tornAt: 512, random: &random)
            let volume = try Volume.open(
                crashed, modules: .standard, options: CrashRun.openOptions)
            let report = try Checker.check(volume)
            #expect(report.isClean, "event \(event): \(report.findings.first?.message ?? "")")
            if volume.snapshotStore.isSnapshot(Self.two) {
                #expect(try volume.snapshotStore.partialCopies().isEmpty)
            } else {
                try Self.receive(bytes, into: volume)
            }
            try Self.expectEqual(Self.two, source, volume, "event \(event)")
            #expect(try Checker.check(volume).isClean)
        }
    }
}
