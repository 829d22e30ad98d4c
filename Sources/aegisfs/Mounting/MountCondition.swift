/// What has become of a mount's surroundings while its daemon goes on: the directory from which it was
/// detached, and the name of its image.
struct MountCondition: Sendable {
    enum Image: Equatable, Sendable {
        case inPlace
        case moved(to: String)
        /// It has no name any more, and is gone when its daemon ends.
        case deleted
    }
    let isDetached: Bool
    let image: Image

    /// Of this process's own mount; only the daemon has the image open.
    init(ofOwn record: MountRecord) {
        let mounts = MountTable.current()?.entries ?? []
        isDetached = !mounts.contains { $0.isAegisFS && $0.device == record.mountDevice }
        image = Self.image(record)
    }

    private static func image(_ record: MountRecord) -> Image {
        if DeviceIdentity(path: record.device) == record.identity { return .inPlace }
        let descriptors = directoryNames("/proc/self/fd").map { "/proc/self/fd/\($0)" }
        guard let own = descriptors.first(where: { DeviceIdentity(path: $0) == record.identity }),
            let name = linkTarget(own)
        else { return .inPlace }
        // What proc(5) appends; a name that ends so itself would still lead to the image.
        if name.hasSuffix(" (deleted)"), DeviceIdentity(path: name) != record.identity {
            return .deleted
        }
        return .moved(to: name)
    }
}
