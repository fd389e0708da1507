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
    /// Commands that are stopped while they write.
    @Suite struct InterruptionTests {
        private static var old: Data { Data("what was here before".utf8) }

        /// A dump that takes seconds to be packed, so that there is time to interrupt.
        static func writeLargeDump(in folder: TemporaryFolder) throws -> String {
            var model = TestCache()
            model.layers = 4
            model.headDimension = 64
            model.tokens = 8192
            model.window = 0
            let cache = try model.makeQuickly()
            let path = folder.file("large.safetensors")
            var writer = try CacheDumpWriter(
                path: path,
                replacingExisting: false,
                // Some tests read it as another user.
                access: FileAccess(mode: FileMode(octal: "644")),
                layers: cache.dumpLayers(),
                elementType: cache.elementType,
                contents: CacheDumpWriter.Contents(tokenCount: cache.tokenCount)
            )
            for (index, layer) in cache.layers.enumerated() { try writer.write(layer, index: index) }
            try writer.commit()
            return path
        }

        /// Waits until a file is being written in a folder: one of no bytes may be the check that the folder takes
        /// files, which is removed at once.
        static func waitForPartialFile(in folder: TemporaryFolder) async throws {
            func isWritten(_ name: String) -> Bool {
                var status = stat()
                guard name.hasSuffix(".partial"), unsafe lstat(folder.file(name), &status) == 0 else { return false }
                return status.st_size > 0
            }
            for _ in 0..<60_000 {
                if folder.content.contains(where: isWritten) { return }
                try await Task.sleep(for: .milliseconds(1))
            }
            Issue.record("nothing is being written")
        }

        /// Starts a snapshot that takes long to write, and interrupts it as soon as it writes.
        private static func interrupt(
            by signal: Int32,
            oldFile: Bool,
            in folder: TemporaryFolder,
            outputs: TemporaryFolder
        ) async throws -> Subprocess.Result {
            let dump = try writeLargeDump(in: folder)
            let output = outputs.file("a.tkv")
            if oldFile { try old.write(to: URL(filePath: output)) }
            let process = try BuiltCommand.start(
                "snapshot",
                dump,
                "-o",
                output,
                "--codec",
                "f16",
                "--no-quality",
                "--compress",
                "19",
                "--force"
            )
            try await waitForPartialFile(in: outputs)
            process.send(signal)
            return try await process.result()
        }

        @Test("a killed command leaves no file under the name, or the old one", arguments: [false, true])
        func killed(oldFile: Bool) async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let result = try await Self.interrupt(by: SIGKILL, oldFile: oldFile, in: folder, outputs: outputs)
            #expect(result.signal == SIGKILL)
            #expect(result.status == nil)
            let names = outputs.content.filter { !$0.hasSuffix(".partial") }
            #expect(names == (oldFile ? ["a.tkv"] : []))
            if oldFile { #expect(try data(outputs.file("a.tkv")) == Self.old) }
            // What is left behind is hidden and in nobody's way.
            #expect(outputs.content.count { $0.hasPrefix(".a.tkv.") && $0.hasSuffix(".partial") } == 1)
            let small = try writeSmallDump(in: folder)
            let again = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                outputs.file("a.tkv"),
                "--codec",
                "f16",
                "--force"
            )
            #expect(again.status == 0)
            // And nobody holds it, so that the next writer removes it.
            #expect(outputs.content == ["a.tkv"])
        }

        @Test(
            "a command that ends by a fault of its own leaves nothing, and ends as it would have",
            arguments: [SIGABRT, SIGSEGV, SIGBUS, SIGTRAP]
        )
        func fault(signal: Int32) async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let result = try await Self.interrupt(by: signal, oldFile: true, in: folder, outputs: outputs)
            #expect(result.signal == signal)
            #expect(outputs.content == ["a.tkv"])
            #expect(try data(outputs.file("a.tkv")) == Self.old)
        }

        @Test("a file that is cut short while it is mapped is named")
        func mappedFileCutShort() async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let dump = try Self.writeLargeDump(in: folder)
            let process = try BuiltCommand.start(
                "snapshot",
                dump,
                "-o",
                outputs.file("a.tkv"),
                "--codec",
                "kivi(bits=2)"
            )
            try await Self.waitForMapping(of: dump, by: process)
            try #require(truncate(dump, 65536) == 0)
            let result = try await process.result()
            expectBadInput(result, naming: dump, "was cut short while it was in use")
            #expect(outputs.content == [])
        }

        /// Waits until a process has a file mapped.
        private static func waitForMapping(of path: String, by process: Subprocess) async throws {
            #if os(Linux)
                for _ in 0..<60_000 {
                    let maps = try? String(contentsOfFile: "/proc/\(process.identifier)/maps", encoding: .utf8)
                    if maps?.contains(path) == true { return }
                    try await Task.sleep(for: .milliseconds(1))
                }
                Issue.record("nothing is mapped")
            #else
                try await Task.sleep(for: .milliseconds(500))
            #endif
        }

        @Test(
            "an interrupted command ends with status 130 and leaves nothing",
            arguments: [SIGINT, SIGTERM, SIGHUP],
            [false, true]
        )
        func interrupted(signal: Int32, oldFile: Bool) async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let result = try await Self.interrupt(by: signal, oldFile: oldFile, in: folder, outputs: outputs)
            #expect(result.status == 130)
            #expect(result.output == "")
            #expect(result.errors == "think-compress: interrupted; no file was left unfinished\n")
            #expect(outputs.content == (oldFile ? ["a.tkv"] : []))
            if oldFile { #expect(try data(outputs.file("a.tkv")) == Self.old) }
        }

        @Test("an interrupted restore leaves all or nothing", arguments: [SIGINT, SIGTERM, SIGHUP])
        func interruptedRestore(signal: Int32) async throws {
            let (folder, outputs) = (try TemporaryFolder(), try TemporaryFolder())
            let file = try await makeSnapshot(
                of: try Self.writeLargeDump(in: folder),
                codec: "kivi(bits=2)",
                in: folder
            )
            let process = try BuiltCommand.start("restore", file, "-o", outputs.file("a.safetensors"))
            try await Self.waitForPartialFile(in: outputs)
            process.send(signal)
            let result = try await process.result()
            #expect([0, 130].contains(result.status))
            #expect(outputs.content == (result.status == 0 ? ["a.safetensors"] : []))
            if result.status == 0 {
                #expect(try CacheDump.read(path: outputs.file("a.safetensors")).tokenCount == 8192)
            }
        }
    }
}
