/// `aegisfs sync`: what sync(2) cannot do for a FUSE mount.
internal import CLinux
internal import FSCore
internal import Glibc

enum SyncVerb {
    static func run(_ arguments: Arguments) throws(Failure) -> ExitCode {
        let path = arguments.operands[0]
        switch try Target.resolve(path) {
        case .offline:
            // Nobody has it open: everything that was written is on the device.
            let (device, volume) = try DeviceAccess.openVolume(reading: path)
            try? volume.close()
            device.close()
            if !arguments.isQuiet { Terminal.notice("\(path) is not mounted: nothing to do") }
        case .live(let mount):
            // The kernel's cache first: only what has reached the daemon can be made durable.
            if let directory = Descriptor.open(mount.record.mountpoint, O_RDONLY | O_DIRECTORY) {
                syncfs(directory.raw)
            }
            _ = try ControlClient.send(ControlRequest(command: .sync), to: mount)
        }
        return .done
    }
}
