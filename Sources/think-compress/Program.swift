internal import ArgumentParser
internal import ByteStorage
internal import CProcessGuard
internal import Foundation
internal import ThinkCompress

@main
enum Program {
    static func main() async {
        tcg_install_fault_handlers()
        SingleThreadedProducts.adoptForProcess()
        guard Kernels.areAvailable else {
            Console.printError(
                "THINK_COMPRESS_KERNELS names no instruction set of this machine; unset it, or use scalar, avx2, avx512, "
                    + "avx512vnni, neon or neondotprod, as far as it has them"
            )
            exit(2)
        }
        if let number = invalidArgument() {
            Console.printError("argument \(number) is not UTF-8; convert it, or pass it in a file")
            exit(2)
        }
        do {
            try await runUntilInterrupted()
        } catch is CancellationError {
            Console.printError("interrupted; no file was left unfinished")
            exit(130)
        } catch {
            exit(report(error))
        }
    }

    /// The number of the first argument that is not UTF-8, which would silently become another text.
    private static func invalidArgument() -> Int? {
        (1..<max(Int(CommandLine.argc), 1)).first { number in
            guard let argument = unsafe CommandLine.unsafeArgv[number] else { return false }
            return unsafe String(validatingCString: argument) == nil
        }
    }

    /// Runs the command line in a task that SIGINT, SIGTERM and SIGHUP cancel, so that nothing is left behind.
    private static func runUntilInterrupted() async throws {
        let run = Task {
            var command = try ThinkCompressCommand.parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        }
        let sources = [SIGINT, SIGTERM, SIGHUP].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { run.cancel() }
            source.resume()
            return source
        }
        defer { for source in sources { source.cancel() } }
        try await run.value
    }

    /// Tells what went wrong and returns the exit status.
    private static func report(_ error: any Error) -> Int32 {
        switch error {
        case is InputError, is FileError, is ModelError, is EvaluationError:
            Console.printError("\(error)")
            return 1
        case let code as ExitCode:
            return code.rawValue
        default:
            break
        }
        let code = ThinkCompressCommand.exitCode(for: error)
        let message = ThinkCompressCommand.fullMessage(for: error)
        if code == .success {
            print(message)
            return 0
        }
        let prefix = "Error: "
        Console.printError(message.hasPrefix(prefix) ? String(message.dropFirst(prefix.count)) : message)
        return code == .validationFailure ? 2 : 1
    }
}
