import Foundation
import TestSupport
import Testing

extension BuiltCommandTests {
    /// Standard input and output in the place of files.
    @Suite struct StandardStreamTests {
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
        }

        /// Runs a line of the shell in which `$tc` is the command, `$d` the folder, and `$model` a small model.
        private func shell(_ line: String) async throws -> Subprocess.Result {
            let scratch = folder.file("scratch")
            try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
            let result = try await Subprocess.run(
                "/bin/sh",
                [
                    "-c", "tc=$0; d=$1; model=$2; export TMPDIR=$1/scratch; \(line)", BuiltCommand.found(), folder.path,
                    GenerationCommandTests.model,
                ]
            )
            #expect(try FileManager.default.contentsOfDirectory(atPath: scratch).isEmpty)
            return result
        }

        @Test("a dump goes through pipes as through files")
        func pipes() async throws {
            let dump = try writeSmallDump(in: folder)
            let path = try await makeSnapshot(of: dump, in: folder)
            try #require(try await BuiltCommand.run("restore", path, "-o", folder.file("b")).status == 0)
            let result = try await shell(
                "$tc snapshot - -o - --codec 'kivi(bits=2,residual=0)' <\(dump) | $tc restore - -o - >$d/a"
            )
            #expect(result.status == 0 && result.output == "")
            #expect(result.errors.contains("standard output: 50 tokens in "))
            #expect(result.errors.contains("standard output: 50 tokens of 2 layers, F16\n"))
            #expect(try data(folder.file("a")) == data(folder.file("b")))
            #expect(folder.content == ["a", "a.tkv", "b", "scratch", "small.safetensors"])
        }

        @Test("nothing is said to be written before standard output has taken it")
        func failuresOfStandardOutput() async throws {
            let dump = try writeSmallDump(in: folder)
            let result = try await shell("$tc snapshot \(dump) -o - --codec f16 >/dev/full")
            #expect(result.status == 1)
            #expect(
                result.errors
                    == "think-compress: standard output: cannot be written: No space left on device; send it elsewhere, "
                    + "or name a file\n"
            )
        }

        @Test("verify goes on after a standard input that can't be read")
        func unreadableStandardInput() async throws {
            let path = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let result = try await shell("$tc verify - \(path) <$d")
            #expect(result.status == 1)
            #expect(result.errors.hasPrefix("think-compress: standard input: cannot be read: "))
            #expect(result.output == "\(path): sound\n")
        }

        @Test("what is wrong with standard input is said of it")
        func faults() async throws {
            _ = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            #expect(try await shell("$tc verify - <$d/a.tkv").output == "standard input: sound\n")
            expectBadInput(
                try await shell("echo no | $tc inspect -"),
                naming: "standard input: the file has 3 bytes, too few"
            )
            expectBadInput(try await shell("$tc inspect - </dev/null"), naming: "standard input: is empty")
            expectBadInput(
                try await shell("export TMPDIR=$d/none; $tc inspect - <$d/a.tkv"),
                naming: "standard input: cannot be copied to \(folder.path)/none",
                "set TMPDIR"
            )
        }

        @Test("a prompt comes by a pipe, and a page goes to one")
        func texts() async throws {
            let argument = try await shell("$tc generate --model $model --prompt 'The program' --max-tokens 4")
            let pipe = try await shell(
                "printf 'The program' | $tc generate --model $model --prompt-file - --max-tokens 4"
            )
            #expect(argument.status == 0 && pipe.status == 0 && pipe.output == argument.output)
            let page = try await shell(
                "head -c 4000 $model/text/python-manual.txt | $tc eval --model $model --text - --codecs f16 --prefix 100 "
                    + "--continuation 4 --trials 1 --html - | head -c 15"
            )
            #expect(page.output == "<!DOCTYPE html>")
            #expect(page.errors.contains("1 places of standard input"))
        }

        @Test("a snapshot that is saved to standard output is alone there")
        func saving() async throws {
            let result = try await shell(
                "$tc generate --model $model --prompt 'The program' --max-tokens 4 --save - >$d/s.tkv && $tc verify $d/s.tkv"
            )
            #expect(result.status == 0, "\(result.errors)")
            #expect(result.output == "\(folder.file("s.tkv")): sound\n")
            #expect(result.errors.contains("standard output: "))
        }

        /// Only Linux has /dev/full.
        private static var fullOutputs: [String] {
            #if os(Linux)
                ["| true", ">/dev/full"]
            #else
                ["| true"]
            #endif
        }

        @Test("standard output that can't take a file is an error", arguments: fullOutputs)
        func fullOutput(redirection: String) async throws {
            // More than a pipe holds.
            let dump = try writeSmallDump(in: folder, tokens: 3000)
            let result = try await shell(
                "{ $tc snapshot \(dump) -o - --codec f16 --no-quality; echo $? >$d/status; } \(redirection)"
            )
            #expect(try String(contentsOfFile: folder.file("status"), encoding: .utf8) == "1\n")
            #expect(result.errors.contains("think-compress: standard output: cannot be written: "))
        }

        @Test(
            "streams that can't be what is asked for are wrong usage",
            arguments: [
                ("compare - -", "only one file can be standard input"), ("verify - -", "only one file"),
                ("snapshot x -o - --codec f16 --json", "-o - and --json both"),
                ("restore x -o - --json", "-o - and --json both"),
                ("generate --model m --prompt a --save - --json", "--save - and --json both"),
                ("generate --model m --snapshot - --prompt-file -", "only one file"),
                ("eval --model m --text t --codecs f16 --html - --json", "--html - and --json both"),
                ("eval --model m --text t --codecs f16 --results -", "--results -: an interrupted run goes on"),
                ("profile --model m --text - --text - -o x", "only one file"),
            ]
        )
        func wrongUsage(arguments: String, message: String) async throws {
            let result = try await shell("$tc \(arguments)")
            #expect(result.status == 2)
            #expect(result.output == "")
            #expect(result.errors.contains(message), "\(result.errors)")
        }
    }
}
