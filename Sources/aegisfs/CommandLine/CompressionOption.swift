/// A CODEC on the command line.
internal import FSCore

extension CompressionSetting {
    /// For help texts and hints.
    static let forms = "CODEC is none, lz4[:1-12], zstd[:1-19] or zlib[:1-9]"

    static func parse(_ text: String, option: String) throws(Failure) -> CompressionSetting {
        guard let setting = CompressionSetting(parsing: text) else {
            throw .usage("\(option): '\(text)' is no codec", hint: forms)
        }
        return setting
    }
}
