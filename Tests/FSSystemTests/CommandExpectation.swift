/// What a command returned and said, compared with what a test wants of it.
internal import FSTestSupport
internal import Testing

/// Each of `words` must be in what the command said, on whatever stream.
func expect(
    _ result: ProcessResult, _ code: Int32, _ words: String...,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    let said = result.output + result.errors
    #expect(result.exitCode == code, "\(said)", sourceLocation: sourceLocation)
    for word in words {
        #expect(said.contains(word), "no '\(word)' in \(said)", sourceLocation: sourceLocation)
    }
}
