import Foundation
import TestSupport
import Testing

extension BuiltCommandTests {
    /// Outputs that can't be written are found before anything is read or computed.
    @Suite struct DestinationTests {
        /// Commands without their output. What they read isn't there: an error that names the output came first.
        static let commands = [
            ["snapshot", "no-dump", "--codec", "f16", "-o"],
            ["snapshot", "--model", "no-model", "--prompt", "a", "--codec", "f16", "-o"],
            ["restore", "no-snapshot", "-o"],
            ["profile", "--model", "no-model", "--text", "no-text", "-o"],
            ["generate", "--model", "no-model", "--prompt", "a", "--save"],
            ["generate", "--model", "no-model", "--snapshot", "no-snapshot", "--prompt-file", "no-text", "--save"],
            ["eval", "--model", "no-model", "--text", "no-text", "--codecs", "f16", "--html"],
            ["eval", "needle", "--model", "no-model", "--text", "no-text", "--codecs", "f16", "--results"],
            ["eval", "recall", "--model", "no-model", "--text", "no-text", "--codecs", "f16", "--results"],
            ["logits", "--model", "no-model", "--text", "no-text", "-o"],
        ]

        private func expectRefusal(_ command: [String], _ output: String, _ words: String) async throws {
            let result = try await Subprocess.run(BuiltCommand.found(), command + [output])
            expectBadInput(result, naming: "think-compress: \(output): ", words)
        }

        @Test("a name that no file can have is refused first", arguments: commands)
        func names(_ command: [String]) async throws {
            let folder = try TemporaryFolder()
            try await expectRefusal(command, folder.file(String(repeating: "n", count: 256)), "too long")
            try await expectRefusal(command, folder.file("none/x"), "No such file or directory")
            let isJournal = command.last == "--results"
            try await expectRefusal(command, folder.path, isJournal ? "Is a directory" : "is a directory")
            #expect(folder.content == [])
            // What a journal's name has is read, and refused later.
            if !isJournal {
                try Data("x".utf8).write(to: URL(filePath: folder.file("x")))
                try await expectRefusal(command, folder.file("x"), "exists already")
                #expect(try BuiltCommandTests.data(folder.file("x")) == Data("x".utf8))
            }
        }

        #if os(Linux)
            @Test("a folder that takes no files is found by trying", arguments: commands)
            func folders(_ command: [String]) async throws {
                // Nobody can create files there, whatever the permissions say.
                let result = try await Subprocess.run(BuiltCommand.found(), command + ["/proc/self/x"])
                expectBadInput(result, naming: "think-compress: /proc/self/x: cannot create it: ")
            }
        #endif
    }
}
