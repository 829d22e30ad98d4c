/// The model against the host's own filesystem: an oracle that disagrees with the kernel would
/// teach the wrong lesson.
internal import FSTestSupport
internal import Foundation
internal import Glibc
internal import Testing

@Suite(.serialized) struct KernelModelTests {
    /// Device nodes and `trusted.` attributes need root; O_TMPFILE and extended attributes need a
    /// filesystem such as ext4, xfs, btrfs or tmpfs below the folder for temporary files.
    static let canCompare = TestMachine.can(
        "the model against the host's filesystem", geteuid() == 0 ? nil : "not root")

    @Test(.enabled(if: canCompare), arguments: [UInt64(1), 2, 3])
    func modelAgreesWithTheHost(seed: UInt64) throws {
        try withTemporaryDirectory { folder in
            let root = folder.appendingPathComponent("tree")
            #expect(mkdir(root.path, 0o755) == 0 && chmod(root.path, 0o755) == 0)
            let executor = MountedExecutor(root, trustsDirectorySizes: false)
            var profile = OperationProfile.mounted
            // ext4 keeps all attributes of an inode in one block.
            profile.largestExtendedAttribute = 500
            // Whose a whiteout is, each filesystem chooses for itself.
            profile.leavesWhiteouts = false
            let session = RandomSession(seed: seed, profile: profile, executor: executor)
            try session.run(6000)
            session.dropHandles()
            executor.dropHandles()
            try session.compareTrees()
        }
    }
}
