internal import ThinkCompress

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A program that is run for what it prints. Unlike Foundation's, it needs no thread.
final class ChildProcess: Sendable {
    struct End {
        /// The exit status, or nil if a signal ended the program.
        let status: Int32?
        let output: [UInt8]
        let errors: [UInt8]
    }

    private let program: String
    private let identifier: pid_t
    private let output: Int32
    private let errors: Int32

    /// Starts a program; `waitUntilEnd` is to be called once.
    init(_ program: String, _ arguments: [String]) throws(FileError) {
        let failed = FileError(.inputOutput, path: program, message: "cannot be started; end other programs")
        guard let output = Self.makePipe() else { throw failed }
        guard let errors = Self.makePipe() else {
            close(output.read)
            close(output.write)
            throw failed
        }
        defer {
            close(output.write)
            close(errors.write)
        }
        #if canImport(Darwin)
            var actions: posix_spawn_file_actions_t?
        #else
            var actions = unsafe posix_spawn_file_actions_t()
        #endif
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_adddup2(&actions, output.write, STDOUT_FILENO)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors.write, STDERR_FILENO)
        var copies = unsafe ([program] + arguments).map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
        var child: pid_t = 0
        guard unsafe posix_spawn(&child, program, &actions, nil, &copies, environ) == 0 else {
            close(output.read)
            close(errors.read)
            throw failed
        }
        self.program = program
        self.output = output.read
        self.errors = errors.read
        identifier = child
    }

    /// Asks the program to end.
    func terminate() { kill(identifier, SIGTERM) }

    /// Waits for the program's end.
    func waitUntilEnd() -> End {
        let printed = Self.readAll(output)
        let complaint = Self.readAll(errors)
        var status: Int32 = 0
        while unsafe waitpid(identifier, &status, 0) < 0, errno == EINTR {}
        return End(status: status & 0x7F == 0 ? status >> 8 & 0xFF : nil, output: printed, errors: complaint)
    }

    private static func makePipe() -> (read: Int32, write: Int32)? {
        var ends: [Int32] = [-1, -1]
        guard unsafe pipe(&ends) == 0 else { return nil }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    /// Reads to the end and closes.
    private static func readAll(_ descriptor: Int32) -> [UInt8] {
        defer { close(descriptor) }
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return all }
            all += buffer.prefix(count)
        }
    }
}
