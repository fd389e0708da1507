// swift-tools-version: 6.2

import PackageDescription

// A checkout may be called anything, and a package that is depended on by path is named by its folder.
let parent = String(Context.packageDirectory.split(separator: "/").dropLast(2).last ?? "think-compress")

let package = Package(
    name: "Fuzzing",
    platforms: [.macOS(.v26)],
    dependencies: [.package(path: "../..")],
    targets: [
        .target(
            name: "FuzzEntry",
            dependencies: [.product(name: "FuzzTargets", package: parent)],
            path: "FuzzEntry",
            swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]
        ),
        // libFuzzer brings the main function.
        .executableTarget(name: "fuzz-parser", dependencies: ["FuzzEntry"], path: "fuzz-parser"),
    ]
)
