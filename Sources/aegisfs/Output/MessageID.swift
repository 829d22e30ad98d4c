/// The permanent ids of this program's messages, and what `aegisfs explain` tells about each.
///
/// The findings of `check` have ids from AEGIS-1000 on; their catalogue is `CheckIssue`.
///
/// - Invariant: an id is never given another meaning and never used again.
enum MessageID: String, CaseIterable, Sendable {
    case usage = "AEGIS-0001"
    case interrupted = "AEGIS-0002"
    case outputFailed = "AEGIS-0003"
    case systemCall = "AEGIS-0004"
    case unknownMessageID = "AEGIS-0005"

    case targetMissing = "AEGIS-0010"
    case notAVolume = "AEGIS-0011"
    case unknownVersion = "AEGIS-0012"
    case unknownFeatures = "AEGIS-0013"
    case truncated = "AEGIS-0014"
    case superblockLost = "AEGIS-0015"
    case damaged = "AEGIS-0016"
    case tooSmall = "AEGIS-0017"
    case tooLarge = "AEGIS-0018"
    case wrongKindOfTarget = "AEGIS-0019"
    case permissionDenied = "AEGIS-0020"
    case readOnlyDevice = "AEGIS-0021"
    case deviceError = "AEGIS-0022"
    case noSpace = "AEGIS-0023"
    case latched = "AEGIS-0024"
    case refused = "AEGIS-0025"
    case notMounted = "AEGIS-0026"
    case errorsCounted = "AEGIS-0027"
    case notReplayable = "AEGIS-0036"
    case journalSize = "AEGIS-0037"
    case notCleanlyUnmounted = "AEGIS-0028"
    case imageGone = "AEGIS-0029"

    case locked = "AEGIS-0030"
    case inUse = "AEGIS-0031"
    case finishing = "AEGIS-0032"
    case mountBusy = "AEGIS-0033"
    case detached = "AEGIS-0034"

    case signatureFound = "AEGIS-0040"
    case dataFound = "AEGIS-0041"
    case sizeMissing = "AEGIS-0042"
    case sizeMismatch = "AEGIS-0043"
    case inDevelopment = "AEGIS-0044"
    case probeFailed = "AEGIS-0045"
    case imageShrinks = "AEGIS-0046"

    case mountpointMissing = "AEGIS-0050"
    case mountpointNotDirectory = "AEGIS-0051"
    case mountpointNotEmpty = "AEGIS-0052"
    case mountpointInUse = "AEGIS-0053"
    case noFuseDevice = "AEGIS-0054"
    case mountRefused = "AEGIS-0055"
    case daemonDied = "AEGIS-0056"
    case unmountFailed = "AEGIS-0057"
    case endedUncleanly = "AEGIS-0058"
    case closeFailed = "AEGIS-0059"
    case remountRefused = "AEGIS-0060"

    case controlDirectory = "AEGIS-0070"
    case controlUnreachable = "AEGIS-0071"
    case tooManyClients = "AEGIS-0072"
    case badRequest = "AEGIS-0073"

    case noSnapshot = "AEGIS-0200"
    case snapshotExists = "AEGIS-0201"
    case snapshotHeld = "AEGIS-0202"
    case unconfirmed = "AEGIS-0203"
    case rollbackBusy = "AEGIS-0220"
    case streamToTerminal = "AEGIS-0400"
    case streamDamaged = "AEGIS-0401"
    case streamCut = "AEGIS-0402"
    case notAStream = "AEGIS-0403"
    case streamVersion = "AEGIS-0404"
    case wrongBase = "AEGIS-0405"
    case wrongPlace = "AEGIS-0406"
    case alreadyReceived = "AEGIS-0407"
    case receiveRunning = "AEGIS-0408"
    case badToken = "AEGIS-0409"
    case snapshotInUse = "AEGIS-0410"
    case noVersion = "AEGIS-0411"
    case restoreExists = "AEGIS-0412"
    case restoreIncomplete = "AEGIS-0413"

    case noProperty = "AEGIS-0250"
    case dataLost = "AEGIS-0251"
    case scrubRefused = "AEGIS-0252"
    case repairUnconfirmed = "AEGIS-0253"

    case cannotShrink = "AEGIS-0350"
    case shrinkUnconfirmed = "AEGIS-0351"
    case resizeRunning = "AEGIS-0352"
    case hostFull = "AEGIS-0360"
    case volumeFull = "AEGIS-0361"

