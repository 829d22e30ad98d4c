/// What `aegisfs explain` tells of a volume's size and space.
extension MessageID {
    /// Summary and explanation of the ids from AEGIS-0350 to AEGIS-0379.
    var spaceTexts: (String, String) {
        switch self {
        case .cannotShrink:
            (
                "the volume cannot become so small",
                "What it holds, its journal and the reserves of a volume need the size that the "
                    + "message names, which is exact. Delete something, or choose a larger size. "
                    + "Nothing was changed."
            )
        case .shrinkUnconfirmed:
            (
                "shrinking needs a yes",
                "Shrinking moves what lies behind the new end, and then cuts an image file there. "
                    + "Nothing is lost by it, but it may take long. --yes confirms it."
            )
        case .hostFull:
            (
                "the filesystem that holds the image is full",
                "An image file grows as the volume is written to, and its filesystem had no room for "
                    + "that: the volume takes no more changes. What had been made durable before is "
                    + "safe. Make room there, unmount the volume and mount it again; 'aegisfs trim' "
                    + "gives back what the volume does not use, and a file made with fallocate(1) "
                    + "before it is formatted has its space for good."
            )
        case .volumeFull:
            (
                "the volume is full",
                "Nothing more can be written. Delete files; where snapshots keep what was deleted, drop "
                    + "some of them, which always works and whose space comes back in the background; "
                    + "or enlarge the volume with 'aegisfs resize', which always works, too."
            )
        default:
            (
                "another resize is running",
                "The volume's size is being changed already. Wait for it, or cancel that."
            )
        }
    }
}
