/// How to mount, already parsed; the names are those of mount(8) and mount.fuse3(8).

/// `default_permissions` is always on: nobody but the kernel checks permissions.
public struct FuseMountOptions: Sendable {
    /// What mount(8) shows as the device.
    public var source = "aegisfs"
    public var ro = false
    /// Users other than the one who mounts may enter.
    public var allowOther = false
    public var nosuid = false
    public var nodev = false
    public var noexec = false
    public var noatime = false
    public var sync = false
    public var dirsync = false
    /// Let the kernel collect writes, and be the authority on size and times meanwhile.
    public var writeback = false
    /// Take requests by io_uring. nil: if the kernel offers it; true logs if it does not.
    public var usesRings: Bool?
    /// Told about errors of the medium, one sentence each. Called on any thread.
    public var log: @Sendable (String) -> Void = { _ in }
    /// Called once, on a thread of the loop, when the kernel's INIT has been answered.
    public var onReady: @Sendable () -> Void = {}

    public init() {}

    /// What `fuse_session_new` is to parse, for a privileged or unprivileged user.
    package func arguments(isPrivileged: Bool) -> [String] {
        var options = ["fsname=" + escaped(source), "subtype=aegisfs", "default_permissions"]
        if allowOther { options.append("allow_other") }
        if ro { options.append("ro") }
        // libfuse's own default is nosuid and nodev, which an unprivileged user cannot undo.
        options.append(isPrivileged && !nosuid ? "suid" : "nosuid")
        options.append(isPrivileged && !nodev ? "dev" : "nodev")
        if noexec { options.append("noexec") }
        if noatime { options.append("noatime") }
        if sync { options.append("sync") }
        if dirsync { options.append("dirsync") }
        return ["aegisfs", "-o", options.joined(separator: ",")]
    }

    /// libfuse splits options at commas that have no backslash before them.
    private func escaped(_ text: String) -> String {
        var result = ""
        for character in text {
            if character == "," || character == "\\" { result.append("\\") }
            result.append(character)
        }
        return result
    }
}
