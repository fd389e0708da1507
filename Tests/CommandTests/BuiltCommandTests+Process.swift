import Foundation
import TestSupport
import Testing
import ThinkCompress

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension BuiltCommandTests {
    /// What the process has been given: standard streams, threads, memory, signals.
    @Suite struct ProcessTests {
        private static let model = ProjectFiles.root.appending(path: "Tools/DemoModel").path
        private static let question = " What is the magic number for lantern? The magic number for lantern is "

        /// Starts `script` in a shell whose `$@` is the command line.
        private static func start(_ script: String, _ arguments: [String]) throws -> Subprocess {
            try Subprocess("/usr/bin/env", shell(script, try [BuiltCommand.found()] + arguments))
        }

        private static func run(_ script: String, _ arguments: [String]) async throws -> Subprocess.Result {
            try await start(script, arguments).result()
        }

        /// What the tests' own process may have set isn't handed on.
        private static func shell(_ script: String, _ arguments: [String]) -> [String] {
            ["-u", "OPENBLAS_NUM_THREADS", "bash", "-c", script, "bash"] + arguments
        }

        private static func writeDamaged(_ path: String, from sound: String) throws {
            var bytes = try data(sound)
            bytes[bytes.count - 20] ^= 1
            try bytes.write(to: URL(filePath: path))
        }

        // MARK: - Standard streams

        @Test("a standard error that is full or closed stops no work", arguments: ["2>/dev/full", "2>&-"])
        func standardErrorCannotBeWritten(redirection: String) async throws {
            let folder = try TemporaryFolder()
            let sound = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let bad = folder.file("bad.tkv")
            try Self.writeDamaged(bad, from: sound)
            let result = try await Self.run("exec \"$@\" \(redirection)", ["verify", sound, bad, sound])
            #expect(result.status == 1)
            #expect(result.output == "\(sound): sound\n\(sound): sound\n")
        }

        @Test(
            "what can't be written to standard output is an error, help and version included",
            arguments: [["--help"], ["--version"], ["verify", "--help"], ["inspect"]],
            [">/dev/full", ">&-", "| :"]
        )
        func standardOutputCannotBeWritten(arguments: [String], redirection: String) async throws {
            let folder = try TemporaryFolder()
            let sound = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let isPipe = redirection.hasPrefix("|")
            // The reader is gone before anything is written to the pipe.
            let script =
                isPipe
                ? "{ sleep 0.2; \"$@\"; echo \"status $?\" >&2; } \(redirection)"
                : "\"$@\" \(redirection); echo \"status $?\" >&2"
            let result = try await Self.run(script, arguments == ["inspect"] ? ["inspect", sound] : arguments)
            #expect(
                result.errors
                    == "think-compress: standard output: cannot be written; free some space, or send it elsewhere\nstatus 1\n"
            )
        }

        @Test(
            "a file never becomes a standard stream that is closed",
            arguments: ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
        )
        func closedStreams(redirection: String) async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder)
            let expected = try data(try await makeSnapshot(of: dump, in: folder))
            let output = folder.file("b.tkv")
            let arguments = ["snapshot", dump, "-o", output, "--codec", "kivi(bits=2,residual=0)", "--no-quality"]
            let result = try await Self.run("exec \"$@\" \(redirection)", arguments)
            // The snapshot is written, whatever can be printed about it.
            #expect(result.status == (redirection.contains(">&- ") || redirection == ">&-" ? 1 : 0))
            #expect(try data(output) == expected)
            #expect(try data(dump).count > 0)
        }

        // MARK: - Threads

        /// Begins a script: an account of its own that may have no more than one thread.
        private static var oneThread: String {
            let limit = "ulimit -u 1; exec \"$@\""
            guard geteuid() == 0 else { return limit }
            let identifier = 400_000_000 + Int(getpid())
            return
                "exec setpriv --reuid=\(identifier) --regid=\(identifier) --clear-groups bash -c '\(limit)' bash \"$@\""
        }

        /// Whether a second thread is refused there: users who have other processes need root to test it.
        private static var canLimitThreads: Bool {
            get async {
                #if os(Linux)
                    guard geteuid() == 0, let result = try? await run(oneThread, ["--version"]) else { return false }
                    return result.status == 0
                #else
                    return false
                #endif
            }
        }

        private static func openFolder() throws -> TemporaryFolder {
            let folder = try TemporaryFolder()
            #expect(chmod(folder.path, 0o777) == 0)
            return folder
        }

        @Test(
            "everything works where no thread can be started",
            .enabled("threads can be limited") { await canLimitThreads }
        )
        func oneThreadSuffices() async throws {
            let folder = try Self.openFolder()
            let (snapshot, restored, text) = (
                folder.file("a.tkv"), folder.file("a.safetensors"), "\(Self.model)/prompt.txt"
            )
            let made = try await Self.run(
                Self.oneThread,
                ["snapshot", "--model", Self.model, "--prompt-file", text, "-o", snapshot, "--codec", "kivi(bits=2)"]
            )
            #expect(made.status == 0, "\(made.errors)")
            let answer = try await Self.run(
                Self.oneThread,
                [
                    "generate", "--model", Self.model, "--snapshot", snapshot, "--prompt-file", text, "--prompt",
                    Self.question, "--max-tokens", "4",
                ]
            )
            #expect(answer.status == 0, "\(answer.errors)")
            #expect(answer.output.hasPrefix("48213."))
            let back = try await Self.run(Self.oneThread, ["restore", snapshot, "-o", restored])
            #expect(back.status == 0, "\(back.errors)")
            #expect(back.output == "\(restored): 2,023 tokens of 4 layers, F16\n")
        }

        // MARK: - Memory

        @Test(
            "memory that isn't there is an error, not a wait, and nothing stays behind",
            arguments: [170, 200, 250, 300, 400],
            ["snapshot", "generate", "restore"]
        )
        func littleMemory(mebibytes: Int, command: String) async throws {
            #if os(Linux)
                let folder = try TemporaryFolder()
                let output = try TemporaryFolder()
                let text = "\(Self.model)/prompt.txt"
                let arguments: [String]
                switch command {
                case "snapshot": arguments = ["snapshot", dump, "-o", output.file("a"), "--codec", "kivi(bits=2)"]
                case "restore":
                    arguments = ["restore", try await makeSnapshot(of: dump, in: folder), "-o", output.file("a")]
                default: arguments = ["generate", "--model", Self.model, "--prompt-file", text, "--max-tokens", "4"]
                }
                let result = try await Self.run(
                    "ulimit -v \(mebibytes << 10); exec timeout -s KILL 60 \"$@\"",
                    arguments
                )
                if result.status == 0 {
                    #expect(output.content == (command == "generate" ? [] : ["a"]))
                } else {
                    #expect(result.status == 1, "\(result.errors)")
                    #expect(result.output == "")
                    #expect(result.errors.hasPrefix("think-compress: "), "\(result.errors)")
                    let names = ["of memory that can't be had", "Cannot allocate memory"]
                    #expect(names.contains { result.errors.contains($0) }, "\(result.errors)")
                    #expect(output.content == [])
                }
            #endif
        }

        // MARK: - Signals

        /// Arguments of a snapshot that takes seconds to be compressed, which begins to write at once.
        private static func longWork(in folder: TemporaryFolder, output: String) throws -> [String] {
            let dump = try InterruptionTests.writeLargeDump(in: folder)
            return ["snapshot", dump, "-o", output, "--codec", "f16", "--no-quality", "--compress", "19"]
        }

        @Test("signals that were ignored when the process began stay ignored")
        func ignoredSignals() async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let process = try Self.start(
                "trap '' HUP INT; exec \"$@\"",
                try Self.longWork(in: folder, output: outputs.file("a.tkv"))
            )
            try await InterruptionTests.waitForPartialFile(in: outputs)
            process.send(SIGHUP)
            process.send(SIGINT)
            try await Task.sleep(for: .milliseconds(300))
            #expect(outputs.content.contains { $0.hasSuffix(".partial") })
            process.send(SIGTERM)
            let result = try await process.result()
            #expect(result.status == 130)
            #expect(result.errors == "think-compress: interrupted; no file was left unfinished\n")
            #expect(outputs.content == [])
        }

        #if os(Linux)
            @Test("the command may use all processors")
            func allProcessors() async throws {
                func allowed(_ process: String) throws -> Substring? {
                    let status = String(decoding: try fileBytes("/proc/\(process)/status"), as: UTF8.self)
                    return status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list:") }
                }
                let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
                let process = try Self.start(
                    "exec \"$@\"",
                    try Self.longWork(in: folder, output: outputs.file("a.tkv"))
                )
                try await InterruptionTests.waitForPartialFile(in: outputs)
                let found = try allowed("\(process.identifier)")
                process.send(SIGTERM)
                _ = try await process.result()
                #expect(found != nil)
                #expect(try allowed("self") == found)
            }
        #endif

        @Test("two signals end the process at once and leave nothing", arguments: [SIGTERM, SIGINT])
        func twoSignals(second: Int32) async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let process = try Self.start(
                "exec \"$@\"",
                try Self.longWork(in: folder, output: outputs.file("a.tkv"))
            )
            try await InterruptionTests.waitForPartialFile(in: outputs)
            process.send(SIGTERM)
            process.send(second)
            let result = try await process.result()
            #expect(result.status == 130)
            #expect(result.errors == "think-compress: interrupted; no file was left unfinished\n")
            #expect(outputs.content == [])
        }

        @Test("a signal ends a process whose standard error nobody reads", arguments: [SIGINT, SIGTERM])
        func signalWithBlockedErrors(signal: Int32) async throws {
            let folder = try TemporaryFolder()
            let script = """
                import os, sys
                reader, writer = os.pipe()
                os.set_blocking(writer, False)
                try:
                    while True: os.write(writer, bytes(4096))
                except BlockingIOError:
                    pass
                os.set_blocking(writer, True)
                os.set_inheritable(reader, True)
                os.dup2(writer, 2)
                open(sys.argv[1], "w").close()
                os.execv(sys.argv[2], sys.argv[2:])
                """
            let started = folder.file("started")
            let arguments = ["python3", "-c", script, started, try BuiltCommand.found(), "verify", "/nonexistent"]
            let process = try Subprocess("/usr/bin/env", arguments)
            while !folder.content.contains("started") { try await Task.sleep(for: .milliseconds(5)) }
            // By then it waits to say that there is no such file.
            try await Task.sleep(for: .milliseconds(500))
            process.send(signal)
            let result = try await process.result(within: .seconds(30))
            #expect(result.status == 130)
        }

        @Test(
            "a signal ends a process that can start no thread, soon",
            .enabled("threads can be limited") { await canLimitThreads },
            arguments: [SIGINT, SIGTERM, SIGHUP]
        )
        func signalWithoutThreads(signal: Int32) async throws {
            let (folder, outputs) = (try Self.openFolder(), try Self.openFolder())
            let process = try Self.start(Self.oneThread, try Self.longWork(in: folder, output: outputs.file("a.tkv")))
            try await InterruptionTests.waitForPartialFile(in: outputs)
            let start = ContinuousClock.now
            process.send(signal)
            let result = try await process.result()
            #expect(result.status == 130)
            #expect(result.errors == "think-compress: interrupted; no file was left unfinished\n")
            #expect(ContinuousClock.now - start < .seconds(20))
            #expect(outputs.content == [])
        }
    }
}
