import Foundation

#if canImport(Darwin)
    import Darwin
#endif

/// The command `think-compress` as this build made it.
public enum BuiltCommand {
    /// Where it is, or nil if it was not built.
    public static let path = file("think-compress")

    /// A file that this build made beside the test program; never one of another build, which may be older or of
    /// another configuration.
    static func file(_ name: String) -> String? {
        var folder = testProgram.deletingLastPathComponent()
        // On Apple's systems the program lies in a bundle: NAME.xctest/Contents/MacOS.
        if let bundle = folder.pathComponents.lastIndex(where: { $0.hasSuffix(".xctest") }) {
            for _ in bundle..<folder.pathComponents.count { folder.deleteLastPathComponent() }
        }
        let path = folder.appending(path: name).path
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }

    /// The program or bundle that holds this code, not the one that runs it, which may be the toolchain's.
    private static var testProgram: URL {
        #if canImport(Darwin)
            var image = Dl_info()
            if dladdr(#dsohandle, &image) != 0, let name = image.dli_fname {
                return URL(filePath: String(cString: name)).standardizedFileURL
            }
        #endif
        return URL(filePath: Bundle.main.executablePath ?? CommandLine.arguments[0]).standardizedFileURL
    }

    /// Runs the command to its end.
    public static func run(_ arguments: String...) async throws -> Subprocess.Result {
        try await Subprocess.run(found(), arguments)
    }

    /// Starts the command.
    public static func start(_ arguments: String...) throws -> Subprocess {
        try Subprocess(found(), arguments)
    }

    /// The path of the built command.
    public static func found() throws -> String {
        guard let path else {
            throw SubprocessError(description: "think-compress is not beside the tests; run swift build first")
        }
        return path
    }
}