    /// One line.
    var summary: String { text.summary }
    /// What happened, what it means for the data, and what to do.
    var explanation: String { text.explanation }

    private var text: (summary: String, explanation: String) {
        switch self {
        case .usage:
            (
                "wrong usage",
                "The command line has a mistake, which the message names. Nothing was done. "
                    + "'aegisfs help VERB' shows what a verb takes."
            )
        case .interrupted:
            (
                "interrupted",
                "The command was stopped by a signal before it was done. What it had begun to "
                    + "create was removed; a volume that it only read is unchanged."
            )
        case .outputFailed:
            (
                "the result could not be written",
                "Standard output does not take what was written to it, for example because the "
                    + "disk behind it is full. The work itself may have been done."
            )
        case .systemCall:
            (
                "the system refused something",
                "A call into the system failed in a way that has no message of its own; the "
                    + "message names the call and the system's reason."
            )
        case .unknownMessageID:
            (
                "no message has this id",
                "'aegisfs explain' without an id lists all of them."
            )
        case .targetMissing:
            (
                "the target does not exist",
                "There is no file, device or mountpoint of this name. 'aegisfs format FILE "
                    + "--size SIZE' makes a new image."
            )
        case .notAVolume:
            (
                "not an AegisFS volume",
                "None of the places where a superblock must be holds one. Either the target is "
                    + "something else, or it was overwritten at its beginning and its end. "
                    + "'blkid -p TARGET' tells what else it may be. 'aegisfs format' makes it a "
                    + "volume and destroys what it holds."
            )
        case .unknownVersion:
            (
                "the disk version is not known",
                "The volume was written by a newer program, or by a development version whose "
                    + "format this program has left behind. Use the program that wrote it."
            )
        case .unknownFeatures:
            (
                "the volume uses features that this program does not know",
                "Opening it without them could damage it. Use a newer program. If only read-only "
                    + "compatible features are unknown, 'aegisfs mount --read-only' works."
            )
        case .truncated:
            (
                "the device is smaller than the volume",
                "The superblock says how large the volume is, and the device or image has become "
                    + "smaller since, as happens when a copy is cut short. Restore its full size "
                    + "from the original; what lies behind the end is not there any more."
            )
        case .superblockLost:
            (
                "the newest superblock is lost",
                "Going back to the older superblock would silently undo what was already durable "
                    + "and could mix old and new blocks, so the volume is not opened for writing. "
                    + "Mount it read-only and copy what is there."
            )
        case .notReplayable:
            (
                "the journal cannot be replayed without writing",
                "A volume that was not unmounted cleanly holds its last operations in the journal. "
                    + "A read-only mount brings them back in memory only, and there are too many "
                    + "for that. Mount it read-write once, which takes about a second."
            )
        case .journalSize:
            (
                "a journal of this size is not possible",
                "A journal has at least 2 MiB and at most 1 GiB or a quarter of the volume. Without "
                    + "--journal-size its size follows that of the volume; --no-journal makes a "
                    + "volume whose every fsync is a checkpoint."
            )
        case .damaged:
            (
                "a structure of the volume is damaged",
                "Its checksum or its content is wrong and no other copy was right. Data that does "
                    + "not depend on it can still be read. 'aegisfs check' lists all damage."
            )
        case .tooSmall:
            (
                "too small for a volume",
                "A volume needs at least 16 MiB. Choose a larger device or a larger --size."
            )
        case .tooLarge:
            (
                "too large for a volume",
                "The device is larger than a volume can be. Give a smaller --size."
            )
        case .wrongKindOfTarget:
            (
                "the target is neither an image nor a block device",
                "A volume lives in a regular file or on a block device. Directories, character "
                    + "devices, pipes and sockets cannot hold one."
            )
        case .permissionDenied:
            (
                "permission denied",
                "This user may not do that. Run the command as root or as the owner of the image."
            )
        case .readOnlyDevice:
            (
                "the device is read-only",
                "The device, or the filesystem that holds the image, does not take writes. "
                    + "'aegisfs mount --read-only' works on it."
            )
        case .deviceError:
            (
                "the device failed",
                "The device reported an error for a read, write or flush. After a failed write "
                    + "the volume stops writing rather than guess what was stored. Look into the "
                    + "system log, copy what can be read, and replace the device."
            )
        case .noSpace:
            (
                "no space left",
                "The filesystem or device that should hold something is full. Make room there "
                    + "and repeat the command."
            )
        case .latched:
            (
                "an error made the volume read-only",
                "After a write or flush that failed, the volume takes no more changes: to repeat "
                    + "and report success could lose data silently. What had been made durable "
                    + "before is safe. Unmount, look into the system log for the device's error, "
                    + "run 'aegisfs check', then mount again."
            )
        case .refused:
            (
                "the volume refused the operation",
                "The operation is not possible in this state or with these arguments; the message "
                    + "says why. Nothing was changed."
            )
        case .notMounted:
            (
                "the target is not mounted",
                "The command works on a mounted volume. 'aegisfs status' without a target lists "
                    + "what is mounted."
            )
        case .errorsCounted:
            (
                "errors were seen on this volume",
                "The volume counts read, write, flush and checksum errors over its whole life. "
                    + "A count above zero means that the device has failed before. Bad blocks, which do "
                    + "not keep what is written, get nothing new, and a scrub moves what lies in them. "
                    + "Run 'aegisfs check' and look at the device."
            )
        case .notCleanlyUnmounted:
            (
                "the volume was not unmounted",
                "The daemon or the machine stopped while the volume was mounted. Nothing needs to "
                    + "be done: what was made durable is there, and the next mount recovers it."
            )
        case .imageGone:
            (
                "the image is no longer where it was",
                "The image of a mounted volume was deleted or moved. The mount goes on without "
                    + "harm, but a deleted image is gone with the unmount: copy what is on the "
                    + "volume first. The daemon's /proc/PID/fd still has the image itself."
            )
        case .locked:
            (
                "somebody else has the target",
                "Another process works on the same image or device and holds its lock. The "
                    + "message names it. Wait for it, or end it."
            )
        case .inUse:
            (
                "the target is in use",
                "It is mounted, used as swap, attached to a loop device, or part of another "
                    + "device such as RAID, LVM or encryption. The message says which."
            )
        case .finishing:
            (
                "an unmount is still being finished",
                "The volume was unmounted, and its daemon is still writing back what it had in "
                    + "memory. After 30 seconds the wait was given up; the daemon goes on."
            )
        case .mountBusy:
            (
                "the mount is busy",
                "Processes have files open or their working directory on it. End them, or detach "
                    + "the mount with --lazy: it then disappears at once and is finished when the "
                    + "last of them lets go."
            )
        case .detached:
            (
                "the mount was detached",
                "It was unmounted lazily while programs had files open on it. It has no directory "
                    + "any more; its daemon goes on until the last of these files is closed, then "
                    + "makes everything durable and ends. Nothing is lost."
            )
        case .signatureFound:
            (
                "the target holds something already",
                "It has the signature of a filesystem, RAID member, partition table or the like. "
                    + "To format it destroys that. --force does so, and wipes the old signatures "
                    + "so that no other tool finds their ghost."
            )
        case .dataFound:
            (
                "the target is not empty",
                "It has no known signature, but it is not all zero either. To format it destroys "
                    + "what is there; --force does so."
            )
        case .sizeMissing:
            (
                "a new image needs a size",
                "The file does not exist. 'aegisfs format FILE --size 4' creates an image of "
                    + "4 GiB; it takes space only as it fills."
            )
        case .sizeMismatch:
            (
                "the size does not fit the target",
                "A block device cannot grow to the given size, or an image cannot have it on the "
                    + "filesystem that holds it."
            )
        case .inDevelopment:
            (
                "the volume is of a development version",
                "Disk version 0 changed with every program that was made before version 1, and no "
                    + "program since reads it. Mount the volume with the aegisfs that made it, and "
                    + "copy its files to one that 'aegisfs format' makes now."
            )
        case .probeFailed:
            (
                "old signatures could not be examined or wiped",
                "libblkid could not read or change the target. Nothing was formatted."
            )
        case .imageShrinks:
            (
                "formatting would cut the image",
                "The --size given is smaller than the file, which would lose what lies behind it. "
                    + "--force does so; without --size the volume takes the whole file."
            )
        case .mountpointMissing:
            ("the mountpoint does not exist", "Make the directory first: mkdir DIR.")
        case .mountpointNotDirectory:
            (
                "the mountpoint is not a directory",
                "The last argument of mount is the directory, the one before it the device."
            )
        case .mountpointNotEmpty:
            (
                "the mountpoint is not empty",
                "What is in the directory would be hidden while the volume is mounted. "
                    + "-o nonempty mounts all the same."
            )
        case .mountpointInUse:
            (
                "something is mounted there already",
                "The message names it. Unmount it first, or choose another directory."
            )
        case .noFuseDevice:
            (
                "there is no /dev/fuse",
                "The kernel's FUSE module is not loaded, or a container hides the device. "
                    + "'modprobe fuse' loads the module; a container needs --device /dev/fuse."
            )
        case .mountRefused:
            (
                "the mount was refused",
                "The kernel or fusermount3 did not accept the mount; the message has the reason. "
                    + "For allow_other, a user needs user_allow_other in /etc/fuse.conf."
            )
        case .daemonDied:
            (
                "the mount's daemon ended before the mount was ready",
                "It was killed or crashed; nothing is mounted. A volume is not harmed by that."
            )
        case .unmountFailed:
            ("the unmount failed", "The kernel or fusermount3 refused; the message says why.")
        case .endedUncleanly:
            (
                "the mount's daemon had died",
                "The dead mount was cleared away. What had been made durable is there; changes "
                    + "of the last seconds without fsync may be lost. The next mount recovers."
            )
        case .closeFailed:
            (
                "the last changes could not be made durable",
                "The volume was unmounted, but its device failed while the last changes were "
                    + "written. What fsync had returned for before is safe. Look into the system "
                    + "log and run 'aegisfs check'."
            )
        case .remountRefused:
            (
                "the mount could not be changed",
                "A volume with files open for writing cannot be made read-only. One that was "
                    + "mounted read-only after a crash cannot be made writable, because its journal "
                    + "was replayed in memory only: unmount it, then mount it again."
            )
        case .controlDirectory:
            (
                "the directory of control sockets is not usable",
                "Each mount has a socket in /run/aegisfs, or in $XDG_RUNTIME_DIR/aegisfs for "
                    + "ordinary users. It must belong to the user and be closed to others."
            )
        case .controlUnreachable:
            (
                "the mount's daemon does not answer",
                "It has died, or hangs on its device. 'aegisfs umount' clears a dead mount away; "
                    + "the system log has the daemon's last messages."
            )
        case .tooManyClients:
            (
                "too many clients",
                "The control socket serves a limited number of clients at a time. Try again."
            )
        case .scrubRefused:
            (
                "the scrub was refused",
                "A volume has one scrub at a time, which runs, is paused, or was interrupted by an "
                    + "unmount; --resume goes on with it and --cancel ends it. A scrub in the "
                    + "background needs the daemon of a mount."
            )
        case .dataLost:
            (
                "blocks have no good copy",
                "Every copy of some blocks is unreadable or fails its checksum, so reading them fails "
                    + "with EIO; all else can be read. 'aegisfs status' lists the files with the "
                    + "places in them. A snapshot shares the blocks of a file that was not written since, "
                    + "and the damage; of one that was, it may have an older version, which "
                    + "'status' names if it could be read just then. Take it by 'aegisfs restore', "
                    + "or a backup, or delete them; with 'copies 2' a file has a second copy from "
                    + "which the first is healed."
            )
        case .noProperty:
            (
                "there is no such property here",
                "Some properties belong to files and directories, others to a whole volume and are "
                    + "found at its mountpoint, image or device. 'aegisfs property list PATH' shows "
                    + "which there are."
            )
        case .streamToTerminal, .streamDamaged, .streamCut, .notAStream, .streamVersion,
            .wrongBase, .wrongPlace, .alreadyReceived, .receiveRunning, .badToken, .snapshotInUse,
            .noVersion, .noSnapshot, .snapshotExists, .snapshotHeld, .restoreExists,
            .restoreIncomplete, .rollbackBusy:
            streamTexts
        case .cannotShrink, .shrinkUnconfirmed, .resizeRunning, .hostFull, .volumeFull: spaceTexts
        case .unconfirmed:
            (
                "the change was not confirmed",
                "The command shows what it would do and asks on a terminal. Without one it needs "
                    + "--yes; nothing was changed."
            )
        case .badRequest:
            (
                "the control socket did not understand the request",
                "A client wrote something that is not in the protocol, or speaks that of another "
                    + "version."
            )
        case .repairUnconfirmed:
            (
                "a repair needs a yes",
                "What a repair has changed stays so. It says what it would do; --yes confirms it."
            )
        }
    }
}
