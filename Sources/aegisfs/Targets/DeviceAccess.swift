/// Opens images and devices, and says who is in the way.
///
/// A device whose daemon is only finishing an unmount is waited for, since umount(2) returns before
/// the last write-back; a device that is mounted or worked on is refused at once.
internal import FSCore
internal import FSModules
internal import Glibc

/// An open device and the locks that keep others away from its bytes by any name.
///
/// - Invariant: a loop device's backing file is locked with it, so that nobody opens the file, or
///   another loop device upon it, meanwhile.
final class HeldDevice: Sendable {
    let device: FileBlockDevice
    private let backing: [Descriptor]

    init(_ device: FileBlockDevice, backing: [Descriptor]) {
        self.device = device
        self.backing = backing
    }

    /// Opens for writing, too, what is open for reading; fails if somebody else reads it.
    func allowWriting() throws(FSError) {
        for descriptor in backing where flock(descriptor.raw, LOCK_EX | LOCK_NB) != 0 {
            throw .device(.open, errno: errno, offset: 0)
        }
        try device.allowWriting()
    }

    func close() {
        device.close()
        for descriptor in backing { flock(descriptor.raw, LOCK_UN) }
    }
}

enum DeviceAccess {
    private static let patienceMilliseconds = 30_000
    private static let noticeMilliseconds = 2_000
    private static let pollMilliseconds = 20

    static func open(
        _ path: String, _ access: FileBlockDevice.Access, notice: (String) -> Void
    ) throws(Failure) -> HeldDevice {
        var waited = 0
        while true {
            guard let device = try openOnce(path, access) else {
                try checkFinishing(path, waited: waited)
                if waited == noticeMilliseconds {
                    notice("waiting for an unmount of \(path) to finish")
                }
                sleep(milliseconds: pollMilliseconds)
                waited += pollMilliseconds
                continue
            }
            return device
        }
    }

    /// nil if somebody holds it.
    private static func openOnce(
        _ path: String, _ access: FileBlockDevice.Access
    ) throws(Failure) -> HeldDevice? {
        do throws(FSError) {
            let device = try FileBlockDevice(path: path, access: access)
            var backing: [Descriptor] = []
            let own = DeviceIdentity(path: path)
            for loop in LoopDevice.all() where loop.identity == own {
                // A backing file that has no name any more cannot be opened by anybody else.
                guard let file = Descriptor.open(loop.backingPath, O_RDONLY) else { continue }
                guard file.tryLock(access == .readOnly ? .shared : .exclusive) else {
                    device.close()
                    return nil
                }
                backing.append(file)
            }
            return HeldDevice(device, backing: backing)
        } catch {
            if case .device(.open, let number, _) = error,
                number == EWOULDBLOCK || number == EBUSY
            {
                return nil
            }
            throw Failure(error, target: path)
        }
    }

    /// Throws unless the holder is a daemon that has no mount any more.
    private static func checkFinishing(_ path: String, waited: Int) throws(Failure) {
        guard let live = DeviceIdentity(path: path).flatMap(LiveMount.of) else {
            // The holder may have let go just now; a second look tells.
            if waited == 0, ProcessTable.lockHolders(of: path).isEmpty,
                DeviceUsage.uses(of: path).isEmpty
            {
                return
            }
            throw busy(path)
        }
        guard live.isFinishing else { throw busy(path) }
        guard waited < patienceMilliseconds else {
            throw Failure(
                .busy, .finishing, "\(path) is still busy: \(live.description)",
                hint: "try again when that process has ended")
        }
    }

    /// Names whoever has the target.
    static func busy(_ path: String) -> Failure {
        if let live = DeviceIdentity(path: path).flatMap(LiveMount.of) {
            return Failure(
                .busy, .locked, "\(path) is busy: \(live.description)",
                hint: "'aegisfs umount \(live.record.mountpoint)' frees it")
        }
        if let use = DeviceUsage.uses(of: path).first(where: { $0.kind != .attachedLoop }) {
            return Failure(.busy, .inUse, "\(path) \(use.description)", hint: use.cure)
        }
        let holders = ProcessTable.lockHolders(of: path)
        guard !holders.isEmpty else {
            return Failure(
                .busy, .locked, "\(path) is in use by a process that this user may not see",
                hint: "run the command as root to learn which")
        }
        return Failure(
            .busy, .locked,
            "\(path) is in use by \(holders.map(\.description).joined(separator: ", "))",
            hint: geteuid() == 0
                ? "wait for it, or end it"
                : "wait for it; if it is the mount of another user, that one or root can unmount it"
        )
    }

    /// A volume for changing, without a mount: nothing runs beside the caller but the journal.
    static func openVolume(changing path: String) throws(Failure) -> (HeldDevice, Volume) {
        let device = try open(path, .readWrite, notice: Terminal.notice)
        do throws(FSError) {
            return (device, try Volume.open(device.device, modules: .standard))
        } catch {
            device.close()
            throw Failure(error, target: path)
        }
    }

    /// A volume for looking at; opened for changing first where a crash left something in its journal
    /// that cannot be looked at without.
    static func openRecovered(_ path: String) throws(Failure) -> (HeldDevice, Volume) {
        do throws(Failure) {
            let (device, volume) = try openVolume(reading: path)
            if volume.recovery == nil { return (device, volume) }
            // A root that was replayed in memory only can be looked at, but not compared.
            try? volume.close()
            device.close()
        } catch  where error.id == .notReplayable {}
        return try openVolume(changing: path)
    }

    /// A volume for looking at, never for changing.
    static func openVolume(reading path: String) throws(Failure) -> (HeldDevice, Volume) {
        let device = try open(path, .readOnly, notice: Terminal.notice)
        var options = OpenOptions()
        options.readOnly = true
        options.checkpointIntervalMilliseconds = 0
        do throws(FSError) {
            return (device, try Volume.open(device.device, modules: .standard, options: options))
        } catch {
            device.close()
            throw Failure(error, target: path)
        }
    }
}
