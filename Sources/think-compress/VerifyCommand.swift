internal import ArgumentParser
internal import ThinkCompress

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every byte of snapshots.",
        discussion: """
            The exit status is 0 if all of them are sound, 1 otherwise.

            Example:
              think-compress verify *.tkv

            A file called '-' is standard input.
            """
    )

    @Argument(help: "The snapshots.")
    var files: [String]

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        try StandardStreams.check(inputs: files)
    }

    private struct Report: Encodable {
        struct Fault: Encodable {
            let code: String?
            let offset: Int?
            let message: String
        }

        let file: String
        let sound: Bool
        let fault: Fault?
    }

    func run() async throws {
        var reports: [Report] = []
        for file in files {
            let report = try await check(file)
            reports.append(report)
            if let fault = report.fault {
                Console.printError(fault.message)
            } else if !json {
                try Console.print("\(report.file): sound")
            }
        }
        if json { try Console.printJSON(reports) }
        if reports.contains(where: { !$0.sound }) { throw ExitCode(1) }
    }

    private func check(_ file: String) async throws -> Report {
        let name = InputFile.displayName(of: file)
        do {
            let input = try InputFile(file)
            try await about(input) {
                try await SnapshotReader(path: input.path, access: .reading).verify(
                    progress: Console.progress("verifying")
                )
            }
            return Report(file: name, sound: true, fault: nil)
        } catch let error as CancellationError {
            throw error
        } catch {
            let place = (error as? InputError)?.underlying as? SnapshotError
            let fault = Report.Fault(code: place?.code.rawValue, offset: place?.offset, message: "\(error)")
            return Report(file: name, sound: false, fault: fault)
        }
    }
}
