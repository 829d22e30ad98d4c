/// What a mount's daemon does for `send`, `receive` and `snapshot diff`.
internal import FSCore
internal import FSModules

extension MountDaemon {
    /// Changes in one line of an answer.
    private static let changesInPart = 1000

    func stream(
        _ request: ControlRequest, over channel: LineChannel, isCancelled: () -> Bool
    ) throws(Failure) -> ControlReply {
        guard let stream = request.stream else {
            throw Failure(.usage, .badRequest, "the request does not say what to do")
        }
        let service = StreamService(
            volume: volume, target: registration.current.device, mounted: mounted)
        var reply = ControlReply.done
        switch stream.action {
        case .status: reply.stream = try service.status()
        case .diff:
            let changes = try service.difference(stream, isCancelled: isCancelled)
            var position = 0
            while position < changes.count {
                let end = min(position + Self.changesInPart, changes.count)
                guard
                    channel.writeLine(
                        ControlReply(type: .part, changes: Array(changes[position..<end])))
                else { break }
                position = end
            }
            reply.stream = StreamDocument()
        case .send:
            let result = withoutActuallyEscaping(isCancelled) {
                isCancelled -> Result<StreamDocument, Failure> in
                do throws(Failure) {
                    return .success(
                        try service.send(stream) { (bytes) throws(FSError) in
                            guard
                                ControlStream.write(
                                    bytes, to: channel, isCancelled: isCancelled)
                            else { throw .interrupted }
                        })
                } catch { return .failure(error) }
            }
            reply.stream = try result.get()
        case .receive:
            let reader = ControlStream.Reader(channel)
            reply.stream = try service.receive(stream) { (target) throws(StreamError) in
                reader.read(into: target)
            }
        }
        return reply
    }
}
