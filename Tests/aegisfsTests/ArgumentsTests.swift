/// Parsing by the command table, what is derived from the table, and suggestions.
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
        for command in CommandTable.verbs + CommandTable.helpers where !command.isHidden {
            let page = HelpText.page(command, path: [command.name])
            let lines = page.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines.count <= 40, "\(command.name): \(lines.count) lines")
            for line in lines { #expect(line.count <= 100, "\(command.name): \(line)") }
        }
    }

    @Test func bundledLettersAndAttachedValues() throws {
        let helper = CommandTable.helpers.first { $0.name == "mount.fuse.aegisfs" }!
        let mount = try Arguments(
            ["img", "dir", "-sno", "rw,dev", "-onoatime", "-v", "-v"], for: helper)
        #expect(mount.values(.mountOptions) == ["rw,dev", "noatime"])
        #expect(mount.has(.sloppy) && mount.has(.noTable))
        let fsck = CommandTable.helpers.first { $0.name == "fsck.aegisfs" }!
        let check = try Arguments(["-a", "-C8", "/dev/x"], for: fsck)
        #expect(check.operands == ["/dev/x"])
        #expect(check.value(.fsckProgress) == "8")
    }

    @Test func mistakesNameWhatWasMeant() throws {
        func hint(_ tokens: [String], _ name: String) -> String {
            do throws(Failure) {
                _ = try Arguments(tokens, for: verb(name))
                return "accepted"
            } catch { return error.hint ?? "" }
        }
        #expect(hint(["--labl", "a", "x"], "format").contains("--label"))
        #expect(hint(["superblok", "x"], "inspect").contains("superblock"))
        #expect(hint(["--progress=jsn", "x"], "check").contains("json"))
        #expect(hint([], "format").contains("aegisfs format"))
    }

    @Test func helpIsAskedForBeforeTheRestIsKnown() throws {
        for tokens in [["--help"], ["-h"], ["node", "--help"]] {
            #expect(try Arguments(tokens, for: verb("inspect")).has(.help))
        }
    }

    /// The parser scans a verb's options before it knows the subverb.
    @Test func optionsOfOneVerbAgree() {
        for command in CommandTable.verbs + CommandTable.helpers {
            let names = command.allOptions.map(\.long)
            #expect(Set(names).count == names.count, "\(command.name): a long name twice")
            let letters =
                command.allOptions.compactMap(\.short).map(String.init)
                + names.filter { $0.count == 1 }
            #expect(Set(letters).count == letters.count, "\(command.name): a letter twice")
        }
    }

    @Test func theReferenceAndCompletionHaveEveryVerbButTheHidden() {
        for command in CommandTable.verbs {
            let isShown = !command.isHidden
            #expect(HelpText.markdown.contains("## aegisfs \(command.name)\n") == isShown)
            #expect(HelpText.bashCompletion.contains(command.name) == isShown)
            #expect(HelpText.overview.contains("  \(command.name) ") == isShown)
        }
    }

    @Test func exitCodesForFsckAndMount() {
        #expect(ExitCode.damaged.fsckStatus == 4)
        #expect(ExitCode.usage.fsckStatus == 16)
        #expect(ExitCode.busy.fsckStatus == 8)
        #expect(ExitCode.interrupted.fsckStatus == 32)
        #expect(ExitCode.usage.mountStatus == 1)
        #expect(ExitCode.notFound.mountStatus == 32)
        #expect(ExitCode.done.mountStatus == 0 && ExitCode.done.fsckStatus == 0)
    }

    /// A helper's page has each exit code of the program that calls it once, in order.
    @Test func helpersExplainTheirExitCodes() {
        for (name, codes) in [
            ("fsck.aegisfs", [0, 1, 4, 8, 16, 32]), ("mount.fuse.aegisfs", [0, 1, 32]),
            ("umount.fuse.aegisfs", [0, 1, 32]), ("mkfs.aegisfs", [0, 1, 2, 10, 11, 13, 130]),
        ] {
            let helper = CommandTable.helpers.first { $0.name == name }!
            let page = HelpText.page(helper, path: [name])
            let section = page.split(separator: "\nexit codes:\n").last ?? ""
            let found = section.split(separator: "\n").compactMap {
                $0.split(separator: " ").first.flatMap { Int($0) }
            }
            #expect(found == codes, "\(name)")
            #expect(page.contains("examples:"), "\(name)")
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

@Suite struct SuggestionTests {
    @Test func nearWordsAreFound() {
        let verbs = ["format", "mount", "umount", "status"]
        #expect(Suggestion.nearest(to: "fromat", among: verbs) == "format")
        #expect(Suggestion.nearest(to: "stat", among: verbs) == "status")
        #expect(Suggestion.nearest(to: "zzzz", among: verbs) == nil)
    }
    @Test func swappedNeighboursAreOneEdit() {
        #expect(Suggestion.distance("ab", "ba") == 1)
        #expect(Suggestion.distance("", "abc") == 3)
        #expect(Suggestion.distance("kitten", "sitting") == 3)
    }
}
