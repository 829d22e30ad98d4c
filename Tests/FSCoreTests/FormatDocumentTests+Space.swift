/// Records of moved blocks in the format's document.
import Testing

@testable import FSCore

extension FormatDocumentTests {
    @Test func remapRecord() throws {
        let remap = RemapRecord(source: 2000, count: 0x0203, target: 1500)
        try compare(
            "Remap record", remap.encoded(),
            [
                "version": .number(1), "blocks": .number(0x0203), "target": .number(1500),
            ])
        try refuse("Remap record", remap.encoded(), fixed: ["version"]) {
            _ = try RemapRecord(remap.key, decoding: $0, layout: DiskLayout(blockCount: 4096))
        }
        // A target behind the end is none, a source may have been there.
        let tail = RemapRecord(source: 6000, count: 1, target: 4070)
        let larger = DiskLayout(blockCount: 4096, addressLimit: 8192)
        for (layout, isRight) in [(larger, false), (DiskLayout(blockCount: 8192), true)] {
            let decoded = tail.encoded().withView {
                try? RemapRecord(tail.key, decoding: $0, layout: layout)
            }
            #expect((decoded == tail) == isRight)
        }
    }
}
