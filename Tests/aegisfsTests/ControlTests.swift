/// The control socket against clients that are wrong, slow or too many, and the JSON of its lines.
import FSCore
import Glibc
import Testing

@testable import aegisfs

@Suite(.serialized) struct ControlTests {
    /// Answers at once, except to `sync`, which waits until the test lets it go on, and `shutdown`,
    /// which goes on until it is cancelled.
    private final class Service: ControlService {
        let gate = Gate()
        let cancellation = Gate()
        func perform(
            _ request: ControlRequest, isCancelled: () -> Bool,
            progress: (ProgressReporter.Step) -> Void
        ) throws(Failure) -> ControlReply {
            switch request.command {
            case .sync: gate.pass()
            case .shutdown:
                gate.arrive()
                while !isCancelled() { sleep(milliseconds: 5) }
                cancellation.arrive()
            case .check:
                progress(ProgressReporter.Step(phase: "a", doneBytes: 1, totalBytes: 2))
                progress(ProgressReporter.Step(phase: "a", doneBytes: 2, totalBytes: 2))
            case .remount: throw Failure(.busy, .remountRefused, "no", hint: "later")
            default: break
            }
            return .done
        }
        func stream(
            _ request: ControlRequest, over channel: LineChannel, isCancelled: () -> Bool
        ) throws(Failure) -> ControlReply { .done }
    }
    private final class Gate: @unchecked Sendable {
        private let lock = Mutex()
        private var isOpen = false
        private var waiting = 0
        private var passed = 0
        func arrive() {
            lock.withLock {
                waiting += 1
                lock.signalAll()
            }
        }
        func pass() {
            lock.withLock {
                waiting += 1
                lock.signalAll()
                while !isOpen { lock.wait() }
                passed += 1
            }
        }
        var passedCount: Int { lock.withLock { passed } }
        var isOpened: Bool { lock.withLock { isOpen } }
        func waitForVisitor() { lock.withLock { while waiting == 0 { lock.wait() } } }
        func open() {
            lock.withLock {
                isOpen = true
                lock.signalAll()
            }
        }
    }

