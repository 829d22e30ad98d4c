/// What each error of the core means to the user of the command: one table.
internal import FSCore
internal import Glibc

extension Failure {
    /// - Parameter target: the image or device, as the user named it.
    init(_ error: FSError, target: String) {
        let sentence = "\(target): \(error.description)"
        switch error {
        case .notAVolume:
            // What is there instead is worth more than advice to overwrite it.
            let found = (try? Signatures.find(on: target))?.first
            self.init(
                .notFound, .notAVolume,
                found.map { "\(target) is not an AegisFS volume: it contains \($0.description)" }
                    ?? sentence,
                hint: "check the name; a new volume is made by 'aegisfs format'")
        case .unknownVersion(found: 0, _):
            self.init(
                .failed, .inDevelopment,
                "\(target) is of disk version 0, which was in development and is not read any more",
                hint: "copy its files, with the aegisfs that made it, to a volume of this one")
        case .unknownVersion:
            self.init(
                .failed, .unknownVersion, sentence,
                hint: "use the version of aegisfs that wrote it")
        case .unknownFeatures(.readOnlyCompatible, _):
            self.init(
                .failed, .unknownFeatures, sentence,
                hint: "use a newer aegisfs, or mount it with --read-only")
        case .unknownFeatures(.incompatible, _):
            self.init(.failed, .unknownFeatures, sentence, hint: "use a newer aegisfs")
        case .truncated(let expected, let found):
            self.init(
                .failed, .truncated,
                "\(target) is cut short: the volume has \(SizeFormatter.string(expected)) "
                    + "(\(expected) bytes), the device \(SizeFormatter.string(found)) "
                    + "(\(found) bytes)",
                hint: "restore the rest from the original; 'truncate -s \(expected)' on an image "
                    + "gives back the size, not the content")
        case .superblockLost:
            self.init(
                .failed, .superblockLost, sentence,
                hint: "mount it with --read-only and copy what is there")
        case .corrupt:
            self.init(
                .failed, .damaged, sentence, hint: "'aegisfs check \(target)' lists all damage")
        case .tooSmall(let bytes, let minimum):
            self.init(
                .failed, .tooSmall,
                "\(target): \(SizeFormatter.string(bytes)) is too small for a volume",
                hint: "the smallest volume has \(SizeFormatter.string(minimum))")
        case .tooLarge(let bytes, let maximum):
            self.init(
                .failed, .tooLarge,
                "\(target): \(SizeFormatter.string(bytes)) is too large for a volume",
                hint: "the largest volume has \(SizeFormatter.string(maximum))")
        case .notReplayable:
            self.init(
                .failed, .notReplayable, sentence,
                hint: "mount it read-write once: that replays the journal to the device")
        case .journalSize(let bytes, let minimum, let maximum):
            self.init(
                .usage, .journalSize,
                "a journal of \(SizeFormatter.string(bytes)) is not possible on \(target)",
                hint: "choose \(SizeFormatter.string(minimum)) to "
                    + "\(SizeFormatter.string(maximum)), or --no-journal")
        case .latched:
            self.init(
                .failed, .latched, sentence,
                hint: "'aegisfs status \(target)' says what to do")
        case .device(let operation, let number, let offset):
            self.init(operation, number, offset, target)
        case .noSpace:
            self.init(
                .failed, .noSpace, sentence,
                hint:
                    "delete something on it, or enlarge it; 'aegisfs status' says what snapshots keep"
            )
        case .readOnly:
            self.init(
                .failed, .refused, sentence,
                hint:
                    "if it is mounted read-only, 'aegisfs mount -o remount,rw' makes it writable; "
                    + "a snapshot never is")
        case .busy: self.init(.busy, .locked, sentence)
        case .interrupted: self.init(.interrupted, .interrupted, sentence)
        case .cannotShrink(let bytes, let minimum):
            self.init(
                .failed, .cannotShrink,
                "\(target) cannot shrink to \(SizeFormatter.string(bytes)): what it holds needs "
                    + "\(SizeFormatter.string(minimum)) (\(minimum) bytes)",
                hint: "delete something on it first, or shrink it to \(minimum)B")
        case .accessDenied, .notPermitted:
            self.init(
                .failed, .permissionDenied, sentence, hint: "run it as root, or as the owner")
        case .noSuchEntry, .entryExists, .notDirectory, .isDirectory, .directoryNotEmpty,
            .nameTooLong, .tooManyLinks, .invalidArgument, .fileTooLarge, .noSuchAttribute,
            .attributeTooLarge, .notSupported, .stale, .crossDevice,
            .noDataBeyond:
            self.init(.failed, .refused, sentence)
        }
    }

    /// The device's own errors: what the system said when it was opened, read or written.
    private init(
        _ operation: FSError.DeviceOperation, _ number: Int32, _ offset: UInt64, _ target: String
    ) {
        let reason = systemMessage(number)
        switch (operation, number) {
        case (.open, ENOENT), (.open, ENOTDIR), (.open, ENXIO), (.open, ENODEV):
            self.init(
                .notFound, .targetMissing, "\(target): \(reason)",
                hint: "check the name; 'aegisfs status' lists what is mounted")
        case (.open, EWOULDBLOCK), (.open, EBUSY):
            self.init(.busy, .locked, "\(target) is in use by another process")
        case (.open, EACCES), (.open, EPERM):
            self.init(
                .failed, .permissionDenied, "\(target): \(reason)",
                hint: "run it as root, or as the owner of the image")
        case (.open, EROFS), (.write, EROFS), (.write, EPERM):
            self.init(
                .failed, .readOnlyDevice, "\(target): \(reason)",
                hint: "it can be mounted with --read-only")
        case (.open, EISDIR), (.open, EINVAL), (.open, ENOTBLK):
            self.init(
                .failed, .wrongKindOfTarget,
                "\(target) is neither an image nor a block device")
        case (_, ENOSPC), (_, EDQUOT):
            self.init(
                .failed, .noSpace, "\(target): \(reason)",
                hint: "make room on the filesystem that holds the image")
        case (.resize, _):
            self.init(.failed, .sizeMismatch, "\(target) cannot have this size: \(reason)")
        default:
            let place = operation == .open || operation == .flush ? "" : " at byte \(offset)"
            self.init(
                .failed, .deviceError,
                "\(target): \(operation.rawValue) failed\(place): \(reason)",
                hint: "look into the system log for the device's error")
        }
    }
}
