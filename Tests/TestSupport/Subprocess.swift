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
        /// Whether it was killed because its time was over.
        public let ranOutOfTime: Bool
        public let output: String
        public let errors: String
    }

    public let identifier: Int32
    /// Holds what the program prints: files can't fill up as pipes can.
    private let folder: TemporaryFolder

    /// Runs a program to its end.
    public static func run(_ program: String, _ arguments: [String] = []) async throws -> Result {
        try await Subprocess(program, arguments).result()
    }

    /// Starts a program with an empty standard input and the signals' default meanings.
    ///
    /// - Parameter environment: variables that it gets beside those of this process.
    public init(_ program: String, _ arguments: [String] = [], environment: [String: String] = [:]) throws {
        folder = try TemporaryFolder()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let mode = O_WRONLY | O_CREAT | O_TRUNC
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, folder.file("output"), mode, 0o600)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, folder.file("errors"), mode, 0o600)

        // A test run in the background may ignore signals, and its children would inherit that.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGINT)
        sigaddset(&signals, SIGTERM)
        sigaddset(&signals, SIGHUP)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF) | Int16(POSIX_SPAWN_SETSIGMASK))

        var copies = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for copy in copies { free(copy) } }
        // What programs remember for the user is no business of tests.
        let own = ["XDG_CACHE_HOME": folder.file("caches")].merging(environment) { _, new in new }
        let all = ProcessInfo.processInfo.environment.merging(own) { _, new in new }
        var variables = all.map { strdup("\($0)=\($1)") } + [nil]
        defer { for variable in variables { free(variable) } }
        var child: pid_t = 0
        let status = posix_spawn(&child, program, &actions, &attributes, &copies, &variables)
        guard status == 0 else {
            throw SubprocessError(description: "\(program): \(String(cString: strerror(status)))")
        }
        identifier = child
    }

    public func send(_ signal: Int32) { kill(identifier, signal) }

    /// Waits for the end; to be called once.
    ///
    /// - Parameter limit: how long it may run before it is killed; nil for as long as it takes.
    public func result(within limit: Duration? = nil) async throws -> Result {
        let child = identifier
        let end = await withCheckedContinuation { (continuation: CheckedContinuation<End, Never>) in
            // A thread of its own: tests' threads are few and must not wait.
            Thread.detachNewThread { continuation.resume(returning: Self.wait(for: child, within: limit)) }
        }
        let signal = end.status & 0x7F
        return Result(
            status: signal == 0 ? end.status >> 8 & 0xFF : nil,
            signal: signal == 0 ? nil : signal,
            ranOutOfTime: end.ranOutOfTime,
            output: try text("output"),
            errors: try text("errors")
        )
    }

    private struct End: Sendable {
        var status: Int32 = 0
        var ranOutOfTime = false
    }

    private static func wait(for child: pid_t, within limit: Duration?) -> End {
        var end = End()
        if let limit {
            let deadline = ContinuousClock.now + limit
            while ContinuousClock.now < deadline {
                if waitpid(child, &end.status, WNOHANG) == child { return end }
                usleep(5000)
            }
            end.ranOutOfTime = true
            kill(child, SIGKILL)
        }
        while waitpid(child, &end.status, 0) < 0 && errno == EINTR {}
        return end
    }

    private func text(_ name: String) throws -> String {
        String(decoding: try fileBytes(folder.file(name)), as: UTF8.self)
    }
}

/// A program that can't be started.
struct SubprocessError: Error, CustomStringConvertible {
    let description: String
}
