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
        .library(name: "FSFuse", targets: ["FSFuse"]),
        .executable(name: "aegisfs", targets: ["aegisfs"]),
    ],
    targets: [
        .systemLibrary(name: "CLinux", path: "Sources/FSCore/CLinux"),
        .target(
            name: "FSCore", dependencies: ["CLinux"], exclude: ["CLinux"],
            swiftSettings: strict),

        .systemLibrary(
            name: "CISAL", path: "Sources/FSModules/CISAL", pkgConfig: "libisal",
            providers: [.apt(["libisal-dev"])]),
        .systemLibrary(
            name: "CCrypto", path: "Sources/FSModules/CCrypto", pkgConfig: "libcrypto",
            providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CXXHash", path: "Sources/FSModules/CXXHash", pkgConfig: "libxxhash",
            providers: [.apt(["libxxhash-dev"])]),
        .systemLibrary(
            name: "CLZ4", path: "Sources/FSModules/CLZ4", pkgConfig: "liblz4",
            providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(
            name: "CZstd", path: "Sources/FSModules/CZstd", pkgConfig: "libzstd",
            providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(
            name: "CZlib", path: "Sources/FSModules/CZlib", pkgConfig: "zlib",
            providers: [.apt(["zlib1g-dev"])]),
        .target(
            name: "FSModules",
            dependencies: [
                "FSCore", "CISAL", "CCrypto", "CXXHash", "CLZ4", "CZstd", "CZlib", "CLinux",
            ],
            exclude: ["CISAL", "CCrypto", "CXXHash", "CLZ4", "CZstd", "CZlib"],
            swiftSettings: strict),

        .systemLibrary(
            name: "CFuse3", path: "Sources/FSFuse/CFuse3", pkgConfig: "fuse3",
            providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(
            name: "CURing", path: "Sources/FSFuse/CURing", pkgConfig: "liburing",
            providers: [.apt(["liburing-dev"])]),
        .target(
            name: "FSFuse", dependencies: ["FSCore", "CFuse3", "CURing"],
            exclude: ["CFuse3", "CURing"], swiftSettings: common),

        .systemLibrary(
            name: "CBlkid", path: "Sources/aegisfs/CBlkid", pkgConfig: "blkid",
            providers: [.apt(["libblkid-dev"])]),
        .executableTarget(
            name: "aegisfs",
            dependencies: ["FSCore", "FSModules", "FSFuse", "CBlkid", "CLinux"],
            exclude: ["CBlkid"], swiftSettings: common),

        .systemLibrary(name: "CTestLinux", path: "Tests/FSTestSupport/CTestLinux"),
        .target(
            name: "FSTestSupport", dependencies: ["FSCore", "FSModules", "CTestLinux"],
            path: "Tests/FSTestSupport", exclude: ["CTestLinux"], swiftSettings: common),
        .executableTarget(
            name: "aegisfs-writers", path: "Tests/CrashWriters", swiftSettings: common),
        .executableTarget(
            name: "aegisfs-recorder",
            dependencies: ["FSCore", "FSModules", "FSFuse", "FSTestSupport"],
            path: "Tests/RecordingDaemon", swiftSettings: common),
        .systemLibrary(name: "CCalls", path: "Tests/Conformance/CCalls"),
        .executableTarget(
            name: "aegisfs-conformance", dependencies: ["CCalls", "FSTestSupport"],
            path: "Tests/Conformance",
            exclude: ["CCalls"], swiftSettings: common),
        .testTarget(
            name: "FSCoreTests", dependencies: ["FSCore", "FSModules", "FSTestSupport"],
            exclude: ["GoldenImages"],
            swiftSettings: common),
        .testTarget(
            name: "FSSystemTests",
            dependencies: [
                "FSCore", "FSModules", "FSFuse", "FSTestSupport", "aegisfs-conformance",
            ],
            swiftSettings: common),
        .testTarget(
            name: "aegisfsTests", dependencies: ["FSTestSupport", "aegisfs"], swiftSettings: common),
    ]
)
