/// The device fails at its n-th read, write or flush, for every n: whoever asked is told, nobody
/// gets a wrong answer, and what was acknowledged before is there when the device works again.
///
/// With `AEGISFS_TEST_FAULTS` over 1 every fault meets every kind of power cut.
internal import FSCore
internal import FSModules
internal import FSTestSupport
internal import Testing

@Suite(.serialized, .timeLimit(.minutes(15))) struct JournalFaultTests {
    enum Script: CaseIterable {
        case everything, ring

        var steps: [FaultRun.Step] { self == .ring ? FaultRun.ringScript : FaultRun.script }
        func makeRun() throws -> FaultRun {
            self == .ring ? try FaultRun(journalByteCount: 2 << 20) : try FaultRun()
        }
    }

    enum Duration: CaseIterable {
        case once
        /// Longer than a read is tried again.
        case burst
        case sticky

        func inject(
            _ call: SimulatedBlockDevice.Fault.Call, _ number: Int, _ device: SimulatedBlockDevice
        ) {
            let count = self == .burst ? 4 : 1
            for index in 0..<count {
                device.inject(.init(call, .fail, after: number + index, isSticky: self == .sticky))
            }
        }
    }

    private static let remains: [SimulatedBlockDevice.InFlight] = [
        .everything, .nothing, .anySubset,
    ]
    private static let isThorough = TestMachine.count("AEGISFS_TEST_FAULTS", default: 1) > 1

    /// How many calls of one kind there were.
    private static func calls(
        _ call: SimulatedBlockDevice.Fault.Call, _ device: SimulatedBlockDevice
    ) -> Int {
        let counters = device.counters
        return switch call {
        case .read: Int(counters.reads)
        case .write: Int(counters.writes)
        case .flush: Int(counters.flushes)
        }
    }

    // MARK: In use

    /// A write or a flush that fails latches the volume: nothing is acknowledged any more.
    @Test(
        arguments: Script.allCases,
        [
            (SimulatedBlockDevice.Fault.Call.write, Duration.once), (.write, .sticky),
            (.flush, .once),
            (.flush, .sticky),
        ])
    func latchesAtTheFirstFailure(
        _ script: Script, _ fault: (call: SimulatedBlockDevice.Fault.Call, duration: Duration)
    ) throws {
        try forEveryCall(fault.call, fault.duration, script) { run, what in
            #expect(!run.failures.isEmpty, "\(what): nobody was told")
        }
    }

    /// A read that fails once is tried again and never seen.
    @Test(arguments: Script.allCases) func hidesASingleReadError(_ script: Script) throws {
        try forEveryCall(.read, .once, script) { run, what in
            #expect(run.failures.isEmpty, "\(what): \(run.failures)")
            #expect(!run.isLatched, "\(what)")
        }
    }

    /// Other read errors are told, and nothing wrong is answered or made durable.
    @Test(arguments: Script.allCases, [Duration.burst, .sticky])
    func tellsReadErrors(_ script: Script, _ duration: Duration) throws {
        try forEveryCall(.read, duration, script) { _, _ in }
    }

    private func forEveryCall(
        _ call: SimulatedBlockDevice.Fault.Call, _ duration: Duration, _ script: Script,
        _ examine: (FaultRun, String) throws -> Void
    ) throws {
        let undisturbed = try script.makeRun()
        let before = Self.calls(call, undisturbed.device)
        try undisturbed.perform(script.steps)
        #expect(undisturbed.failures.isEmpty && undisturbed.problems.isEmpty)
        let count = Self.calls(call, undisturbed.device) - before
        try #require(count > 10, "\(call) is hardly called")
        for number in 1...count {
            let what = "\(call) \(number) of \(count), \(duration)"
            let run = try script.makeRun()
            duration.inject(call, number, run.device)
            try run.perform(script.steps)
            #expect(run.problems.isEmpty, "\(what): \(run.problems)")
            try examine(run, what)
            run.abandon()
            run.device.clearFaults()
            // One kind of power cut in turn; the long run tries all of them behind every fault.
            for (index, kind) in Self.remains.enumerated()
            where Self.isThorough || number % Self.remains.count == index {
                let problem = run.problem(with: run.remains(kind))
                #expect(problem == nil, "\(what), \(kind): \(problem ?? "")")
            }
        }
    }

    // MARK: Recovery

    /// Opening after a crash fails, or it works; it neither forgets anything nor spoils the next
    /// attempt.
    @Test(
        arguments: [SimulatedBlockDevice.Fault.Call.read, .write, .flush], Duration.allCases)
    func recoveryStandsFaults(
        _ call: SimulatedBlockDevice.Fault.Call, _ duration: Duration
    ) throws {
        for script in Script.allCases {
            let run = try script.makeRun()
            try run.perform(script.steps)
            run.abandon()
            for (index, kind) in Self.remains.enumerated() {
                let crashed = run.remains(kind)
                let undisturbed = crashed.copy()
                #expect(run.problem(with: undisturbed) == nil)
                let count = Self.calls(call, undisturbed)
                for number in 1...count
                where Self.isThorough || number % Self.remains.count == index {
                    let what = "\(script), \(kind), \(call) \(number) of \(count), \(duration)"
                    let device = crashed.copy()
                    duration.inject(call, number, device)
                    examineRecovery(run, device, what)
                    device.clearFaults()
                    let problem = run.problem(with: device)
                    #expect(problem == nil, "\(what), then without faults: \(problem ?? "")")
                }
            }
        }
    }

    private func examineRecovery(_ run: FaultRun, _ device: SimulatedBlockDevice, _ what: String) {
        do throws(FSError) {
            let volume = try FaultRun.open(device)
            // Damage of the journal is told, and the state is the one before it.
            if volume.recovery?.damage == nil {
                let difference = run.difference(of: volume, toleratesErrors: true)
                #expect(difference == nil, "\(what): \(difference ?? "")")
            }
            try volume.close()
        } catch { #expect(error.isOfTheMedium, "\(what): \(error)") }
    }

    // MARK: Format

    /// A format that fails says so, and leaves the old volume, the new one or none.
    @Test(
        arguments: [SimulatedBlockDevice.Fault.Call.read, .write, .flush], [Duration.once, .sticky])
    func formatStandsFaults(
        _ call: SimulatedBlockDevice.Fault.Call, _ duration: Duration
    ) throws {
        let old = try FaultRun()
        try old.perform([.operation(.create(Path("old"), .init(mode: FileKind.regular.modeBits)))])
        try old.perform([.reopen])
        old.abandon()
        let undisturbed = old.device.copy()
        _ = try VolumeFormatter.format(undisturbed, modules: .standard, options: FormatOptions())
        let count = Self.calls(call, undisturbed)
        let empty = ReferenceFileSystem().view
        for number in 0..<count {
            let what = "\(call) \(number + 1) of \(count), \(duration)"
            let device = old.device.copy()
            duration.inject(call, number + 1, device)
            #expect(throws: FSError.self, "\(what)") {
                try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            }
            device.clearFaults()
            do throws(FSError) {
                let volume = try FaultRun.open(device)
                let view = try? volume.fileSystem.treeView()
                let isOld = old.difference(of: volume) == nil
                #expect(isOld || view?.firstDifference(fromExpected: empty) == nil, "\(what)")
                try volume.close()
                #expect(try checkerProblem(device) == nil, "\(what)")
            } catch {
                if case .notAVolume = error {} else { Issue.record("\(what): \(error)") }
            }
            _ = try VolumeFormatter.format(device, modules: .standard, options: FormatOptions())
            let volume = try FaultRun.open(device)
            let view = try volume.fileSystem.treeView()
            #expect(view.firstDifference(fromExpected: empty) == nil, "\(what)")
            try volume.close()
        }
    }
}
