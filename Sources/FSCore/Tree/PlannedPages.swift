/// The nodes that a plan has accounted for. Most transactions touch a handful, for which a scan of
/// an array is the quickest set.
struct PlannedPages {
    private var few: [(page: ObjectIdentifier, merge: Bool)] = []
    private var many: [ObjectIdentifier: Bool] = [:]
    private static let fewLimit = 24

    /// True if the page is new.
    mutating func insert(_ page: Page) -> Bool {
        let id = ObjectIdentifier(page)
        if few.contains(where: { $0.page == id }) || many[id] != nil { return false }
        if few.count < Self.fewLimit { few.append((id, false)) } else { many[id] = false }
        return true
    }

    func isMergeCounted(_ page: Page) -> Bool {
        let id = ObjectIdentifier(page)
        return few.first { $0.page == id }?.merge ?? many[id] ?? false
    }

    mutating func countMerge(_ page: Page) {
        let id = ObjectIdentifier(page)
        if let index = few.firstIndex(where: { $0.page == id }) {
            few[index].merge = true
        } else {
            many[id] = true
        }
    }
}
