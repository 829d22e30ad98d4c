/// `aegisfs property`: shows and sets properties of files, directories and volumes.
///
/// A path on a mount is asked by its extended attributes, so that whoever may read or write the file
/// needs nothing else; an image or device that nobody has mounted is opened.
internal import CLinux
internal import FSCore
internal import FSModules
internal import Glibc

enum PropertyVerb {
    private struct Document: Encodable {
        struct Entry: Encodable {
            var name: String
            var value: String
            /// `local` or `default`
            var source: String
            var scope: String
        }
        var path: String
        var properties: [Entry]
    }

    static func get(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let property = try property(arguments.operands[1])
        let value = try access(path, writing: false) { (place) throws(Failure) in
            try place.value(of: property)
        }
        guard let value else { throw elsewhere(property, path) }
        if arguments.json {
            show([(property, value)], path, arguments)
        } else {
            Terminal.output(value.value + "\n")
        }
        return .done
    }

    static func list(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let found = try access(path, writing: false) {
            (place) throws(Failure) -> [(Property, PropertyValue)] in
            var found: [(Property, PropertyValue)] = []
            for property in Property.all {
                if let value = try place.value(of: property) { found.append((property, value)) }
            }
            return found
        }
        show(found, path, arguments)
        return .done
    }

    static func set(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        let property = try property(arguments.operands[1])
        let value = arguments.operands[2]
        guard property.takes(value) else {
            throw .usage(
                "\(property.name): '\(value)' is not a value of it",
                hint: "it takes \(property.values), or \(Property.unset)")
        }
        try access(path, writing: true) { (place) throws(Failure) in
            try place.set(property, value)
        }
        return .done
    }

    private static func property(_ name: String) throws(Failure) -> Property {
        if let property = Property.named(name) { return property }
        let names = Property.all.map(\.name)
        throw .usage(
            "there is no property '\(name)'",
            hint: Suggestion.hint(for: name, among: names)
                ?? "it is one of \(names.joined(separator: ", "))")
    }

    private static func elsewhere(_ property: Property, _ path: String) -> Failure {
        Failure(
            .failed, .noProperty, "\(path) has no property \(property.name)",
            hint: property.isOfVolume
                ? "it is one of the whole volume: name its mountpoint, image or device"
                : "only files and directories have it")
    }

    private static func show(
        _ found: [(Property, PropertyValue)], _ path: String, _ arguments: Arguments
    ) {
        func source(_ value: PropertyValue) -> String { value.isSet ? "local" : Property.unset }
        if arguments.json {
            let entries = found.map { (property, value) in
                Document.Entry(
                    name: property.name, value: value.value, source: source(value),
                    scope: property.isOfVolume ? "volume" : "inode")
            }
            Terminal.output(
                JSONOutput.line(Document(path: path, properties: entries), command: "property"))
            return
        }
        var table = TextTable([
            ("property", .left), ("value", .left), ("source", .left), ("meaning", .left),
        ])
        for (property, value) in found {
            table.add([property.name, value.value, source(value), property.summary])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
    }

    // MARK: Where the properties are

    private enum Place {
        /// A file or directory on a mount.
        case live(path: String)
        /// The root directory of an unmounted volume.
        case offline(FileSystem, path: String)

        /// nil if the inode has no such property.
        func value(of property: Property) throws(Failure) -> PropertyValue? {
            switch self {
            case .offline(let fileSystem, let path):
                do throws(FSError) {
                    return try fileSystem.property(property, of: .root)
                } catch { throw Failure(error, target: path) }
            case .live(let path):
                var buffer = [UInt8](repeating: 0, count: 256)
                let count = getxattr(path, "aegisfs.\(property.name)", &buffer, buffer.count)
                guard count >= 0 else {
                    if errno == ENODATA || errno == EOPNOTSUPP { return nil }
                    throw .system(path, errno)
                }
                return PropertyValue(text: String(decoding: buffer.prefix(count), as: UTF8.self))
            }
        }

        func set(_ property: Property, _ value: String) throws(Failure) {
            switch self {
            case .offline(let fileSystem, let path):
                do throws(FSError) {
                    try fileSystem.setProperty(property, of: .root, value)
                } catch { throw Failure(error, target: path) }
            case .live(let path):
                let bytes = Array(value.utf8)
                let name = "aegisfs.\(property.name)"
                guard setxattr(path, name, bytes, bytes.count, 0) == 0 else {
                    if errno == EOPNOTSUPP { throw elsewhere(property, path) }
                    throw .system(path, errno)
                }
            }
        }
    }

    private static func access<R>(
        _ path: String, writing: Bool, _ body: (Place) throws(Failure) -> R
    ) throws(Failure) -> R {
        if let status = fileStatus(path), isMounted(status) { return try body(.live(path: path)) }
        switch try Target.resolve(path) {
        case .live(let mount): return try body(.live(path: mount.record.mountpoint))
        case .offline:
            let (device, volume) =
                writing
                ? try DeviceAccess.openVolume(changing: path)
                : try DeviceAccess.openVolume(reading: path)
            defer { device.close() }
            let result: R
            do throws(Failure) {
                result = try body(.offline(volume.fileSystem, path: path))
            } catch {
                try? volume.close()
                throw error
            }
            do throws(FSError) { try volume.close() } catch { throw Failure(error, target: path) }
            return result
        }
    }

    /// Whether a file lies on one of our mounts.
    private static func isMounted(_ status: stat) -> Bool {
        let device = DeviceIdentity.number(UInt64(status.st_dev))
        return MountTable.current()?.entries.contains { $0.isAegisFS && $0.device == device }
            ?? false
    }
}
