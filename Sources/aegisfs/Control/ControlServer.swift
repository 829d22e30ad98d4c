/// Serves the control socket of one mount: a thread that accepts, and one for each client.
///
/// - Invariant: at most `ControlLimits.clients` clients are served; one more is told so and
///   disconnected. No client can hold up another, or the mount.
/// - Invariant: after `stop` no thread of the server runs, and no request is being carried out.
/// - Invariant: a request knows that it is cancelled when its client has gone or the server stops.
internal import FSCore
internal import Glibc

/// Safe to share: the list of clients is behind `lock`, the rest never changes after `init`.
final class ControlServer: @unchecked Sendable {
    /// A client and the thread that serves it.
    private final class Client: @unchecked Sendable {
        let channel: LineChannel
        var thread: WorkerThread?
        var hasEnded = false
        init(_ channel: LineChannel) { self.channel = channel }
    }

    private let path: String
    private let wake: (read: Descriptor, write: Descriptor)
    private let service: any ControlService
    private let lock = Mutex()
    private var clients: [Client] = []
    private var isStopping = false
    private var acceptor: WorkerThread?

    init(path: String, service: any ControlService) throws(Failure) {
        self.path = path
        self.service = service
        let listener = try ControlSocket.listen(path)
        guard let wake = Descriptor.pipe() else { throw .system("cannot make a pipe", errno) }
        self.wake = wake
        // The acceptor alone has the listener: when it ends, whoever still waits is disconnected.
        acceptor = WorkerThread { [self] in acceptClients(listener) }
    }

    /// Ends all conversations: a request that is being carried out is finished first, or cancelled
    /// if it can be.
    func stop() {
        let waiting = lock.withLock {
            isStopping = true
            return clients
        }
        _ = wake.write.write([0])
        acceptor?.join()
        acceptor = nil
        for client in waiting { client.channel.stopReading() }
        for client in waiting { client.thread?.join() }
        unlink(path)
    }

    private func acceptClients(_ listener: Descriptor) {
        while true {
            var sources = [
                pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: wake.read.raw, events: Int16(POLLIN), revents: 0),
            ]
            _ = poll(&sources, 2, -1)
            if lock.withLock({ isStopping }) { return }
            guard sources[0].revents != 0 else { continue }
            let raw = accept(listener.raw, nil, nil)
            guard raw >= 0 else {
                // Out of descriptors, most likely: the next try must not spin.
                sleep(milliseconds: 50)
                continue
            }
            _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
            admit(LineChannel(Descriptor(raw), limit: ControlLimits.requestBytes))
        }
    }

    private func admit(_ channel: LineChannel) {
        guard let peer = channel.peerUserID, peer == 0 || peer == geteuid() else {
            refuse(channel, Failure(.failed, .permissionDenied, "only root and the daemon's user"))
            return
        }
        let ended = lock.withLock {
            let ended = clients.filter(\.hasEnded)
            clients.removeAll(where: \.hasEnded)
            return ended
        }
        for client in ended { client.thread?.join() }
        guard lock.withLock({ clients.count }) < ControlLimits.clients else {
            refuse(
                channel,
                Failure(.busy, .tooManyClients, "\(ControlLimits.clients) clients are connected"))
            return
        }
        let client = Client(channel)
        lock.withLock {
            if isStopping { return }
            clients.append(client)
            client.thread = WorkerThread { [self] in
                serve(channel)
                channel.hangUp()
                lock.withLock { client.hasEnded = true }
            }
        }
    }

    private func refuse(_ channel: LineChannel, _ failure: Failure) {
        _ = channel.writeLine(ControlReply(type: .error, error: FailureDocument(failure)))
    }

    private func serve(_ channel: LineChannel) {
        while true {
            do throws(LineChannel.ReadError) {
                let line = try channel.readLine(timeoutSeconds: ControlLimits.timeoutSeconds)
                let reply = answer(line, channel)
                // Behind an error nobody knows where the bytes of a stream end.
                guard channel.writeLine(reply), reply.type != .error || !isStream(line) else {
                    return
                }
            } catch {
                if error == .tooLong {
                    refuse(
                        channel,
                        Failure(
                            .usage, .badRequest,
                            "a request is longer than \(ControlLimits.requestBytes) bytes"))
                }
                return
            }
        }
    }

    private func isStream(_ line: [UInt8]) -> Bool {
        JSONOutput.decode(ControlRequest.self, from: line)?.command == .stream
    }

    private func answer(_ line: [UInt8], _ channel: LineChannel) -> ControlReply {
        guard let request = JSONOutput.decode(ControlRequest.self, from: line) else {
            let known = ControlRequest.Command.allCases.map(\.rawValue).joined(separator: ", ")
            return ControlReply(
                type: .error,
                error: FailureDocument(
                    Failure(
                        .usage, .badRequest, "the line is not a request",
                        hint: "a JSON object whose command is one of \(known)")))
        }
        do throws(Failure) {
            let isCancelled = { [self] in
                lock.withLock { isStopping } || channel.isHungUp
                    || request.command == .resize && channel.hasMore
            }
            if request.command == .stream {
                return try service.stream(request, over: channel, isCancelled: isCancelled)
            }
            return try service.perform(request, isCancelled: isCancelled) { step in
                _ = channel.writeLine(ControlReply(type: .progress, progress: step))
            }
        } catch {
            return ControlReply(type: .error, error: FailureDocument(error))
        }
    }
}
