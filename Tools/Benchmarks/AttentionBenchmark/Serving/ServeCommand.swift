import ArgumentParser
import BenchmarkSupport
import Foundation
import ThinkCompress

/// Measures one case at a time, steered line by line by the driver, as the programs in Peers are.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Measure cases that standard input names.",
        discussion: """
            Reads commands, one a line, and answers each with one line, "ok ..." or "error TEXT".

              load CASE TOKENS  prepares a case and frees the one before: ok
              run               measures one round: ok MICROSECONDS [BYTES] [swift MICROSECONDS]
              check             compares the output with attention in float64: ok RELATIVE_ERROR
              memory            the most that the process has had in memory: ok BYTES
              version           ok TEXT

            Cases, with PRECISION one of fast, precise, automatic:

              RECIPE@PRECISION            attention of one query over one layer; time for each layer
              sharp:RECIPE@PRECISION      the same with queries that few tokens answer
              queries:N:RECIPE@PRECISION  the same of N queries
              heads:N:RECIPE@PRECISION    attention of one query over one layer whose heads have dimension N
              read:RECIPE                 a plain read of as many bytes as the layer takes packed
              memory:RECIPE@PRECISION     a step over 32 layers in memory; time for each layer
              mapped:RECIPE@PRECISION     a step over 32 layers of a mapped snapshot
              opened:RECIPE@PRECISION     opening, mapping and the first step
              open:RECIPE                 opening a snapshot of 32 layers alone
              verified:RECIPE             opening it and verifying every byte
              file:RECIPE                 reading the same file into memory that has been used
              pack:RECIPE                 compressing a layer on every thread; bytes of float16
              unpack:RECIPE               restoring it to float16
              memcpy:RECIPE               copying as many bytes
              boundary:N:RECIPE           attention of one query over one layer and N newer tokens through the C \
            library's functions, and in Swift
              boundary-alone:N:RECIPE     the same, through C without workers
              prefill:RECIPE              reading the first TOKENS of a text into a cache; bytes of the cache
              decode:N:RECIPE             N tokens after them, one by one; time for each, bytes of the cache
            """,
        shouldDisplay: false
    )

    @Option(help: "Threads to work on.")
    var threads = 1

    @Argument(help: "For prefill and decode: a model, and a file of token ids.")
    var modelAndTokens: [String] = []

    func validate() throws {
        guard (1...256).contains(threads) else { throw ValidationError("threads is a number from 1 to 256") }
        guard [0, 2].contains(modelAndTokens.count) else {
            throw ValidationError("a model and a file of tokens go together")
        }
    }

    func run() async throws {
        let workers = WorkerThreads(threadCount: threads)
        let served =
            modelAndTokens.isEmpty ? nil : try ServedModel(path: modelAndTokens[0], tokensPath: modelAndTokens[1])
        var workload: (any Workload)?
        while let line = readLine() {
            let answer: String
            do {
                answer = "ok " + (try await self.answer(line, workload: &workload, workers: workers, model: served))
            } catch {
                answer = "error " + "\(error)".split(whereSeparator: \.isWhitespace).joined(separator: " ")
            }
            // Workers spin for a while before they sleep, and would take time from whoever is measured next.
            try await Task.sleep(for: .milliseconds(20))
            FileHandle.standardOutput.write(Data((answer.trimmingCharacters(in: .whitespaces) + "\n").utf8))
        }
    }

    /// What follows "ok".
    private func answer(
        _ line: String,
        workload: inout (any Workload)?,
        workers: WorkerThreads,
        model: ServedModel?
    ) async throws -> String {
        let words = line.split(separator: " ").map(String.init)
        switch (words.first, words.count) {
        case ("load", 3):
            workload = nil
            guard let tokens = Int(words[2]), (1...1 << 20).contains(tokens) else {
                throw ServingError("TOKENS is a number from 1 to \(1 << 20)")
            }
            workload = try await ServedCase(words[1]).workload(tokens: tokens, workers: workers, model: model)
            return ""
        case ("version", 1):
            let kernels = ProcessInfo.processInfo.environment["THINK_COMPRESS_KERNELS"] ?? ""
            return "think-compress, " + (kernels.isEmpty ? "the widest kernels of this machine" : "\(kernels) kernels")
        case ("memory", 1):
            return "\(try peakMemoryByteCount())"
        case ("run", 1), ("check", 1):
            guard let workload else { throw ServingError("load a case first") }
            if words[0] == "check" { return String(format: "%.3g", try await workload.check()) }
            let result = try await workload.run()
            return String(format: "%.3f", result.microseconds) + (result.byteCount.map { " \($0)" } ?? "")
                + (result.swiftMicroseconds.map { String(format: " swift %.3f", $0) } ?? "")
        default:
            throw ServingError("unknown command: \(line)")
        }
    }
}

/// The most that the process has had in memory: what `getrusage` tells includes the process that started this one.
private func peakMemoryByteCount() throws -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    guard let kilobytes = line?.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
        throw ServingError("the system does not tell the peak memory")
    }
    return kilobytes * 1024
}

/// A command that can't be done.
struct ServingError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
