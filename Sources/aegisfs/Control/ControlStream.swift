/// Bytes over the control socket beside its lines: a stream that is sent or received.
///
/// A line `{"type": "data", "data_bytes": N}` is followed by N bytes, at most `limit`; 0 ends what a client
/// sends. Either side waits for the other as long as that lives.
internal import FSCore
internal import Glibc

enum ControlStream {
    static let limit = 1 << 20

    /// Sends bytes; false if the other side has gone.
    static func write(
        _ bytes: ByteView, to channel: LineChannel, isCancelled: () -> Bool = { false }
    ) -> Bool {
        var position = 0
        while position < bytes.count {
            let count = min(bytes.count - position, limit)
            guard announce(count, to: channel, isCancelled),
                channel.write(bytes.slice(position, count), isCancelled: isCancelled)
            else { return false }
            position += count
        }
        return true
    }

    /// Says that nothing more comes.
    static func end(_ channel: LineChannel) -> Bool { announce(0, to: channel) { false } }

    private static func announce(
        _ count: Int, to channel: LineChannel, _ isCancelled: () -> Bool
    ) -> Bool {
        let line = JSONOutput.encode(ControlReply(type: .data, dataBytes: UInt64(count))) + "\n"
        return Array(line.utf8).withView { channel.write($0, isCancelled: isCancelled) }
    }

    /// Takes apart what a client sends.
    final class Reader {
        private let channel: LineChannel
        private var left = 0
        private(set) var isAtEnd = false

        init(_ channel: LineChannel) { self.channel = channel }

        /// Fills what it can; 0 at the end, also when the client has gone.
        func read(into target: MutableByteView) -> Int {
            if left == 0, !isAtEnd {
                guard let line = try? channel.readLine(timeoutSeconds: nil),
                    let frame = JSONOutput.decode(ControlReply.self, from: line),
                    frame.type == .data, let count = frame.dataBytes, count <= UInt64(limit)
                else {
                    isAtEnd = true
                    return 0
                }
                left = Int(count)
                isAtEnd = count == 0
            }
            let count = min(left, target.count)
            guard count > 0, channel.read(into: target.slice(0, count)) else { return 0 }
            left -= count
            return count
        }
    }
}

extension LineChannel {
    /// Sends everything, however slowly the other side reads; false if it has gone, or the work was
    /// cancelled.
    func write(_ bytes: ByteView, isCancelled: () -> Bool) -> Bool {
        var position = 0
        while position < bytes.count {
            let sent = send(
                socket.raw, bytes.slice(position, bytes.count - position).unsafeBytes.baseAddress,
                bytes.count - position, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            if sent > 0 {
                position += sent
                continue
            }
            guard errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR else { return false }
            if isCancelled() { return false }
            var request = pollfd(fd: socket.raw, events: Int16(POLLOUT), revents: 0)
            _ = poll(&request, 1, 200)
        }
        return true
    }

    /// Whether a line, or the end, has come while the caller only sends.
    var hasInput: Bool {
        var request = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
        return poll(&request, 1, 0) > 0
    }
}

extension ControlClient {
    /// A request with bytes on the way there or back.
    ///
    /// - Parameters:
    ///   - input: fills its argument with what is to be sent; 0 at the end.
    ///   - output: takes the bytes that come.
    ///   - part: takes what comes before the result.
    static func stream(
        _ request: ControlRequest, to mount: LiveMount, input: ((MutableByteView) -> Int)?,
        output: (ByteView) -> Void, part: (ControlReply) -> Void
    ) throws(Failure) -> ControlReply {
        let channel = LineChannel(
            try ControlSocket.connect(mount.record.socket), limit: ControlLimits.replyBytes)
        guard channel.writeLine(request) else { throw lost(mount) }
        if let input { feed(channel, input) }
        let buffer = ByteBuffer(count: ControlStream.limit)
        while true {
            let reply = try read(channel, nil, mount)
            switch reply.type {
            case .data:
                guard let count = reply.dataBytes, count <= UInt64(ControlStream.limit) else {
                    throw lost(mount)
                }
                let bytes = buffer.bytes.slice(0, Int(count))
                guard channel.read(into: bytes) else { throw lost(mount) }
                output(buffer.view.slice(0, Int(count)))
            case .part: part(reply)
            case .progress: break
            case .result: return reply
            case .error: throw reply.error?.failure ?? lost(mount)
            }
        }
    }

    /// Sends until the input ends, or the daemon has something to say.
    private static func feed(_ channel: LineChannel, _ input: (MutableByteView) -> Int) {
        let buffer = ByteBuffer(count: 256 << 10)
        while !channel.hasInput {
            let count = input(buffer.bytes)
            if count == 0 {
                _ = ControlStream.end(channel)
                return
            }
            let isSent = ControlStream.write(buffer.view.slice(0, count), to: channel) {
                channel.hasInput
            }
            if !isSent { return }
        }
    }
}
