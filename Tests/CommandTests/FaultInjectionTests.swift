import Foundation
import TestSupport
import Testing

/// Commands whose system calls fail, one after the other: memory, threads, and everything that is done with files.
///
/// A command that meets a fault ends with status 1 and a message, or succeeds with the right result; it never crashes
/// or waits for ever. An output is the old one or the new one, whole, with nothing beside it.
@Suite(.serialized, .enabled(if: FaultInjection.isAvailable)) struct FaultInjectionTests {
    /// What is run: with a new output and one that replaces another, which are named in different ways.
    enum Command: String, CaseIterable, CustomTestStringConvertible {
        case snapshot, snapshotOfModel, restore, restoreCompressed, verify, generate, generateFromSnapshot

        var testDescription: String { rawValue }

        var writesFile: Bool { [.snapshot, .snapshotOfModel, .restore, .restoreCompressed].contains(self) }
        /// Whether it maps files; the others read what they check.
        var mapsFiles: Bool { ![.restore, .restoreCompressed, .verify].contains(self) }
        var replaces: Bool { [.snapshot, .restoreCompressed].contains(self) }
    }

    static let faults: [FaultInjection.Fault] = [
        .init("allocation", ENOMEM), .init("allocation", ENOMEM, following: true),
        .init("thread", EAGAIN), .init("thread", EAGAIN, following: true),
        .init("open", ENFILE), .init("open", EACCES),
        .init("read", EIO), .init("read", EINTR), .init("read", 0),
        .init("write", ENOSPC), .init("write", ENOSPC, following: true), .init("write", EINTR), .init("write", 0),
        .init("sync", EIO), .init("sync", EINTR),
        .init("rename", EIO), .init("link", EIO), .init("link", EPERM),
        .init("close", EIO),
        .init("truncate", ENOSPC), .init("truncate", EINTR),
        .init("status", EIO), .init("map", ENOMEM), .init("mode", EPERM), .init("lock", ENOLCK), .init("lock", EINTR),
    ]

    /// Of more calls of one kind than this, so many at equal distances fail, the first and the last among them.
    static let mostCallsOfKind = 30

    /// Less than the megabyte that the promise is about: buffers that have 70 KB here have megabytes for a real cache,
    /// and what a command allocates besides is smaller.
    static let allocationBytes = 70_000

    /// Commands take a tenth of a second; longer than this is for ever, however busy the machine is.
    static let limit = Duration.seconds(30)

    @Test("a call that fails ends the command with a message, or does no harm", arguments: Command.allCases)
    func everyCall(command: Command) async throws {
        let inputs = try await Inputs()
        let sound = try await inputs.run(command)
        try #require(sound.run.result.status == 0, "\(sound.run.result.errors)")
        #expect(sound.left == [])
        let kinds = ["thread", "open", "read", "close", "status", "write"]
        for kind in kinds + (command.mapsFiles ? ["map"] : []) + (command.writesFile ? ["sync"] : []) {
            #expect(sound.callCount(of: kind) > 0, "\(kind)")
        }
        #expect(sound.callCount(of: "rename") + sound.callCount(of: "link") == (command.writesFile ? 1 : 0))

        let cases = Self.faults.flatMap { fault in
            Self.numbers(upTo: sound.callCount(of: fault.kind)).map { (fault, $0) }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            var rest = cases.makeIterator()
            func begin() {
                guard let (fault, number) = rest.next() else { return }
                group.addTask {
                    let outcome = try await inputs.run(command, fault: fault, number: number)
                    let problems = outcome.problems(
                        comparedWith: sound,
                        // With fewer threads sums are in another order, and the last bits of what a model computes differ.
                        allowingOtherNumbers: fault.kind == "thread" && command == .snapshotOfModel
                    )
                    if !problems.isEmpty {
                        let failed = outcome.failedCalls.first?.description ?? "not reached"
                        let errors = outcome.run.result.errors.prefix(300)
                        Issue.record(
                            "\(fault), number \(number) (\(failed)): \(problems.joined(separator: "; ")); it said: \(errors)"
                        )
                    }
                }
            }
            for _ in 0..<2 { begin() }
            while try await group.next() != nil { begin() }
        }
    }

    private static func numbers(upTo count: Int) -> [Int] {
        guard count > mostCallsOfKind else { return Array(1..<(count + 1)) }
        return (0..<mostCallsOfKind).map { 1 + $0 * (count - 1) / (mostCallsOfKind - 1) }
    }

    /// What the commands read.
    private struct Inputs: Sendable {
        private static let dump = ProjectFiles.fixture("reference-b.safetensors")
        private static let model = ProjectFiles.fixture("models/qwen3")
        private static let codec = "kivi(bits=2)"

        private let folder: TemporaryFolder

        init() async throws {
            folder = try TemporaryFolder()
            let prompt = (0..<40).map { "line \($0)" }.joined(separator: "\n")
            try Data(prompt.utf8).write(to: URL(filePath: folder.file("prompt")))
            for arguments in [
                ["snapshot", Self.dump, "-o", folder.file("plain.tkv"), "--codec", Self.codec],
                ["snapshot", Self.dump, "-o", folder.file("packed.tkv"), "--codec", Self.codec, "--compress", "3"],
                ["snapshot"] + modelArguments + ["-o", folder.file("prompt.tkv"), "--codec", Self.codec],
            ] {
                let result = try await Subprocess.run(BuiltCommand.found(), arguments)
                try #require(result.status == 0, "\(result.errors)")
            }
        }

        private var modelArguments: [String] { ["--model", Self.model, "--prompt-file", folder.file("prompt")] }

        private func arguments(of command: Command, output: String) -> [String] {
            switch command {
            case .snapshot: ["snapshot", Self.dump, "-o", output, "--codec", Self.codec, "--force"]
            case .snapshotOfModel: ["snapshot"] + modelArguments + ["-o", output, "--codec", Self.codec]
            case .restore: ["restore", folder.file("plain.tkv"), "-o", output]
            case .restoreCompressed: ["restore", folder.file("packed.tkv"), "-o", output, "--force"]
            case .verify: ["verify", folder.file("plain.tkv")]
            case .generate: ["generate"] + modelArguments + ["--max-tokens", "4"]
            case .generateFromSnapshot:
                ["generate"] + modelArguments
                    + ["--snapshot", folder.file("prompt.tkv"), "--prompt", " and", "--max-tokens", "4"]
            }
        }

        /// Runs a command that writes to a folder of its own.
        func run(_ command: Command, fault: FaultInjection.Fault? = nil, number: Int = 0) async throws -> Outcome {
            let outputs = try TemporaryFolder()
            let path = outputs.file("output")
            let old = command.replaces ? Data("what was here before".utf8) : nil
            try old?.write(to: URL(filePath: path))
            let run = try await FaultInjection.run(
                arguments(of: command, output: path),
                fault: fault,
                number: number,
                allocationBytes: FaultInjectionTests.allocationBytes,
                within: FaultInjectionTests.limit
            )
            return Outcome(
                run: run,
                output: run.result.output.replacing(outputs.path, with: "FOLDER"),
                old: old,
                file: try? Data(contentsOf: URL(filePath: path)),
                left: outputs.content.filter { $0 != "output" }
            )
        }
    }

    /// What a run did.
    private struct Outcome: Sendable {
        let run: FaultInjection.Run
        /// What it printed, the same for every output folder.
        let output: String
        /// What was in the output file before.
        let old: Data?
        /// What is in the output file.
        let file: Data?
        /// Files beside it.
        let left: [String]

        var failedCalls: [FaultInjection.Call] { run.calls.filter(\.failed) }

        func callCount(of kind: String) -> Int { run.calls.count { $0.kind == kind } }

        /// What is wrong with it, where `sound` is the same run without a fault.
        func problems(comparedWith sound: Outcome, allowingOtherNumbers: Bool) -> [String] {
            let isSoundFile = allowingOtherNumbers ? file?.count == sound.file?.count : file == sound.file
            var problems: [String] = []
            func require(_ condition: Bool, _ problem: String) { if !condition { problems.append(problem) } }
            switch (run.result.status, run.result.signal) {
            case (0, _):
                require(output == sound.output, "success with other output")
                require(isSoundFile, "success with another file")
            case (1, _):
                // Standard error itself may be what failed.
                let hasNoErrors = failedCalls.contains { $0.kind == "write" && $0.description.hasPrefix("write 2 ") }
                let message = run.result.errors.split(separator: "\n").contains { $0.hasPrefix("think-compress: ") }
                require(message || hasNoErrors, "no message")
                require(file == old || isSoundFile, "neither the old file nor the new one is there")
            case (_, _) where run.result.ranOutOfTime:
                problems.append("waits for ever")
            case (let status, let signal):
                problems.append(signal.map { "ended by signal \($0)" } ?? "status \(status ?? -1)")
            }
            if !run.result.ranOutOfTime { require(left.isEmpty, "left \(left)") }
            return problems
        }
    }
}
