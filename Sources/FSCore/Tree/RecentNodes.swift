/// The nodes that a walk over old trees has read last, for who comes by them again.
///
/// Only for trees that stay as long as this is used: an address is taken for the node that was there first.
///
/// - Invariant: at most 32 MiB, and at least the last 16 MiB that were read.
final class RecentNodes {
    private static let generation = 1024
    private struct Entry {
        var page: Page
        var expected: NodeValidator.Expectation
    }
    private var young: [BlockAddress: Entry] = [:]
    private var old: [BlockAddress: Entry] = [:]

    func put(_ page: Page, _ expected: NodeValidator.Expectation) {
        if young.count >= Self.generation {
            old = young
            young = [:]
        }
        young[page.address] = Entry(page: page, expected: expected)
    }

    /// Nil also if it was read as something else: a crafted pointer must not make it pass.
    func page(_ expected: NodeValidator.Expectation) -> Page? {
        let address = expected.pointer.address
        guard let entry = young[address] ?? old[address], entry.expected == expected else {
            return nil
        }
        return entry.page
    }
}
