import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The most memory that programs have at a time, in bytes.
///
/// What the system says of a process itself (`ru_maxrss`) is no measure on Linux: it begins with the memory of whoever
/// started it.
public enum PeakMemory {
    /// That of this process since its program began.
    public static func ofThisProcess() throws -> Int {
        #if os(Linux)
            let status = String(decoding: try fileBytes("/proc/self/status"), as: UTF8.self)
            let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
            guard let line, let count = Int(line.filter(\.isNumber)) else {
                throw SubprocessError(description: "/proc/self/status has no VmHWM")
            }
            return count << 10
        #else
            var usage = rusage()
            getrusage(RUSAGE_SELF, &usage)
            return usage.ru_maxrss
        #endif
    }

    /// Runs a program to its end, started by one that is small.
    public static func run(
        _ program: String,
        _ arguments: [String]
    ) async throws -> (result: Subprocess.Result, peak: Int) {
        let script = """
            import resource, subprocess, sys
            status = subprocess.run(sys.argv[2:]).returncode
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            with open(sys.argv[1], "w") as file:
                file.write(str(peak if sys.platform == "darwin" else peak * 1024))
            sys.exit(status if status >= 0 else 128 - status)
            """
        let folder = try TemporaryFolder()
        let result = try await Subprocess.run(
            "/usr/bin/env",
            ["python3", "-c", script, folder.file("peak"), program] + arguments
        )
        guard let peak = Int(String(decoding: try fileBytes(folder.file("peak")), as: UTF8.self)) else {
            throw SubprocessError(description: "\(program): nobody knows its memory")
        }
        return (result, peak)
    }
}
