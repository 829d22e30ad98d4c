/// Unix stream sockets by path: connecting to and listening on one.
internal import Glibc

enum ControlSocket {
    static func connect(_ path: String) throws(Failure) -> Descriptor {
        let socket = try make()
        // A daemon that hangs takes nobody in once enough are waiting.
        socket.limitSending(seconds: ControlLimits.timeoutSeconds)
        var address = try address(path)
        let outcome = withSocketAddress(&address) { Glibc.connect(socket.raw, $0, $1) }
        guard outcome == 0 else {
            throw Failure(
                .failed, .controlUnreachable,
                "cannot reach the mount's daemon at \(path): \(systemMessage(errno))",
                hint: "if the daemon has died, 'aegisfs umount' clears the mount away")
        }
        return socket
    }

    /// Listens on a path whose name the caller owns: what is left there is replaced.
    static func listen(_ path: String) throws(Failure) -> Descriptor {
        let socket = try make()
        unlink(path)
        var address = try address(path)
        guard withSocketAddress(&address, { bind(socket.raw, $0, $1) }) == 0,
            chmod(path, 0o600) == 0, Glibc.listen(socket.raw, Int32(ControlLimits.clients)) == 0
        else { throw .system("cannot listen on \(path)", errno) }
        return socket
    }

    private static func make() throws(Failure) -> Descriptor {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw .system("cannot make a socket", errno) }
        return Descriptor(raw)
    }

    private static func address(_ path: String) throws(Failure) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let fits = withUnsafeMutableBytes(of: &address.sun_path) { target in
            guard path.utf8.count < target.count else { return false }
            target.copyBytes(from: path.utf8)
            return true
        }
        guard fits else {
            throw Failure(
                .failed, .controlDirectory, "\(path) is too long for the name of a socket",
                hint: "set XDG_RUNTIME_DIR to a shorter path")
        }
        return address
    }

    private static func withSocketAddress<R>(
        _ address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) -> R {
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
