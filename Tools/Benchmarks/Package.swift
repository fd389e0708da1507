// swift-tools-version: 6.2

import PackageDescription

// A checkout may be called anything, and a package that is depended on by path is named by its folder.
let parent = String(Context.packageDirectory.split(separator: "/").dropLast(2).last ?? "think-compress")

let settings: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]
let thinkCompress = Target.Dependency.product(name: "ThinkCompress", package: parent)
let decoder = Target.Dependency.product(name: "LlamaDecoder", package: parent)
let kernels = Target.Dependency.product(name: "CThinkKernels", package: parent)
let library = Target.Dependency.product(name: "ThinkCompressABI", package: parent)
let openBLAS = Target.Dependency.product(name: "COpenBLAS", package: parent)
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "Benchmarks",
    platforms: [.macOS(.v26)],
    dependencies: [
        .package(path: "../.."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        .target(name: "PlainRead", path: "PlainRead"),
        .target(
            name: "BenchmarkSupport",
            dependencies: [thinkCompress],
            path: "Support",
            swiftSettings: settings
        ),
        .executableTarget(
            name: "codec-benchmark",
            dependencies: ["PlainRead", "BenchmarkSupport", kernels, openBLAS, thinkCompress, argumentParser],
            path: "CodecBenchmark",
            swiftSettings: settings
        ),
        .executableTarget(
            name: "attention-benchmark",
            dependencies: ["PlainRead", "BenchmarkSupport", decoder, library, thinkCompress, argumentParser],
            path: "AttentionBenchmark",
            swiftSettings: settings
        ),
    ]
)
