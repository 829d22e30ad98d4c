/// A map of a volume's space, and the pieces in which the free part of it lies.
extension Inspector {
    private static let columns = 64
    private static let rows = 16

    /// As of the last checkpoint. Each cell of the map is a share of the volume: `.` free, `1` to `9`
    /// tenths in use, `#` full, `?` with a damaged bitmap.
    public static func space(
        _ device: any BlockDevice, modules: ModuleSet
    ) throws(FSError) -> Value {
        let reader = try VolumeReader(device, modules)
        let layout = reader.layout
        let store = BitmapStore(
            device: device, checksum: reader.nodes.checksum, geometry: VolumeGeometry(layout),
            root: reader.superblock.bitmapRoot, errors: ErrorLog())
        let cells = UInt64(columns * rows)
        let cellBlocks = (layout.blockCount + cells - 1) / cells
        var used = [UInt64](repeating: 0, count: Int(cells))
        var damaged: Set<Int> = []
        var runs = FreeRuns()
        for region in 0..<layout.regionCount {
            let first = region * DiskLayout.regionBlocks
            let end = min(first + DiskLayout.regionBlocks, layout.blockCount)
            do throws(FSError) {
                let leaf = try store.leaf(ofRegion: region)
                let bits = BlockBits(leaf.bytes)
                for run in layout.fixedRuns(inRegion: region) { bits.set(run.start, run.count) }
                runs.add(bits, end: layout.usableBlocks(inRegion: region))
                for cell in first / cellBlocks...(end - 1) / cellBlocks {
                    let from = max(cell * cellBlocks, first) - first
                    let to = min((cell + 1) * cellBlocks, end) - first
                    used[Int(cell)] += UInt64(
                        bits.population(below: Int(to)) - bits.population(below: Int(from)))
                }
            } catch {
                damaged.formUnion(Int(first / cellBlocks)...Int((end - 1) / cellBlocks))
            }
        }
        let count = Int((layout.blockCount + cellBlocks - 1) / cellBlocks)
        let map = (0..<count).map { cell -> Character in
            if damaged.contains(cell) { return "?" }
            let size = min(cellBlocks, layout.blockCount - UInt64(cell) * cellBlocks)
            if used[cell] == 0 { return "." }
            if used[cell] >= size { return "#" }
            return Character("\(max(1, min(9, used[cell] * 10 / size)))")
        }
        let lines = stride(from: 0, to: count, by: columns).map { start in
            Value.text(String(map[start..<min(start + columns, count)]))
        }
        let histogram = runs.histogram.enumerated().filter { $0.element > 0 }.map {
            Value.record([
                ("from_blocks", .number(1 << UInt64($0.offset))), ("runs", .number($0.element)),
            ])
        }
        return .record([
            ("blocks_in_a_cell", .number(cellBlocks)), ("map", .list(lines)),
            ("free_blocks", .number(runs.blocks)), ("free_runs", .number(runs.count)),
            ("mean_free_run_blocks", .number(runs.meanBlocks)),
            ("longest_free_run_blocks", .number(runs.longest)),
            ("free_runs_by_length", .list(histogram)),
        ])
    }
}
