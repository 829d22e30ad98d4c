/// Walks two roots side by side in the order of their keys, and shows only what differs.
///
/// Nodes that both have are passed by unread: the cost follows the difference, not the size. Nothing
/// is promised about which nodes are recognized: one that moved to another place among its neighbours
/// may be shown on both sides, and equal items with it are not shown.
///
///     both at the same node          passed by
///     a node, and something before   the other side's items up to it are that side's own
///     else                           the node (the higher, or the earlier) is opened
///
/// - Invariant: every item that is in one root only, or has another value, is shown once; and every
///   node that is in one root only is shown on its side.
package struct TreeComparison {
    package enum Side { case old, new }

    /// What is shown. Views are valid during the call only.
    package enum Difference {
        /// A node of this side whose items are compared one by one.
        case node(Side, NodePointer)
        case item(Key, old: ByteView?, new: ByteView?)
    }

    typealias Read = (NodeValidator.Expectation) throws(FSError) -> Page
    private let read: Read

    /// - Parameter read: gives a node as the expectation says; it holds a read epoch.
    init(read: @escaping Read) { self.read = read }

    /// Each node is read in an epoch of its own; the caller sees to it that all roots stay as long as it
    /// uses this. Several walks read what they have in common once, if it is not too much.
    package init(_ volume: Volume) {
        let recent = RecentNodes()
        read = { (expected) throws(FSError) in
            if let page = recent.page(expected) { return page }
            let token = volume.epochs.enter()
            defer { volume.leave(token) }
            let page = try volume.nodes.read(expected)
            recent.put(page, expected)
            return page
        }
    }

    /// Compares two roots of one kind of tree; nil is an empty one.
    package func run(
        old: NodePointer?, new: NodePointer?,
        _ body: (Difference) throws(FSError) -> Void
    ) throws(FSError) {
        var old = Cursor(read, old)
        var new = Cursor(read, new)
        while true {
            switch (old.place, new.place) {
            case (nil, nil): return
            case (.some(let place), nil): try advance(&old, .old, place, body)
            case (nil, .some(let place)): try advance(&new, .new, place, body)
            case (.some(let a), .some(let b)):
                switch (a, b) {
                case (.node(let first), .node(let second)):
                    if first.address == second.address {
                        Cursor.skipShared(&old, &new)
                    } else if first.level != second.level {
                        if first.level > second.level {
                            try advance(&old, .old, a, body)
                        } else {
                            try advance(&new, .new, b, body)
                        }
                    } else if first.start <= second.start {
                        try advance(&old, .old, a, body)
                    } else {
                        try advance(&new, .new, b, body)
                    }
                case (.node(let first), .item(let key)):
                    if key < first.start {
                        try advance(&new, .new, b, body)
                    } else {
                        try advance(&old, .old, a, body)
                    }
                case (.item(let key), .node(let second)):
                    if key < second.start {
                        try advance(&old, .old, a, body)
                    } else {
                        try advance(&new, .new, b, body)
                    }
                case (.item(let first), .item(let second)):
                    if first < second {
                        try advance(&old, .old, a, body)
                    } else if second < first {
                        try advance(&new, .new, b, body)
                    } else {
                        let (before, after) = (old.value, new.value)
                        if let before, let after, !before.equals(after) {
                            try body(.item(first, old: before, new: after))
                        }
                        old.skip()
                        new.skip()
                    }
                }
            }
        }
    }

    /// Shows what one side alone has, or opens a node of it.
    private func advance(
        _ cursor: inout Cursor, _ side: Side, _ place: Cursor.Place,
        _ body: (Difference) throws(FSError) -> Void
    ) throws(FSError) {
        switch place {
        case .node:
            guard let expected = try cursor.expected else { return }
            try body(.node(side, expected.pointer))
            try cursor.open(expected)
        case .item(let key):
            let value = cursor.value
            try body(
                side == .old
                    ? .item(key, old: value, new: nil) : .item(key, old: nil, new: value))
            cursor.skip()
        }
    }

    /// A place in one tree: in front of a node that was not opened, or of an item.
    private struct Cursor {
        enum Place {
            case node(Node)
            case item(Key)
        }
        /// What tells one node from another: the rest of a pointer is decoded when the node is opened.
        struct Node {
            var address: BlockAddress
            var level: UInt8
            /// The first key that may be below it.
            var start: Key
        }
        private struct Level {
            var page: Page
            var expected: NodeValidator.Expectation
            var index: Int
        }
        private let read: Read
        private var root: NodeValidator.Expectation?
        private var levels: [Level] = []
        private(set) var place: Place?

        init(_ read: @escaping Read, _ root: NodePointer?) {
            self.read = read
            self.root = root.map {
                NodeValidator.Expectation(pointer: $0, tree: .files, lower: nil, upper: nil)
            }
            place = root.map {
                .node(Node(address: $0.address, level: $0.level, start: .minimum))
            }
        }

        /// The value of the item in front.
        var value: ByteView? {
            let last = levels.count - 1
            return last < 0 ? nil : levels[last].page.node.value(levels[last].index)
        }

        /// What is known of the node in front.
        var expected: NodeValidator.Expectation? {
            get throws(FSError) {
                guard let level = levels.last else { return root }
                return try level.expected.child(level.page.node, level.index)
            }
        }

        /// Goes into the node in front.
        mutating func open(_ expected: NodeValidator.Expectation) throws(FSError) {
            root = nil
            levels.append(Level(page: try read(expected), expected: expected, index: 0))
            settle()
        }

        /// Passes by the node in front, which both have, and by those right behind it that both have.
        static func skipShared(_ old: inout Cursor, _ new: inout Cursor) {
            var count = 1
            if let one = old.levels.last, let other = new.levels.last {
                let limit = min(
                    one.page.node.count - one.index, other.page.node.count - other.index)
                func address(_ level: Level) -> UInt64 {
                    level.page.node.value(level.index + count).u64(NodePointer.addressOffset)
                }
                while count < limit, address(one) == address(other) { count += 1 }
            }
            old.skip(count)
            new.skip(count)
        }

        /// Passes by what is in front.
        mutating func skip(_ count: Int = 1) {
            guard !levels.isEmpty else {
                place = nil
                return
            }
            levels[levels.count - 1].index += count
            settle()
        }

        /// Nodes were validated with their parents, so what is read of a pointer is there.
        private mutating func settle() {
            while !levels.isEmpty {
                // A level is large: it is looked at where it stands.
                let last = levels.count - 1
                let node = levels[last].page.node
                let index = levels[last].index
                if index < node.count {
                    place =
                        node.isLeaf
                        ? .item(node.key(index))
                        : .node(
                            Node(
                                address: BlockAddress(
                                    rawValue: node.value(index).u64(NodePointer.addressOffset)),
                                level: node.level - 1,
                                start: index > 0
                                    ? node.key(index) : levels[last].expected.lower ?? .minimum))
                    return
                }
                levels.removeLast()
                if last > 0 { levels[last - 1].index += 1 }
            }
            place = nil
        }
    }
}
