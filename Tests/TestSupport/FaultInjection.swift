import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Lets system calls of a command fail, on Linux with glibc: `Tests/FaultInjection`.
public enum FaultInjection {
    /// A call that the library counted.
    public struct Call: Sendable, CustomStringConvertible {
        /// What the environment variable `FAULT_KIND` calls it: `read`.
        public let kind: String
        /// Whether it was made to fail.
        public let failed: Bool
        /// The function, its descriptor or size, and the file.
        public let description: String

        init?(_ line: Substring) {
            failed = line.hasPrefix("! ")
            let words = line.dropFirst(failed ? 2 : 0).split(separator: " ", maxSplits: 1)
            guard words.count == 2 else { return nil }
            kind = String(words[0])
            description = words[1].trimmingCharacters(in: .whitespaces)
        }
    }

    /// Which calls fail, and how.
    public struct Fault: Sendable, CustomStringConvertible {
        public let kind: String
        /// The value of `errno`; 0 lets a read or write do only a part.
        public let error: Int32
        /// Whether all calls of that kind after it fail as well, as on a disk that stays full.
        public let following: Bool

        public init(_ kind: String, _ error: Int32, following: Bool = false) {
            self.kind = kind
            self.error = error
            self.following = following
        }

        public var description: String {
            let reason = error == 0 ? "done in part" : String(cString: strerror(error))
            return "\(kind): \(reason)\(following ? ", and all after it" : "")"
        }

        func variables(number: Int) -> [String: String] {
            [
                "FAULT_KIND": kind, "FAULT_NUMBER": "\(number)", "FAULT_ERROR": "\(error)",
                "FAULT_FOLLOWING": following ? "1" : "0",
            ]
        }
    }

    /// A run and the calls that it made.
    public struct Run: Sendable {
        public let result: Subprocess.Result
        public let calls: [Call]
    }

    /// Whether calls can be made to fail here. The address sanitizer has to be loaded first.
    public static var isAvailable: Bool {
        #if canImport(Glibc)
            !AddressSanitizer.isPresent
        #else
            false
        #endif
    }

    /// Runs the command to its end, at most `limit` long, and lets the call of that number fail.
    ///
    /// - Parameter allocationBytes: the least size of an allocation that counts.
    public static func run(
        _ arguments: [String],
        fault: Fault? = nil,
        number: Int = 0,
        allocationBytes: Int,
        within limit: Duration
    ) async throws -> Run {
        guard let library = BuiltCommand.file("libFaultInjection.so") else {
            throw SubprocessError(description: "libFaultInjection.so is not beside the tests; run swift build first")
        }
        let folder = try TemporaryFolder()
        let log = folder.file("log")
        try Data().write(to: URL(filePath: log))
        // Swift's backtraces take seconds and would meet the faults as well.
        var variables = [
            "LD_PRELOAD": library, "FAULT_LOG": log, "FAULT_BYTES": "\(allocationBytes)",
            "SWIFT_BACKTRACE": "enable=no",
        ]
        if let fault { variables.merge(fault.variables(number: number)) { _, new in new } }
        let result = try await Subprocess(BuiltCommand.found(), arguments, environment: variables).result(within: limit)
        let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
        return Run(result: result, calls: lines.compactMap(Call.init))
    }
}
