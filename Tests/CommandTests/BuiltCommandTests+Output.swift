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
    /// Files that can't be written, and what was there before.
    @Suite struct OutputTests {
        /// The commands that write files.
        enum Writing: String, CaseIterable, Sendable {
            case snapshot, restore

            /// The command line that writes to `output` from sound input.
            func arguments(output: String, in folder: TemporaryFolder, force: Bool = false) async throws -> [String] {
                let dump = try writeSmallDump(in: folder, name: "dump")
                var arguments: [String]
                switch self {
                case .snapshot: arguments = ["snapshot", dump, "-o", output, "--codec", "f16", "--no-quality"]
                case .restore:
                    let file = try await makeSnapshot(of: dump, in: folder, name: "snapshot")
                    arguments = ["restore", file, "-o", output]
                }
                if force { arguments.append("--force") }
                return arguments
            }

            func run(output: String, in folder: TemporaryFolder, force: Bool = false) async throws -> Subprocess.Result
            {
                let arguments = try await arguments(output: output, in: folder, force: force)
                return try await Subprocess.run(try #require(BuiltCommand.path), arguments)
            }
        }

        private static var old: Data { Data("what was here before".utf8) }

        @Test("an existing file is refused without --force and stays", arguments: Writing.allCases)
        func existingFile(writing: Writing) async throws {
            let folder = try TemporaryFolder()
            let output = folder.file("output")
            try Self.old.write(to: URL(filePath: output))
            expectBadInput(try await writing.run(output: output, in: folder), naming: output, "exists", "--force")
            #expect(try data(output) == Self.old)
            #expect(!folder.content.contains { $0.hasSuffix(".partial") })
        }

        @Test("an existing file is refused before work begins that would fail", arguments: Writing.allCases)
        func refusedFirst(writing: Writing) async throws {
            let folder = try TemporaryFolder()
            let output = folder.file("output")
            try Self.old.write(to: URL(filePath: output))
            let arguments = try await Self.failingArguments(writing, in: folder) + ["-o", output]
            let result = try await Subprocess.run(try #require(BuiltCommand.path), arguments)
            expectBadInput(result, naming: output, "--force")
        }

        /// A command line without output whose input opens and turns out to be bad when it is worked on.
        private static func failingArguments(_ writing: Writing, in folder: TemporaryFolder) async throws -> [String] {
            switch writing {
            case .snapshot:
                let dump = try writeSmallDump(in: folder, name: "dump") {
                    $0["layers.1.values"].bytes.replaceSubrange(0..<2, with: [0, 0x7E])
                }
                return ["snapshot", dump, "--codec", "kivi(bits=2)"]
            case .restore:
                let file = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
                var surgery = try SnapshotSurgery(path: file)
                surgery.bytes[surgery.bytes.count - 1] ^= 1
                try Data(surgery.bytes).write(to: URL(filePath: file))
                return ["restore", file]
            }
        }

        @Test("an existing file is replaced with --force", arguments: Writing.allCases)
        func replacedFile(writing: Writing) async throws {
            let folder = try TemporaryFolder()
            let (output, fresh) = (folder.file("output"), folder.file("fresh"))
            try Self.old.write(to: URL(filePath: output))
            #expect(try await writing.run(output: output, in: folder, force: true).status == 0)
            #expect(try await writing.run(output: fresh, in: folder, force: true).status == 0)
            #expect(try data(output) == data(fresh))
            #expect(!folder.content.contains { $0.hasSuffix(".partial") })
        }

        @Test("a failure with --force leaves the old file", arguments: Writing.allCases)
        func failureLeavesOldFile(writing: Writing) async throws {
            let folder = try TemporaryFolder()
            let output = folder.file("output")
            try Self.old.write(to: URL(filePath: output))
            let arguments = try await Self.failingArguments(writing, in: folder) + ["-o", output, "--force"]
            let result = try await Subprocess.run(try #require(BuiltCommand.path), arguments)
            expectBadInput(result, naming: arguments[1])
            #expect(try data(output) == Self.old)
            #expect(!folder.content.contains { $0.hasSuffix(".partial") })
        }

        @Test("a file that is read is not replaced, even by force")
        func replacedInput() async throws {
            let folder = try TemporaryFolder()
            let path = try writeSmallDump(in: folder)
            let before = try data(path)
            let result = try await BuiltCommand.run("snapshot", path, "-o", path, "--codec", "f16", "--force")
            expectBadInput(result, naming: path, "is read as well")
            #expect(try data(path) == before)
            let snapshot = try await makeSnapshot(of: path, in: folder)
            let other = try await BuiltCommand.run("restore", snapshot, "-o", snapshot, "--force")
            expectBadInput(other, naming: snapshot, "is read as well")
        }

        @Test(
            "an output that is no name of a file is refused",
            arguments: Writing.allCases,
            [
                "directory", "slash", "device", "missing folder", "file as folder", "empty",
            ]
        )
        func impossibleOutput(writing: Writing, kind: String) async throws {
            let folder = try TemporaryFolder()
            let output: String
            switch kind {
            case "directory":
                output = folder.file("folder")
                try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: false)
            case "slash": output = folder.file("new/")
            case "device": output = "/dev/null"
            case "missing folder": output = folder.file("none/output")
            case "file as folder":
                try Self.old.write(to: URL(filePath: folder.file("file")))
                output = folder.file("file/output")
            default: output = ""
            }
            for force in [false, true] {
                let result = try await writing.run(output: output, in: folder, force: force)
                expectBadInput(result, naming: "\(output): ")
            }
            #expect(!folder.content.contains("none"))
            #expect(!folder.content.contains("new"))
            #expect(!folder.content.contains { $0.hasSuffix(".partial") })
        }

        @Test("an output in the working folder needs no folder in its name")
        func relativeOutput() async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder)
            let command = try #require(BuiltCommand.path)
            let result = try await Subprocess.run(
                "/bin/sh",
                [
                    "-c", "cd \"$1\" && exec \"$2\" snapshot \"$3\" -o a.tkv --codec f16", "sh", folder.path, command,
                    dump,
                ]
            )
            #expect(result.status == 0)
            #expect(result.output.hasPrefix("a.tkv: 50 tokens"))
            #expect(folder.content == ["a.tkv", "small.safetensors"])
        }

        // MARK: - Permissions

        @Test(
            "a file without permission to read is refused by its name",
            .enabled("an account that permissions bind is needed") { await Unprivileged.canRun },
            arguments: BadInputTests.Reading.ofSnapshots + [.snapshot]
        )
        func unreadableInput(reading: BadInputTests.Reading) async throws {
            let folder = try TemporaryFolder()
            let path = folder.file("secret")
            try Self.old.write(to: URL(filePath: path))
            #expect(chmod(path, 0) == 0)
            let dump = try writeSmallDump(in: folder)
            // The account that permissions bind must be able to write, or that would be refused first.
            #expect(chmod(folder.path, 0o777) == 0)
            let arguments =
                switch reading {
                case .snapshot: ["snapshot", path, "-o", folder.file("output"), "--codec", "f16"]
                case .restore: ["restore", path, "-o", folder.file("output")]
                case .compare: ["compare", dump, path]
                default: [reading.rawValue, path]
                }
            expectBadInput(try await Unprivileged.run(arguments), naming: "\(path): ", "check the permissions")
        }

        @Test(
            "a folder without permission to write is refused by the file's name",
            .enabled("an account that permissions bind is needed") { await Unprivileged.canRun },
            arguments: Writing.allCases
        )
        func unwritableFolder(writing: Writing) async throws {
            let folder = try TemporaryFolder()
            let closed = folder.file("closed")
            try FileManager.default.createDirectory(atPath: closed, withIntermediateDirectories: false)
            let arguments = try await writing.arguments(output: "\(closed)/output", in: folder)
            #expect(chmod(closed, 0o555) == 0)
            defer { chmod(closed, 0o755) }
            let result = try await Unprivileged.run(arguments)
            expectBadInput(result, naming: "\(closed)/output: ", "check the permissions")
            #expect(try FileManager.default.contentsOfDirectory(atPath: closed) == [])
        }

        // MARK: - A full disk

        @Test(
            "a full disk is told of and nothing stays on it",
            .enabled("a small file system can't be mounted here") { await SmallDisk.canMount },
            arguments: Writing.allCases,
            [false, true]
        )
        func fullDisk(writing: Writing, force: Bool) async throws {
            let folder = try TemporaryFolder()
            let disk = folder.file("disk")
            try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: false)
            let command = try #require(BuiltCommand.path)
            var arguments: [String]
            switch writing {
            case .snapshot: arguments = ["snapshot", dump, "--codec", "f16", "--no-quality"]
            case .restore: arguments = ["restore", try await makeSnapshot(of: dump, in: folder)]
            }
            arguments += ["-o", "\(disk)/output"]
            if force { arguments.append("--force") }
            // With --force an old file is there, which must stay.
            let prepare = force ? "printf old > \"$0/output\" && " : ""
            let result = try await SmallDisk.run(
                at: disk,
                script:
                    "\(prepare){ \"$@\"; echo \"status $?\"; ls -A \"$0\"; cat \"$0/output\" 2>/dev/null || true; }",
                arguments: [command] + arguments
            )
            #expect(result.output == (force ? "status 1\noutput\nold" : "status 1\n"))
            #expect(result.errors.hasPrefix("think-compress: \(disk)/output: "), "\(result.errors)")
            #expect(result.errors.contains("free some space"))
        }
    }
}

