/// What a daemon tells the world about itself: a JSON file beside its control socket.
///
/// The daemon holds an exclusive flock(2) on the file as long as it lives, so that a record whose
/// lock is free belongs to a daemon that has ended, whatever process has its number now.
///
///     starting ──mounted──▶ mounted ──unmounted──▶ finishing ──device closed──▶ closed
///
/// - Invariant: the record says `closed` only after the device was closed and its lock released;
///   `outcome` then is what closing the volume gave. The file is removed right after, and whoever
///   still has it open reads the outcome from there.
internal import FSCore
internal import Glibc

struct MountRecord: Codable, Sendable {
    enum State: String, Codable, Sendable { case starting, mounted, finishing, closed }

    var pid: Int32
    var uuid: String
    var label: String
    /// Absolute path of the image or device.
    var device: String
    var identity: DeviceIdentity
    var mountpoint: String
    /// `major:minor` of the mount, once there is one.
    var mountDevice: String?
    var socket: String
    var isReadOnly: Bool
    var startedSeconds: Int64
    var state: State
    /// Why closing failed; nil if it did not.
    var outcome: FailureDocument?
}

/// The daemon's own record: claimed, kept up to date, removed.
///
/// Safe to share: the record is changed under `lock`.
final class MountRegistration: @unchecked Sendable {
    private static let claimAttempts = 20
    /// Copies of one image have one uuid; this many may be mounted at once.
    private static let copies = 16

    private let file: Descriptor
    private let path: String
    private let lock = Mutex()
    private var record: MountRecord
    private var writtenLength = 0

    var socketPath: String { current.socket }
    var current: MountRecord { lock.withLock { record } }

    /// Claims the name of the volume's uuid, or of the uuid and a number if a copy of the volume is
    /// mounted, too.
    init(_ record: MountRecord) throws(Failure) {
        let directory = try ControlDirectory.prepare()
        for copy in 1...Self.copies {
            let name = copy == 1 ? record.uuid : "\(record.uuid).\(copy)"
            let path = "\(directory)/\(name).json"
            if let file = try Self.claim(path) {
                self.file = file
                self.path = path
                self.record = record
                self.record.socket = "\(directory)/\(name).sock"
                // A leftover may be longer than what is written now.
                ftruncate(file.raw, 0)
                write()
                return
            }
        }
        throw Failure(
            .busy, .locked, "\(Self.copies) copies of volume \(record.uuid) are mounted already")
    }

    func update(_ change: (inout MountRecord) -> Void) {
        lock.withLock {
            change(&record)
            write()
        }
    }

    /// Removes the file; its lock goes with the process.
    func remove() { unlink(path) }

    private static func claim(_ path: String) throws(Failure) -> Descriptor? {
        for _ in 0..<claimAttempts {
            guard let file = Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW) else {
                throw .system("cannot make \(path)", errno)
            }
            if file.tryLock(.exclusive) {
                // The previous owner may have removed the file between the open and the lock.
                var opened = stat()
                if fstat(file.raw, &opened) == 0, let named = fileStatus(path, followLinks: false),
                    opened.st_ino == named.st_ino, opened.st_dev == named.st_dev
                {
                    return file
                }
            } else {
                // A reader holds the lock for a moment only, a daemon for good.
                sleep(milliseconds: 5)
            }
        }
        return nil
    }

    /// One write that covers what was there before, so that a reader finds the old or the new text.
    private func write() {
        var bytes = Array((JSONOutput.encode(record) + "\n").utf8)
        let length = bytes.count
        bytes += [UInt8](repeating: UInt8(ascii: " "), count: max(0, writtenLength - length))
        writtenLength = max(length, writtenLength)
        _ = pwrite(file.raw, bytes, bytes.count, 0)
    }
}
