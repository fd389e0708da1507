internal import ArgumentParser
internal import ByteStorage
internal import ThinkCompress

struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Say what a snapshot holds, how large it is, and what compression cost; or what a profile says.",
        discussion: """
            Of a snapshot, reads header and description only; use verify to check every byte. Of a model's profile, \
            shows how it was made, and which layers' errors cost most.

            Example:
              think-compress inspect prompt.tkv --json

            A file called '-' is standard input.
            """
    )

    @Argument(help: "The snapshot, or the profile.")
    var file: String

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        try StandardStreams.check(inputs: [file])
    }

    func run() async throws {
        let file = try InputFile(self.file)
        if let report = try await profileReport(file) {
            if json { try Console.printJSON(report) } else { try Console.print(report.text) }
            return
        }
        let reader = try await about(file) { try SnapshotReader(path: file.path) }
        let report = SnapshotReport(reader.summary, path: file.name)
        if json {
            try Console.printJSON(report)
        } else {
            try Console.print(report.text)
        }
    }

    /// What is said of a profile; nil if the file is none, and so a snapshot or nothing.
    private func profileReport(_ input: InputFile) async throws -> ProfileReport? {
        guard let file = try? SafetensorsFile(MappedFile.bytes(path: input.path)) else { return nil }
        return try await about(input) {
            guard let geometry = try ModelProfile.geometry(of: file) else { return nil }
            let layers = try ModelProfile.read(file, metadata: file.metadata, geometry: geometry)
            return ProfileReport(layers, geometry: geometry, metadata: file.metadata, path: input.name)
        }
    }
}