/// Runs the command as someone whom permissions bind.
private enum Unprivileged {
    /// `nobody`, who owns no files.
    private static let identifier = "65534"

    static func run(_ arguments: [String]) async throws -> Subprocess.Result {
        let command = try #require(BuiltCommand.path)
        guard geteuid() == 0 else { return try await Subprocess.run(command, arguments) }
        return try await Subprocess.run(
            "/usr/bin/env",
            ["setpriv", "--reuid=\(identifier)", "--regid=\(identifier)", "--clear-groups", command] + arguments
        )
    }

    /// Root needs `setpriv`, and a build and a temporary folder that others may read.
    static var canRun: Bool {
        get async {
            guard let folder = try? TemporaryFolder(), let version = try? await run(["--version"]), version.status == 0,
                let dump = try? BuiltCommandTests.writeSmallDump(in: folder)
            else { return false }
            let read = try? await run(["inspect", dump])
            return read?.errors.contains("notASnapshot") == true
        }
    }
}

/// A file system of one megabyte, seen only by the program that runs on it: it goes away with it.
private enum SmallDisk {
    /// Runs a script in a shell whose `$0` is the disk's folder.
    static func run(at folder: String, script: String, arguments: [String] = []) async throws -> Subprocess.Result {
        let user = geteuid() == 0 ? [] : ["--user", "--map-root-user"]
        return try await Subprocess.run(
            "/usr/bin/env",
            ["unshare"] + user
                + ["--mount", "/bin/sh", "-c", "mount -t tmpfs -o size=1m none \"$0\" && \(script)", folder] + arguments
        )
    }

    static var canMount: Bool {
        get async {
            guard let folder = try? TemporaryFolder() else { return false }
            return (try? await run(at: folder.path, script: "true"))?.status == 0
        }
    }
}
