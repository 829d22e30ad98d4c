/// One JSON object a line, each with the version of its command's output.
///
/// Keys are snake case with the unit at the end (`size_bytes`); numbers are integers; times are
/// RFC 3339 in UTC. A field may be added within a major version; nothing else changes.
internal import FoundationEssentials

enum JSONOutput {
    static let major = 1
    static let minor = 0

    /// The object as one line with its line end.
    ///
    /// - Parameter kind: what a line of a stream is: `progress`, `finding`, `summary`, `error`;
    ///   nil for a command that prints one object.
    static func line(
        _ payload: some Encodable, command: String, kind: String? = nil
    ) -> String {
        encode(Envelope(payload: payload, command: command, kind: kind)) + "\n"
    }

    static func encode(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        do {
            return String(decoding: try encoder.encode(value), as: UTF8.self)
        } catch {
            preconditionFailure("documents of this program always encode: \(error)")
        }
    }

    static func decode<T: Decodable>(_ type: T.Type, from bytes: [UInt8]) -> T? {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try? decoder.decode(type, from: Data(bytes))
    }

    /// Puts `output_version` and `type` beside the payload's own keys.
    private struct Envelope<Payload: Encodable>: Encodable {
        let payload: Payload
        let command: String
        let kind: String?

        struct OutputVersion: Encodable {
            let command: String
            let major: Int
            let minor: Int
        }
        enum Keys: String, CodingKey { case outputVersion, type }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(
                OutputVersion(command: command, major: major, minor: minor),
                forKey: .outputVersion)
            try container.encodeIfPresent(kind, forKey: .type)
            try payload.encode(to: encoder)
        }
    }
}
