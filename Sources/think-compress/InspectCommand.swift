internal import ArgumentParser
internal import ThinkCompress

struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Say what a snapshot holds, how large it is, and what compression cost.",
        discussion: """
            Reads header and description only; use verify to check every byte.

            Example:
              think-compress inspect prompt.tkv --json

            A file called '-' is standard input.
            """
    )

    @Argument(help: "The snapshot.")
    var file: String

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        try StandardStreams.check(inputs: [file])
    }

    func run() async throws {
        let file = try InputFile(self.file)
        let reader = try await about(file) { try SnapshotReader(path: file.path) }
        let report = SnapshotReport(reader.summary, path: file.name)
        if json {
            try Console.printJSON(report)
        } else {
            try Console.print(report.text)
        }
    }
}
