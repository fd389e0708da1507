// swift-tools-version: 6.2

import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .treatWarning("ExplicitSendable", as: .error),
]
let sourceSettings = settings + [.enableUpcomingFeature("InternalImportsByDefault")]
let testSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")

/// What the umbrella re-exports. Its users name these modules, too: a build that only repeats what changed would not see
/// changes below the umbrella otherwise, and link code that disagrees about the size of types.
let umbrella = [
    "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", "CacheArchives", "KVCacheCodecs", "ArchiveCoding",
    "TokenSelection", "KIVIQuantization", "ThinKPruning", "CompressedAttention", "KVSnapshots", "KVCacheQuality",
    "CompressionBudgets", "EngineFormats",
]
/// Products of their own: a decoder to try recipes with, and what measures them with it.
let decoder = ["TextTokenization", "LlamaDecoder"]
let evaluation = ["KVCacheEvaluation", "EvaluationReports"]
let modules = ["JSONText"] + umbrella + decoder + evaluation
let library = (modules + ["ThinkCompress"]).map { Target.Dependency(stringLiteral: $0) }

// Each target uses only targets above it.
let package = Package(
    name: "think-compress",
    platforms: [.macOS(.v26)],
    products: [
        .library(name: "ThinkCompress", targets: ["ThinkCompress"]),
        .library(name: "LlamaDecoder", targets: decoder),
        .library(name: "KVCacheEvaluation", targets: evaluation),
        .executable(name: "think-compress", targets: ["think-compress"]),
        // For Tools/build-library, which links it into libthink_compress.
        .library(name: "ThinkCompressABI", type: .static, targets: ["ThinkCompressABI"]),
        // For Tools/Benchmarks.
        .library(name: "CThinkKernels", targets: ["CThinkKernels"]),
        .library(name: "COpenBLAS", targets: ["COpenBLAS"]),
        // For Tools/Fuzzing.
        .library(name: "FuzzTargets", targets: ["FuzzTargets"]),
        // For CommandTests, which load it into the command.
        .library(name: "FaultInjection", type: .dynamic, targets: ["FaultInjection"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    ],
    targets: [
        .systemLibrary(
            name: "CZstd",
            pkgConfig: "libzstd",
            providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]
        ),
        .systemLibrary(
            name: "COpenBLAS",
            pkgConfig: "openblas",
            providers: [.apt(["libopenblas-dev"]), .brew(["openblas"])]
        ),
        .target(name: "CThinkKernels"),
        .target(name: "CProcessGuard"),
        // For the command alone: the library changes nothing of the process that links it.
        .target(name: "CCommandStart"),
        .target(name: "ByteStorage", dependencies: ["CProcessGuard"], swiftSettings: sourceSettings),
        // What the code runs on: kernels, threads, matrix products.
        .target(
            name: "ComputeRuntime",
            dependencies: ["COpenBLAS", "CThinkKernels", "ByteStorage"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KVCacheModel",
            dependencies: ["CThinkKernels", "ByteStorage", "ComputeRuntime"],
            swiftSettings: sourceSettings
        ),
        // Packs caches by plans; what decides the plans is below.
        .target(
            name: "CachePacking",
            dependencies: ["CThinkKernels", "ByteStorage", "ComputeRuntime", "KVCacheModel"],
            swiftSettings: sourceSettings
        ),
        // Codes caches in as few bytes as they go, for files.
        .target(
            name: "CacheArchives",
            dependencies: ["CThinkKernels", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", crypto],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KVCacheCodecs",
            dependencies: ["CThinkKernels", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking"],
            swiftSettings: sourceSettings
        ),
        // The stage that makes archives.
        .target(
            name: "ArchiveCoding",
            dependencies: [
                "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", "CacheArchives", "KVCacheCodecs",
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "TokenSelection",
            dependencies: ["ByteStorage", "KVCacheModel", "CachePacking", "KVCacheCodecs"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KIVIQuantization",
            dependencies: ["KVCacheModel", "CachePacking", "KVCacheCodecs"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "ThinKPruning",
            dependencies: ["KVCacheModel", "CachePacking", "KVCacheCodecs"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "CompressedAttention",
            dependencies: [
                "COpenBLAS", "CThinkKernels", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking",
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KVSnapshots",
            dependencies: [
                "CZstd", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", "CacheArchives", crypto,
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KVCacheQuality",
            dependencies: [
                "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", "CompressedAttention", "KVSnapshots",
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "CompressionBudgets",
            dependencies: [
                "ComputeRuntime", "KVCacheModel", "CachePacking", "KVCacheCodecs", "ThinKPruning", "KVCacheQuality",
            ],
            swiftSettings: sourceSettings
        ),
        // For the targets below alone: what it has is no interface of the library.
        .target(name: "JSONText", dependencies: ["ByteStorage"], swiftSettings: sourceSettings),
        .target(
            name: "EngineFormats",
            dependencies: ["ByteStorage", "ComputeRuntime", "KVCacheModel", "JSONText"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "TextTokenization",
            dependencies: ["ByteStorage", "JSONText", "EngineFormats"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "LlamaDecoder",
            dependencies: [
                "COpenBLAS", "CThinkKernels", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking",
                "KVCacheCodecs", "CompressedAttention", "JSONText", "EngineFormats", "TextTokenization", crypto,
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "KVCacheEvaluation",
            dependencies: [
                "COpenBLAS", "ByteStorage", "ComputeRuntime", "KVCacheModel", "CachePacking", "KVCacheCodecs",
                "KVSnapshots", "KVCacheQuality", "EngineFormats", "TextTokenization", "LlamaDecoder",
            ],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "EvaluationReports",
            dependencies: ["KVCacheCodecs", "LlamaDecoder", "KVCacheEvaluation"],
            swiftSettings: sourceSettings
        ),
        .target(
            name: "ThinkCompress",
            dependencies: umbrella.map { Target.Dependency(stringLiteral: $0) },
            swiftSettings: sourceSettings
        ),
        // The library for other languages: the header, and what implements it.
        .target(name: "CThinkCompress"),
        .target(
            name: "ThinkCompressABI",
            dependencies: (["CThinkKernels"] + umbrella + ["ThinkCompress", "CThinkCompress"]).map {
                Target.Dependency(stringLiteral: $0)
            },
            swiftSettings: sourceSettings
        ),
        .executableTarget(
            name: "think-compress",
            dependencies: library + ["CCommandStart", "CProcessGuard", "CThinkCompress", argumentParser],
            swiftSettings: sourceSettings
        ),
        .target(name: "FaultInjection", path: "Tests/FaultInjection"),
        .target(
            name: "TestSupport",
            dependencies: library,
            path: "Tests/TestSupport",
            swiftSettings: testSettings
        ),
        .target(
            name: "FuzzTargets",
            dependencies: library + ["TestSupport"],
            path: "Tests/FuzzTargets",
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "FuzzTests",
            dependencies: library + ["TestSupport", "FuzzTargets"],
            exclude: ["FailCases"],
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "CThinkKernelsTests",
            dependencies: ["CThinkKernels", "ComputeRuntime", "TestSupport"],
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "CProcessGuardTests",
            dependencies: ["CProcessGuard", "TestSupport"],
            swiftSettings: testSettings
        ),
    ]
        + modules.map { name in
            .testTarget(
                name: "\(name)Tests",
                dependencies: library + ["TestSupport"],
                swiftSettings: testSettings
            )
        }
        + [
            .testTarget(
                name: "ThinkCompressABITests",
                dependencies: library + ["CThinkCompress", "ThinkCompressABI", "TestSupport"],
                swiftSettings: testSettings
            ),
            // Runs the built command as a user would.
            .testTarget(
                name: "CommandTests",
                dependencies: library + ["TestSupport", "think-compress"],
                swiftSettings: testSettings
            ),
        ]
)
