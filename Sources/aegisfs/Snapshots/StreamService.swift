/// Carries out `send`, `receive` and `snapshot diff` on an open volume: for the verbs themselves, and in the
/// daemon of a mount.
internal import FSCore
internal import FSModules

struct StreamRequest: Codable, Sendable {
    enum Action: String, Codable, Sendable { case send, receive, status, diff }
    var action: Action
    /// To send, or the older one of a comparison.
    var snapshot: String?
    /// Upon which to send.
    var base: String?
    /// The newer one of a comparison; nil is the present of a head.
    var other: String?
    var head: HeadName?
    /// Of the snapshot that comes to be.
    var name: String?
    /// Where a stream goes on that was cut off.
    var token: String?
    /// Only count what the stream would have.
    var isDryRun: Bool?
}

struct StreamDocument: Codable, Sendable {
    struct Partial: Codable, Sendable {
        var name: String
        var snapshotUuid: String
        var baseUuid: String?
        var nextRecord: UInt64
        var token: String
    }
    var snapshot: String?
    var base: String?
    var records: UInt64?
    var streamBytes: UInt64?
    var dataBytes: UInt64?
    /// Records that were there from before.
    var skippedRecords: UInt64?
    /// What was begun and not finished.
    var partial: [Partial]?
    var isDryRun = false
}

struct StreamService {
    let volume: Volume
    let target: String
    /// Nil if nothing of the volume is mounted.
    var mounted: MountedTree?

    private var store: Snapshots { volume.snapshotStore }

    func difference(
        _ request: StreamRequest, isCancelled: () -> Bool
    ) throws(Failure) -> [ChangeDocument] {
        let head = try store.head(meant: request.head, mounted, target)
        do throws(FSError) {
            return try store.difference(
                from: Array((request.snapshot ?? "").utf8),
                to: request.other.map { Array($0.utf8) }, of: head, isCancelled: isCancelled
            ).map { ChangeDocument($0) }
        } catch .noSuchEntry {
            throw missing([request.snapshot, request.other])
        } catch { throw Failure(error, target: target) }
    }

    func send(
        _ request: StreamRequest, output: @escaping StreamSender.Output
    ) throws(Failure) -> StreamDocument {
        var name = request.snapshot.map { Array($0.utf8) }
        var base = request.base.map { Array($0.utf8) }
        var first: UInt64 = 1
        if let text = request.token {
            guard let token = ResumeToken(text) else {
                throw Failure(
                    .usage, .badToken, "'\(text)' is no token",
                    hint: "'aegisfs receive TARGET --status' on the other side shows it")
            }
            name = store.name(ofIdentity: token.snapshot)
            base = token.base.flatMap { store.name(ofIdentity: $0) }
            first = token.next
            guard name != nil, (base == nil) == (token.base == nil) else {
                throw Failure(
                    .notFound, .noSnapshot,
                    "\(target) has not the snapshots that the token names any more",
                    hint: "delete the partial copy on the other side and begin anew")
            }
        }
        guard let name else { throw .usage("send: SNAPSHOT is missing") }
        let isDryRun = request.isDryRun == true
        do throws(FSError) {
            let summary = try StreamSender.run(
                store, name, from: base, first: first, output: isDryRun ? nil : output)
            return StreamDocument(
                snapshot: String(decoding: name, as: UTF8.self),
                base: base.map { String(decoding: $0, as: UTF8.self) },
                records: summary.records, streamBytes: summary.bytes,
                dataBytes: summary.dataBytes, isDryRun: isDryRun)
        } catch .noSuchEntry {
            throw missing([request.snapshot, request.base])
        } catch .invalidArgument {
            throw Failure(
                .usage, .usage, "\(target): a snapshot cannot be sent upon itself")
        } catch { throw Failure(error, target: target) }
    }

    func receive(
        _ request: StreamRequest, from source: @escaping StreamReceiver.Source
    ) throws(Failure) -> StreamDocument {
        do throws(StreamError) {
            let summary = try StreamReceiver.run(
                store, name: request.name.map { Array($0.utf8) }, from: source)
            return StreamDocument(
                snapshot: String(decoding: summary.name, as: UTF8.self),
                records: summary.records, dataBytes: summary.dataBytes,
                skippedRecords: summary.skipped)
        } catch { throw Failure(error, target: target) }
    }

    func status() throws(Failure) -> StreamDocument {
        do throws(FSError) {
            return StreamDocument(
                partial: try store.partialCopies().map {
                    StreamDocument.Partial(
                        name: String(decoding: $0.name, as: UTF8.self),
                        snapshotUuid: $0.snapshot.description,
                        baseUuid: $0.base?.description, nextRecord: $0.next, token: $0.token)
                })
        } catch { throw Failure(error, target: target) }
    }

    private func missing(_ names: [String?]) -> Failure {
        let missing = names.compactMap { $0 }.filter { !store.isSnapshot(Array($0.utf8)) }
        return Failure(
            .notFound, .noSnapshot,
            "\(target): there is no snapshot '\(missing.joined(separator: "', '"))'",
            hint: "'aegisfs snapshot list \(target)' shows all")
    }
}

extension Failure {
    /// - Parameter target: where the stream was to go.
    init(_ error: StreamError, target: String) {
        let resume =
            "what arrived is kept: 'aegisfs receive \(target) --status' shows the token with which "
            + "'aegisfs send --resume' goes on"
        switch error {
        case .damaged(let record, let detail):
            self.init(
                .failed, .streamDamaged,
                "\(target): record \(record) of the stream is damaged: \(detail)",
                hint: record == 0 ? nil : resume)
        case .cut(let record):
            self.init(
                .failed, .streamCut, "\(target): the stream ends before record \(record)",
                hint: record == 0 ? nil : resume)
        case .notAStream:
            self.init(.failed, .notAStream, "what arrives is no stream of 'aegisfs send'")
        case .unknownVersion(let version):
            self.init(
                .failed, .streamVersion, "the stream has version \(version), which is not known",
                hint: "use a newer aegisfs")
        case .wrongBase(let uuid):
            self.init(
                .notFound, .wrongBase,
                "\(target) has not the snapshot upon which the stream was made (uuid \(uuid))",
                hint: "receive that one first, or send without --from")
        case .wrongPlace(let first, let expected):
            self.init(
                .failed, .wrongPlace,
                "\(target): the stream begins with record \(first), record \(expected) is next",
                hint: "'aegisfs receive \(target) --status' shows the token of what was begun")
        case .alreadyReceived(let name):
            self.init(
                .failed, .alreadyReceived,
                "\(target) has this snapshot already, as "
                    + "'\(String(decoding: name, as: UTF8.self))'")
        case .nameTaken(let name):
            self.init(
                .failed, .snapshotExists,
                "\(target): '\(String(decoding: name, as: UTF8.self))' exists already",
                hint: "give another name: 'aegisfs receive \(target) NAME'")
        case .isRunning:
            self.init(
                .busy, .receiveRunning, "\(target): this snapshot is being received already")
        case .file(let error): self.init(error, target: target)
        }
    }
}