    private func withServer(_ body: (String, Service) throws -> Void) throws {
        let path = "/tmp/aegisfs-control-test-\(getpid()).sock"
        let service = Service()
        let server = try ControlServer(path: path, service: service)
        defer { server.stop() }
        try body(path, service)
    }
    private func channel(_ path: String) throws -> LineChannel {
        LineChannel(try ControlSocket.connect(path), limit: 1 << 20)
    }
    private func reply(_ channel: LineChannel) throws -> ControlReply {
        let line = try channel.readLine(timeoutSeconds: 120)
        return try #require(JSONOutput.decode(ControlReply.self, from: line))
    }
    /// A line that `LineChannel` would not write.
    private func send(_ bytes: [UInt8], _ path: String) throws -> LineChannel {
        let socket = try ControlSocket.connect(path)
        _ = bytes.withUnsafeBytes {
            Glibc.send(socket.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        return LineChannel(socket, limit: 1 << 20)
    }

    @Test func progressComesBeforeTheResult() throws {
        try withServer { path, _ in
            let channel = try channel(path)
            for _ in 0..<2 {
                #expect(channel.writeLine(ControlRequest(command: .check)))
                #expect(try reply(channel).progress?.doneBytes == 1)
                #expect(try reply(channel).progress?.doneBytes == 2)
                #expect(try reply(channel).type == .result)
            }
            #expect(channel.writeLine(ControlRequest(command: .remount, readOnly: true)))
            let failure = try #require(try reply(channel).error?.failure)
            #expect(failure == Failure(.busy, .remountRefused, "no", hint: "later"))
        }
    }

    @Test(arguments: ["{", "{\"command\":\"dance\"}", "\u{0}", "[[[[", "{\"command\":1}", ""])
    func nonsenseIsAnsweredAndForgotten(line: String) throws {
        try withServer { path, _ in
            let channel = try send(Array((line + "\n").utf8), path)
            #expect(try reply(channel).error?.failure.id == .badRequest)
            #expect(channel.writeLine(ControlRequest(command: .mounts)))
            #expect(try reply(channel).type == .result)
        }
    }

    @Test func deepAndLongLinesDoNoHarm() throws {
        try withServer { path, _ in
            let deep = try send([UInt8](repeating: UInt8(ascii: "["), count: 60_000) + [10], path)
            #expect(try reply(deep).error?.failure.id == .badRequest)
            let long = try send([UInt8](repeating: UInt8(ascii: "x"), count: 200_000), path)
            #expect(try reply(long).error?.failure.id == .badRequest)
            #expect(throws: LineChannel.ReadError.ended) { try long.readLine(timeoutSeconds: 120) }
        }
    }

    @Test func idleAndBusyClientsHoldUpNobody() throws {
        try withServer { path, service in
            let busy = try channel(path)
            #expect(busy.writeLine(ControlRequest(command: .sync)))
            service.gate.waitForVisitor()
            let idle = try (2..<ControlLimits.clients).map { _ in try channel(path) }
            let last = try channel(path)
            #expect(last.writeLine(ControlRequest(command: .mounts)))
            #expect(try reply(last).type == .result)
            let tooMany = try channel(path)
            #expect(try reply(tooMany).error?.failure.id == .tooManyClients)
            service.gate.open()
            #expect(try reply(busy).type == .result)
            withExtendedLifetime(idle) {}
        }
    }

    @Test func stopFinishesWhatIsUnderWay() throws {
        let path = "/tmp/aegisfs-control-stop-\(getpid()).sock"
        let service = Service()
        let server = try ControlServer(path: path, service: service)
        let busy = try channel(path)
        #expect(busy.writeLine(ControlRequest(command: .sync)))
        service.gate.waitForVisitor()
        let idle = try channel(path)
        let opener = WorkerThread {
            sleep(milliseconds: 50)
            service.gate.open()
        }
        server.stop()
        #expect(service.gate.passedCount == 1, "the request was still being carried out")
        opener.join()
        #expect(try reply(busy).type == .result)
        #expect(throws: LineChannel.ReadError.ended) { try idle.readLine(timeoutSeconds: 120) }
        #expect(fileStatus(path) == nil)
        #expect(throws: Failure.self) { try ControlSocket.connect(path) }
    }

    /// Who goes away, as by Ctrl-C, takes the work that was asked for along; who has only nothing
    /// more to ask still gets the answer.
    @Test func aClientThatHasGoneCancelsItsRequest() throws {
        try withServer { path, service in
            var client: LineChannel? = try channel(path)
            #expect(client?.writeLine(ControlRequest(command: .shutdown)) == true)
            service.gate.waitForVisitor()
            let start = ContinuousClock.now
            client = nil
            service.cancellation.waitForVisitor()
            #expect(ContinuousClock.now - start < .seconds(15))

            let socket = try ControlSocket.connect(path)
            let line = Array("{\"command\":\"sync\"}\n".utf8)
            _ = line.withUnsafeBytes { Glibc.send(socket.raw, $0.baseAddress, $0.count, 0) }
            Glibc.shutdown(socket.raw, Int32(SHUT_WR))
            service.gate.open()
            #expect(try reply(LineChannel(socket, limit: 1 << 20)).type == .result)
        }
    }

    @Test func stopCancelsWhatCanBeCancelled() throws {
        let path = "/tmp/aegisfs-control-cancel-\(getpid()).sock"
        let service = Service()
        let server = try ControlServer(path: path, service: service)
        let client = try channel(path)
        #expect(client.writeLine(ControlRequest(command: .shutdown)))
        service.gate.waitForVisitor()
        let start = ContinuousClock.now
        server.stop()
        #expect(ContinuousClock.now - start < .seconds(15))
        #expect(try reply(client).type == .result, "what was found so far is still told")
    }

    @Test func aLeftoverSocketIsReplaced() throws {
        let path = "/tmp/aegisfs-control-stale-\(getpid()).sock"
        defer { unlink(path) }
        // Bound and closed, as a killed daemon leaves it.
        _ = try ControlSocket.listen(path)
        #expect(throws: Failure.self) { try ControlSocket.connect(path) }
        let server = try ControlServer(path: path, service: Service())
        defer { server.stop() }
        let channel = try channel(path)
        #expect(channel.writeLine(ControlRequest(command: .mounts)))
        #expect(try reply(channel).type == .result)
    }

    @Test func failuresCrossTheSocketUnchanged() {
        for id in MessageID.allCases {
            let failure = Failure(.busy, id, "message", hint: nil)
            let line = JSONOutput.line(FailureDocument(failure), command: "x", kind: "error")
            #expect(line.contains("\"output_version\":{\"command\":\"x\",\"major\":1,\"minor\":0}"))
            let decoded = JSONOutput.decode(FailureDocument.self, from: Array(line.utf8))
            #expect(decoded?.failure == failure)
        }
    }

    /// A daemon ends and another one takes its name while somebody lists the mounts: what is removed as left
    /// behind is never the new one's.
    @Test func aNewDaemonIsNotTakenForALeftover() throws {
        let image = "/tmp/aegisfs-control-image-\(getpid())"
        _ = try #require(Descriptor.open(image, O_RDWR | O_CREAT))
        defer { unlink(image) }
        let record = MountRecord(
            pid: getpid(), uuid: VolumeUUID.random().description, label: "", device: image,
            identity: try #require(DeviceIdentity(path: image)), mountpoint: "/nowhere",
            mountDevice: nil, socket: "", isReadOnly: false, startedSeconds: 0, state: .starting,
            outcome: nil)
        let gate = Gate()
        let readers = (0..<2).map { _ in
            WorkerThread {
                while !gate.isOpened { _ = LiveMount.all() }
            }
        }
        defer {
            gate.open()
            for reader in readers { reader.join() }
        }
        for _ in 0..<400 {
            let registration = try MountRegistration(record)
            let socket = registration.socketPath
            let name = socket.dropLast("sock".count) + "json"
            sleep(milliseconds: 1)
            #expect(fileStatus(String(name), followLinks: false) != nil)
            registration.remove()
        }
    }
}
