/// `aegisfs format`: probes, asks, sizes, wipes, formats; in this order, so that nothing is changed
/// before everything is known.
///
/// - Invariant: without --force or a yes on a terminal, a target that holds anything is not changed.
/// - Invariant: an image that this run created is removed again if it could not be formatted.
internal import FSCore
internal import FSModules
internal import Glibc

enum FormatVerb {
    private struct Document: Encodable {
        var target: String
        var uuid: String
        var label: String
        var sizeBytes: UInt64
        var blocks: UInt64
        var blockSizeBytes: UInt64
        var journalBytes: UInt64
        var checksum: String
        var copies: Int
        var availableBytes: UInt64
        var inodesEstimated: UInt64
        var isDryRun: Bool
        var replaced: [Signature]
        /// The size of an image that was larger than the volume is.
        var cutFromBytes: UInt64?
    }

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        var options = FormatOptions()
        // Who formats an image may use it.
        options.rootUserID = geteuid()
        options.rootGroupID = getegid()
        options.label = arguments.value(.label) ?? ""
        guard options.label.utf8.count <= Superblock.maximumLabelLength else {
            throw .usage("--label: a label has at most \(Superblock.maximumLabelLength) bytes")
        }
        if let text = arguments.value(.compression) {
            options.compression = try CompressionSetting.parse(text, option: "--compression")
        }
        options.checksumKind =
            ChecksumKind.allCases.first { $0.name == arguments.value(.checksum) } ?? .crc32c
        options.dataCopies = arguments.value(.copies).flatMap(Int.init) ?? 1
        if let text = arguments.value(.uuid) {
            guard let uuid = VolumeUUID(parsing: text) else {
                throw .usage(
                    "--uuid: '\(text)' is not a UUID",
                    hint: "a UUID looks like 123e4567-e89b-42d3-a456-426614174000")
            }
            options.uuid = uuid
        }
        var size = try arguments.value(.size).map { (text) throws(Failure) in
            try SizeParser.parse(text, option: "--size")
        }
        if size == 0 { size = nil }
        options.journalByteCount = try journalSize(arguments)
        if let size { try checkSize(size, path) }

