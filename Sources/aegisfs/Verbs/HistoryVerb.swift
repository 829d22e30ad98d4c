/// `aegisfs history`: the versions of a path that snapshots have.
enum HistoryVerb {
    private struct Document: Encodable {
        var target: String
        var path: String
        var versions: [SnapshotDocument.Version]
    }

    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let place = try VolumePath(arguments)
        let (target, path) = (place.target, place.path)
        var request = SnapshotRequest(action: .history, names: [path])
        request.head = arguments.headName(at: target)
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
            let places = version.snapshots.map(Quoting.name) + (version.isPresent ? ["(now)"] : [])
            table.add([
                version.modified, arguments.size(version.sizeBytes), version.kind,
                places.joined(separator: ", "),
            ])
        }
        Terminal.output(table.text(header: !arguments.has(.noHeader)))
        return .done
    }
}
