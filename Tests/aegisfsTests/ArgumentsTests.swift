/// The command line's pure parts: parsing by the table, sizes, mount options, suggestions.
import FSCore
import Testing

@testable import aegisfs

@Suite struct ArgumentsTests {
    private func verb(_ name: String) -> CommandSpec {
        CommandTable.verbs.first { $0.name == name }!
    }

    @Test func optionsAndOperandsComeInAnyOrder() throws {
        let arguments = try Arguments(["test.img", "--size", "1", "-qf"], for: verb("format"))
        #expect(arguments.operands == ["test.img"])
        #expect(arguments.value(.size) == "1")
        #expect(arguments.isQuiet)
        #expect(arguments.has(.force))
        let joined = try Arguments(["--size=2G", "--", "--odd"], for: verb("format"))
        #expect(joined.value(.size) == "2G")
        #expect(joined.operands == ["--odd"])
    }

    @Test(arguments: [
        ["--sise", "1", "x"], ["x", "y"], [], ["--size"], ["x", "--size", "1", "--size", "2"],
        ["x", "--quiet=1"],
    ])
    func mistakesAreUsageErrors(tokens: [String]) {
        #expect(throws: Failure.self) { try Arguments(tokens, for: verb("format")) }
        do throws(Failure) {
            _ = try Arguments(tokens, for: verb("format"))
        } catch { #expect(error.code == .usage) }
    }

    @Test func aSubverbStandsBeforeOrBehindTheTarget() throws {
        for tokens in [["tree", "a.img"], ["a.img", "tree"]] {
            let arguments = try Arguments(tokens, for: verb("inspect"))
            #expect(arguments.path == ["inspect", "tree"])
            #expect(arguments.operands == ["a.img"])
        }
    }

    @Test func everyVerbHasHelpThatFitsAScreen() {
        for command in CommandTable.verbs where !command.isHidden {
            let page = HelpText.page(command, path: [command.name])
            let lines = page.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines.count <= 40, "\(command.name): \(lines.count) lines")
            for line in lines { #expect(line.count <= 100, "\(command.name): \(line)") }
        }
    }

    @Test func messageIDsAreUnique() {
        let ids = MessageCatalogue.entries.map(\.id)
        #expect(Set(ids).count == ids.count)
        #expect(MessageCatalogue.entry(for: "30")?.id == "AEGIS-0030")
        #expect(MessageCatalogue.entry(for: "aegis-1203")?.id == "AEGIS-1203")
        #expect(MessageCatalogue.entry(for: "AEGIS-9999") == nil)
    }
}

@Suite struct SizeTests {
    @Test(arguments: [
        ("1", 1 << 30), ("0", 0), ("4K", 4096), ("4k", 4096), ("2GiB", 2 << 30), ("16MB", 16 << 20),
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
}

@Suite struct MountOptionsTests {
    @Test func theLastWordWins() throws {
        let options = try MountOptions(["ro,nosuid,noatime,commit=7", "rw,x-systemd.automount,nofail"])
        #expect(!options.isReadOnly)
        #expect(options.nosuid)
        #expect(options.accessTime == .none)
        #expect(options.commitSeconds == 7)
        #expect(!options.words.contains("nofail"))
    }
    @Test(arguments: ["bogus", "commit=0", "commit=x", "cache=1K", "ro=1"])
    func unknownWordsAreNamed(word: String) {
        do throws(Failure) {
            _ = try MountOptions([word])
            Issue.record("'\(word)' was accepted")
        } catch {
            #expect(error.code == .usage)
            #expect(error.message.contains(word.split(separator: "=")[0]))
        }
    }
    @Test func sloppyPassesOverThem() throws {
        #expect(try MountOptions(["bogus,ro"], sloppy: true).isReadOnly)
    }
}

@Suite struct SuggestionTests {
    @Test func nearWordsAreFound() {
        let verbs = ["format", "mount", "umount", "status"]
        #expect(Suggestion.nearest(to: "fromat", among: verbs) == "format")
        #expect(Suggestion.nearest(to: "stat", among: verbs) == "status")
        #expect(Suggestion.nearest(to: "zzzz", among: verbs) == nil)
    }
}
