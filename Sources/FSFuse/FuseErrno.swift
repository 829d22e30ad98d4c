/// The one table from `FSError` to what a system call answers.
///
/// - Invariant: the switch is exhaustive, so that a new error cannot be forgotten here.
package import FSCore
internal import Glibc

package enum FuseErrno {
    /// - Parameter latched: what a latched volume answers. Operations that would change it say
    ///   that it is read-only now; fsync must say that data was lost.
    package static func code(for error: FSError, latched: Int32 = EROFS) -> Int32 {
        switch error {
        case .noSuchEntry: ENOENT
        case .entryExists: EEXIST
        case .notDirectory: ENOTDIR
        case .isDirectory: EISDIR
        case .directoryNotEmpty: ENOTEMPTY
        case .nameTooLong: ENAMETOOLONG
        case .tooManyLinks: EMLINK
        case .invalidArgument: EINVAL
        case .fileTooLarge: EFBIG
        case .noSpace: ENOSPC
        case .readOnly: EROFS
        case .noSuchAttribute: ENODATA
        case .attributeTooLarge: E2BIG
        case .notPermitted: EPERM
        case .accessDenied: EACCES
        case .notSupported: EOPNOTSUPP
        case .stale: ESTALE
        case .crossDevice: EXDEV
        case .noDataBeyond: ENXIO
        case .busy: EBUSY
        case .interrupted: EINTR
        case .device, .corrupt: EIO
        case .latched: latched
        case .notAVolume, .unknownVersion, .unknownFeatures, .truncated, .superblockLost,
            .notReplayable, .tooSmall, .tooLarge, .journalSize, .cannotShrink:
            EIO
        }
    }

    /// Whether somebody should read about it: the medium failed, not the caller.
    package static func isWorthLogging(_ error: FSError) -> Bool {
        switch error {
        case .device, .corrupt, .latched, .notAVolume, .unknownVersion, .unknownFeatures,
            .truncated, .superblockLost, .notReplayable, .tooSmall, .tooLarge, .journalSize,
            .cannotShrink:
            true
        case .noSuchEntry, .entryExists, .notDirectory, .isDirectory, .directoryNotEmpty,
            .nameTooLong, .tooManyLinks, .invalidArgument, .fileTooLarge, .noSpace, .readOnly,
            .noSuchAttribute, .attributeTooLarge, .notPermitted, .accessDenied, .notSupported,
            .stale, .crossDevice, .noDataBeyond, .busy, .interrupted:
            false
        }
    }
}
