/// The repository itself: what may import what, how long files are, what is never called, and that
/// documents speak of things that exist.
import FSTestSupport
import Foundation
import Testing

@testable import aegisfs

@Suite struct TidyTests {
    private static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private struct File {
        var path: String
        var lines: [String]
    }

    /// The text files with these endings below `folders`, by their path from the root.
    private func files(_ folders: String..., endings: Set<String> = ["swift"]) throws -> [File] {
        var files: [File] = []
        for folder in folders {
            let url = Self.root.appendingPathComponent(folder)
            for case let path as String in FileManager.default.enumerator(atPath: url.path)
                ?? .init()
            where endings.contains((path as NSString).pathExtension) {
                let text = try String(
                    contentsOf: url.appendingPathComponent(path), encoding: .utf8)
                files.append(
                    File(
                        path: folder + "/" + path, lines: text.components(separatedBy: "\n")))
            }
        }
        // A folder that was renamed would make the whole suite look at nothing.
        #expect(!files.isEmpty, "no files in \(folders)")
        return files
    }

    // MARK: Sources

    /// Modules that each target may import; the standard library needs no mention.
    private static let allowedImports: [(folder: String, modules: Set<String>)] = [
        ("Sources/FSCore", ["Glibc", "CLinux", "Synchronization"]),
        (
            "Sources/FSModules",
            [
                "FSCore", "Glibc", "CLinux", "Synchronization", "CISAL", "CCrypto", "CXXHash",
                "CLZ4",
                "CZstd", "CZlib",
            ]
        ),
        ("Sources/FSFuse", ["FSCore", "Glibc", "Synchronization", "CFuse3", "CURing"]),
        (
            "Sources/aegisfs",
            [
                "FSCore", "FSModules", "FSFuse", "Glibc", "CLinux", "CBlkid", "Foundation",
                "FoundationEssentials",
            ]
        ),
    ]

    @Test func everyTargetImportsOnlyWhatItMay() throws {
        let pattern = /^\s*(?:@\w+(?:\(\w+\))? +)*(?:\w+ +)?import +(?:\w+ +)?([A-Za-z0-9_]+)/
        for (folder, modules) in Self.allowedImports {
            for file in try files(folder) {
                for (number, line) in file.lines.enumerated() {
                    guard let match = line.firstMatch(of: pattern) else { continue }
                    #expect(
                        modules.contains(String(match.1)),
                        "\(file.path):\(number + 1): \(folder) may not import \(match.1)")
                }
            }
        }
        let folders = try FileManager.default.contentsOfDirectory(
            atPath: Self.root.appendingPathComponent("Sources").path)
        #expect(
            Set(folders.map { "Sources/" + $0 }) == Set(Self.allowedImports.map(\.folder)),
            "a new target needs its line here")
    }

    private static let maximumLines = 500

    @Test func filesAreShort() throws {
        for file in try files("Sources", "Tests") {
            // What follows the last newline is no line.
            let count = file.lines.count - 1
            #expect(count <= Self.maximumLines, "\(file.path) has \(count) lines")
        }
    }

    /// What must not stand in a source, and where; in pieces, because this file is looked at too.
    private static let banned: [(word: String, folders: [String])] = [
        (#"\bpri"# + #"nt\("#, ["Sources"]),
        (#"\bfatal"# + #"Error\("#, ["Sources", "Tests"]),
        (#"\btry"# + "!", ["Sources", "Tests"]),
        (#"\bas"# + "!", ["Sources", "Tests"]),
        (#"\bTO"# + #"DO\b"#, ["Sources", "Tests"]),
        (#"\bFIX"# + #"ME\b"#, ["Sources", "Tests"]),
    ]
    /// A libcrypto without SipHash or SHA-256, or without memory: there is no volume to protect yet,
    /// and no caller that could go on.
    private static let exceptions: Set<String> = [
        "Sources/FSModules/Hashing/SHA256.swift", "Sources/FSModules/Hashing/SipHash.swift",
    ]

    @Test func nothingBannedIsCalled() throws {
        for (word, folders) in Self.banned {
            let pattern = try Regex(word)
            for folder in folders {
                for file in try files(folder) where !Self.exceptions.contains(file.path) {
                    for (number, line) in file.lines.enumerated() {
                        #expect(
                            line.firstMatch(of: pattern) == nil,
                            "\(file.path):\(number + 1): \(line)"
                        )
                    }
                }
            }
        }
    }

    private static let hasFormatter = TestMachine.can(
        "the sources' format",
        (try? run(["swift-format", "--version"]).exitCode) == 0 ? nil : "no swift-format")

    @Test(.enabled(if: hasFormatter)) func sourcesAreFormatted() throws {
        let result = try run(
            [
                "swift-format", "lint", "--strict", "--parallel", "--recursive", "Sources", "Tests",
                "Package.swift",
            ], directory: Self.root, seconds: 300)
        #expect(result.exitCode == 0, "\(result.errors.prefix(4000))")
    }

    // MARK: Documents

    private func documents() throws -> [File] {
        let readme = Self.root.appendingPathComponent("README.md")
        let text = try String(contentsOf: readme, encoding: .utf8)
        return try files("docs", endings: ["md"])
            + [File(path: "README.md", lines: text.components(separatedBy: "\n"))]
    }

    private func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: Self.root.appendingPathComponent(path).path)
    }

    @Test func everyLinkLeadsSomewhere() throws {
        let pattern = /\]\(([^)\s]+)\)/
        for file in try documents() {
            for match in file.lines.joined(separator: "\n").matches(of: pattern) {
                let target = String(match.1.prefix { $0 != "#" })
                guard !target.isEmpty, !target.contains(":") else { continue }
                let folder = (file.path as NSString).deletingLastPathComponent
                #expect(
                    exists((folder as NSString).appendingPathComponent(target)),
                    "\(file.path): \(target)")
            }
        }
    }

    /// Documents and scripts that comments, messages and documents name by their path.
    @Test func everyNamedDocumentExists() throws {
        let pattern = /\b(?:docs\/[A-Z]+\.md|scripts\/[a-z-]+(?:\/[a-z_-]+(?:\.[a-z]+)?)?)/
        for file in try documents() + files("Sources", "Tests") {
            for match in file.lines.joined(separator: "\n").matches(of: pattern) {
                #expect(exists(String(match.0)), "\(file.path): \(match.0)")
            }
        }
    }

    @Test func everyVerbInTheDocumentsIsThere() throws {
        let names = Set(CommandTable.verbs.map(\.name))
        let pattern = /(?:^|[`'])aegisfs ([a-z]+)/
        var found: Set<String> = []
        for file in try documents() {
            for (number, line) in file.lines.enumerated() {
                for match in line.matches(of: pattern) {
                    let verb = String(match.1)
                    #expect(names.contains(verb), "\(file.path):\(number + 1): no verb \(verb)")
                    if file.path == "README.md" { found.insert(verb) }
                }
            }
        }
        #expect(found.isSuperset(of: ["format", "mount", "umount", "status", "check"]))
    }

    /// The list of suites has each of them, and none that is not there.
    @Test func theListOfSuitesIsComplete() throws {
        let text = try String(
            contentsOf: Self.root.appendingPathComponent("docs/TESTING.md"), encoding: .utf8)
        let listed = Set(text.matches(of: /`([A-Za-z]+Tests)`/).map { String($0.1) })
        let present = try files("Tests").compactMap { file -> String? in
            let name = ((file.path as NSString).lastPathComponent as NSString)
                .deletingPathExtension
            return name.hasSuffix("Tests") ? name : nil
        }
        #expect(listed == Set(present))
    }
}
