/// What of its volume a mount shows, and which head a request means.
internal import FSCore
internal import FSModules

struct MountedTree: Sendable {
    enum Kind: Sendable {
        case head(TreeID)
        /// By its id, which no rename changes.
        case snapshot(UInt64)
    }
    var kind: Kind
    var mountpoint: String

    /// Nil if a snapshot is mounted.
    var head: TreeID? {
        if case .head(let head) = kind { return head }
        return nil
    }

    func contains(_ record: SnapshotRecord) -> Bool {
        switch kind {
        case .head(let head): record.kind == .head && record.head == head
        case .snapshot(let id): record.kind == .snapshot && record.id == id
        }
    }

    /// As `status` shows it; nil of the default head.
    func document(_ store: Snapshots) -> Document? {
        switch kind {
        case .head(.head): nil
        case .head(let head):
            Document(kind: "clone", name: store.label(of: head)?.name)
        case .snapshot(let id):
            Document(kind: "snapshot", name: store.label(ofNode: id)?.name)
        }
    }

    struct Document: Codable, Sendable {
        /// `clone` or `snapshot`
        var kind: String
        var name: String

        init(kind: String, name: [UInt8]?) {
            self.kind = kind
            self.name = String(decoding: name ?? [], as: UTF8.self)
        }
        var description: String { "\(kind) \(Quoting.name(name))" }
    }
}

/// Says which head is meant, in requests that are about one.
///
///     nil      what is mounted; of a volume that is not, the default head
///     empty    the default head
///     else     a clone's name
typealias HeadName = String

extension Snapshots {
    /// The head that is meant. If a snapshot is mounted it is the default head.
    func head(
        meant name: HeadName?, _ mounted: MountedTree?, _ target: String
    ) throws(Failure) -> TreeID {
        guard let name else { return mounted?.head ?? .head }
        if name.isEmpty { return .head }
        guard let head = head(named: Array(name.utf8)) else {
            throw Failure(
                .notFound, .noSnapshot, "\(target): there is no clone \(Quoting.name(name))",
                hint: "'aegisfs snapshot list \(target)' shows all")
        }
        return head
    }
}

extension Arguments {
    /// The head that the command line means. A volume's own name means the same whatever is mounted of it.
    func headName(at target: String) -> HeadName? {
        value(.ofHead) ?? (Target.mount(at: target) == nil ? "" : nil)
    }
}
