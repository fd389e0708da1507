import Foundation

/// The command `think-compress` as this build made it.
public enum BuiltCommand {
    /// Where it is: beside the test program, in whatever folder that was built.
    public static let path: String? = {
        var starts = [CommandLine.arguments[0], Bundle.main.bundlePath, Bundle.main.executablePath ?? ""]
        starts += CommandLine.arguments.filter { $0.hasSuffix(".xctest") }
        let builds = ["debug", "release"].map { ProjectFiles.root.appending(path: ".build/\($0)/x").path }
        for start in starts + builds where !start.isEmpty {
            var folder = URL(filePath: start).standardizedFileURL
            // A bundle has its program some folders down, a plain program lies beside the command.
            for _ in 0..<4 where folder.path != "/" {
                folder.deleteLastPathComponent()
                let candidate = folder.appending(path: "think-compress").path
                var isFolder: ObjCBool = false
                if FileManager.default.fileExists(atPath: candidate, isDirectory: &isFolder), !isFolder.boolValue,
                    FileManager.default.isExecutableFile(atPath: candidate)
                {
                    return candidate
                }
            }
        }
        return nil
    }()

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
