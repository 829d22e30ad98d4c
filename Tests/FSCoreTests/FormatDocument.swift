/// Reads the tables of the format's document.
import Foundation
import Testing

/// The tables of `docs/FORMAT.md`.
struct FormatDocument {
    struct Row {
        var offset: String
        var size: String
        var field: String
        var meaning: String
        var isReserved: Bool { field == "reserved" || meaning.hasPrefix("reserved") }
    }
    /// Tables that draw a record, by the heading above them.
    private(set) var records: [String: [Row]] = [:]
    /// All others, by the title of their first column.
    private var tables: [String: [[String]]] = [:]

    init() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../docs/FORMAT.md")
        let text = try String(contentsOf: path, encoding: .utf8)
        var heading = ""
        var header: [String]?
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            guard line.hasPrefix("|") else {
                header = nil
                if line.hasPrefix("#") { heading = line.drop { "# ".contains($0) }.description }
                continue
            }
            let cells = line.split(separator: "|", omittingEmptySubsequences: false)
                .dropFirst().dropLast().map { $0.trimmingCharacters(in: .whitespaces) }
            guard let titles = header else {
                header = cells
                continue
            }
            if cells[0] == "---" { continue }
            if titles[0] == "offset" {
                records[heading, default: []].append(
                    Row(offset: cells[0], size: cells[1], field: cells[2], meaning: cells[3]))
            } else {
                tables[titles[0], default: []].append(cells)
            }
        }
    }

    func record(_ name: String) throws -> [Row] { try #require(records[name], "\(name)") }
    func table(_ title: String) throws -> [[String]] { try #require(tables[title], "\(title)") }
    func offset(_ name: String, _ field: String) throws -> Int {
        let row = try #require(try record(name).first { $0.field == field })
        return try #require(Int(row.offset))
    }

    /// `20 + 8 × n`; nil for `…` and anything else that is no number.
    static func evaluate(_ formula: String, _ variables: [String: Int]) -> Int? {
        var sum = 0
        let terms = formula.replacing(" − ", with: " + -1 × ").split(separator: " + ")
        for term in terms {
            var product = 1
            for factor in term.split(separator: " × ") {
                guard let value = Int(factor) ?? variables[String(factor)] else { return nil }
                product *= value
            }
            sum += product
        }
        return terms.isEmpty ? nil : sum
    }
}
