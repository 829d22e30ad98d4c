/// What `aegisfs explain` tells of streams and of work on snapshots.
extension MessageID {
    /// Summary and explanation of the ids from AEGIS-0200 to AEGIS-0202, AEGIS-0220, and AEGIS-0400 to
    /// AEGIS-0449.
    var streamTexts: (String, String) {
        switch self {
        case .noSnapshot:
            (
                "there is no such snapshot",
                "Nothing of this volume has that name. 'aegisfs snapshot list TARGET' shows all "
                    + "snapshots and heads."
            )
        case .snapshotExists:
            (
                "the name is taken",
                "Another snapshot, clone or hold of this volume has that name. Choose another "
                    + "one, or rename or delete what has it."
            )
        case .snapshotHeld:
            (
                "a snapshot is held or protected",
                "Somebody asked that it not be deleted: by a hold, which 'aegisfs snapshot "
                    + "release TARGET NAME TAG' ends, or until a date, which only passes."
            )
        case .restoreExists:
            (
                "something is where a restore would put what it brings back",
                "Nothing is overwritten unasked. '--to PATH' puts it elsewhere on the volume; "
                    + "'--force' replaces what is there in one step, a directory with all that is "
                    + "in it. A snapshot made before keeps that, too."
            )
        case .restoreIncomplete:
            (
                "a restore left something undone",
                "What was asked for is restored. Either parts of it have no good copy, neither here "
                    + "nor in the snapshot, which share their data: 'aegisfs status' lists them, and "
                    + "'aegisfs history' other versions. Or what was replaced could not be removed "
                    + "and lies under the named path, because it has immutable files, or was in use."
            )
        case .streamToTerminal:
            (
                "a stream belongs in a file or a pipe",
                "What 'aegisfs send' writes and 'aegisfs receive' reads is not for people. Redirect "
                    + "it to a file, or connect the two by a pipe."
            )
        case .streamDamaged:
            (
                "a record of the stream is damaged",
                "Each record has a number and a sum, and must fit what is there. From the named "
                    + "record on nothing was taken over; what came before is kept. Send again with "
                    + "'aegisfs send --resume TOKEN', or from the beginning."
            )
        case .streamCut:
            (
                "the stream ended too early",
                "The sender ended, the connection broke, or the file is cut short. What arrived is "
                    + "kept: 'aegisfs receive TARGET --status' shows the token with which "
                    + "'aegisfs send --resume' goes on; receiving the whole file again does, too."
            )
        case .notAStream:
            (
                "what arrived is no stream",
                "'aegisfs receive' reads what 'aegisfs send' wrote, as it is: not compressed, and "
                    + "without anything before it."
            )
        case .streamVersion:
            (
                "the stream was written by a newer program",
                "Its version is not known here. Use at least the aegisfs that wrote it."
            )
        case .wrongBase:
            (
                "the snapshot upon which the stream was made is not here",
                "An incremental stream has only what changed since its base. The receiving volume "
                    + "must have that very snapshot, sent or received; the name does not matter."
            )
        case .wrongPlace:
            (
                "the stream does not go on where the last one ended",
                "It was made by 'aegisfs send --resume' with a token of another copy, or of an "
                    + "earlier moment than the copy has been given up at."
            )
        case .alreadyReceived:
            (
                "the snapshot is there already",
                "The volume has the very snapshot that the stream would make, sent or received."
            )
        case .receiveRunning:
            (
                "the snapshot is being received already",
                "Another 'aegisfs receive' makes a copy of the same snapshot on this volume."
            )
        case .badToken:
            (
                "this is no token of a stream",
                "A token is what 'aegisfs receive TARGET --status' shows, as a whole."
            )
        case .noVersion:
            (
                "no snapshot has the path",
                "Neither a snapshot nor the volume as it is has anything there. The path is from "
                    + "the root of the volume, not of the machine, unless it leads through a mount."
            )
        case .rollbackBusy:
            (
                "files are in use",
                "A mounted volume goes back to a snapshot only while nobody has a file or directory "
                    + "of it open or mapped, works in it, or has something mounted upon it. The "
                    + "message names who has; what is below .snapshots does not count."
            )
        default:
            (
                "a snapshot is being read",
                "A 'send', 'receive' or 'diff' works with the snapshot, which therefore cannot be "
                    + "deleted. Wait for it, or end it."
            )
        }
    }
}
