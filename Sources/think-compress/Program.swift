internal import ArgumentParser
internal import ByteStorage
internal import CProcessGuard
internal import Foundation
internal import KVCacheEvaluation
internal import LlamaDecoder
internal import Synchronization
internal import ThinkCompress

@main
enum Program {
    /// How long an interrupted command may take to end by itself.
    private static let secondsToEnd: UInt32 = 3

    static func main() {
        guard Console.openMissingStreams() else { exit(1) }
        tcg_install_fault_handlers()
        tcg_handle_interruptions(secondsToEnd)
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
            try runUntilInterrupted()
        } catch is CancellationError {
            Console.printError("interrupted; no file was left unfinished")
            exit(TCG_INTERRUPTED_STATUS)
        } catch {
            exit(report(error))
        }
        exit(0)
    }

    /// The number of the first argument that is not UTF-8, which would silently become another text.
    private static func invalidArgument() -> Int? {
        (1..<max(Int(CommandLine.argc), 1)).first { number in
            guard let argument = unsafe CommandLine.unsafeArgv[number] else { return false }
            return unsafe String(validatingCString: argument) == nil
        }
    }

    /// Runs the command line in a task that SIGINT, SIGTERM and SIGHUP cancel, so that nothing is left behind.
    private static func runUntilInterrupted() throws {
        let executor = CallerExecutor()
        let outcome = Mutex<Result<Void, any Error>>(.success(()))
        let run = Task(executorPreference: executor) {
            do {
                var command = try ThinkCompressCommand.parseAsRoot()
                if var asynchronous = command as? any AsyncParsableCommand {
                    try await asynchronous.run()
                } else {
                    try command.run()
                }
            } catch {
                outcome.withLock { $0 = .failure(error) }
            }
            executor.finish()
        }
        // Where there is no thread for it, the main thread looks between two jobs, and the time to end is limited.
        _ = SystemThread.start {
            if tcg_wait_for_interruption() { run.cancel() }
        }
        executor.runUntilFinished { if tcg_is_interrupted() { run.cancel() } }
        try outcome.withLock { try $0.get() }
    }

    /// Tells what went wrong and returns the exit status.
    private static func report(_ error: any Error) -> Int32 {
        switch error {
        case is InputError, is FileError, is ModelError, is EvaluationError, is MemoryError:
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
            // Help and the version.
            do {
                try Console.print(message)
                return 0
            } catch {
                return report(error)
            }
        }
        let prefix = "Error: "
        Console.printError(message.hasPrefix(prefix) ? String(message.dropFirst(prefix.count)) : message)
        return code == .validationFailure ? 2 : 1
    }
}
