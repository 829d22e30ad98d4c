/// A path on a volume, as the command line names it: by a path on a mount, or by a volume, mounted or not,
/// and a path from its root. What it names need not be there any more.
internal import Glibc

struct VolumePath: Sendable {
    /// A mountpoint, an image or a device.
    var target: String
    /// From the root of the volume.
    var path: String

    init(_ arguments: Arguments) throws(Failure) {
        let first = arguments.operands[0]
        if let path = arguments.operand(1) {
            target = first
            self.path = path.hasPrefix("/") ? path : "/" + path
            return
        }
        var directory = first
        var rest: [String] = []
        while fileStatus(directory, followLinks: false) == nil {
            let (parent, name) = Paths.split(directory)
            guard !name.isEmpty, parent != directory else { break }
            rest.insert(name, at: 0)
            directory = parent
        }
        guard var known = Self.resolve(directory) else { throw Target.missing(first, ENOENT) }
        while Target.mount(at: known) == nil {
            let (parent, name) = Paths.split(known)
            guard !name.isEmpty, known != "/" else {
                throw Failure(
                    .notFound, .notMounted, "\(first) is on no mounted AegisFS volume",
                    hint:
                        "'aegisfs \(arguments.commandName) IMAGE PATH' looks into one that is not "
                        + "mounted")
            }
            rest.insert(name, at: 0)
            known = parent
        }
        target = known
        path = "/" + rest.joined(separator: "/")
    }

    /// The way to a path without links; the last component may be one, which is meant itself.
    private static func resolve(_ path: String) -> String? {
        guard let status = fileStatus(path, followLinks: false), status.kind == S_IFLNK else {
            return Paths.resolve(path)
        }
        let (parent, name) = Paths.split(path)
        return Paths.resolve(parent).map { $0 == "/" ? "/" + name : "\($0)/\(name)" }
    }
}
