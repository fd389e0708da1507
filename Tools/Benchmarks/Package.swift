// swift-tools-version: 6.2

import PackageDescription

// A checkout may be called anything, and a package that is depended on by path is named by its folder.
let parent = String(Context.packageDirectory.split(separator: "/").dropLast(2).last ?? "think-compress")

let package = Package(
    name: "Benchmarks",
    platforms: [.macOS(.v26)],
    dependencies: [
        .package(path: "../.."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        .executableTarget(
            name: "codec-benchmark",
            dependencies: [
                .product(name: "ThinkCompress", package: parent),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "CodecBenchmark",
            swiftSettings: [.swiftLanguageMode(.v6)]
        )
    ]
)
