import Foundation
import TestSupport
import Testing

extension BuiltCommandTests {
    /// Help, version, and command lines that are wrong in themselves.
    @Suite struct UsageTests {
        @Test(
            "every help has an example",
            arguments: [
                "", "snapshot", "generate", "eval", "profile", "bench", "inspect", "verify", "compare", "restore",
            ]
        )
        func help(command: String) async throws {
            let result =
                try await
                (command.isEmpty
                ? BuiltCommand.run("--help") : BuiltCommand.run(command, "--help"))
            #expect(result.status == 0)
            #expect(result.errors == "")
            #expect(result.output.contains("USAGE: think-compress"))
            let example = command.isEmpty ? "snapshot" : command
            #expect(result.output.contains("\n  think-compress \(example) "))
            if !command.isEmpty { #expect(result.output.contains("Example:")) }
        }

        @Test("the version is printed")
        func version() async throws {
            let result = try await BuiltCommand.run("--version")
            #expect(result.status == 0)
            #expect(result.errors == "")
            #expect(result.output.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+\n/) != nil)
        }

        @Test("without a subcommand the help is printed")
        func nothing() async throws {
            let result = try await BuiltCommand.run()
            let help = try await BuiltCommand.run("--help")
            #expect(result.status == 0)
            #expect(result.output == help.output)
        }

        struct Case: Sendable, CustomTestStringConvertible {
            let arguments: [String]
            /// What the message must say.
            let word: String
            var testDescription: String { arguments.joined(separator: " ") }

            init(_ arguments: String..., word: String) {
                self.arguments = arguments
                self.word = word
            }
        }

        static let cases =
            [
                Case("frobnicate", word: "frobnicate"),
                Case("--bogus", word: "--bogus"),
                Case("snapshot", word: "<input>"),
                Case("snapshot", "IN", "--codec", "f16", word: "--output"),
                Case("snapshot", "IN", "-o", "OUT", "--codec", "f16", "--bogus", word: "--bogus"),
                Case("snapshot", "IN", "MORE", "-o", "OUT", "--codec", "f16", word: "MORE"),
                Case("inspect", word: "<file>"),
                Case("inspect", "IN", "--bogus", word: "--bogus"),
                Case("verify", word: "<files>"),
                Case("compare", "IN", word: "<snapshot>"),
                Case("restore", "IN", word: "--output"),
                Case("restore", "IN", "-o", "OUT", "--tokens", "0", word: "--tokens 0"),
                Case("restore", "IN", "-o", "OUT", "--tokens=-5", word: "--tokens -5"),
                Case("restore", "IN", "-o", "OUT", "--tokens", "many", word: "many"),
                Case("restore", "IN", "-o", "OUT", "--type", "F64", word: "F16, BF16 or F32"),
                Case("restore", "IN", "-o", "OUT", "--expect", "model.id", word: "KEY=VALUE"),
            ]
            + ["0", "20", "-1", "1000", "high", "1.5", ""].map { level in
                Case("snapshot", "IN", "-o", "OUT", "--codec", "f16", "--compress=\(level)", word: "--compress")
            }
            + [
                ("", "needs a stage"), ("kiwi(bits=2)", "did you mean kivi(bits=2)?"), ("kivi", "bits"),
                ("kivi(bits=6)", "bits"), ("kivi(bits=2", "parentheses"), ("kivi(bits=2,bits=4)", "bits"),
                ("kivi(bits=2,group=16)", "group"), ("kivi(bits=2,residual=33)", "residual"),
                ("kivi(bits=2,speed=9)", "speed"), ("kivi(bits=2)+think(keys=0.4)", "before"),
                ("kivi(bits=2)+kivi(bits=4)", "same work"), ("think(keys=1)", "keys=1"), ("think", "think(keys=0.4)"),
                ("think(keys=0.4)+", "no codec ''"), ("f16(bits=2)", "bits"), ("F16", "f16"),
                ("balancd", "did you mean balanced?"), ("balanced+kivi(bits=2)", "stands for a whole recipe"),
                ("auto(bits=9)", "from 1.5 to 5.25"), ("auto(error=2)", "auto(error=2%)"),
            ].map { Case("snapshot", "IN", "-o", "OUT", "--codec", $0.0, word: $0.1) }

        /// Runs a case with paths of a folder.
        private static func run(_ test: Case, in folder: TemporaryFolder) async throws -> Subprocess.Result {
            let command = try #require(BuiltCommand.path)
            let arguments = test.arguments.map { ["IN", "OUT"].contains($0) ? folder.file($0) : $0 }
            return try await Subprocess.run(command, arguments)
        }

        @Test("wrong usage ends with status 2 and says what is wrong", arguments: cases)
        func wrongUsage(_ test: Case) async throws {
            let folder = try TemporaryFolder()
            let result = try await Self.run(test, in: folder)
            #expect(result.status == 2)
            #expect(result.output == "")
            #expect(result.errors.contains(test.word), "\(result.errors)")
            #expect(folder.content == [])
        }

        @Test("messages of wrong usage begin with the program's name", arguments: [cases[0], cases[2], cases[12]])
        func messagesBeginWithName(_ test: Case) async throws {
            let result = try await Self.run(test, in: TemporaryFolder())
            #expect(result.errors.hasPrefix("think-compress: "), "\(result.errors)")
        }
    }
}
