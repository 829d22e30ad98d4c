/// Talks to a daemon for the live forms of the verbs: one connection, one request.
enum ControlClient {
    /// A daemon that does not say how it is within this time hangs on its device.
    static let statusTimeoutSeconds = 30
    /// How often it is looked at whether the daemon runs at all.
    private static let lookSeconds = 1

    /// - Parameter connected: is given the connection once the request is sent.
    static func send(
        _ request: ControlRequest, to mount: LiveMount,
        timeoutSeconds: Int = statusTimeoutSeconds,
        progress: (ProgressReporter.Step) -> Void = { _ in },
        connected: (LineChannel) -> Void = { _ in }
    ) throws(Failure) -> ControlReply {
        let channel = LineChannel(
            try ControlSocket.connect(mount.record.socket), limit: ControlLimits.replyBytes)
        guard channel.writeLine(request) else { throw lost(mount) }
        connected(channel)
        // How long the others take depends on the volume.
        let timeout: Int? =
            request.command == .status || request.command == .mounts ? timeoutSeconds : nil
        while true {
            let reply = try read(channel, timeout, mount)
            switch reply.type {
            case .progress: if let step = reply.progress { progress(step) }
            case .part, .data: throw lost(mount)
            case .result: return reply
            case .error: throw reply.error?.failure ?? lost(mount)
            }
        }
    }

    /// - Parameter timeout: in seconds; nil waits as long as the daemon runs.
    static func read(
        _ channel: LineChannel, _ timeout: Int?, _ mount: LiveMount
    ) throws(Failure) -> ControlReply {
        var waited = 0
        while true {
            do throws(LineChannel.ReadError) {
                let line = try channel.readLine(timeoutSeconds: lookSeconds)
                guard let reply = JSONOutput.decode(ControlReply.self, from: line) else { break }
                return reply
            } catch {
                guard error == .timedOut else { break }
                waited += lookSeconds
                try requireRunning(mount)
                guard waited >= timeout ?? .max else { continue }
                throw Failure(
                    .failed, .controlUnreachable,
                    "the daemon (pid \(mount.record.pid)) does not answer",
                    hint: "its device may hang; see the system log")
            }
        }
        throw lost(mount)
    }

    /// Throws if a signal has stopped the daemon: then neither it nor its mount answers anybody.
    static func requireRunning(_ mount: LiveMount) throws(Failure) {
        let pid = mount.record.pid
        guard ProcessInfo.isStopped(pid) else { return }
        throw Failure(
            .failed, .controlUnreachable, "the daemon (pid \(pid)) is stopped",
            hint: "'kill -CONT \(pid)' lets it go on")
    }

    static func lost(_ mount: LiveMount) -> Failure {
        Failure(
            .failed, .controlUnreachable,
            "the daemon (pid \(mount.record.pid)) broke off the conversation",
            hint: "see the system log for its last message")
    }
}
