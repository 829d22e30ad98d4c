/// Sizes on the command line and sizes for people.
import Testing

@testable import aegisfs

@Suite struct SizeTests {
    @Test(
        arguments: [
            ("1", 1 << 30), ("0", 0), ("4K", 4096), ("4k", 4096), ("2GiB", 2 << 30),
            ("16MB", 16 << 20),
            ("512B", 512), ("8E", 8 << 60),
        ] as [(String, UInt64)])
    func sizes(text: String, bytes: UInt64) throws {
        #expect(try SizeParser.parse(text, option: "--size") == bytes)
    }
    @Test(arguments: ["", "G", "-1", "1.5G", "1X", "16E", "99999999999999999999", "1 G", "0x10"])
    func nonsense(text: String) {
        #expect(throws: Failure.self) { try SizeParser.parse(text, option: "--size") }
    }
    @Test func formatting() {
        #expect(SizeFormatter.string(1023) == "1023 B")
        #expect(SizeFormatter.string(1024) == "1.0 KiB")
        #expect(SizeFormatter.string((1 << 30) - 1) == "1.0 GiB")
        #expect(SizeFormatter.string(.max) == "16.0 EiB")
        #expect(SizeFormatter.string(4096, exact: true) == "4096 B")
        #expect(SizeFormatter.percentage(2, of: 1) == "100.0 %")
    }
    @Test func theLastSizeThatFits() throws {
        #expect(try SizeParser.parse("15E", option: "--size") == 15 << 60)
        #expect(
            try SizeParser.parse("18446744073709551615B", option: "--size") == UInt64.max)
        #expect(throws: Failure.self) {
            try SizeParser.parse("18446744073709551616B", option: "--size")
        }
        #expect(try SizeParser.parse("17179869183", option: "--size") == 17_179_869_183 << 30)
        #expect(throws: Failure.self) { try SizeParser.parse("17179869184", option: "--size") }
    }
    @Test func percentages() {
        #expect(SizeFormatter.percentage(999, of: 1000) == "99.9 %")
        #expect(SizeFormatter.percentage(1, of: 3) == "33.3 %")
        #expect(SizeFormatter.percentage(0, of: 0) == nil)
    }
}
