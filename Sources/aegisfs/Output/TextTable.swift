/// Columns for people. Text is left-aligned, numbers right-aligned; the last column is not padded.
struct TextTable {
    enum Alignment: Sendable { case left, right }
    private let columns: [(title: String, alignment: Alignment)]
    private var rows: [[String]] = []

    init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

    mutating func add(_ row: [String]) {
        precondition(row.count == columns.count)
        rows.append(row)
    }

    func text(header: Bool) -> String {
        let lines = (header ? [columns.map { $0.title.uppercased() }] : []) + rows
        let widths = columns.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
        return lines.map { line in
            columns.indices.map { column in
                let padding = String(
                    repeating: " ", count: widths[column] - line[column].count)
                if columns[column].alignment == .right { return padding + line[column] }
                return column == columns.count - 1 ? line[column] : line[column] + padding
            }.joined(separator: "  ") + "\n"
        }.joined()
    }
}
