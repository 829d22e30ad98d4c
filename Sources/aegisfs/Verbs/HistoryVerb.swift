/// `aegisfs history`: the versions of a path that snapshots have.
internal import Glibc

enum HistoryVerb {
    private struct Document: Encodable {
        var target: String
        var path: String
        var versions: [SnapshotDocument.Version]
    }

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let (target, path) = try place(arguments)
        let request = SnapshotRequest(action: .history, names: [path])
        let versions = try SnapshotVerb.perform(arguments, request, on: target).versions ?? []
        guard !versions.isEmpty else {
            throw Failure(
                .notFound, .noVersion, "\(target): no snapshot has \(path)",
                hint: "PATH is from the volume's root; 'aegisfs snapshot list' shows the snapshots")
        }
        if arguments.json {
            Terminal.output(
                JSONOutput.line(
                    Document(target: target, path: path, versions: versions), command: "history"))
            return .done
        }
        var table = TextTable([
            ("modified", .left), ("size", .right), ("kind", .left), ("in", .left),
        ])
        for version in versions {
            let places = version.snapshots + (version.isPresent ? ["(now)"] : [])
            table.add([
                version.modified, arguments.size(version.sizeBytes), version.kind,
                places.joined(separator: ", "),
            ])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        return .done
    }

    /// The volume, and the path from its root. A path on a mount need not be there any more.
    private static func place(_ arguments: Arguments) throws(Failure) -> (String, String) {
        let first = arguments.operands[0]
        if let path = arguments.operand(1) {
            return (first, path.hasPrefix("/") ? path : "/" + path)
        }
        var directory = first
        var rest: [String] = []
        while fileStatus(directory, followLinks: false) == nil {
            let (parent, name) = Paths.split(directory)
            guard !name.isEmpty, parent != directory else { break }
            rest.insert(name, at: 0)
            directory = parent
        }
        guard var known = Paths.resolve(directory) else { throw Target.missing(first, ENOENT) }
        while Target.mount(at: known) == nil {
            let (parent, name) = Paths.split(known)
            guard !name.isEmpty, known != "/" else {
                throw Failure(
                    .notFound, .notMounted, "\(first) is on no mounted AegisFS volume",
                    hint: "'aegisfs history IMAGE PATH' looks into one that is not mounted")
            }
            rest.insert(name, at: 0)
            known = parent
        }
        return (known, "/" + rest.joined(separator: "/"))
    }
}
