/// The nodes that a plan has accounted for. Most transactions touch a handful, for which a scan of
/// an array is the quickest set.
struct PlannedPages {
    private var few: [(page: ObjectIdentifier, merge: Bool)] = []
    private var many: [ObjectIdentifier: Bool] = [:]
    private static let fewLimit = 24
    /// Of ordered changes: leaves that may be too full for them, and inner nodes.
    private(set) var tightLeaves = 0
    private(set) var innerNodes = 0

    /// The leaf that was planned last; whatever else changes in it is accounted for.
    private var leaf: (tree: TreeID, lower: Key?, upper: Key?, isDelete: Bool)?

    mutating func noteLeaf(_ tree: TreeID, _ lower: Key?, _ upper: Key?, isDelete: Bool) {
        leaf = (tree, lower, upper, isDelete)
    }

    func covers(_ tree: TreeID, _ key: Key, isDelete: Bool) -> Bool {
        guard let leaf, leaf.tree == tree, leaf.isDelete || !isDelete else { return false }
        return leaf.lower.map { $0 <= key } ?? true && leaf.upper.map { key < $0 } ?? true
    }

    mutating func noteOrdered(_ page: Page, room: Int) {
        if page.level > 0 {
            innerNodes += 1
        } else if page.node.freeBytes < room {
            tightLeaves += 1
        }
    }

    /// How many nodes ordered changes may add at most, of which the puts bring `growth` bytes.
    ///
    /// A leaf that is cut has room for half a node less an item in each part, so between two cuts of
    /// what was one leaf come that many bytes, and each byte counts for at most two cuts. Each cut puts
    /// a pointer into the node above, which can take dozens before it is cut a second time.
    func addedNodes(growth: Int) -> Int {
        let cuts = tightLeaves + 2 * growth / Self.bytesBetweenCuts + 1
        return cuts + innerNodes + cuts / Self.pointersBetweenCuts + 3 * Self.treesOfAChange
    }
    private static let bytesBetweenCuts = NodePage.capacity / 2 - NodePage.itemSize(4000)
    private static let pointersBetweenCuts =
        (NodePage.capacity / 2) / CopyOnWriteTree.pointerItemSize - 2
    /// A head, the volume tree, and one more; each may get a new root.
    private static let treesOfAChange = 3

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
