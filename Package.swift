// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift target: warnings are errors, imports are explicit.
let common: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]
/// The core and its modules also mark every use of unsafe memory.
let strict = common + [.strictMemorySafety()]

let package = Package(
    name: "aegisfs",
    products: [
        .library(name: "FSCore", targets: ["FSCore"]),
        .library(name: "FSModules", targets: ["FSModules"]),
    ],
    targets: [
        .systemLibrary(name: "CLinux", path: "Sources/FSCore/CLinux"),
        .target(name: "FSCore", dependencies: ["CLinux"], exclude: ["CLinux"],
                swiftSettings: strict),

        .systemLibrary(name: "CISAL", path: "Sources/FSModules/CISAL", pkgConfig: "libisal",
                       providers: [.apt(["libisal-dev"])]),
        .systemLibrary(name: "CCrypto", path: "Sources/FSModules/CCrypto", pkgConfig: "libcrypto",
                       providers: [.apt(["libssl-dev"])]),
        .target(name: "FSModules", dependencies: ["FSCore", "CISAL", "CCrypto"],
                exclude: ["CISAL", "CCrypto"], swiftSettings: strict),

        .systemLibrary(name: "CTestLinux", path: "Tests/FSTestSupport/CTestLinux"),
        .target(name: "FSTestSupport", dependencies: ["FSCore", "FSModules", "CTestLinux"],
                path: "Tests/FSTestSupport", exclude: ["CTestLinux"], swiftSettings: common),
        .testTarget(name: "FSCoreTests", dependencies: ["FSCore", "FSModules", "FSTestSupport"],
                    swiftSettings: common),
    ]
)
