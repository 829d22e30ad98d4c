/// `aegisfs restore`: takes a file or directory back from a snapshot.
///
/// On a mount the daemon makes the copy, and this process puts it in its place: so the kernel, with its
/// caches and rules, takes part in the one step that others see.
internal import CLinux
internal import FSCore
internal import FSModules
internal import Glibc

enum RestoreVerb {
    /// Of renameat2(2).
    private static let noReplace: UInt32 = 1
    private static let exchange: UInt32 = 2
    /// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, ioctl_iflags(2).
    private static let getFlags: UInt = 0x8008_6601
    private static let setFlags: UInt = 0x4008_6602

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        guard let snapshot = arguments.value(.restoreFrom) else {
            throw .usage("restore: --from SNAPSHOT is missing")
        }
        let place = try VolumePath(arguments)
        guard place.path.utf8.contains(where: { $0 != UInt8(ascii: "/") }) else {
            throw .usage(
                "restore: the root of a volume cannot be restored",
                hint: "'aegisfs snapshot rollback' takes all of it back")
        }
        var request = RestoreRequest(action: .plan, path: place.path, snapshot: snapshot)
        request.verifies = arguments.has(.verify)
        request.name =
            Snapshots.temporaryPrefix
            + String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        let document: RestoreDocument
        switch try Target.resolve(place.target) {
        case .live(let mount):
            // The volume itself may be named: what is mounted of it gets the file.
            let root =
                Target.mount(at: place.target) == nil ? mount.record.mountpoint : place.target
            var to = arguments.value(.restoreTo) ?? root + place.path
            if arguments.operand(1) != nil, let path = arguments.value(.restoreTo) {
                to = root + "/" + path
            }
            document = try live(mount, to, request, arguments)
        case .offline(let path):
            document = try offline(
                path, arguments.value(.restoreTo) ?? place.path, request, arguments)
        }
        return show(document, arguments)
    }

    private static func show(_ document: RestoreDocument, _ arguments: Arguments) -> ExitCode {
        if arguments.json {
            Terminal.output(JSONOutput.line(document, command: "restore", kind: "summary"))
        } else if !arguments.isQuiet {
            var parts = ["\(document.files) files", "\(document.directories) directories"]
            if document.others > 0 { parts.append("\(document.others) others") }
            if document.links > 0 { parts.append("\(document.links) further links") }
            Terminal.output(
                "\(document.isDryRun ? "would restore" : "restored") \(document.to) from "
                    + "'\(document.snapshot)': \(parts.joined(separator: ", ")), "
                    + "\(arguments.size(document.dataBytes))"
                    + "\(document.isReplacement ? ", in place of what was there" : "")\n")
        }
        if document.unreadableFiles > 0 {
            Terminal.notice(
                "\(document.unreadableFiles) files have parts without a good copy "
                    + "[\(MessageID.restoreIncomplete.rawValue)]")
        }
        if let leftover = document.leftover {
            Terminal.notice(
                "what was replaced could not be removed and is \(leftover) "
                    + "[\(MessageID.restoreIncomplete.rawValue)]")
        }
        return document.unreadableFiles > 0 || document.leftover != nil ? .damaged : .done
    }

    private static func exists(_ path: String) -> Failure {
        Failure(
            .needsConfirmation, .restoreExists, "\(path) exists; nothing was changed",
            hint: "--to PATH puts it elsewhere, --force replaces what is there")
    }

    /// The directory and the name of a place.
    private static func split(_ path: String) throws(Failure) -> (String, String) {
        var bytes = Array(path.utf8)
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        let (directory, name) = Paths.split(String(decoding: bytes, as: UTF8.self))
        guard !name.isEmpty, name != ".", name != ".." else {
            throw .usage("restore: '\(path)' is no name that something can have")
        }
        return (directory, name)
    }

    // MARK: On a mount

    private static func live(
        _ mount: LiveMount, _ path: String, _ request: RestoreRequest, _ arguments: Arguments
    ) throws(Failure) -> RestoreDocument {
        let (parent, name) = try split(path)
        guard let directory = Descriptor.open(parent, O_RDONLY | O_DIRECTORY),
            let status = directory.status
        else { throw Target.missing(parent, errno) }
        guard DeviceIdentity.number(UInt64(status.st_dev)) == mount.record.mountDevice else {
            throw .usage(
                "restore: \(parent) is not on the volume that is mounted on "
                    + "\(mount.record.mountpoint)")
        }
        var request = request
        request.directory = UInt64(status.st_ino)
        let present = directory.status(of: name)
        let replaces = arguments.has(.replace) && present != nil
        func send(_ action: RestoreRequest.Action) throws(Failure) -> RestoreDocument {
            var control = ControlRequest(command: .restore)
            request.action = action
            control.restore = request
            let reply = try FileVerbs.withProgress(
                arguments, "restore", left: "nothing was restored"
            ) { (progress) throws(Failure) in
                try ControlClient.send(control, to: mount, progress: progress)
            }
            guard let document = reply.restore else { throw LivePath.noResult() }
            return document
        }
        var document = RestoreDocument()
        if present == nil || replaces, !arguments.has(.dryRun) {
            document = try send(.copy)
            do throws(Failure) {
                try rename(request.name ?? "", name, in: directory, path, present, &document)
            } catch {
                _ = try? send(.discardCopy)
                _ = remove(request.name ?? "", document.kind == "directory", in: directory)
                throw error
            }
            setFixedFlags(document.fixedFlags, of: name, in: directory)
            if document.isReplacement, let old = directory.status(of: request.name ?? "") {
                let isEmpty = (try? send(.discardReplaced)) != nil
                if !isEmpty || !remove(request.name ?? "", old.isDirectory, in: directory) {
                    document.leftover = "\(parent)/\(request.name ?? "")"
                }
            }
        } else {
            document = try send(.plan)
            document.isReplacement = replaces
            guard present == nil || replaces else { throw exists(path) }
        }
        document.to = path
        return document
    }

    /// The one step that others see.
    private static func rename(
        _ temporary: String, _ name: String, in directory: Descriptor, _ path: String,
        _ present: stat?, _ document: inout RestoreDocument
    ) throws(Failure) {
        var flags = noReplace
        if let present {
            flags = present.isDirectory || document.kind == "directory" ? exchange : 0
            document.isReplacement = true
        }
        guard renameat2(directory.raw, temporary, directory.raw, name, flags) != 0 else { return }
        let error = errno
        if error == EEXIST { throw exists(path) }
        if error == EBUSY {
            throw Failure(.busy, .mountBusy, "\(path): something is mounted there")
        }
        throw .system(path, error)
    }

    private static func remove(
        _ name: String, _ isDirectory: Bool, in directory: Descriptor
    ) -> Bool {
        unlinkat(directory.raw, name, isDirectory ? Int32(AT_REMOVEDIR) : 0) == 0
            || errno == ENOENT
    }

    private static func setFixedFlags(_ fixed: UInt32, of name: String, in directory: Descriptor) {
        guard fixed != 0 else { return }
        let raw = openat(directory.raw, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard raw >= 0 else { return }
        let file = Descriptor(raw)
        var flags: UInt = 0
        guard ioctl(file.raw, getFlags, &flags) == 0 else { return }
        flags |= UInt(fixed)
        _ = ioctl(file.raw, setFlags, &flags)
    }

    // MARK: In this process

    private static func offline(
        _ path: String, _ to: String, _ request: RestoreRequest, _ arguments: Arguments
    ) throws(Failure) -> RestoreDocument {
        let (parent, name) = try split(to.hasPrefix("/") ? to : "/" + to)
        let stop = Stop()
        let isDryRun = arguments.has(.dryRun)
        let reply = try FileVerbs.withProgress(
            arguments, "restore", stop: stop, left: "nothing was restored"
        ) { (progress) throws(Failure) in
            let (device, volume) =
                isDryRun
                ? try DeviceAccess.openRecovered(path)
                : try DeviceAccess.openVolume(changing: path)
            stop.begin()
            defer { device.close() }
            var reply = ControlReply.done
            do throws(Failure) {
                reply.restore = try restore(
                    volume, path, parent, name, request, arguments, stop, progress)
            } catch {
                try? volume.close()
                throw error
            }
            do throws(FSError) { try volume.close() } catch { throw Failure(error, target: path) }
            return reply
        }
        guard let document = reply.restore else { throw LivePath.noResult() }
        return document
    }

    private static func restore(
        _ volume: Volume, _ target: String, _ parent: String, _ name: String,
        _ request: RestoreRequest, _ arguments: Arguments, _ stop: Stop,
        _ progress: (ProgressReporter.Step) -> Void
    ) throws(Failure) -> RestoreDocument {
        let files = volume.fileSystem
        let store = volume.snapshotStore
        let service = RestoreService(volume: volume, files: files, target: target)
        var request = request
        let path = parent == "/" ? "/" + name : "\(parent)/\(name)"
        do throws(FSError) {
            let summary = try service.plan(request) { stop.isRequested }
            var document = RestoreDocument(summary, request)
            document.to = path
            let directory = try self.directory(parent, files, target)
            let present = try Array(name.utf8).withView { (name) throws(FSError) in
                try files.entry(named: name, in: directory)
            }
            document.isReplacement = present != nil
            guard present == nil || arguments.has(.replace) else { throw .entryExists }
            if arguments.has(.dryRun) { return document }
            request.action = .copy
            request.directory = directory.rawValue
            let copy = try service.copy(request, { stop.isRequested }, progress)
            let isClean = try store.place(
                Array((request.name ?? "").utf8), copy, as: Array(name.utf8), in: directory,
                of: files, replaces: arguments.has(.replace))
            let isReplacement = document.isReplacement
            document = RestoreDocument(copy, request)
            document.to = path
            document.isReplacement = isReplacement
            if !isClean {
                document.leftover = (parent == "/" ? "/" : parent + "/") + (request.name ?? "")
            }
            return document
        } catch .entryExists {
            throw exists(path)
        } catch .notDirectory {
            throw Failure(.notFound, .targetMissing, "\(target): there is no directory \(parent)")
        } catch { throw service.failure(error, request) }
    }

    private static func directory(
        _ path: String, _ files: FileSystem, _ target: String
    ) throws(FSError) -> InodeNumber {
        do throws(FSError) {
            let inode = try files.inode(at: path)
            guard try files.attributes(of: inode).kind == .directory else { throw .notDirectory }
            return inode
        } catch .noSuchEntry { throw .notDirectory }
    }
}