        let isNew = try checkTarget(path, size)
        if isNew, let size, arguments.has(.dryRun) {
            let summary = try step(path) { () throws(FSError) in
                try VolumeFormatter.plan(byteCount: size, options: options)
            }
            show(summary, path, [], nil, arguments)
            return .done
        }
        let interruption = Interruption(arguments) {
            if isNew { unlink(path) }
            return isNew
                ? "interrupted; \(path) was removed again"
                : "interrupted; format \(path) again before it is used"
        }
        if isNew { try create(path) }
        do throws(Failure) {
            return try format(path, size, options, isNew: isNew, interruption, arguments)
        } catch {
            if isNew { unlink(path) }
            throw error
        }
    }

    private static func journalSize(_ arguments: Arguments) throws(Failure) -> UInt64? {
        let text = arguments.value(.journalSize)
        if arguments.has(.noJournal) {
            guard text == nil else {
                throw .usage("--journal-size and --no-journal exclude each other")
            }
            return 0
        }
        guard let text else { return nil }
        let size = try SizeParser.parse(text, option: "--journal-size")
        guard size > 0 else {
            throw .usage("--journal-size: 0 is no size", hint: "--no-journal leaves it out")
        }
        return size
    }

    private static func checkSize(_ size: UInt64, _ path: String) throws(Failure) {
        if size < VolumeFormatter.minimumByteCount {
            throw Failure(
                .tooSmall(bytes: size, minimum: VolumeFormatter.minimumByteCount), target: path)
        }
        if size > VolumeFormatter.maximumByteCount {
            throw Failure(
                .tooLarge(bytes: size, maximum: VolumeFormatter.maximumByteCount), target: path)
        }
    }

    /// True if the image is still to be created.
    private static func checkTarget(_ path: String, _ size: UInt64?) throws(Failure) -> Bool {
        guard let status = fileStatus(path) else {
            guard errno == ENOENT else { throw Target.missing(path, errno) }
            guard size != nil else {
                throw Failure(
                    .notFound, .sizeMissing, "\(path) does not exist",
                    hint: "'aegisfs format \(path) --size SIZE' makes a new image")
            }
            // A mistyped device: an image there would lie in memory and be gone after a reboot.
            if let resolved = Paths.resolve(path), Paths.isInside(resolved, "/dev"),
                !Paths.isInside(resolved, "/dev/shm")
            {
                throw Failure(
                    .notFound, .targetMissing, "there is no device \(path)",
                    hint: "'lsblk' lists the devices; an image is made outside /dev")
            }
            return true
        }
        guard status.isRegular || status.kind == S_IFBLK else {
            throw Failure(
                .failed, .wrongKindOfTarget, "\(path) is neither an image nor a block device")
        }
        if status.isRegular, status.st_size == 0, size == nil {
            throw Failure(
                .failed, .sizeMissing, "\(path) is empty",
                hint: "'aegisfs format \(path) --size SIZE' gives it a size")
        }
        if DeviceUsage.uses(of: path).contains(where: { $0.kind != .attachedLoop }) {
            throw DeviceAccess.busy(path)
        }
        return false
    }

    private static func create(_ path: String) throws(Failure) {
        guard Descriptor.open(path, O_RDWR | O_CREAT | O_EXCL, mode: 0o644) != nil else {
            if errno == ENOENT {
                throw Failure(
                    .notFound, .targetMissing,
                    "cannot create \(path): its directory does not exist",
                    hint: "'mkdir -p \(Paths.split(path).directory)' makes it")
            }
            throw .system("cannot create \(path)", errno)
        }
    }

    private static func format(
        _ path: String, _ size: UInt64?, _ options: FormatOptions, isNew: Bool,
        _ interruption: Interruption, _ arguments: Arguments
    ) throws(Failure) -> ExitCode {
        let held = try DeviceAccess.open(path, .readWrite, notice: Terminal.notice)
        let device = held.device
        defer { held.close() }
        let found = isNew ? [] : try Signatures.find(on: path)
        let oldSize = device.byteCount
        // What the image is cut to; nil if it keeps all that it has.
        let cut = device.isBlockDevice ? nil : size.flatMap { $0 < oldSize ? $0 : nil }
        let loss = isNew ? nil : try loss(path, found, oldSize, cut, arguments)
        if let loss, !arguments.has(.dryRun) { try confirm(loss) }
        var options = options
        if let size {
            if device.isBlockDevice {
                guard size <= device.byteCount else {
                    throw Failure(
                        .failed, .sizeMismatch,
                        "\(path) has \(arguments.size(device.byteCount)), "
                            + "less than the \(arguments.size(size)) asked for",
                        hint: "leave --size out to use the whole device")
                }
                options.byteCount = size
            } else if !arguments.has(.dryRun) {
                try step(path) { () throws(FSError) in try device.resize(to: size) }
            }
        }
        let bytes = device.isBlockDevice ? size ?? oldSize : size ?? device.byteCount
        try checkSize(bytes, path)
        if arguments.has(.dryRun) {
            let summary = try step(path) { () throws(FSError) in
                try VolumeFormatter.plan(byteCount: bytes, options: options)
            }
            show(summary, path, found, cut == nil ? nil : oldSize, arguments)
            if let loss { throw loss.refusal }
            return .done
        }
        do throws(Failure) {
            if found.contains(where: { !$0.type.hasPrefix("aegisfs") }) {
                try Signatures.wipe(path)
                Signatures.forgetPartitions(of: path)
            }
            let summary = try step(path) { () throws(FSError) in
                try VolumeFormatter.format(device, modules: .standard, options: options)
            }
            interruption.end()
            show(summary, path, found, cut == nil ? nil : oldSize, arguments)
        } catch {
            // An image that only grew gets its size back.
            if !device.isBlockDevice, !isNew, oldSize < device.byteCount {
                try? device.resize(to: oldSize)
            }
            throw error
        }
        return .done
    }

    private static func step<R>(
        _ path: String, _ body: () throws(FSError) -> R
    ) throws(Failure) -> R {
        do throws(FSError) { return try body() } catch { throw Failure(error, target: path) }
    }

    /// Why to ask before going on.
    private struct Loss {
        let message: String
        let id: MessageID
        var refusal: Failure {
            Failure(
                .needsConfirmation, id, "\(message); nothing was changed",
                hint: "--force formats it all the same")
        }
    }

    /// What would be lost; nil if nothing would, or with --force.
    private static func loss(
        _ path: String, _ found: [Signature], _ oldSize: UInt64, _ cut: UInt64?,
        _ arguments: Arguments
    ) throws(Failure) -> Loss? {
        if arguments.has(.force) { return nil }
        var losses: [(text: String, id: MessageID)] = []
        if !found.isEmpty {
            let names = found.map(\.description).joined(separator: "; ")
            losses.append(("contains \(names)", .signatureFound))
        } else if try Signatures.hasData(path) {
            losses.append(("contains data", .dataFound))
        }
        if let cut {
            losses.append(
                (
                    "would be cut from \(arguments.size(oldSize)) to \(arguments.size(cut))",
                    .imageShrinks
                ))
        }
        guard let first = losses.first else { return nil }
        return Loss(
            message: "\(path) \(losses.map(\.text).joined(separator: " and "))", id: first.id)
    }

    /// Goes on only when told to.
    private static func confirm(_ loss: Loss) throws(Failure) {
        if Terminal.confirm("aegisfs: \(loss.message). Go on?") == true { return }
        throw loss.refusal
    }

    private static func show(
        _ summary: FormatSummary, _ path: String, _ replaced: [Signature], _ cutFrom: UInt64?,
        _ arguments: Arguments
    ) {
        let inodes = summary.availableBlocks * 4
        if arguments.json {
            Terminal.output(
                JSONOutput.line(
                    Document(
                        target: path, uuid: summary.uuid.description, label: summary.label,
                        sizeBytes: summary.byteCount, blocks: summary.blockCount,
                        blockSizeBytes: UInt64(DiskFormat.blockSize),
                        journalBytes: summary.journalBlocks << 12,
                        checksum: summary.checksumKind.name, copies: summary.dataCopies,
                        availableBytes: summary.availableBlocks << 12, inodesEstimated: inodes,
                        isDryRun: arguments.has(.dryRun), replaced: replaced,
                        cutFromBytes: cutFrom),
                    command: "format"))
        } else if !arguments.isQuiet {
            let isPlan = arguments.has(.dryRun)
            for signature in replaced {
                Terminal.output("\(isPlan ? "would erase" : "erased")  \(signature.description)\n")
            }
            if let cutFrom {
                let sizes = "\(arguments.size(cutFrom)) to \(arguments.size(summary.byteCount))"
                Terminal.output("\(isPlan ? "would cut" : "cut")  the image from \(sizes)\n")
            }
            Terminal.output(
                """
                \(isPlan ? "would make" : "made") an AegisFS volume on \(path)
                  uuid    \(summary.uuid)
                  label   \(summary.label.isEmpty ? "(none)" : summary.label)
                  size    \(arguments.size(summary.byteCount)), \(summary.blockCount) blocks of 4.0 KiB
                  journal \(summary.journalBlocks == 0 ? "none" : arguments.size(summary.journalBlocks << 12))
                  sums    \(summary.checksumKind.name)\(summary.dataCopies == 1 ? "" : ", data in \(summary.dataCopies) copies")
                  free    \(arguments.size(summary.availableBlocks << 12))
                  inodes  made as needed; room for about \(inodes)

                """)
        }
    }
}

extension VolumeUUID {
    /// The usual form, with or without dashes; nil if it is not 32 hexadecimal digits.
    init?(parsing text: String) {
        let digits = text.filter { $0 != "-" }
        guard digits.utf8.count == 32, text.utf8.count == 32 || text.utf8.count == 36,
            digits.utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
            let high = UInt64(digits.prefix(16), radix: 16),
            let low = UInt64(digits.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }
}
