import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A program that a test runs: what it printed and how it ended.
public struct Subprocess: Sendable {
    public struct Result: Sendable {
        /// The exit status, or nil if a signal ended the program.
        public let status: Int32?
        /// The signal that ended the program, if one did.
        public let signal: Int32?
        public let output: String
        public let errors: String
        /// The most memory that it had at a time, in bytes.
        public let peakMemory: Int
    }

    public let identifier: Int32
    /// Holds what the program prints: files can't fill up as pipes can.
    private let folder: TemporaryFolder

    /// Runs a program to its end.
    public static func run(_ program: String, _ arguments: [String] = []) async throws -> Result {
        try await Subprocess(program, arguments).result()
    }

    /// Starts a program with an empty standard input and the signals' default meanings.
    public init(_ program: String, _ arguments: [String] = []) throws {
        folder = try TemporaryFolder()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let mode = O_WRONLY | O_CREAT | O_TRUNC
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, folder.file("output"), mode, 0o600)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, folder.file("errors"), mode, 0o600)

        // A test run in the background may ignore SIGINT, and its children would inherit that.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGINT)
        sigaddset(&signals, SIGTERM)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF) | Int16(POSIX_SPAWN_SETSIGMASK))

        var copies = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for copy in copies { free(copy) } }
        var child: pid_t = 0
        let status = posix_spawn(&child, program, &actions, &attributes, &copies, environ)
        guard status == 0 else {
            throw SubprocessError(description: "\(program): \(String(cString: strerror(status)))")
        }
        identifier = child
    }

    public func send(_ signal: Int32) { kill(identifier, signal) }

    /// Waits for the end; to be called once.
    public func result() async throws -> Result {
        let child = identifier
        let (status, peak) = await withCheckedContinuation { (continuation: CheckedContinuation<(Int32, Int), Never>) in
            // A thread of its own: tests' threads are few and must not wait.
            Thread.detachNewThread {
                var status: Int32 = 0
                var usage = rusage()
                while wait4(child, &status, 0, &usage) < 0 && errno == EINTR {}
                continuation.resume(returning: (status, usage.ru_maxrss))
            }
        }
        let signal = status & 0x7F
        return Result(
            status: signal == 0 ? status >> 8 & 0xFF : nil,
            signal: signal == 0 ? nil : signal,
            output: try text("output"),
            errors: try text("errors"),
            peakMemory: peak * Self.memoryUnit
        )
    }

    /// What `ru_maxrss` counts in.
    private static var memoryUnit: Int {
        #if canImport(Darwin)
            1
        #else
            1024
        #endif
    }

    private func text(_ name: String) throws -> String {
        String(decoding: try fileBytes(folder.file(name)), as: UTF8.self)
    }
}

/// A program that can't be started.
struct SubprocessError: Error, CustomStringConvertible {
    let description: String
}
