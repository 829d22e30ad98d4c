/// `aegisfs trim`: gives free space back to the device, or to the filesystem that holds an image.
internal import FSCore
internal import FSModules

struct TrimDocument: Codable, Sendable {
    var trimmedBytes: UInt64
}

extension ProgressReporter.Step {
    init(trim progress: ResizeProgress) {
        self.init(
            phase: "trimming", doneBytes: progress.doneBytes, totalBytes: progress.totalBytes)
    }
}

enum TrimVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let reporter = ProgressReporter(
            arguments.progressMode, command: "trim", json: arguments.json,
            quiet: arguments.isQuiet)
        let interruption = Interruption(arguments) {
            "cancelled \(reporter.cancellationNote()): what was trimmed so far stays so"
        }
        let document: TrimDocument
        switch try Target.resolve(path) {
        case .live(let mount):
            let reply = try ControlClient.send(ControlRequest(command: .trim), to: mount) {
                reporter.update($0)
            }
            guard let trimmed = reply.trim else {
                throw Failure(.failed, .badRequest, "the daemon answered without a result")
            }
            document = trimmed
        case .offline: document = try trim(path, reporter)
        }
        interruption.end()
        reporter.finish()
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "trim", kind: "summary"))
        } else if !arguments.isQuiet {
            Terminal.output("\(path): \(arguments.size(document.trimmedBytes)) trimmed\n")
        }
        return .done
    }

    private static func trim(
        _ path: String, _ reporter: ProgressReporter
    ) throws(Failure) -> TrimDocument {
        let held = try DeviceAccess.open(path, .readWrite, notice: Terminal.notice)
        defer { held.close() }
        do throws(FSError) {
            var options = OpenOptions()
            options.checkpointIntervalMilliseconds = 0
            let volume = try Volume.open(held.device, modules: .standard, options: options)
            let trimmed: UInt64
            do throws(FSError) {
                trimmed = try volume.trim(progress: {
                    reporter.update(ProgressReporter.Step(trim: $0))
                })
            } catch {
                try? volume.close()
                throw error
            }
            try volume.close()
            return TrimDocument(trimmedBytes: trimmed)
        } catch { throw Failure(error, target: path) }
    }
}
