/// Copy-on-write: where the trees get new places for changed nodes. All under the exclusive tree
/// lock.
extension Volume: TreeContext {
    package var checksumKind: ChecksumKind { checksum.kind }
    package var internalUUID: VolumeUUID { nodes.validator.internalUUID }

    package func touch(_ page: Page, of tree: CopyOnWriteTree) throws(FSError) -> Page {
        switch page.state {
        case .dirty:
            return page
        case .frozen:
            // A checkpoint is writing it: go on with a copy. The frozen page's place is released in
            // this window, which is right: the running checkpoint persists it as allocated.
            let copy = Page(copying: page, replicas: try pool.take())
            releasePlaces(page, of: tree)
            page.isSuperseded = true
            cache.remove(page)
            adopt(copy)
            return copy
        case .clean:
            // The device keeps the old version; the same memory becomes the new one.
            let places = try pool.take()
            cache.remove(page)
            releasePlaces(page, of: tree)
            page.replicas = places
            page.state = .dirty
            adopt(page)
            return page
        case .dead:
            throw .corrupt(
                Corruption(
                    .node, at: page.address.block << 12, "a node that left the tree is in it"))
        }
    }

    package func newPage(level: UInt8, tree: TreeKind) throws(FSError) -> Page {
        let page = Page(
            emptyAtLevel: level, tree: tree, uuid: internalUUID, replicas: try pool.take(),
            sequence: window.sequence, birth: window.birthEpoch)
        cache.adopt(page)
        window.dirty.append(page)
        return page
    }

    package func discard(_ page: Page, of tree: CopyOnWriteTree) {
        cache.remove(page)
        if page.state == .dirty {
            // Born and gone in one window: nobody else ever heard of its place.
            stock(page.replicas)
        } else {
            releasePlaces(page, of: tree)
            page.isSuperseded = true
        }
        if page.state != .frozen { page.state = .dead }
    }

    package func restamp(_ page: Page) {
        page.stamp(sequence: window.sequence, birth: window.birthEpoch)
    }

    private func adopt(_ page: Page) {
        restamp(page)
        cache.adopt(page)
        window.dirty.append(page)
    }

    private func releasePlaces(_ page: Page, of tree: CopyOnWriteTree) {
        let birth = page.node.birth
        for index in 0..<page.replicas.count {
            let run = BlockRun(page.replicas[index], DiskFormat.blocksPerNode)
            if birth <= tree.parentEpoch {
                window.deaths.append(NodeDeath(segment: tree.segment, birth: birth, run: run))
            } else {
                freeNode(run)
            }
        }
    }
}
