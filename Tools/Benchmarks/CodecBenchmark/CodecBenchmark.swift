import ArgumentParser
import Foundation
import ThinkCompress

/// Compresses and restores one layer on one thread, interleaved with memcpy of the same float16 bytes, and opens a
/// large snapshot.
@main
struct CodecBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "codec-benchmark",
        abstract: "Measure compression, restoration and opening; one thread, medians of interleaved rounds."
    )

    @Option(help: "Tokens of the layer.")
    var tokens = 32768

    @Option(help: "Rounds, each of which runs everything once.")
    var rounds = 7

    @Option(help: "Recipes to measure, separated by ';'.")
    var recipes = "think(keys=0.4)+kivi(bits=2);kivi(bits=2);kivi(bits=4);kivi(bits=8);think(keys=0.4);f16"

    @Option(help: "GiB of the snapshot that is opened, 0 for none.")
    var snapshotGibibytes = 1

    @Option(help: "Write the layer as a cache dump to this file and do nothing else.")
    var writeDump: String?

    @Option(help: "Also write the figures as JSON to this file.")
    var json: String?

    func run() async throws {
        let layer = try SyntheticLayer(tokens: tokens)
        if let writeDump {
            try layer.writeDump(to: writeDump)
            return
        }
        var figures: [String: [String: Double]] = [:]
        print("one layer of Llama-3-8B's shape: 8 KV heads of dimension 128, \(tokens) tokens, float16, one thread")
        print("medians of \(rounds) interleaved rounds; GB/s of float16 keys and values\n")
        print("recipe                          compress  / memcpy   restore  / memcpy    memcpy")
        for text in recipes.split(separator: ";").map(String.init) {
            let figure = try CodecRound(layer: layer, recipe: Recipe(text)).measure(rounds: rounds)
            figures[text] = figure.numbers
            print(figure.row(text))
        }
        if snapshotGibibytes > 0 {
            figures["open"] = try await SnapshotOpening(layer: layer, gibibytes: snapshotGibibytes).measure()
        }
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(figures).write(to: URL(filePath: json))
        }
    }
}

/// Runs work and returns seconds.
func seconds(_ work: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try work()
    let duration = ContinuousClock.now - start
    return Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
}

func median(_ numbers: [Double]) -> Double { numbers.sorted()[numbers.count / 2] }
