/// Everything that `aegisfs explain` knows: this program's messages and the findings of `check`.
internal import FSCore

struct CatalogueEntry: Encodable, Sendable {
    let id: String
    let summary: String
    let explanation: String
}

enum MessageCatalogue {
    static let entries: [CatalogueEntry] =
        MessageID.allCases.map {
            CatalogueEntry(id: $0.rawValue, summary: $0.summary, explanation: $0.explanation)
        }
        + CheckIssue.allCases.map {
            CatalogueEntry(id: $0.id, summary: $0.summary, explanation: $0.explanation)
        }

    /// Understands `AEGIS-0017`, `aegis-17` and `17`.
    static func entry(for text: String) -> CatalogueEntry? {
        let upper = text.uppercased()
        let digits = upper.hasPrefix("AEGIS-") ? upper.dropFirst(6) : upper[...]
        guard let number = UInt(digits), digits.allSatisfy(\.isNumber) else { return nil }
        return entries.first { UInt($0.id.dropFirst(6)) == number }
    }
}
