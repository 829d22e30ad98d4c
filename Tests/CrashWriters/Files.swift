/// System calls as the writers need them: whatever fails throws, since it means that the mount is
/// gone.
import Glibc

struct CallFailed: Error, CustomStringConvertible {
    var call: String
    var number = errno
    var description: String { "\(call): \(String(cString: strerror(number)))" }
}

/// An open file or directory.
final class OpenFile {
    let descriptor: Int32

    init(_ path: String, _ flags: Int32) throws {
        descriptor = open(path, flags | O_CLOEXEC, 0o644)
        if descriptor < 0 { throw CallFailed(call: "open \(path)") }
    }
    deinit { close(descriptor) }

    func write(_ bytes: [UInt8], at offset: Int) throws {
        let count = bytes.withUnsafeBytes {
            pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset))
        }
        if count != bytes.count { throw CallFailed(call: "write") }
    }

    func synchronize() throws {
        if fsync(descriptor) != 0 { throw CallFailed(call: "fsync") }
    }
}

func makeDirectory(_ path: String) throws {
    if mkdir(path, 0o755) != 0, errno != EEXIST { throw CallFailed(call: "mkdir \(path)") }
}

func synchronizeDirectory(_ path: String) throws {
    try OpenFile(path, O_RDONLY | O_DIRECTORY).synchronize()
}

/// The whole of a file; nil if there is none.
func contents(_ path: String) throws -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 {
        if errno == ENOENT { return nil }
        throw CallFailed(call: "open \(path)")
    }
    defer { close(descriptor) }
    var result: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = part.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        if count < 0 { throw CallFailed(call: "read \(path)") }
        if count == 0 { return result }
        result += part[..<count]
    }
}

/// The names in a directory; none if it is not there.
func names(in path: String) throws -> Set<String> {
    guard let stream = opendir(path) else {
        if errno == ENOENT { return [] }
        throw CallFailed(call: "opendir \(path)")
    }
    defer { closedir(stream) }
    var result: Set<String> = []
    while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { result.insert(name) }
    }
    return result
}
