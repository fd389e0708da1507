internal import ArgumentParser
internal import KVCacheEvaluation
internal import ThinkCompress

/// Measures what recipes cost a model; a subcommand for each way of measuring.
struct EvalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Measure what recipes cost a model, in size and in quality.",
        discussion: """
            text (what eval does by itself) compares the tokens that follow a compressed prefix, needle asks for a fact \
            hidden in a text, recall for one of many keys and values. All of them may keep their results in one file \
            (--results), which an interrupted run goes on from, and draw one report (--html) of all that is in it. Who may \
            not read the text may not read what is written either.

            Example:
              think-compress eval --model DIR --text book.txt \\
                --codecs "kivi(bits=2);think(keys=0.4)+kivi(bits=2)"
              think-compress eval needle --model DIR --text book.txt \\
                --codecs "kivi(bits=2)" --results book.jsonl --html book.html
            """,
        subcommands: [EvalTextCommand.self, EvalNeedleCommand.self, EvalRecallCommand.self],
        defaultSubcommand: EvalTextCommand.self
    )
}

struct EvalTextCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "text",
        abstract: "Compare the tokens that follow a compressed prefix with those after the full one.",
        discussion: """
            The prefix is compressed without knowing what follows. Prints whole-file ratio, bits per value, \
            Kullback-Leibler divergence and same-top-1 rate against full precision, perplexity of the continuation, and \
            errors of the attention output.

            Example:
              think-compress eval text --model DIR --text book.txt \\
                --codecs "kivi(bits=2)" --prefix 2048
            """
    )

    @OptionGroup var options: EvalOptions

    @Option(parsing: .unconditional, help: "Tokens of the prefix that is compressed.")
    var prefix = 1024

    @Option(parsing: .unconditional, help: "Tokens after it that are measured.")
    var continuation = 64

    @Option(parsing: .unconditional, help: "Places of the text that are measured.")
    var trials = 30

    func validate() throws {
        try CountOption.check(prefix, "--prefix")
        try CountOption.check(continuation, "--continuation")
        try CountOption.check(trials, "--trials")
    }

    func run() async throws {
        try await options.run([.text(prefix: prefix, continuation: continuation)], trials: trials)
    }
}

struct EvalNeedleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "needle",
        abstract: "Ask for a fact that is hidden at some depth of a text.",
        discussion: """
            A text hides a needle at every depth, and each is asked for by itself, twice: by a question that the \
            compression has not seen, as when a cache is kept and asked later, and by one that was part of the prompt. \
            Recipes are judged by the needles that full precision finds. Questions are put in the model's chat form.

            Example:
              think-compress eval needle --model DIR --text book.txt \\
                --codecs "kivi(bits=2)" --contexts 1024,4096 --html book.html
            """
    )

    @OptionGroup var options: EvalOptions

    @Option(help: "Lengths of the prompt in tokens, question and answer included, separated by commas.")
    var contexts = "512,1024,2048"

    @Option(help: "Depths of the needle, 0 at the beginning and 1 before the question, separated by commas.")
    var depths = "0,0.25,0.5,0.75,1"

    @Option(parsing: .unconditional, help: "Texts of each length, with a needle at every depth.")
    var trials = 10

    func validate() throws {
        _ = try tasks()
        try CountOption.check(trials, "--trials")
    }

    private func tasks() throws -> [EvaluationTask] {
        let contexts = try EvalOptions.list(contexts, "--contexts") { Int($0).flatMap { $0 > 0 ? $0 : nil } }
        let depths = try EvalOptions.list(depths, "--depths") { Double($0).flatMap { (0...1).contains($0) ? $0 : nil } }
        let ascending = Set(depths).sorted()
        return contexts.map { .needles(context: $0, depths: ascending) }
    }

    func run() async throws {
        try await options.run(try tasks(), trials: trials)
    }
}

struct EvalRecallCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recall",
        abstract: "Ask for the value of one of many keys that are listed in a text.",
        discussion: """
            Every question is asked by itself, twice: unseen by the compression, and as a part of the prompt that was \
            compressed. Recipes are judged by the questions that full precision answers.

            Example:
              think-compress eval recall --model DIR --text book.txt \\
                --codecs "kivi(bits=2);kivi(bits=4)" --pairs 16
            """
    )

    @OptionGroup var options: EvalOptions

    @Option(parsing: .unconditional, help: "Keys and values in the list.")
    var pairs = 16

    @Option(parsing: .unconditional, help: "Tokens of the prompt, question and answer included.")
    var context = 1024

    @Option(parsing: .unconditional, help: "Questions about each list, of one pair each. (default: 5, or all pairs)")
    var questions: Int?

    @Option(parsing: .unconditional, help: "Lists.")
    var trials = 10

    func validate() throws {
        try CountOption.check(pairs, "--pairs", upTo: Evaluator.maximumPairs)
        try questions.map { try CountOption.check($0, "--questions", upTo: pairs) }
        try CountOption.check(context, "--context")
        try CountOption.check(trials, "--trials")
    }

    func run() async throws {
        try await options.run(
            [.recall(context: context, pairs: pairs, questions: questions ?? min(pairs, 5))],
            trials: trials
        )
    }
}
