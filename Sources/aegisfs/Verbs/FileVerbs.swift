/// `aegisfs extents`, `usage`, `defragment` and `dedup`: what files hold, and how to make it less.
internal import FSCore
internal import Glibc

enum FileVerbs {
    private struct ExtentsDocument: Encodable {
        var path: String
        var extents: [ExtentDocument]
    }

    static func extents(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let place = try LivePath(path, reading: true)
        guard place.isRegular else {
            throw Failure(
                .failed, .wrongKindOfTarget, "\(path) is not a regular file, and has no extents",
                hint: "'aegisfs usage \(path)' shows what files below a directory hold")
        }
        var all: [ExtentDocument] = []
        while true {
            var request = ControlRequest(command: .extents)
            request.inodes = [place.inode]
            request.inSnapshot = place.snapshot
            request.offsetBytes = all.last.map { $0.offsetBytes + $0.lengthBytes } ?? 0
            let reply = try ControlClient.send(request, to: place.mount)
            guard let extents = reply.extents else { throw LivePath.noResult() }
            all += extents
            if extents.count < FileRequests.extentLimit { break }
        }
        if arguments.json {
            Terminal.output(
                JSONOutput.line(ExtentsDocument(path: path, extents: all), command: "extents"))
            return .done
        }
        var table = TextTable([
            ("offset", .right), ("length", .right), ("device", .right), ("stored", .right),
            ("codec", .left), ("references", .left),
        ])
        for extent in all {
            let places = extent.deviceBytes.map { "\($0)" }.joined(separator: ",")
            table.add([
                "\(extent.offsetBytes)", arguments.size(extent.lengthBytes),
                places.isEmpty ? "-" : places, arguments.size(extent.storedBytes), extent.codec,
                sharing(extent),
            ])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        return .done
    }

    private static func sharing(_ extent: ExtentDocument) -> String {
        let files = extent.references > 1 ? "\(extent.references), shared" : "exclusive"
        return extent.isInSnapshot ? "\(files), in a snapshot" : files
    }

    static func usage(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let (first, inodes) = try LivePath.all(arguments.operands, reading: true)
        var request = ControlRequest(command: .usage)
        request.inodes = inodes
        request.inSnapshot = first.snapshot
        guard let usage = try ControlClient.send(request, to: first.mount).usage else {
            throw LivePath.noResult()
        }
        if arguments.json {
            Terminal.output(JSONOutput.line(usage, command: "usage"))
        } else {
            let hundredths =
                usage.storedBytes == 0
                ? 100 : usage.logicalBytes * 100 / usage.storedBytes
            let ratio = "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10)"
            var table = TextTable([("what", .left), ("size", .right)])
            table.add(["files", "\(usage.files)"])
            table.add(["logical", arguments.size(usage.logicalBytes)])
            table.add(["stored", arguments.size(usage.storedBytes)])
            table.add(["  exclusive", arguments.size(usage.exclusiveBytes)])
            table.add(["  shared", arguments.size(usage.sharedBytes)])
            table.add(["  in snapshots", arguments.size(usage.snapshotBytes)])
            table.add(["compressed", arguments.size(usage.encodedBytes)])
            table.add(["  to", arguments.size(usage.encodedStoredBytes)])
            table.add(["ratio", ratio])
            Terminal.output(table.text(header: false))
        }
        return .done
    }

    static func defragment(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let (first, inodes) = try LivePath.all(arguments.operands)
        var request = ControlRequest(command: .defragment)
        request.inodes = inodes
        if let text = arguments.value(.rewriteCompression) {
            request.compression =
                "\(try CompressionSetting.parse(text, option: "--compression"))"
        }
        let reply = try withProgress(arguments, "defragment") {
            (progress) throws(Failure) in
            try ControlClient.send(request, to: first.mount, progress: progress)
        }
        guard let document = reply.defragment else { throw LivePath.noResult() }
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "defragment", kind: "summary"))
        } else if !arguments.isQuiet {
            let left =
                document.sharedBytes == 0
                ? ""
                : "; \(arguments.size(document.sharedBytes)) are shared with other files or "
                    + "snapshots, and left alone"
            Terminal.output(
                "\(document.files) files: \(arguments.size(document.rewrittenBytes)) rewritten, "
                    + "\(document.extentsBefore) extents now \(document.extentsAfter)\(left)\n")
        }
        return document.isComplete ? .done : .interrupted
    }

    static func dedup(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        var request = ControlRequest(command: .dedup)
        let paths = Array(arguments.operands.dropFirst())
        if !paths.isEmpty { request.paths = paths }
        if let text = arguments.value(.memory) {
            let bytes = try SizeParser.parse(text, option: "--memory")
            guard FileRequests.memoryRange.contains(bytes) else {
                throw .usage("--memory: '\(text)' is not from 64K to 512M")
            }
            request.memoryBytes = bytes
        }
        let stop = Stop()
        let reply = try withProgress(arguments, "dedup", stop: stop) {
            (progress) throws(Failure) in try dedup(path, request, stop, progress)
        }
        guard let document = reply.dedup else { throw LivePath.noResult() }
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "dedup", kind: "summary"))
        } else if !arguments.isQuiet {
            Terminal.output(
                "\(path): \(arguments.size(document.scannedBytes)) gone through, "
                    + "\(arguments.size(document.comparedBytes)) compared, "
                    + "\(arguments.size(document.sharedBytes)) now shared\n")
        }
        return document.isComplete ? .done : .interrupted
    }

    private static func dedup(
        _ path: String, _ request: ControlRequest, _ stop: Stop,
        _ progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> ControlReply {
        let target: Target
        do throws(Failure) { target = try Target.resolve(path) } catch {
            if error.id == .notMounted, let place = try? LivePath(path) {
                let mountpoint = place.mount.record.mountpoint
                throw Failure(
                    .notFound, .notMounted, "\(path) is a part of the volume on \(mountpoint)",
                    hint: "'aegisfs dedup \(mountpoint) \(path)' goes through that part")
            }
            throw error
        }
        switch target {
        case .live(let mount):
            var request = request
            request.paths = request.paths?.map { onVolume($0, mount.record.mountpoint) }
            return try ControlClient.send(request, to: mount, progress: progress)
        case .offline:
            let (device, volume) = try DeviceAccess.openVolume(changing: path)
            stop.begin()
            defer { device.close() }
            var reply = ControlReply.done
            do throws(Failure) {
                try FileRequests.perform(
                    request, volume.fileSystem, path, &reply,
                    isCancelled: { stop.isRequested }, progress: progress)
            } catch {
                try? volume.close()
                throw error
            }
            do throws(FSError) { try volume.close() } catch { throw Failure(error, target: path) }
            return reply
        }
    }

    /// A path that is one of the mount, seen from the volume's root; others are meant so already.
    private static func onVolume(_ path: String, _ mountpoint: String) -> String {
        guard path.hasPrefix("/"), let resolved = Paths.resolve(path),
            Paths.isInside(resolved, mountpoint)
        else { return path }
        return "/" + String(decoding: resolved.utf8.dropFirst(mountpoint.utf8.count), as: UTF8.self)
    }

    /// Shows progress, and on a signal says how far it was.
    ///
    /// - Parameters:
    ///   - stop: in this process, ends the work in an orderly way before the process ends.
    ///   - left: what becomes of what was done.
    static func withProgress(
        _ arguments: Arguments, _ command: String, stop: Stop? = nil,
        left: String = "what was done until then stays",
        _ body: ((ProgressReporter.Step) -> Void) throws(Failure) -> ControlReply
    ) throws(Failure) -> ControlReply {
        let reporter = ProgressReporter(
            arguments.progressMode, command: command, json: arguments.json,
            quiet: arguments.isQuiet)
        let interruption = Interruption(arguments) {
            stop?.request()
            return "cancelled \(reporter.cancellationNote()): \(left)"
        }
        defer { stop?.end() }
        let reply = try body { reporter.update($0) }
        stop?.end()
        interruption.end()
        reporter.finish()
        return reply
    }
}

/// How a signal ends work in this process: it asks, and waits until the volume is closed.
///
/// Safe to share: all is behind `lock`.
final class Stop: @unchecked Sendable {
    private let lock = Mutex()
    private var hasBegun = false
    private var wasRequested = false

    var isRequested: Bool { lock.withLock { wasRequested } }
    func begin() { lock.withLock { hasBegun = true } }
    /// The volume is closed.
    func end() {
        lock.withLock {
            hasBegun = false
            lock.signalAll()
        }
    }
    func request() {
        lock.withLock {
            wasRequested = true
            while hasBegun { lock.wait() }
        }
    }
}
