import ArgumentParser
import BenchmarkSupport
import Foundation
import ThinkCompress

/// Compresses and restores one layer on one thread, interleaved with memcpy of the same float16 bytes, multiplies
/// matrices with vectors, interleaved with plain reads, and does what archives are coded with.
@main
struct CodecBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "codec-benchmark",
        abstract: "Measure compression, restoration, products, archive coding; one thread, medians of rounds."
    )

    @Option(help: "Tokens of the layer.")
    var tokens = 32768

    @Option(help: "Tokens of the layers that are archived.")
    var archiveTokens = 8192

    @Option(help: "Measure only: layers, products, archive-kernels or archives.")
    var only: Part?

    @Option(help: "Rounds, each of which runs everything once.")
    var rounds = 7

    @Option(help: "Recipes to measure, separated by ';'.")
    var recipes =
        "think(keys=0.4)+kivi(bits=2);kivi(bits=2);kivi(bits=4);kivi(bits=8);think(keys=0.4);f16"
        + ";kivi(bits=2,sinks=4,ranges=fitted)"

    @Option(help: "Write the layer as a cache dump to this file and do nothing else.")
    var writeDump: String?

    @Option(help: "Also write the figures as JSON to this file.")
    var json: String?

    /// What is measured.
    enum Part: String, ExpressibleByArgument {
        case layers
        case products
        case archiveKernels = "archive-kernels"
        case archives
    }

    private func measures(_ part: Part) -> Bool { only.map { $0 == part } ?? true }

    func validate() throws {
        guard tokens >= 1, rounds >= 1 else { throw ValidationError("tokens and rounds are numbers from 1 on") }
    }

    func run() async throws {
        if let writeDump {
            try SyntheticLayer(tokens: tokens).writeDump(to: writeDump)
            return
        }
        var figures: [String: [String: Double]] = [:]
        if measures(.layers) {
            print("one layer of Llama-3-8B's shape: 8 KV heads of dimension 128, \(tokens) tokens, float16, one thread")
            print("medians of \(rounds) interleaved rounds; GB/s of float16 keys and values\n")
            print("recipe                          compress  / memcpy   restore  / memcpy    memcpy")
            let layer = SyntheticLayer(tokens: tokens)
            for text in recipes.split(separator: ";").map(String.init) {
                let figure = try CodecRound(layer: layer, recipe: Recipe(text)).measure(rounds: rounds)
                figures[text] = figure.numbers
                print(figure.row(text))
            }
        }
        if measures(.products) {
            print("\n" + ProductRound.Figure.header)
            for figure in ProductRound().measure(rounds: rounds) {
                figures["multiply rows, \(figure.name)"] = figure.numbers
                print(figure.row)
            }
        }
        if measures(.archiveKernels) {
            print("\n" + ArchiveKernelRound.Figure.header)
            for figure in ArchiveKernelRound().measure(rounds: rounds) {
                figures[figure.name] = figure.numbers
                print(figure.row)
            }
        }
        if measures(.archives) {
            print("\n" + ArchivingRound.Figure.header)
            for figure in try await ArchivingRound(tokens: archiveTokens).measure(rounds: rounds) {
                figures["archive, \(figure.name)"] = figure.numbers
                print(figure.row)
            }
        }
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(figures).write(to: URL(filePath: json))
        }
    }
}
