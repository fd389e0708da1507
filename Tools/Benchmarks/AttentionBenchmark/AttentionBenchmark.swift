import ArgumentParser
import Foundation

/// Measures attention on compressed caches against the machine's limits and against other programs.
@main
struct AttentionBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention-benchmark",
        abstract: "Measure attention on compressed caches against the machine's limits and against peers.",
        discussion: """
            Everything that is measured runs in a process of its own, and they take turns: in every round each runs \
            once, while the others sleep. Figures are medians over the rounds. The shape is a layer of Llama-3-8B (32 \
            query heads, 8 KV heads, dimension 128), and caches come from memory, not from the processor's caches. \
            Nothing else should run meanwhile. Peers are made by Tools/Benchmarks/Peers/setup.

            Examples, from the checkout's folder:

              Tools/Benchmarks/run --json figures.json --plot attention.svg
              Tools/Benchmarks/run --quick --peers none
              Tools/Benchmarks/run --only attention --check Tools/Benchmarks/floors.json
              Tools/Benchmarks/run --only model --model FILE.gguf
            """,
        subcommands: [ServeCommand.self]
    )

    @Option(help: "Rounds, in each of which everything runs once.")
    var rounds: Int?

    @Flag(help: "Measure fewer sizes in 3 rounds.")
    var quick = false

    @Option(help: "Which peers to measure: all or none.")
    var peers = PeerSelection.all

    @Option(
        help: """
            Measure one part only: attention, recipes, snapshots, codecs, queries, boundary or model; may be given several \
            times. By default all are measured, and model if there is one.
            """
    )
    var only: [MeasurementPlan.Part] = []

    @Option(help: "The GGUF file of a whole model to measure, of 8,192 positions or more.")
    var model: String?

    @Option(help: "Write machine, versions, figures and ratios to this file.")
    var json: String?

    @Option(help: "Compare the ratios with the floors in this file; exit with 1 if one is missed.")
    var check: String?

    @Option(help: "Write floors to this file: the ratios measured now, less 15 percent.")
    var writeFloors: String?

    @Option(help: "Draw time against context length into this file, as SVG.")
    var plot: String?

    @Option(help: "The checkout's folder.")
    var checkout = "."

    func validate() throws {
        guard (1...1000).contains(rounds ?? 1) else { throw ValidationError("--rounds is a number from 1 to 1000") }
        guard parts.contains(.model) == (model != nil) else {
            throw ValidationError("--only model needs --model, and no other part does")
        }
        if plot != nil && !parts.contains(.attention) {
            throw ValidationError("--plot draws what --only attention measures")
        }
    }

    func run() async throws {
        let floors = try check.map(Floors.init(path:))
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let text = try model.map { try ModelText(model: $0, checkout: checkout, folder: folder.path) }
        let programs = Programs(checkout: checkout, selection: peers, text: text, folder: folder.path)
        for missing in programs.missing { Progress.report("missing, left out: \(missing)") }

        let plan = MeasurementPlan(
            parts: parts,
            isQuick: quick,
            contestants: programs.available,
            processors: ProcessInfo.processInfo.activeProcessorCount
        )
        let runner = GroupRunner(programs: programs, rounds: rounds ?? (quick ? 3 : 7))
        var figures = Figures()
        for (number, group) in plan.groups.enumerated() {
            figures.add(runner.run(group, number: "\(number + 1)/\(plan.groups.count)"))
        }

        let report = Report(
            machine: Machine(),
            versions: runner.versions,
            rounds: runner.rounds,
            figures: figures,
            modelByteCount: text?.modelByteCount,
            missing: programs.missing + runner.failures
        )
        print(report.text)
        if let json { try report.writeJSON(to: json) }
        if let plot { try TimePlot(figures: figures).write(to: plot) }
        if let writeFloors { try Floors(ratios: report.ratios).write(to: writeFloors) }
        if let floors {
            let misses = floors.misses(in: report.ratios, failures: runner.failures)
            for miss in misses { Progress.report(miss) }
            if !misses.isEmpty { throw ExitCode(1) }
            Progress.report("no ratio is beyond its limit; \(floors.comparedCount(in: report.ratios)) were compared")
        }
    }

    private var parts: Set<MeasurementPlan.Part> {
        Set(only.isEmpty ? MeasurementPlan.Part.allCases.filter { $0 != .model || model != nil } : only)
    }
}

extension MeasurementPlan.Part: ExpressibleByArgument {}
extension PeerSelection: ExpressibleByArgument {}
