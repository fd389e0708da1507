internal import ArgumentParser
internal import CThinkCompress

/// The command `think-compress`; each subcommand has a file of its own.
struct ThinkCompressCommand: AsyncParsableCommand {
    static let version = TC_VERSION

    static let configuration = CommandConfiguration(
        commandName: "think-compress",
        abstract: "Compress a language model's KV cache, keep it as a file, and bring it back.",
        discussion: """
            Read a long text once with a model of the Llama family, and answer from its snapshot ever after:

              think-compress snapshot --model DIR --prompt-file long.txt \\
                -o prompt.tkv --codec "think(keys=0.4)+kivi(bits=2)"
              think-compress generate --model DIR --snapshot prompt.tkv \\
                --prompt " And the question?"

            Or begin with a cache dump, as Tools/export-cache writes it of any model:

              think-compress snapshot dump.safetensors -o prompt.tkv \\
                --codec "think(keys=0.4)+kivi(bits=2)"
              think-compress inspect prompt.tkv
              think-compress compare dump.safetensors prompt.tkv
              think-compress restore prompt.tkv -o restored.safetensors

            Exit status: 0 done, 1 the input is bad or does not match, 2 wrong usage, \
            130 interrupted.
            """,
        version: version,
        subcommands: [
            SnapshotCommand.self, GenerateCommand.self, RestoreCommand.self, InspectCommand.self, VerifyCommand.self,
            CompareCommand.self, EvalCommand.self, ProfileCommand.self, BenchCommand.self,
            LogitsCommand.self, BenchRun.self,
        ]
    )
}
