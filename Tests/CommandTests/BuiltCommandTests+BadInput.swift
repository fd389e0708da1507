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
    /// Inputs that are missing, damaged, or don't belong together.
    @Suite struct BadInputTests {
        /// A place of a command line where a file is read.
        enum Reading: String, CaseIterable, Sendable {
            case snapshot, profile, inspect, verify, restore, original, compare

            /// Runs the command on a file; all other files are sound.
            func run(on path: String, in folder: TemporaryFolder) async throws -> Subprocess.Result {
                let output = folder.file("output")
                switch self {
                case .snapshot: return try await BuiltCommand.run("snapshot", path, "-o", output, "--codec", "f16")
                case .profile:
                    let dump = try writeSmallDump(in: folder)
                    return try await BuiltCommand.run(
                        "snapshot",
                        dump,
                        "-o",
                        output,
                        "--codec",
                        "think(keys=0.4)",
                        "--profile",
                        path
                    )
                case .inspect: return try await BuiltCommand.run("inspect", path)
                case .verify: return try await BuiltCommand.run("verify", path)
                case .restore: return try await BuiltCommand.run("restore", path, "-o", output)
                case .original:
                    let dump = try writeSmallDump(in: folder)
                    return try await BuiltCommand.run(
                        "compare",
                        path,
                        try await makeSnapshot(of: dump, in: folder)
                    )
                case .compare: return try await BuiltCommand.run("compare", try writeSmallDump(in: folder), path)
                }
            }

            /// The places where snapshots are read.
            static let ofSnapshots = [inspect, verify, restore, compare]
            static let ofDumps = [snapshot, profile, original]
        }

        /// What is there instead of a file that could be read.
        enum Bad: String, CaseIterable, Sendable {
            case missing, missingFolder, directory, device, pipe, empty, text, shortText

            func make(in folder: TemporaryFolder) throws -> String {
                let path = folder.file("bad file")
                switch self {
                case .missing: return path
                case .missingFolder: return folder.file("none/bad file")
                case .directory:
                    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
                case .device: return "/dev/null"
                case .pipe: #expect(mkfifo(path, 0o600) == 0)
                case .empty: try Data().write(to: URL(filePath: path))
                case .text: try Data(String(repeating: "hello world\n", count: 100).utf8).write(to: URL(filePath: path))
                case .shortText: try Data("hello world\n".utf8).write(to: URL(filePath: path))
                }
                return path
            }

            /// What the message says about it.
            var word: String {
                switch self {
                case .missing, .missingFolder: "check the path"
                case .directory: "is a directory"
                case .device, .pipe: "is not a regular file"
                case .empty: "is empty"
                case .text, .shortText: ""
                }
            }
        }

        @Test("a file that isn't what it should be is refused by its name", arguments: Reading.allCases, Bad.allCases)
        func badFile(reading: Reading, bad: Bad) async throws {
            let folder = try TemporaryFolder()
            let path = try bad.make(in: folder)
            let result = try await reading.run(on: path, in: folder)
            expectBadInput(result, naming: path)
            if !bad.word.isEmpty { #expect(result.errors.contains(bad.word), "\(result.errors)") }
            #expect(!folder.content.contains("output"))
        }

        @Test("a dump that was cut off is refused", arguments: [7, 9, 500, 100_000, 4_466_267])
        func truncatedDump(count: Int) async throws {
            let folder = try TemporaryFolder()
            let path = folder.file("cut.safetensors")
            try data(dump).prefix(count).write(to: URL(filePath: path))
            let result = try await BuiltCommand.run("snapshot", path, "-o", folder.file("a.tkv"), "--codec", "f16")
            expectBadInput(result, naming: path, count < 8 ? "too few" : "cut off")
            #expect(folder.content == ["cut.safetensors"])
        }

        @Test("a snapshot that was cut off is refused", arguments: Reading.ofSnapshots, [8, 128, 1000])
        func truncatedSnapshot(reading: Reading, count: Int) async throws {
            let folder = try TemporaryFolder()
            let whole = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let path = folder.file("cut.tkv")
            try data(whole).prefix(count).write(to: URL(filePath: path))
            expectBadInput(try await reading.run(on: path, in: folder), naming: path, "truncated at byte \(count)")
        }

        @Test("a snapshot of another version is refused with the way out", arguments: Reading.ofSnapshots)
        func otherVersion(reading: Reading) async throws {
            let folder = try TemporaryFolder()
            let path = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder, name: "other.tkv")
            for (version, remedy) in [
                (1, "the file is of an older version: make the snapshot again with think-compress snapshot"),
                (4, "the file is of a newer version: read it with a newer think-compress"),
            ] {
                var file = try SnapshotSurgery(path: path)
                file.put(UInt32(version), at: 8)
                file.mendHeaderChecksum()
                try Data(file.bytes).write(to: URL(filePath: path))
                let result = try await reading.run(on: path, in: folder)
                expectBadInput(result, naming: path, "version \(version)", "unsupportedVersion at byte 8", remedy)
                #expect(result.errors.contains("newer") == (version > 3), "\(result.errors)")
            }
        }

        @Test("a file that doesn't begin like a snapshot is refused", arguments: Reading.ofSnapshots)
        func wrongMagic(reading: Reading) async throws {
            let folder = try TemporaryFolder()
            let path = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder, name: "wrong.tkv")
            var file = try SnapshotSurgery(path: path)
            file.bytes[0] = 0x88
            try Data(file.bytes).write(to: URL(filePath: path))
            expectBadInput(try await reading.run(on: path, in: folder), naming: path, "notASnapshot at byte 0")
        }

        @Test(
            "damage that only verification finds is found before restoring and comparing",
            arguments: [
                Reading.verify, .restore, .compare,
            ]
        )
        func damagedPages(reading: Reading) async throws {
            let folder = try TemporaryFolder()
            let path = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder, name: "bad.tkv")
            var file = try SnapshotSurgery(path: path)
            let pages = try #require(file.section(7)).range
            file.bytes[pages.lowerBound + 5] ^= 0x10
            try Data(file.bytes).write(to: URL(filePath: path))
            let result = try await reading.run(on: path, in: folder)
            expectBadInput(result, naming: path, "checksumMismatch at byte \(pages.lowerBound)")
            #expect(!folder.content.contains("output"))
        }

        @Test("a snapshot is no dump and a dump is no snapshot")
        func exchangedFiles() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder)
            let file = try await makeSnapshot(of: small, in: folder)
            expectBadInput(try await BuiltCommand.run("compare", file, small), naming: file)
            expectBadInput(try await BuiltCommand.run("inspect", small), naming: small, "notASnapshot")
        }

        // MARK: - Dumps that can't be compressed

        /// A dump with one number of layer 1, KV head 1, token 33, channel 5 replaced.
        private static func writeDump(in folder: TemporaryFolder, part: String, half: UInt16) throws -> String {
            try writeSmallDump(in: folder) {
                let place = ((1 * 50 + 33) * 16 + 5) * 2
                $0["layers.1.\(part)"].bytes.replaceSubrange(place..<place + 2, with: littleEndianBytes(half))
            }
        }

        @Test(
            "a number that can't be quantized is named by its place, in blocks or not",
            arguments: ["kivi(bits=2)", "kivi(bits=2,residual=0)", "kivi(bits=8,residual=32)"],
            [("keys", 0x7E00, "nan"), ("values", 0x7C00, "inf"), ("values", 0xFC00, "-inf")]
                as [(String, UInt16, String)]
        )
        func notANumber(codec: String, place: (part: String, half: UInt16, word: String)) async throws {
            let folder = try TemporaryFolder()
            let path = try Self.writeDump(in: folder, part: place.part, half: place.half)
            let result = try await BuiltCommand.run("snapshot", path, "-o", folder.file("a.tkv"), "--codec", codec)
            expectBadInput(result, naming: path, "layer 1, head 1, token 33, channel 5", place.word, "f16")
            #expect(folder.content == ["small.safetensors"])
        }

        @Test("full precision takes numbers that aren't finite, and gives them back")
        func notANumberInFullPrecision() async throws {
            let folder = try TemporaryFolder()
            let path = try Self.writeDump(in: folder, part: "keys", half: 0x7E01)
            let file = folder.file("a.tkv")
            #expect(try await BuiltCommand.run("snapshot", path, "-o", file, "--codec", "f16").status == 0)
            #expect(try await BuiltCommand.run("verify", file).status == 0)
            #expect(try await BuiltCommand.run("restore", file, "-o", folder.file("b")).status == 0)
            let before = try CacheDump.read(path: path)
            let after = try CacheDump.read(path: folder.file("b"))
            #expect(after.layers.map(\.keys.packedBytes) == before.layers.map(\.keys.packedBytes))
        }

        @Test("a dump without queries can't be pruned by queries, and the message says what to do")
        func noQueries() async throws {
            let folder = try TemporaryFolder()
            let path = try writeSmallDump(in: folder) {
                $0 = $0.removing("layers.0.queries").removing("layers.1.queries")
            }
            let result = try await BuiltCommand.run(
                "snapshot",
                path,
                "-o",
                folder.file("a.tkv"),
                "--codec",
                "think(keys=0.4)+kivi(bits=2)"
            )
            expectBadInput(result, naming: path, "layers.N.queries", "export-cache", "layers.N.q2", "score=keys")
            #expect(folder.content == ["small.safetensors"])
        }

        @Test("keys and values that don't belong together are refused by the layer")
        func raggedLayers() async throws {
            let folder = try TemporaryFolder()
            let path = try writeSmallDump(in: folder) {
                $0["layers.1.values"].shape = [1, 2, 49, 16]
                $0["layers.1.values"].bytes.removeLast(2 * 16 * 2)
            }
            let result = try await BuiltCommand.run("snapshot", path, "-o", folder.file("a.tkv"), "--codec", "f16")
            expectBadInput(result, naming: path, "layer 1", "[2, 49, 16]", "[2, 50, 16]")
        }

        @Test("a recipe of another element type is refused with the right one")
        func otherElementType() async throws {
            let folder = try TemporaryFolder()
            let path = try writeSmallDump(in: folder)
            let result = try await BuiltCommand.run("snapshot", path, "-o", folder.file("a.tkv"), "--codec", "bf16")
            expectBadInput(result, naming: path, "F16", "use the codec f16")
        }

        // MARK: - Files that don't belong together

        @Test(
            "a snapshot of another model is not compared, and the message names the field",
            arguments: [
                ("model", "model.id"), ("rope", "rope.theta"), ("layers", "not the same layers"),
                ("heads", "not the same KV heads of layer 0"), ("dimension", "not the same key dimension of layer 0"),
                ("count", "not the same number of tokens"),
                ("type", "element type"), ("tokens", "token 7"),
            ]
        )
        func otherModel(difference: String, field: String) async throws {
            let folder = try TemporaryFolder()
            let file = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            var model = TestCache()
            model.headDimension = difference == "dimension" ? 8 : 16
            model.kvHeads = difference == "heads" ? 1 : 2
            model.layers = difference == "layers" ? 3 : 2
            model.tokens = difference == "count" ? 49 : 50
            model.elementType = difference == "type" ? .bfloat16 : .float16
            model.window = 8
            var builder = SafetensorsBuilder(try model.makeQuickly())
            switch difference {
            case "model": builder.metadata["model.id"] = "another"
            case "rope": builder.metadata["rope.theta"] = "500000.0"
            case "tokens": builder["tokens"].bytes[7 * 4] ^= 1
            default: break
            }
            let other = folder.file("other.safetensors")
            try builder.write(to: other)
            expectBadInput(try await BuiltCommand.run("compare", other, file), naming: file, field)
        }

        @Test("metadata that only one of them has doesn't keep files from being compared")
        func metadataOfOne() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder)
            let file = try await makeSnapshot(of: small, in: folder)
            let other = try writeSmallDump(in: folder, name: "other") {
                $0.metadata["model.id"] = nil
                $0.metadata["tokenizer.sha256"] = "00"
                $0.metadata["producer"] = "another"
            }
            #expect(try await BuiltCommand.run("compare", other, file).status == 0)
        }

        @Test(
            "a snapshot that isn't the expected one is not restored",
            arguments: [
                (["model.id=another"], "model.id is 'test'"), (["model.id="], "model.id is 'test'"),
                (["tokenizer.sha256=00"], "tokenizer.sha256 is not in the snapshot"),
                (["model.id=test", "rope.theta=5"], "rope.theta is '10000.0'"),
            ]
        )
        func expectation(pairs: [String], message: String) async throws {
            let folder = try TemporaryFolder()
            let file = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let arguments = ["restore", file, "-o", folder.file("output")] + pairs.flatMap { ["--expect", $0] }
            let result = try await Subprocess.run(try #require(BuiltCommand.path), arguments)
            expectBadInput(result, naming: file, message)
            #expect(!folder.content.contains("output"))
        }

        @Test("a snapshot that is the expected one is restored")
        func metExpectation() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder) { $0.metadata["rope.scaling"] = "type=linear" }
            let file = try await makeSnapshot(of: small, in: folder)
            let result = try await BuiltCommand.run(
                "restore",
                file,
                "-o",
                folder.file("output"),
                "--expect",
                "model.id=test",
                "--expect",
                "rope.scaling=type=linear"
            )
            #expect(result.status == 0)
            #expect(folder.content.contains("output"))
        }

        @Test("more tokens than there are can't be restored")
        func tooManyTokens() async throws {
            let folder = try TemporaryFolder()
            let file = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            let result = try await BuiltCommand.run("restore", file, "-o", folder.file("output"), "--tokens", "51")
            expectBadInput(result, naming: file, "50 tokens", "51")
            #expect(!folder.content.contains("output"))
        }

        @Test("a small file that promises a cache of the limits is refused", arguments: ["verify", "inspect"])
        func promisedPages(command: String) async throws {
            let folder = try TemporaryFolder()
            let path = folder.file("a.tkv")
            try Data(SnapshotSurgery.promisingPages().bytes).write(to: URL(filePath: path))
            expectBadInput(try await BuiltCommand.run(command, path), naming: path, "at byte 208")
        }

        @Test(
            "a small file can't make the command take much memory",
            .enabled("memory can't be limited here, as under a sanitizer") { await LimitedMemory.canRun },
            arguments: ["verify", "inspect"],
            ["limits", "tokens", "frames"]
        )
        func memory(command: String, change: String) async throws {
            let folder = try TemporaryFolder()
            let path = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            var file = try SnapshotSurgery(path: path)
            let tokens = UInt64(Int32.max)
            switch change {
            case "limits":
                for (offset, value) in [(28, 3), (32, 4096), (36, 128), (40, 65536)] {
                    file.put(UInt32(value), at: offset)
                }
                file.put(tokens, at: 48)
            case "tokens":
                // All lengths as the header has them, in frames that would have to expand so far.
                file.put(tokens / 32 * 32, at: 48)
                let geometry = try #require(file.section(SnapshotSurgery.Kind.geometry)).range
                for layer in stride(from: geometry.lowerBound, to: geometry.upperBound, by: SnapshotSurgery.layerBytes)
                {
                    file.put(tokens / 32 * 32, at: layer + 24)
                    file.put(tokens / 32 * 32, at: layer + 32)
                }
                let lengths = [
                    6: tokens / 32 * 4 * 576, 7: 8 * 2 * ((tokens / 32 * 32 + 255) / 256), 9: tokens / 32 * 128,
                ]
                for section in file.sections {
                    guard let length = lengths[section.kind] else { continue }
                    file.put(UInt32(1), at: section.entry + 4)
                    file.put(length, at: section.entry + 24)
                }
            default:
                for section in file.sections where section.kind <= 3 {
                    file.put(UInt32(1), at: section.entry + 4)
                    file.put(UInt64(1) << 36, at: section.entry + 24)
                }
            }
            file.mendChecksums()
            try Data(file.bytes).write(to: URL(filePath: path))
            expectBadInput(try await LimitedMemory.run(command, path), naming: path, "at byte")
        }
    }
}

/// Runs the command with less memory than headers of small files can promise.
private enum LimitedMemory {
    /// Far above what a run takes, libraries' reserves included, and far below a section of the limits' length.
    private static let kibibytes = 4 << 20

    static func run(_ arguments: String...) async throws -> Subprocess.Result {
        try await Subprocess.run(
            "/bin/sh",
            ["-c", "ulimit -v \(kibibytes) && exec \"$@\"", "sh", try #require(BuiltCommand.path)] + arguments
        )
    }

    static var canRun: Bool {
        get async { (try? await run("--version"))?.status == 0 }
    }
}
