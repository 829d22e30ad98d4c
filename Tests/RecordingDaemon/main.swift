/// Mounts a volume that lies on a device in memory which remembers every write and flush, and makes
/// images of what a power cut at any moment would leave of it.
///
///     aegisfs-recorder MEBIBYTES DIRECTORY
///
/// One command a line on standard input, one answer a line:
///
///     position                     how many writes and flushes there were so far
///     drop                         from now on flushes do nothing, as those of a lying disk
///     flushes                      the positions right behind each flush
///     unmount                      ends the mount; images can still be had
///     image POSITION KIND SEED FILE    KIND: nothing, everything or subset of what was in flight
///
/// The end of standard input ends it, so that it does not outlive the test.
///
///     aegisfs-recorder crc32c|none FILE DIRECTORY
///
/// formats FILE instead and mounts it, with checksums or with ones that say nothing, to measure what they
/// cost; it remembers nothing.
import FSCore
import FSFuse
import FSModules
import FSTestSupport
import Glibc

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
}

func fail(_ why: String) -> Never {
    say("error: \(why)")
    exit(1)
}

final class Recorder: @unchecked Sendable {
    private let device: SimulatedBlockDevice
    private let volume: Volume
    private let session: FuseSession
    private var server: WorkerThread?

    init(mebibytes: UInt64, directory: String) throws {
        device = SimulatedBlockDevice(byteCount: mebibytes << 20)
        var format = FormatOptions()
        // Small, so that the ring wraps.
        format.journalByteCount = 2 << 20
        _ = try VolumeFormatter.format(device, modules: .standard, options: format)
        var options = OpenOptions()
        // Often, so that checkpoints fall between the steps of every program.
        options.checkpointIntervalMilliseconds = 300
        volume = try Volume.open(device, modules: .standard, options: options)
        var mount = FuseMountOptions()
        mount.source = "aegisfs-recorder"
        mount.allowOther = true
        mount.onReady = { say("ready") }
        session = try FuseSession(
            fileSystem: volume.fileSystem, mountpoint: directory, options: mount)
    }

    func serve() {
        server = WorkerThread { [self] in
            let status = session.run()
            if status != 0 { fail("the session ended with \(status)") }
        }
    }

    func unmount() throws {
        guard let server else { return }
        session.requestExit()
        server.join()
        self.server = nil
        try volume.close()
    }

    func answer(_ words: [Substring]) throws -> String {
        switch words.first {
        case "position": return String(device.eventCount)
        case "flushes": return device.flushEvents.map(String.init).joined(separator: " ")
        case "drop":
            device.dropFlushes { _ in true }
            return "dropping"
        case "unmount":
            try unmount()
            return "unmounted"
        case "image" where words.count == 5:
            guard let position = Int(words[1]), let seed = UInt64(words[3]) else { break }
            var random = SeededRandom(seed: seed)
            let kinds: [Substring: SimulatedBlockDevice.InFlight] = [
                "nothing": .nothing, "everything": .everything, "subset": .anySubset,
            ]
            guard let kind = kinds[words[2]], position <= device.eventCount else { break }
            try save(
                device.crashed(after: position, kind, random: &random), String(words[4]))
            return "saved"
        default: break
        }
        return "error: no such command"
    }

    private func save(_ image: SimulatedBlockDevice, _ path: String) throws {
        let descriptor = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ImageFailed(number: errno) }
        defer { close(descriptor) }
        guard ftruncate(descriptor, off_t(image.byteCount)) == 0 else {
            throw ImageFailed(number: errno)
        }
        try image.forEachBlock { offset, bytes in
            let count = bytes.withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset))
            }
            if count != bytes.count { throw ImageFailed(number: errno) }
        }
    }
}

/// Serves a volume in a file until standard input ends.
func serve(_ path: String, on directory: String, _ modules: ModuleSet) throws {
    let device = try FileBlockDevice(path: path, access: .readWrite)
    defer { device.close() }
    _ = try VolumeFormatter.format(device, modules: modules, options: FormatOptions())
    let volume = try Volume.open(device, modules: modules)
    var mount = FuseMountOptions()
    mount.source = path
    mount.onReady = { say("ready") }
    let session = try FuseSession(
        fileSystem: volume.fileSystem, mountpoint: directory, options: mount)
    let server = WorkerThread { _ = session.run() }
    while readLine() != nil {}
    session.requestExit()
    server.join()
    try volume.close()
}

struct ImageFailed: Error {
    var number: Int32
}

let arguments = CommandLine.arguments
if arguments.count == 4, ["crc32c", "none"].contains(arguments[1]) {
    do {
        try serve(
            arguments[2], on: arguments[3], arguments[1] == "none" ? .withoutSums : .standard)
        exit(0)
    } catch { fail("\(error)") }
}
guard arguments.count == 3, let mebibytes = UInt64(arguments[1]) else {
    fail("usage: aegisfs-recorder MEBIBYTES DIRECTORY")
}
do {
    let recorder = try Recorder(mebibytes: mebibytes, directory: arguments[2])
    recorder.serve()
    while let line = readLine() { say(try recorder.answer(line.split(separator: " "))) }
    try recorder.unmount()
} catch { fail("\(error)") }
