/// Going back to a snapshot under a mount: who uses files is found out first, then work on requests
/// stops, the head becomes the snapshot, and the kernel forgets what it knows of the old tree.
///
/// - Invariant: whoever has something open that was not found sees at most what the kernel holds of the old
///   tree, and gets ESTALE for the rest: the new one is never read or written by an old handle.
internal import FSCore
internal import FSFuse
internal import FSModules
internal import Glibc

extension MountDaemon {
    /// How long requests that are being worked on are waited for.
    private static let patienceMilliseconds = 10_000
    /// So many users are named.
    private static let namedUsers = 8

    /// - Parameter head: the one that is mounted.
    func rollBack(
        _ request: SnapshotRequest, _ head: TreeID, _ service: SnapshotService
    ) throws(Failure) -> SnapshotDocument {
        let record = registration.current
        var plan = request
        plan.dryRun = true
        let document = try service.perform(plan)
        try requireUnused(record)
        if request.dryRun == true { return document }

        let before = service.store.nodeID(of: head)
        var result = Result<SnapshotDocument, Failure>.success(document)
        let outcome = session.changeHead(patienceMilliseconds: Self.patienceMilliseconds) {
            do throws(Failure) {
                result = .success(try service.perform(request))
            } catch { result = .failure(error) }
            return service.store.nodeID(of: head) != before
        }
        switch outcome {
        case .unchanged: break
        case .busy:
            throw Failure(
                .busy, .rollbackBusy,
                "operations on \(record.mountpoint) did not come to an end",
                hint: "try again; nothing was changed")
        case .changed:
            let kept = try? result.get().kept
            do throws(FSError) {
                try forgetOldTree(kept ?? document.kept)
            } catch {
                throw Failure(error, target: record.device)
            }
        }
        return try result.get()
    }

    private func requireUnused(_ record: MountRecord) throws(Failure) {
        let number = session.deviceNumber
        // What is below .snapshots stays as it is.
        let users = MountUsers.all(
            of: "\(number.major):\(number.minor)", at: record.mountpoint,
            isMeant: { $0 < InodeNumber.limit })
        guard !users.isEmpty else { return }
        let names = users.prefix(Self.namedUsers).map(\.description).joined(separator: ", ")
        let more =
            users.count > Self.namedUsers ? ", and \(users.count - Self.namedUsers) more" : ""
        throw Failure(
            .busy, .rollbackBusy, "files of \(record.mountpoint) are in use by \(names)\(more)",
            hint: "let them be closed; nothing was changed")
    }

    /// - Parameter kept: the snapshot of what the head was.
    private func forgetOldTree(_ kept: String?) throws(FSError) {
        let store = volume.snapshotStore
        let old = try kept.map { (name) throws(FSError) in try store.files(of: Array(name.utf8)) }
        try session.forgetRoot { (forget) throws(FSError) in
            for files in [old, files] {
                try files?.readDirectory(.root, after: 0, withAttributes: false) { entry, _ in
                    forget(entry.name)
                    return true
                }
            }
        }
    }
}
