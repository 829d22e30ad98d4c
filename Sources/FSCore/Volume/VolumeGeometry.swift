/// The size of an open volume, which a resize changes while others ask for it.
///
/// - Invariant: whoever reads it during a change sees a layout in which every address that may be
///   referred to is one: the limit of addresses grows before, and never with, a shrinking size.
internal import Synchronization

@safe
package final class VolumeGeometry: Sendable {
    private let blockCount: Atomic<UInt64>
    private let addressLimit: Atomic<UInt64>

    package init(_ layout: DiskLayout) {
        blockCount = Atomic(layout.blockCount)
        addressLimit = Atomic(layout.addressLimit)
    }

    package var layout: DiskLayout {
        let limit = addressLimit.load(ordering: .acquiring)
        let count = blockCount.load(ordering: .acquiring)
        return DiskLayout(blockCount: count, addressLimit: max(limit, count))
    }

    /// One thread at a time calls it.
    func change(to layout: DiskLayout) {
        addressLimit.store(
            max(addressLimit.load(ordering: .acquiring), layout.addressLimit), ordering: .releasing)
        blockCount.store(layout.blockCount, ordering: .releasing)
    }
}
