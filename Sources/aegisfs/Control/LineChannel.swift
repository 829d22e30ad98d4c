/// Lines over a connected stream socket, bounded in length and in time.
///
/// Read by one thread at a time and written by one; `stopReading` and `hangUp` are for any.
internal import FSCore
internal import Glibc

/// Safe to share: only the descriptor, which lives as long as the channel, is used by others.
final class LineChannel: @unchecked Sendable {
    enum ReadError: Error { case ended, tooLong, timedOut }

    let socket: Descriptor
    private let limit: Int
    private var buffer: [UInt8] = []

    init(_ socket: Descriptor, limit: Int) {
        self.socket = socket
        self.limit = limit
        socket.limitSending(seconds: ControlLimits.timeoutSeconds)
    }

    /// The user on the other end; nil if the kernel does not tell.
    var peerUserID: uid_t? {
        // struct ucred: process, user, group.
        var credentials: [UInt32] = [0, 0, 0]
        var length = socklen_t(12)
        guard getsockopt(socket.raw, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0,
            length == 12
        else { return nil }
        return credentials[1]
    }

    /// The next line without its end.
    ///
    /// - Parameter timeoutSeconds: for the whole line, so that a client cannot stay by sending a
    ///   byte now and then; nil waits for ever.
    func readLine(timeoutSeconds: Int?) throws(ReadError) -> [UInt8] {
        let deadline = timeoutSeconds.map {
            monotonicNanoseconds() + UInt64($0) * 1_000_000_000
        }
        // How much of the buffer is known to have no line end.
        var searched = 0
        while true {
            if let end = buffer[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                guard end <= limit else { throw .tooLong }
                let line = Array(buffer[..<end])
                buffer.removeSubrange(...end)
                return line
            }
            guard buffer.count <= limit else { throw .tooLong }
            searched = buffer.count
            try waitForInput(deadline)
            var chunk = [UInt8](repeating: 0, count: 16384)
            let count = recv(socket.raw, &chunk, chunk.count, 0)
            if count > 0 {
                buffer += chunk[..<count]
            } else if count == 0 || errno != EINTR {
                throw .ended
            }
        }
    }

    /// Fills `target` with the bytes that follow; false if the other side has gone.
    func read(into target: MutableByteView) -> Bool {
        var done = min(buffer.count, target.count)
        buffer.prefix(done).withUnsafeBytes { source in
            if let base = source.baseAddress {
                target.copy(ByteView(base: base, count: done))
            }
        }
        buffer.removeFirst(done)
        while done < target.count {
            let count = recv(
                socket.raw, target.slice(done, target.count - done).unsafeBytes.baseAddress,
                target.count - done, 0)
            if count > 0 {
                done += count
            } else if count == 0 || errno != EINTR {
                return false
            }
        }
        return true
    }

    private func waitForInput(_ deadline: UInt64?) throws(ReadError) {
        var milliseconds: Int32 = -1
        if let deadline {
            let now = monotonicNanoseconds()
            guard now < deadline else { throw .timedOut }
            milliseconds = Int32((deadline - now) / 1_000_000 + 1)
        }
        var request = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
        let outcome = poll(&request, 1, milliseconds)
        if outcome == 0 { throw .timedOut }
        if outcome < 0, errno != EINTR { throw .ended }
    }

    /// False if the other side has gone or does not read.
    func writeLine(_ value: some Encodable) -> Bool {
        let bytes = Array((JSONOutput.encode(value) + "\n").utf8)
        var position = 0
        while position < bytes.count {
            let sent = bytes.withUnsafeBytes {
                send(
                    socket.raw, $0.baseAddress! + position, bytes.count - position,
                    Int32(MSG_NOSIGNAL))
            }
            if sent >= 0 {
                position += sent
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Whether the other side has closed the stream; one that only has nothing more to ask has not.
    var isHungUp: Bool {
        var request = pollfd(fd: socket.raw, events: 0, revents: 0)
        return poll(&request, 1, 0) > 0 && request.revents & Int16(POLLHUP | POLLERR) != 0
    }

    /// Whether the other side has said more than was read.
    var hasMore: Bool {
        var byte: UInt8 = 0
        return !buffer.isEmpty
            || recv(socket.raw, &byte, 1, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT)) > 0
    }

    /// Lets a thread that waits for the next line see the end of the stream.
    func stopReading() { shutdown(socket.raw, Int32(SHUT_RD)) }

    /// Lets the other side see the end of the stream, whoever still has this channel.
    func hangUp() { shutdown(socket.raw, Int32(SHUT_RDWR)) }
}

extension Descriptor {
    /// Of a socket: connecting and sending fail after so long.
    func limitSending(seconds: Int) {
        var timeout = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    }
}
